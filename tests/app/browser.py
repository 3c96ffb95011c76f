"""One served app and one Chromium for all browser tests, a tab with the checks that always hold, and screenshots."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from chromium_path import CHROMIUM

import interp
from app import program
from cython_vm import encode, sample, step
from interp.runs import save_weights

ROOT = Path(__file__).resolve().parents[2]
SHOTS = Path(__file__).with_name("screenshots")
PATIENCE = 240_000  # milliseconds; the first page imports torch, cold, beside other tests
STRANGERS = ("app.py", "interp.py", "probes.py", "cython_vm.py", "streamlit.py", "numpy.py")
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
RULES = ["color-contrast", "button-name", "link-name", "aria-valid-attr-value", "nested-interactive"]
MARKS = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),  # one server for all of them
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CI") != "true",
        reason="no Chromium on this machine; `make browser` installs it where the system's packages may be installed",
    ),
]


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the app is served from; a link opens what lies in its runs/."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="session")
def server(run_folder: Path, home: Path) -> Iterator[str]:
    """The address of the app, served from another folder as an installed one would be: one with a stranger's modules of
    the names that we import, which leave a file `ran` if they ever are."""
    for name in STRANGERS:
        (home / name).write_text("open('ran', 'a').write(__name__)\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home / "log.txt"
    start = (
        f"import sys; sys.path[:] = [p for p in sys.path if p not in ('', '.', {str(home)!r})]; "
        f"sys.path.insert(0, {str(ROOT)!r}); from interp.cli import main; main()"
    )
    command = [sys.executable, "-P", "-c", start, "app", str(run_folder.resolve()), "--port", str(port)]
    searched = os.pathsep.join([str(ROOT), "."])  # as some have it
    environment = {**os.environ, "PYTHONPATH": searched, "OMP_NUM_THREADS": "1"}
    with open(log, "w") as out:
        process = subprocess.Popen(command, cwd=log.parent, env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 240
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=1)
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, f"the server did not come up: {log.read_text()}"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # it may be in the middle of importing torch
            process.kill()


class Visit:
    """One tab; every test's checks that hold always are made when it closes."""

    def __init__(self, browser: Any, server: str, scheme: str):
        self.server = server
        self.page = browser.new_page(viewport={"width": 1360, "height": 900}, color_scheme=scheme)
        self.page.set_default_timeout(PATIENCE)
        self.elsewhere: list[str] = []
        self.page.on("request", self._note)

    def _note(self, request: Any) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("http", "https", "ws", "wss") and parts.hostname not in ("127.0.0.1", "localhost"):
            self.elsewhere.append(request.url)

    def open(self, path: str = "", **parameters: str) -> Visit:
        self.page.goto(f"{self.server}/{path}?{urlencode(parameters)}")
        return self.settle()

    def settle(self) -> Visit:
        """Wait until the script has run, nothing says that it is loading, and nothing fades."""
        self.page.wait_for_timeout(250)
        self.page.wait_for_selector(IDLE)
        self.page.wait_for_function("() => !document.body.innerText.includes('is loading')")
        self.page.wait_for_selector(IDLE)
        self.page.wait_for_function("() => !document.querySelector('[data-stale=true]')")
        return self

    def click(self, role: str, name: str | re.Pattern[str]) -> Visit:
        self.page.get_by_role(role, name=name).first.click()
        return self.settle()

    def choose_first(self, name: str) -> Visit:
        """Take the first option of a list; a list that a redraw closes before it is read is opened again."""
        from playwright.sync_api import TimeoutError as Late

        deadline = time.monotonic() + PATIENCE / 1000
        while True:
            self.page.get_by_role("combobox", name=name).click()
            try:
                self.page.get_by_role("option").first.click(timeout=10_000)
                return self.settle()
            except Late:
                assert time.monotonic() < deadline, f"the list {name!r} showed no option"
                self.page.keyboard.press("Escape")

    def click_chart(self, chart: int, x: float, y: float) -> Visit:
        """Click the chart at a share of its width and height."""
        canvas = self.page.locator('[data-testid="stEChartsChart"]').nth(chart)
        deadline = time.monotonic() + 240
        box = None
        while box is None:  # a chart that is drawn anew is in no place for a moment
            assert time.monotonic() < deadline, f"chart {chart} was not drawn within a minute"
            canvas.scroll_into_view_if_needed()
            box = canvas.bounding_box()
        self.page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])
        return self.settle()

    def click_probe(self) -> Visit:
        """Click a cell of the first map; the gaps between positions hold none."""
        for x in (0.70, 0.72, 0.74):
            if "kind" not in self.address:
                self.click_chart(0, x, 0.3)
        return self

    @property
    def status(self) -> str:
        return self.page.locator("h4").first.inner_text()

    @property
    def address(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.page.url).query).items()}

    def wait_for_status(self, text: str) -> Visit:
        """The page's first line says this, now or in a moment."""
        self.page.wait_for_function("text => document.querySelector('h4')?.innerText.includes(text)", arg=text)
        return self

    def wait_for_address(self, **parameters: str | None) -> Visit:
        """The address follows the page by a moment; None: the parameter is not there."""
        self.page.wait_for_function(
            "wanted => Object.entries(wanted).every(([k, v]) => new URL(location).searchParams.get(k) === v)",
            arg=parameters,
        )
        return self

    def wait_for_run(self, name: str) -> Visit:
        """The address leads to the run of this name."""
        self.page.wait_for_function("name => new URL(location).searchParams.get('run')?.endsWith(name)", arg=name)
        return self

    def wait_for_text(self, text: str) -> None:
        self.page.get_by_text(text).first.wait_for()

    def wait_for_count(self, count: int, role_or_text: str | re.Pattern[str], name: Any = None) -> None:
        """So many elements of a text, or of a role and a name, now or when what was there before is gone."""
        from playwright.sync_api import expect

        page = self.page
        found = page.get_by_text(role_or_text) if name is None else page.get_by_role(role_or_text, name=name)
        expect(found).to_have_count(count, timeout=PATIENCE)

    def close(self) -> None:
        exceptions = self.page.locator('[data-testid="stException"]').all_inner_texts()
        self.page.close()
        assert exceptions == []
        assert self.elsewhere == []


@pytest.fixture
def visit(chromium: Any, server: str) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def begin(scheme: str = "light") -> Visit:
        visits.append(Visit(chromium, server, scheme))
        return visits[-1]

    yield begin
    for opened in visits:
        opened.close()


@pytest.fixture(scope="session")
def mistaken(run_folder: Path, home: Path) -> dict[str, str]:
    """The address of a state that a model gets wrong: the run with noise on its weights, which does err."""
    import torch

    folder = home / "runs" / "noisy"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns("resume", "report.html"))
    run = interp.load(folder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in run.model.parameters():
            weight += 0.25 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)
    save_weights(folder / "model.safetensors", run.model, run.config, step=run.step)
    states = sample(run.config.spec, 1_000, seed=9, split="evaluation")
    wrong = (run.predict_states(states) != encode(step(states).next)).any(axis=1).nonzero()[0]
    assert len(wrong), "the noise is too weak: the model makes no mistake on 1,000 states"
    return {**program.to_address(program.of_state(states, int(wrong[0]))), "run": str(folder)}


def faults(tab: Visit) -> list[tuple[str, list[str]]]:
    """What axe finds against the rules, once nothing fades: text that a redraw dims has too little contrast."""
    from axe_playwright_python.sync_playwright import Axe

    tab.settle()
    found = Axe().run(tab.page, options={"runOnly": RULES})
    return [(v["id"], [node["html"][:160] for node in v["nodes"]]) for v in found.response["violations"]]


def shot(name: str, scheme: str) -> Path:
    SHOTS.mkdir(exist_ok=True)
    return SHOTS / f"{name}_{scheme}.png"


def marked(test: Callable[..., None]) -> Callable[..., None]:
    """With the marks of browser tests."""
    for mark in MARKS:
        test = mark(test)
    return test
