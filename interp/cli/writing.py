"""Models of text that write: generate, chat."""

from __future__ import annotations

import codecs
import contextlib
import signal
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.cli.arguments import RunPath, at_least, use_threads
from interp.console import printable
from interp.runs import Run, load

if TYPE_CHECKING:
    from interp.models.writing import Writer

_HELP = "/reset forgets what was said, /save FILE keeps it (never over another file), /quit ends; Ctrl-C ends a reply."


def generate(
    run: RunPath,
    *,
    prompt: str = "\n",
    tokens: int = 300,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    passes: int = 32,
    threads: int = 1,
) -> None:
    """Let a model of text write on from a prompt; what it writes is shown as it comes.

    Args:
        run: the run folder.
        prompt: what to write on from.
        tokens: how many to write at most; a model of documents also ends where a document would.
        temperature: what logits are divided by; 0 takes the likeliest token each time.
        top_k: draw among so many likeliest tokens alone.
        top_p: draw among the fewest likeliest tokens whose probabilities reach this.
        seed: of the draws.
        passes: of a model that fills in a window instead of writing on: in how many passes.
        threads: PyTorch threads.
    """
    at_least("--tokens", tokens, 1)
    at_least("--passes", passes, 1)
    use_threads(threads)
    opened = _of_text(run)
    ids = opened.task.world.encode(prompt or "\n")
    escaped = sys.stdout.isatty()
    _show([prompt], escaped=escaped)
    if opened.model.max_denoising_steps is not None:
        _show([_filled_in(opened, ids, passes)], escaped=escaped)
    else:
        from interp.models.writing import Writer

        writer = Writer(opened.model, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        writer.read(ids.tolist())
        written = writer.write(tokens, stops=_stops(opened))
        _show(_pieces(opened, _with_notices(opened, writer, written)), escaped=escaped)
    print(flush=True)


def chat(
    run: RunPath,
    *,
    reply: int = 240,
    temperature: float = 0.8,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Talk with a model of text: each line is added to what it has read, and it writes on.

    It learned one text and nothing of conversations, so its replies are in that text's manner. Commands: /reset forgets
    what was said, /save FILE keeps it, /quit ends. Ctrl-C ends a reply.

    Args:
        run: the run folder.
        reply: tokens of a reply at most.
        temperature: what logits are divided by; 0 takes the likeliest token each time.
        top_k: draw among so many likeliest tokens alone.
        top_p: draw among the fewest likeliest tokens whose probabilities reach this.
        seed: of the draws.
        threads: PyTorch threads.
    """
    from interp.models.writing import Writer

    at_least("--reply", reply, 1)
    use_threads(threads)
    opened = _of_text(run)
    writer = Writer(opened.model, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    said: list[str] = []
    print(f"{opened.name}: {opened.config.world.in_words()}. {_HELP}", flush=True)
    while True:
        try:
            line = input("> ")
        except EOFError:
            print(flush=True)
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D or /quit ends)", flush=True)
            continue
        if line.startswith("/"):
            if line.strip() == "/quit":
                return
            print(_command(line.strip(), writer, said), flush=True)
        elif line:
            _answer(opened, writer, line, said, reply)


def _answer(run: Run, writer: Writer, line: str, said: list[str], reply: int) -> None:
    """Read a line, write on, and remember both."""
    line = line.encode("utf-8", "replace").decode()  # a terminal may hand on bytes that are no text
    try:
        ids = run.task.world.encode(line + "\n")
    except ValueError as error:
        print(f"({printable(str(error))})", flush=True)
        return
    writer.read(ids.tolist())
    said.append(f"> {line}\n")
    with _until_interrupted() as stopped:
        written = _with_notices(run, writer, writer.write(reply, stops=_stops(run)))
        text = _show(_pieces(run, _while_not(stopped, written)), escaped=True)
    said.append(text + "\n")
    print(" (stopped)" if stopped else "", flush=True)


def _command(line: str, writer: Writer, said: list[str]) -> str:
    name, _, rest = line.partition(" ")
    if name == "/reset":
        writer.reset()
        said.clear()
        return "(what was said is forgotten)"
    if name == "/save" and rest.strip():
        return _save(Path(rest.strip()).expanduser(), "".join(said))
    return _HELP


def _save(path: Path, text: str) -> str:
    """Write a file that is not there yet; what to say of it."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        return f"({printable(str(path))} is there already, and is left as it is: name another file)"
    except OSError as error:
        return f"({printable(str(path))} cannot be written: {error.strerror or error})"
    return f"(saved in {printable(str(path))})"


def _of_text(path: Path) -> Run:
    """A run whose model writes plain text. Raises ValueError where it does not."""
    opened = load(path)
    if "text" not in opened.config.world.capabilities:
        raise opened.config.world.lacks("text")
    return opened


def _stops(run: Run) -> frozenset[int]:
    """The end of a document, where the model has learned of it."""
    world = run.task.world
    return frozenset({world.end} if world.unit == "document" else ())


def _pieces(run: Run, tokens: Iterable[int]) -> Iterator[str]:
    """Tokens as text, as soon as their bytes make characters."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        yield decoder.decode(run.task.world.vocabulary.spelled(token))
    yield decoder.decode(b"", True)


def _with_notices(run: Run, writer: Writer, tokens: Iterator[int]) -> Iterator[int]:
    """The same tokens; where older ones leave the model's reach, a notice on standard error."""
    before = writer.forgotten
    for token in tokens:
        if writer.forgotten > before:
            print(
                f"\n({writer.forgotten - before:,} tokens are out of its reach: it looks back on {run.model.longest:,} "
                "at most)",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            before = writer.forgotten
        yield token


def _while_not(stopped: list[bool], tokens: Iterator[int]) -> Iterator[int]:
    for token in tokens:
        yield token
        if stopped:
            return


def _show(pieces: Iterable[str], *, escaped: bool) -> str:
    """Print pieces as they come; the whole text."""
    found = []
    for piece in pieces:
        found.append(piece)
        print(printable(piece) if escaped else piece, end="", flush=True)
    return "".join(found)


@contextlib.contextmanager
def _until_interrupted() -> Iterator[list[bool]]:
    """Collects a Ctrl-C instead of ending the program: a reply ends between two tokens, and the cache stays whole."""
    stopped: list[bool] = []
    before = signal.signal(signal.SIGINT, lambda *_: stopped.append(True))
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _filled_in(run: Run, ids: Any, passes: int) -> str:
    """What a model of masked diffusion puts behind the prompt in its one window, the surest tokens first."""
    import torch

    from interp.models.denoising import denoise

    model, length = run.model, run.task.n_ctx
    if len(ids) >= length:
        raise ValueError(f"--prompt must leave room in the window of {length} tokens; it has {len(ids)}")
    given = model.cfg.n_prompt
    sequence = torch.full((1, length), model.cfg.d_vocab)
    sequence[0, : len(ids)] = torch.from_numpy(ids)
    if len(ids) < given:
        raise ValueError(f"--prompt must have {given} tokens at least; it has {len(ids)}")
    found = denoise(model, sequence[:, :given], steps=min(passes, length - given), start=sequence[:, given:])
    return run.task.decode(torch.cat([sequence[:, :given], found.tokens], dim=1)[0, len(ids) :])
