"""Models of text that write: cached as without a cache, streamed, and in a conversation at a terminal."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.cli import main
from interp.console import printable
from interp.models import build_model
from interp.models.writing import Writer
from interp.runs import Run, RunConfig, load, save_weights, write_config
from interp.training.text_presets import text_model, training_for
from interp.worlds.text import TextWorld

ROOT = Path(__file__).resolve().parents[1]
CAUSAL = (
    "transformer",
    "gru",
    "lstm",
    "rnn",
    "linear_attention",
    "delta",
    "mamba",
    "mamba2",
    "looped",
    "window",
    "path",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> TextWorld:
    path = tmp_path_factory.mktemp("text") / "some.txt"
    path.write_text("".join(f"line {n} of a text, and more; \x1b é\n" for n in range(400)), encoding="utf-8")
    return TextWorld.of(path, length=24, block=200)


def small(world: TextWorld, architecture: str) -> Any:
    sizes: dict[str, Any] = {"context": 4, "d_mlp": 32} if architecture == "window" else {"n_layers": 1}
    return text_model(architecture, world, d_model=16, **sizes)


def untrained(folder: Path, world: TextWorld, architecture: str) -> Run:
    """A run folder with first weights."""
    config = RunConfig("text", world, small(world, architecture), training_for(10))
    folder.mkdir()
    write_config(folder, config)
    save_weights(folder / "model.safetensors", build_model(config.model), config, step=1)
    return load(folder)


@pytest.mark.parametrize("architecture", CAUSAL)
def test_what_is_written_with_a_cache_is_what_is_written_without(world: TextWorld, architecture: str) -> None:
    model = build_model(small(world, architecture)).eval()
    prompt = world.encode("line 7").tolist()
    drawn = {"temperature": 0.9, "top_k": 12, "top_p": 0.95}
    writer = Writer(model, seed=3, **drawn)
    writer.read(prompt[:2])
    writer.read(prompt[2:])
    found = list(writer.write(12))
    plain = model.generate(torch.tensor([prompt]), 12, seed=3, use_past_kv_cache=False, **drawn)
    assert found == plain[0, len(prompt) :].tolist()
    assert writer.tokens == plain[0].tolist()
    greedy = Writer(model, temperature=0)
    greedy.read(prompt)
    assert list(greedy.write(5)) == model.generate(torch.tensor([prompt]), 5, do_sample=False)[0, -5:].tolist()


def test_the_older_half_is_forgotten_when_the_context_is_full(world: TextWorld) -> None:
    model = build_model(small(world, "transformer")).eval()
    writer = Writer(model, temperature=0)
    writer.read(world.encode("line 7 of a text").tolist())
    whole = [*writer.tokens, *writer.write(40)]
    assert writer.forgotten == len(whole) - len(writer.tokens) > 0 and len(writer.tokens) <= 25
    assert writer.tokens == whole[writer.forgotten :]
    with torch.no_grad():  # the last token is what the model says of what it still sees
        assert int(model(torch.tensor([writer.tokens[:-1]]))[0, -1].argmax()) == whole[-1]
    endless = Writer(build_model(small(world, "gru")).eval())
    endless.read([1])
    assert len(list(endless.write(60))) == 60 and endless.forgotten == 0


def test_numbers_out_of_range_are_refused(world: TextWorld) -> None:
    model = build_model(small(world, "gru")).eval()
    for name, value in (("temperature", -1), ("top_k", 0), ("top_p", 0), ("top_p", 1.5)):
        with pytest.raises(ValueError, match=f"^{name} must be"):
            Writer(model, **{name: value})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a token to write on from"):
        next(Writer(model).write(1))
    with pytest.raises(ValueError, match="this one is bidirectional"):
        Writer(build_model(small(world, "masked_diffusion")))


@pytest.mark.parametrize("architecture", ["transformer", "gru", "looped", "masked_diffusion"])
def test_generate_shows_the_prompt_and_what_follows(
    world: TextWorld, architecture: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = untrained(tmp_path / "run", world, architecture)
    asked = ["generate", str(run.path), "--prompt", "line 7", "--tokens", "12", "--top-k", "5", "--seed", "2"]
    main(asked)
    first = capsys.readouterr()
    main(asked)
    assert capsys.readouterr().out == first.out and first.out.startswith("line 7") and first.err == ""
    if architecture != "masked_diffusion":
        model = run.model.generate(run.task.encode("line 7"), 12, temperature=0.8, top_k=5, seed=2)
        assert first.out == run.task.decode(model[0]) + "\n"
    else:
        assert len(first.out) == 24 + 1
    with pytest.raises(SystemExit):
        main(["generate", str(run.path), "--prompt", "ß"])
    assert "the character 'ß' is not in the text" in capsys.readouterr().err


def test_a_run_writes_where_its_text_is_another_and_nothing_is_measured_on_it(
    world: TextWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As under another Python, which brings another documentation."""
    other = TextWorld.from_dict({**world.to_dict(), "sha256": "f" * 64})
    run = untrained(tmp_path / "run", other, "gru")
    main(["generate", str(run.path), "--prompt", "line 7", "--tokens", "4"])
    assert capsys.readouterr().out.startswith("line 7")
    with pytest.raises(SystemExit):
        main(["eval", str(run.path), "--n", "4"])
    said = " ".join(capsys.readouterr().err.split())
    assert world.sha256 in said and "f" * 64 in said and "the model can write" in said


def test_a_run_of_another_world_does_not_write(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("generate", "chat"):
        with pytest.raises(SystemExit):
            main([verb, str(tiny_run.path)])
        assert "the world machine cannot be asked for 'text'" in capsys.readouterr().err


def test_control_characters_are_spelled_out() -> None:
    assert printable("a\x1b[31m\n\tb\x7f\u202e\ud800é日") == "a\\x1b[31m\n\tb\\x7f\\u202e\\ud800é日"


class Terminal:
    """A program at a terminal of its own."""

    def __init__(self, arguments: list[str], folder: Path):
        self.parent, child = pty.openpty()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TERM": "dumb", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "interp", *arguments], stdin=child, stdout=child, stderr=child, cwd=folder,
            env=environment, start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background ignore it
        )  # fmt: skip
        os.close(child)
        self.shown = ""

    def type(self, line: str) -> None:
        os.write(self.parent, line.encode() + b"\n")

    def interrupt_until(self, words: str) -> None:
        """Ctrl-C until `words` are shown: a signal just before the prompt is read waits for the next key."""
        for _ in range(24):
            time.sleep(3)
            os.kill(self.process.pid, signal.SIGINT)
            with contextlib.suppress(AssertionError):
                self.until(words, seconds=10)
                return
        raise AssertionError(f"no {words!r} in {self.shown!r}")

    def until(self, words: str, *, seconds: float = 240) -> str:
        """What was shown since the last call, up to `words`."""
        deadline = time.monotonic() + seconds
        while words not in self.shown:
            assert time.monotonic() < deadline, f"no {words!r} in {self.shown!r}"
            if select.select([self.parent], [], [], 0.5)[0]:
                self.shown += os.read(self.parent, 4096).decode("utf-8", "replace")
        found, _, self.shown = self.shown.partition(words)
        return found


def test_a_conversation_at_a_terminal(world: TextWorld, tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", world, "transformer")
    there = tmp_path / "there.txt"
    there.write_text("mine")
    terminal = Terminal(["chat", str(run.path), "--reply", "100000", "--temperature", "2"], tmp_path)
    try:
        assert "the text some.txt" in terminal.until("> ")
        terminal.type("line 7 of a text")
        shown = terminal.until("out of its reach")
        shown += terminal.until("\\x1b")  # the text has the escape character, and the model writes it: spelled out
        os.kill(terminal.process.pid, signal.SIGINT)
        assert "\x1b" not in shown + terminal.until("(stopped)")
        terminal.until("> ")
        terminal.type("ß")
        terminal.until("'ß' is not in the text")
        terminal.until("> ")
        terminal.type(f"/save {there}")
        terminal.until("is there already, and is left as it is")
        terminal.until("> ")
        terminal.type("/save kept.txt")
        terminal.until("saved in kept.txt")
        terminal.until("> ")
        terminal.type("/reset")
        terminal.until("is forgotten")
        terminal.until("> ")
        terminal.type("/save empty.txt")
        terminal.until("saved in empty.txt")
        terminal.until("> ")
        terminal.interrupt_until("/quit ends)")  # at the prompt: the program goes on
        terminal.until("> ")
        terminal.type("/what")
        terminal.until("/reset forgets")
        terminal.until("> ")
        terminal.type("/quit")
        assert terminal.process.wait(timeout=30) == 0
    finally:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.parent)
    assert there.read_text() == "mine" and (tmp_path / "empty.txt").read_text() == ""
    assert (tmp_path / "kept.txt").read_text(encoding="utf-8").startswith("> line 7 of a text\n")
