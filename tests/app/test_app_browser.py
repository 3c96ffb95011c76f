"""The app as a person uses it: Chromium, clicks and keys, light and dark, nothing fetched from elsewhere.

Screenshots of the pages are kept in tests/app/screenshots.
"""

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

import interp
from app import program
from cython_vm import encode, sample, step
from interp.models.state_configs import DeltaConfig
from interp.runs import save_weights

from .test_app_examples import untrained

ROOT = Path(__file__).resolve().parents[2]
SHOTS = Path(__file__).with_name("screenshots")
PATIENCE = 240_000  # milliseconds; the first page imports torch, cold, beside other tests
IDLE = '[data-testid="stApp"][data-test-script-state="notRunning"]'
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PAGES = {"step": "", "attention": "attention", "probes": "probes", "circuit": "circuit"}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.xdist_group("browser"),  # one server for all of them
    pytest.mark.skipif(
        CHROMIUM is None and os.environ.get("CI") != "true",
        reason="no Chromium on this machine; `make browser` installs it where the system's packages may be installed",
    ),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the app is served from; a link opens what lies in its runs/."""
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="module")
def server(run_folder: Path, home: Path) -> Iterator[str]:
    """The address of the app, served from another folder as an installed one would be."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log = home / "log.txt"
    command = [sys.executable, "-m", "interp", "app", str(run_folder.resolve()), "--port", str(port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
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


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    assert CHROMIUM is not None, "CI=true and no Chromium: the browser tests must run there"
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


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


@pytest.fixture(scope="module")
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


def test_something_real_before_the_model(visit: Callable[..., Visit], server: str) -> None:
    """The first test of the module: the first page is drawn while torch, the slow part, is not even imported."""
    tab = visit()
    tab.page.goto(server)
    tab.page.get_by_role("button", name="instruction 0").wait_for()
    tab.wait_for_status("step 1 of")
    tab.wait_for_text("The model is loading")
    tab.settle()
    assert re.search(r"predicted (right ✓|wrong ✗), p [=<>] \d\.\d\d", tab.status)


def test_step_through_a_program(visit: Callable[..., Visit]) -> None:
    tab = visit().open()
    tab.click("button", "Next")
    tab.wait_for_status("step 2 of 14")
    tab.page.keyboard.press("ArrowRight")
    tab.settle()
    tab.wait_for_status("step 3 of 14")
    tab.click("button", re.compile("^step 9, DEC"))
    tab.wait_for_status("step 9 of 14 · next DEC")
    tab.wait_for_address(step="9")
    tab.click("button", "Back")
    tab.wait_for_status("step 8 of 14 · next PUT")


def test_run_plays_to_the_end(visit: Callable[..., Visit]) -> None:
    tab = visit().open(program="INC INC", step="1")
    tab.click("button", re.compile("Run$"))
    tab.page.wait_for_function("() => document.querySelector('h4')?.innerText.includes('step 3 of 3')")
    tab.page.get_by_role("button", name=re.compile("Run$")).first.wait_for()


def test_type_a_program(visit: Callable[..., Visit]) -> None:
    tab = visit().open()
    tab.page.get_by_role("textbox", name="Program").fill("+[")
    tab.click("button", "Run it")
    tab.wait_for_text("WHILE without an ENDW")
    tab.page.get_by_role("textbox", name="Program").fill(",.>,.")
    tab.page.get_by_role("textbox", name="Input").fill("3 1")
    tab.click("button", "Run it")
    tab.wait_for_status("step 1 of 6 · next GET")
    tab.wait_for_count(0, "WHILE without an ENDW")
    tab.wait_for_address(input="3.1")


def test_a_mistake_leads_to_its_circuit(visit: Callable[..., Visit], mistaken: dict[str, str]) -> None:
    tab = visit().open(**mistaken)
    tab.wait_for_status("predicted wrong ✗")
    tab.wait_for_count(1, re.compile("The model (puts|says|changes)"))
    op = re.search(r"next (\w+)", tab.status)[1]  # type: ignore[index]
    tab.page.screenshot(path=str(shot("mistake", "light")))
    tab.click("button", f"Why? Circuit of {op}")
    tab.wait_for_status(op)
    tab.wait_for_address(op=op)
    tab.wait_for_text("Strongest edges:")
    tab.page.get_by_text(re.compile("the model predicts wrong")).first.wait_for()
    tab.page.screenshot(path=str(shot("why", "light")))
    tab.click("link", "Step")
    tab.wait_for_status("predicted wrong ✗")  # the state is still there


def test_search_for_a_mistake(visit: Callable[..., Visit]) -> None:
    tab = visit().open()
    tab.page.get_by_role("button", name="Search for a mistake").click()
    tab.page.get_by_text(re.compile(r"Mistake found at held-out state|No mistake in")).first.wait_for()


def test_attention_by_click_and_by_keyboard(visit: Callable[..., Visit]) -> None:
    tab = visit().open("attention")
    tab.click("button", re.compile("^layer 2 head 1"))
    tab.wait_for_text("Layer 2, head 1")
    tab.page.wait_for_function("() => new URL(location).searchParams.get('id')?.startsWith('2.1:')")
    tab.page.get_by_role("button", name=re.compile("^layer 0 head 3")).focus()
    tab.page.keyboard.press("Enter")
    tab.settle()
    tab.wait_for_text("Layer 0, head 3")
    query = tab.page.get_by_role("combobox", name="Query position")
    query.click()
    query.fill("array_ptr[2]")
    tab.page.keyboard.press("Enter")
    tab.settle()
    tab.wait_for_address(id="0.3:array_ptr[2]")
    tab.wait_for_text("it looks most at")
    tab.click_chart(0, 0.6, 0.15)
    tab.page.wait_for_function("() => new URL(location).searchParams.get('id') !== '0.3:array_ptr[2]'")
    tab.click("radio", "mean over an instruction")
    tab.page.get_by_text(re.compile(r"\d+ held-out states that run")).first.wait_for()


def test_probes_by_click(visit: Callable[..., Visit]) -> None:
    tab = visit().open("probes")
    tab.click_probe()
    tab.wait_for_address(kind="probe")
    tab.page.get_by_text(re.compile("probe reads it right in")).first.wait_for()
    variable = tab.address["id"].split("|")[0]
    tab.wait_for_count(1, "heading", re.compile("^" + re.escape(variable)))


def test_circuit_node_edge_and_size(visit: Callable[..., Visit]) -> None:
    tab = visit().open("circuit", op="INC")
    tab.wait_for_text("Strongest edges:")
    tab.page.locator("svg text", has_text="MLP 0").first.click()
    tab.settle()
    tab.wait_for_address(kind="node", id="m0")
    tab.wait_for_text("the answer loses")
    edge = tab.page.get_by_role("combobox", name="Edge, strongest first")
    edge.click()
    tab.page.keyboard.press("ArrowDown")
    tab.page.keyboard.press("Enter")
    tab.settle()
    tab.wait_for_address(kind="edge")
    other = tab.page.get_by_role("combobox", name="Compare with")
    other.click()
    other.fill("DEC")
    tab.page.keyboard.press("Enter")
    tab.settle()
    tab.page.get_by_text(re.compile("INC and DEC share")).first.wait_for()


def test_a_link_restores_the_view(visit: Callable[..., Visit]) -> None:
    first = visit().open("circuit", op="DEC", kind="node", id="m1", program="INC DEC", step="2")
    first.page.get_by_role("heading", name="The circuit of DEC").wait_for()
    first.page.get_by_role("heading", name="MLP 1").wait_for()
    first.click("link", "Step")
    first.wait_for_status("step 2 of 3 · next DEC")
    second = visit()
    second.page.goto(first.page.url)
    second.settle()
    second.wait_for_status("step 2 of 3 · next DEC")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_screenshots_and_contrast(name: str, scheme: str, visit: Callable[..., Visit]) -> None:
    """A person's view of each page after a click; axe finds no contrast fault and no unnamed control."""
    tab = visit(scheme)
    tab.page.set_viewport_size({"width": 1360, "height": 1240})  # the page scrolls inside the window
    tab.open(PAGES[name], step="6")
    if name == "step":
        tab.click("button", "Next")
    elif name == "attention":
        tab.click("button", re.compile("^layer 1 head 2"))
    elif name == "probes":
        tab.click_probe()
    else:
        tab.page.locator("svg text", has_text="MLP 0").first.click()
        tab.settle()
    tab.page.mouse.move(0, 0)
    tab.page.wait_for_timeout(700)
    tab.page.screenshot(path=str(shot(name, scheme)))
    assert shot(name, scheme).stat().st_size > 20_000
    assert faults(tab) == []


RULES = ["color-contrast", "button-name", "link-name", "aria-valid-attr-value", "nested-interactive"]


def faults(tab: Visit) -> list[tuple[str, list[str]]]:
    """What axe finds against the rules."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab.page, options={"runOnly": RULES})
    return [(v["id"], [node["html"][:160] for node in v["nodes"]]) for v in found.response["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_another_run_is_picked_and_its_examples_are_walked(scheme: str, visit: Callable[..., Visit]) -> None:
    """From the Step page of one run to the stream of another, a step on, and into its attention and back."""
    tab = visit(scheme).open()
    tab.page.get_by_role("button", name=re.compile("^Run ")).first.click()
    tab.page.get_by_role("button", name=re.compile("trace_final")).wait_for()
    assert faults(tab) == []
    tab.page.screenshot(path=str(shot("picker", scheme)))
    tab.click("button", re.compile("trace_final"))
    tab.wait_for_status("held-out example 1 · step 1 of")
    tab.wait_for_run("trace_final").wait_for_address(program=None)
    tab.page.keyboard.press("ArrowRight")
    tab.wait_for_status("step 2 of")
    tab.wait_for_address(step="2")
    tab.page.get_by_role("button", name=re.compile(r"^stream\[3\]")).click()
    tab.wait_for_address(step="4")
    tab.settle()
    tab.page.mouse.move(0, 0)
    assert faults(tab) == []
    tab.page.screenshot(path=str(shot("examples_trace", scheme)))
    tab.click("link", "Attention")
    tab.wait_for_text("Where the heads look")
    tab.click("link", "Examples")
    tab.wait_for_status("step 4 of")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_next_mistake_shows_what_is_wrong(scheme: str, visit: Callable[..., Visit]) -> None:
    tab = visit(scheme).open(run=str(ROOT / "checkpoints" / "output"))
    tab.click("button", "Next mistake")
    tab.wait_for_status("predicted wrong ✗")
    tab.wait_for_text("Here the model is wrong")
    tab.settle()
    tab.page.mouse.move(0, 0)
    tab.page.wait_for_timeout(700)
    assert faults(tab) == []
    tab.page.screenshot(path=str(shot("examples_output", scheme)))
    assert shot("examples_output", scheme).stat().st_size > 20_000


def test_a_strangers_session(visit: Callable[..., Visit], mistaken: dict[str, str]) -> None:
    """Open, pick a run, find a mistake, ask why, set a variable, see the answer change, share the address."""
    tab = visit().open()
    tab.page.get_by_role("button", name=re.compile("^Run ")).first.click()
    tab.click("button", re.compile("noisy"))
    tab.wait_for_run("noisy")
    tab.page.get_by_role("button", name="Search for a mistake").click()
    tab.wait_for_text("Mistake found at held-out state")
    tab.settle()
    tab.wait_for_status("predicted wrong ✗")
    tab.click("button", re.compile("^Why. Circuit of"))
    tab.wait_for_text("Strongest edges:")
    tab.click("link", "Intervene")
    tab.wait_for_text("Nothing is edited: the model is right at")
    variable = tab.page.get_by_role("combobox", name="Variable")
    variable.click()
    variable.fill("array_ptr")
    tab.page.keyboard.press("Enter")
    tab.settle()
    tab.click("button", "Make the edit")
    tab.page.get_by_text(re.compile("1. set array_ptr to|set array_ptr to")).first.wait_for()
    verdict = tab.page.get_by_text(re.compile("The edited model (answers|does not answer) as the machine"))
    told = verdict.first.inner_text()
    assert tab.page.locator("table.edited .slot.changed").count() > 0  # its answer is another one now
    tab.page.wait_for_function("() => new URL(location).searchParams.has('edits')")
    tab.page.mouse.move(0, 0)
    tab.page.wait_for_timeout(500)
    tab.page.screenshot(path=str(shot("intervene", "light")))
    assert faults(tab) == []
    other = visit("dark")  # a tab of its own context: nothing is shared but the address
    other.page.goto(tab.page.url)
    other.settle()
    other.page.get_by_text(told).first.wait_for()
    other.page.mouse.move(0, 0)
    other.page.wait_for_timeout(500)
    assert faults(other) == []
    other.page.screenshot(path=str(shot("intervene", "dark")))
    other.page.get_by_role("button", name="Undo").focus()
    other.page.keyboard.press("Enter")
    other.settle()
    other.wait_for_text("Nothing is edited")
    other.wait_for_address(edits=None)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_stream_is_walked_and_its_tape_is_read(scheme: str, visit: Callable[..., Visit]) -> None:
    """A step on, an instruction picked, probes fitted, and to the attention of that step."""
    tab = visit(scheme)
    tab.page.set_viewport_size({"width": 1360, "height": 1240})
    tab.open("stream", run=str(ROOT / "checkpoints" / "trace_final"))
    tab.wait_for_status("held-out stream 1 · step 1 of")
    tab.page.keyboard.press("ArrowRight")
    tab.wait_for_status("step 2 of")
    tab.click("button", re.compile(r"^step 9, "))
    tab.wait_for_status("step 9 of")
    tab.wait_for_address(step="9")
    if tab.page.get_by_role("button", name="Fit probes and read").count():  # the first visit of the server
        tab.page.get_by_role("button", name="Fit probes and read").click()
    tab.wait_for_text("they read the pointer right in")
    tab.settle()
    tab.page.mouse.move(0, 0)
    tab.page.wait_for_timeout(700)
    assert faults(tab) == []
    tab.page.screenshot(path=str(shot("stream", scheme)))
    assert shot("stream", scheme).stat().st_size > 20_000
    tab.page.get_by_role("button", name=re.compile("Attention$")).first.click()
    tab.wait_for_text("Where the heads look")
    tab.click("link", "Stream")
    tab.wait_for_status("step 9 of")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_state_is_looked_into(scheme: str, visit: Callable[..., Visit], home: Path) -> None:
    """A delta net: its state along a stream, what probes read there, whose values its heads read."""
    folder = home / "runs" / "delta"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        untrained(folder, "trace", model=DeltaConfig)
    tab = visit(scheme)
    tab.page.set_viewport_size({"width": 1360, "height": 1500})
    tab.open("state", run=str(folder), step="5")
    tab.wait_for_status("step 5 of")
    tab.click_chart(0, 0.5, 0.4)
    tab.page.wait_for_function("() => new URL(location).searchParams.get('kind') === 'position'")
    tab.settle()
    if tab.page.get_by_role("button", name="Fit probes and read").count():
        tab.page.get_by_role("button", name="Fit probes and read").click()
    tab.wait_for_text("Right elsewhere: on other held-out examples")
    tab.wait_for_text("Effective attention, a heuristic")
    tab.settle()
    tab.page.mouse.move(0, 0)
    tab.page.wait_for_timeout(700)
    assert faults(tab) == []
    tab.page.screenshot(path=str(shot("state", scheme)))
    assert shot("state", scheme).stat().st_size > 20_000
    tab.click("link", "Attention")
    tab.wait_for_text("has no attention")


def shot(name: str, scheme: str) -> Path:
    SHOTS.mkdir(exist_ok=True)
    return SHOTS / f"{name}_{scheme}.png"
