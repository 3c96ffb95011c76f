"""Which run the app shows, and its files and model, each read once.

Files are drawn at once; the model (and with it torch) loads in a background thread. Whatever is cached is keyed by
what is on disk (size and time of the file), so that a newly made file shows up at the next click.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

import interp
from app import selection
from app.numbers import quoted
from interp import Run, RunError
from interp.commands import command as command_line
from interp.commands import find_command
from interp.compiled.config import KEY_FILE
from interp.reading import read_json, reading
from interp.runs import frame_command

if TYPE_CHECKING:  # half a second that the first view does without
    import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "checkpoints" / "quickstart"
_MAIN = Path(__file__).with_name("main.py")
_JOBS_KEPT = 6
_WAIT_SECONDS = 1.5  # for a job, before the page is asked again
_pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
_log = logging.getLogger(__name__)
_PATH = "run_path"
_jobs: dict[str, Future[Any]] = {}  # by key, for all visits; one thread, so that imports never cross
_stages: dict[str, str] = {}  # how far each job is, in words


@dataclass(frozen=True)
class LoadedModel:
    """A run with its model in memory. Hold `lock` around a forward pass with hooks: sessions share the model."""

    run: Run
    lock: Any  # threading.Lock
    key: str  # identifies the weights


def chosen_path() -> Path:
    """`?run=` in the address, else the run that the app was started with. Raises RunError as `linked_path`."""
    if name := st.query_params.get("run"):
        return linked_path(name)
    return started_path()


def is_at(name: str, place: Path | None) -> bool:
    """Whether a name in an address and a resolved path are the same folder."""
    return place is not None and Path(name).resolve() == place


def linked_path(name: str) -> Path:
    """The run that an address names. A link may come from anybody: it opens what lies in `runs/` or `checkpoints/`, and
    the run that the app was started with, and nothing else on the machine.

    Raises:
        RunError: it lies elsewhere, once `..` and links are followed, whether it is there or not.
    """
    if name.strip().lower().startswith("hf:"):
        raise RunError(
            f"the link asks for the run {quoted(name)}; a link opens no run of a hub; fetch it with "
            "tapelens app hf://OWNER/NAME"
        )
    allowed = [folder / name for folder in (Path.cwd(), ROOT) for name in ("runs", "checkpoints")] + [started_path()]
    try:
        inside = any(Path(name).resolve().is_relative_to(folder.resolve()) for folder in allowed)
    except (OSError, RuntimeError, ValueError):  # too long, links in a circle, a zero byte
        inside = False
    if not inside:
        raise RunError(
            f"the link asks for the run {quoted(name)}; a link opens runs in runs/ and checkpoints/ alone, and the one "
            "that the app was started with"
        )
    return Path(name)


def started_path() -> Path:
    """The argument after `--`, else TAPELENS_RUN, else the bundled run."""
    if sys.argv and Path(sys.argv[0]).resolve() == _MAIN and len(sys.argv) > 1:
        return Path(sys.argv[1])
    if name := os.environ.get("TAPELENS_RUN"):
        return Path(name)
    return BUNDLED


def current() -> Run:
    """The run that this visit shows. Raises RunError when it cannot be opened."""
    if _PATH not in st.session_state:
        st.session_state[_PATH] = str(chosen_path())
        selection.set_run(st.query_params.get("run"))
    whole = whole_run()
    step = selection.weights()
    if not step:
        return whole
    try:
        return whole.at_step(int(step))
    except (RunError, ValueError):
        selection.set_weights("")
        selection.notify(f"The link asks for the weights of step {quoted(step)}, which {whole.name} has not kept.")
        return whole


def whole_run() -> Run:
    """The run that this visit shows, with its final weights, whatever step of its training is looked at."""
    path = Path(st.session_state[_PATH])
    return _open(str(path), fingerprint(path / "config.json"))


def opened(name: str) -> Run:
    """Another run, one that a link could name. Raises RunError as `linked_path`, or where it cannot be opened."""
    path = linked_path(name)
    return _open(str(path), fingerprint(path / "config.json"))


def choose(name: str) -> None:
    """Show another run in this visit, one that a link could name. Raises RunError as `linked_path`."""
    st.session_state[_PATH] = str(linked_path(name))
    selection.start_over(name)


def fingerprint(file: Path) -> str:
    """Changes when the file does; "absent" when there is none."""
    try:
        status = file.stat()
    except OSError:
        return "absent"
    return f"{status.st_mtime_ns}-{status.st_size}"


def weights_key(run: Run) -> str:
    """Identifies the run's weights on disk."""
    return f"{run.weights.resolve()}:{run.config.digest}:{fingerprint(run.weights)}"


def frame(run: Run, kind: str) -> pd.DataFrame:
    """One of the run's frames. Raises RunError when it was not made yet, or not for this run and its weights."""
    file = run.path / f"{kind}.parquet"
    found = _frame(run, str(run.path), kind, run.config.digest, fingerprint(file))
    if kind != "metrics":  # these are the training itself
        require_current(run, file, found.attrs["provenance"], frame_command(kind, run.path))
    return found


def require_current(run: Run, file: Path, provenance: Mapping[str, Any], command: str) -> None:
    """Refuse what was measured under another config or on other weights. Raises RunError with both and `command`."""
    digest, step = provenance.get("digest"), provenance.get("step")
    if digest != run.config.digest:
        raise RunError(
            f"{file} was measured under config {digest}, but this run is {run.config.digest}; "
            f"make it anew with: {command} --fresh"
        )
    try:
        now = run.step
    except RunError:  # no weights to compare with
        return
    if step is not None and step != now:
        raise RunError(
            f"{file} was measured on the weights of step {step}, but the run holds those of step {now}; "
            f"make it anew with: {command}"
        )


def answer_key(run: Run) -> dict[str, str] | None:
    """What each node of a compiled run does, in words, by its name; None for trained runs."""
    file = run.path / KEY_FILE
    return _components(str(file), fingerprint(file)) if file.exists() else None


def key_of(run: Run, node: str) -> str:
    """A sentence of the answer key on a node; "" for trained runs."""
    known = answer_key(run)
    if known is None:
        return ""
    return f"Answer key of these hand-set weights: it {known.get(node, 'does nothing that reaches the answer')}."


def model_if_there(run: Run) -> LoadedModel | None:
    """The model if it is in memory already. Raises RunError when it could not be loaded."""
    return _result(weights_key(run))


def model_or_wait(run: Run) -> LoadedModel | None:
    """The model if it is in memory. If not: loads it, says so, runs the page again when it is there, returns None.

    Raises RunError when it cannot be loaded.
    """
    key, path, config, weights = weights_key(run), run.path, run.config, run.weights

    def load() -> LoadedModel:
        _at(key, 1, 3, "importing PyTorch")
        importlib.import_module("torch")
        _at(key, 2, 3, "importing TransformerLens and the model's code")
        opened = Run(path, config, weights=weights)
        _ = opened.task
        importlib.import_module("interp.models")
        _at(key, 3, 3, "building the model and reading its weights")
        _ = opened.model
        return LoadedModel(run=opened, lock=threading.Lock(), key=key)

    return _result_or_wait(key, load, "The model")


def task_or_wait(run: Run) -> Any:
    """The run's task, which needs torch but no weights, or None; as `model_or_wait`."""
    path, config = run.path, run.config

    def load() -> Any:
        return Run(path, config).task

    return _result_or_wait(f"task of {path} {run.config.digest}", load, "The task")


def analysis_or_wait() -> bool:
    """Whether `interp.circuits`, which brings torch, is imported; if not, as `model_or_wait`."""
    name = "interp.circuits"
    return _result_or_wait(name, lambda: importlib.import_module(name), "The analysis code") is not None


def show_problem(error: Exception) -> None:
    """A problem in a sentence, with the command that mends it in a code box. What was not made yet is no error."""
    message = str(error)
    sentence, command = split_command(message)
    sentence = sentence.replace(str(ROOT) + os.sep, "")
    if "does not exist yet" in message:
        st.info(sentence, icon=":material/science:")
    else:
        st.error(sentence, icon=":material/build:")
    st.caption("This command makes it:" if command else "Make a run, or open the bundled one:")
    st.code(command or "make demo\nstreamlit run app/main.py", language="bash")


def show_failure(error: Exception) -> None:
    """What nobody foresaw, in a sentence; where it happened goes into the server's log."""
    _log.error("the page could not be drawn", exc_info=error)
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    st.error(
        f"This page could not be drawn ({reason}). Files of the run may be damaged or of another version; the server's "
        "log tells where it happened.",
        icon=":material/build:",
    )


def split_command(message: str) -> tuple[str, str]:
    """A message of a RunError as a sentence, and the command that mends it ("" where none can)."""
    before, command = find_command(message)
    sentence = re.sub(r"(?:; [a-z ]*with)?[;:] $", "", before) if command else message
    weights = re.match(r"(.*?)/?model\.safetensors\b", message)
    if weights and not command:
        command = command_line("train", "--fresh", "--out", weights[1] or ".")
        sentence = message.removesuffix("; restore it or train again")
    sentence = sentence.rstrip(".;:, ") + "."
    return (sentence[0].upper() + sentence[1:] if sentence.split()[0].isalpha() else sentence), command


@st.cache_resource(show_spinner=False, max_entries=16)
def _open(path: str, fingerprint: str) -> Run:
    return interp.load(path)


@st.cache_data(show_spinner=False, max_entries=16)
def _components(file: str, fingerprint: str) -> dict[str, str]:
    found = read_json(Path(file), "an answer key")
    with reading(Path(file), "an answer key"):
        return {str(node): str(words) for node, words in found["components"].items()}


@st.cache_data(show_spinner=False, max_entries=32)
def _frame(_run: Run, path: str, kind: str, digest: str, fingerprint: str) -> pd.DataFrame:
    return _run.frame(kind)


def _result(key: str) -> Any:
    """What a background job came to, None while it runs or was never begun. Raises what it raised."""
    job = _jobs.get(key)
    return job.result() if job is not None and job.done() else None


def _result_or_wait(key: str, work: Callable[[], Any], what: str) -> Any:
    """What the job came to; None, with a notice drawn that begins it and runs the page again when it is done."""
    job = _jobs.get(key)
    if job is not None and job.done():
        return job.result()
    _watch(key, work, what)
    return None


def _at(key: str, number: int, of: int, doing: str) -> None:
    """Say how far a job is."""
    _stages[key] = f"{doing}, {number} of {of}"


@st.fragment(run_every=0.4)
def _watch(key: str, work: Callable[[], Any], what: str) -> None:
    """Begins the job at the second call, when the page is drawn: importing torch holds up all of Python."""
    if "page_drawn" not in st.session_state:
        st.session_state["page_drawn"] = True
    elif key not in _jobs:
        while len(_jobs) >= _JOBS_KEPT:
            _jobs.pop(next(iter(_jobs)), None)
        _jobs[key] = _pool.submit(work)
    else:
        # Asking again costs more than waiting: on a busy machine the questions alone would hold up the work.
        wait([_jobs[key]], timeout=_WAIT_SECONDS)
        if _jobs[key].done():
            st.rerun()
    selection.hold_notices()
    far = f": {_stages[key]}" if key in _stages else ""
    st.caption(f":material/hourglass_top: {what} is loading{far}; the first time takes some seconds.")
