"""Which run the app shows, and its files and model, each read once.

Files are drawn at once; the model (and with it torch) loads in a background thread. Whatever is cached is keyed by
what is on disk (size and time of the file), so that a newly made file shows up at the next click.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

import interp
from interp import Run, RunError

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "checkpoints" / "quickstart"
_MAIN = Path(__file__).with_name("main.py")


@dataclass(frozen=True)
class LoadedModel:
    """A run with its model in memory. Hold `lock` around a forward pass with hooks: sessions share the model."""

    run: Run
    lock: Any  # threading.Lock
    key: str  # identifies the weights


def chosen_path() -> Path:
    """`?run=` in the address, else the argument after `--`, else TAPELENS_RUN, else the bundled run."""
    if name := st.query_params.get("run"):
        return Path(name)
    if sys.argv and Path(sys.argv[0]).resolve() == _MAIN and len(sys.argv) > 1:
        return Path(sys.argv[1])
    if name := os.environ.get("TAPELENS_RUN"):
        return Path(name)
    return BUNDLED


def current() -> Run:
    """The run that this visit shows. Raises RunError when it cannot be opened."""
    path = Path(st.session_state.setdefault("run_path", str(chosen_path())))
    return _open(str(path), fingerprint(path / "config.json"))


def fingerprint(file: Path) -> str:
    """Changes when the file does; "absent" when there is none."""
    try:
        status = file.stat()
    except OSError:
        return "absent"
    return f"{status.st_mtime_ns}-{status.st_size}"


def weights_key(run: Run) -> str:
    """Identifies the run's weights on disk."""
    return f"{run.path.resolve()}:{run.config.digest}:{fingerprint(run.path / 'model.safetensors')}"


def frame(run: Run, kind: str) -> pd.DataFrame:
    """One of the run's frames. Raises RunError when it was not made yet, or not for this run."""
    return _frame(str(run.path), kind, run.config.digest, fingerprint(run.path / f"{kind}.parquet"))


def loading(run: Run) -> Future[LoadedModel]:
    """The model, perhaps still on its way."""
    return _loading(str(run.path), weights_key(run))


def model_or_wait(run: Run) -> LoadedModel | None:
    """The model if it is there. If not: says that it is loading, reruns the page when it is done, returns None.

    Raises RunError when it cannot be loaded.
    """
    future = loading(run)
    if not future.done():
        _watch(str(run.path))
        return None
    return future.result()


def analysis_or_wait() -> bool:
    """Whether `interp.circuits` is imported. If not: says that it is loading, and reruns the page when it is done."""
    if not _analysis().done():
        _watch_analysis()
        return False
    _analysis().result()
    return True


def show_problem(error: Exception) -> None:
    """A problem in a sentence, with the command that mends it in a code box. What was not made yet is no error."""
    message = str(error).replace(str(ROOT) + os.sep, "")
    sentence, command = split_command(message)
    if "does not exist yet" in message:
        st.info(sentence, icon=":material/science:")
    else:
        st.error(sentence, icon=":material/build:")
    st.caption("This command makes it:" if command else "Make a run, or open the bundled one:")
    st.code(command or "make demo\nstreamlit run app/main.py", language="bash")


def split_command(message: str) -> tuple[str, str]:
    """A message of `interp.runs` as a sentence, and the command that mends it ("" where none can)."""
    if weights := re.match(r"(\S*?)/?model\.safetensors\b", message):
        sentence = re.split(r"; (?:tapelens|restore)", message)[0]
        command = f"tapelens train {'--resume' if 'does not exist' in message else '--fresh'} --out {weights[1] or '.'}"
    else:
        found = re.search(r"[;:] (?:make it(?: anew)? with: |train one with: )?(tapelens [a-z]+ [^;,]*)", message)
        sentence, command = (message[: found.start()], found[1].strip()) if found else (message, "")
    sentence = sentence.rstrip(".;:, ") + "."
    return (sentence[0].upper() + sentence[1:] if sentence.split()[0].isalpha() else sentence), command


@st.cache_resource(show_spinner=False, max_entries=16)
def _open(path: str, fingerprint: str) -> Run:
    return interp.load(path)


@st.cache_data(show_spinner=False, max_entries=32)
def _frame(path: str, kind: str, digest: str, fingerprint: str) -> pd.DataFrame:
    return interp.load(path).frame(kind)


@st.cache_resource(show_spinner=False)
def _loader() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="model-loader")


@st.cache_resource(show_spinner=False)
def _analysis() -> Future[object]:
    return _loader().submit(importlib.import_module, "interp.circuits")


@st.cache_resource(show_spinner=False, max_entries=4)
def _loading(path: str, key: str) -> Future[LoadedModel]:
    def load() -> LoadedModel:
        run = interp.load(path)
        _ = run.task, run.model  # the slow part: imports torch and transformer_lens, reads the weights
        return LoadedModel(run=run, lock=threading.Lock(), key=key)

    return _loader().submit(load)


@st.fragment(run_every=0.4)
def _watch(path: str) -> None:
    run = _open(path, fingerprint(Path(path) / "config.json"))
    if loading(run).done():
        st.rerun()
    st.caption(":material/hourglass_top: The model is loading; the first time takes some seconds.")


@st.fragment(run_every=0.4)
def _watch_analysis() -> None:
    if _analysis().done():
        st.rerun()
    st.caption(":material/hourglass_top: The analysis code is loading; the first time takes some seconds.")


__all__ = ["LoadedModel", "RunError", "chosen_path", "current", "frame", "loading", "model_or_wait", "show_problem"]
