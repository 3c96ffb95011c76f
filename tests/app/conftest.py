"""Fixtures of the app's tests: a trained run, broken copies of it, and pages run without a browser."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit import config
from streamlit.testing.v1 import AppTest

from .browser import home, mistaken, server, visit  # noqa: F401  (fixtures)

config.set_option("runner.magicEnabled", False)  # as app/.streamlit/config.toml, which lies beside no test

ROOT = Path(__file__).resolve().parents[2]
MAIN = ROOT / "app" / "main.py"
PAGES = {
    name: f"views/{name}.py"
    for name in (
        *("step", "examples", "string", "text", "stream", "attention", "state", "memory", "thinking", "probe_results"),
        *("circuit", "intervene", "training", "compare", "data"),
    )
}


@pytest.fixture(scope="session")
def run_folder() -> Path:
    """A trained run with every frame: the bundled one, or that of TAPELENS_RUN."""
    folder = Path(os.environ.get("TAPELENS_RUN") or ROOT / "checkpoints" / "quickstart")
    assert (folder / "model.safetensors").exists(), f"the app's tests need a trained run; {folder} has none"
    return folder


@pytest.fixture
def bare_run(run_folder: Path, tmp_path: Path) -> Path:
    """A copy with weights alone: trained, nothing measured."""
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(run_folder / name, folder / name)
    return folder


@pytest.fixture
def copied_run(run_folder: Path, tmp_path: Path) -> Path:
    """A whole copy, to break."""
    folder = tmp_path / "copy"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("resume", "report.html"))
    return folder


@pytest.fixture
def open_page(monkeypatch: pytest.MonkeyPatch) -> Callable[..., AppTest]:
    """Open a page of the app that was started with a run, and wait until nothing loads any more."""

    def open_(page: str, run: Path, **parameters: str) -> AppTest:
        monkeypatch.setenv("TAPELENS_RUN", str(run))
        at = AppTest.from_file(str(MAIN), default_timeout=120)
        for name, value in parameters.items():
            at.query_params[name] = value
        at.run()
        if page not in ("step", "examples", "sums", "string", "text"):  # the first pages
            at.switch_page(PAGES[page]).run()
        return _settle(at)

    return open_


def _settle(at: AppTest) -> AppTest:
    """Run the page again until the model and the analysis code are there."""
    deadline = time.monotonic() + 120
    while any("is loading" in caption.value for caption in at.caption):
        assert time.monotonic() < deadline, "the model did not load within two minutes"
        time.sleep(0.3)
        at.run()
    return at


@pytest.fixture
def words() -> Callable[[AppTest], str]:
    """Everything that a page says, as one text."""
    return _words


def _words(at: AppTest) -> str:
    elements = (*at.markdown, *at.caption, *at.error, *at.info, *at.warning, *at.code, *at.title)
    return "\n".join(str(element.value) for element in elements)
