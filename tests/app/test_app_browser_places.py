"""Working in the app: runs picked, examples and streams walked, states looked into, a stranger's whole session."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from interp.models.state_configs import DeltaConfig, MambaConfig

from .browser import MARKS, PATIENCE, ROOT, Visit, faults, shot
from .test_app_examples import untrained

pytestmark = MARKS


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
    photograph(tab, "examples_output", scheme)


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
    photograph(tab, "stream", scheme)
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
    for _ in range(5):  # a click on a chart that is drawn anew at that moment is lost
        if "kind" not in tab.address:
            tab.click_chart(0, 0.5, 0.4)
    tab.page.wait_for_function("() => new URL(location).searchParams.get('kind') === 'position'")
    tab.settle()
    if tab.page.get_by_role("button", name="Fit probes and read").count():
        tab.page.get_by_role("button", name="Fit probes and read").click()
    tab.wait_for_text("Right elsewhere: on other held-out examples")
    tab.wait_for_text("Effective attention, a heuristic")
    photograph(tab, "state", scheme)
    assert not tab.page.get_by_role("link", name="Attention").count()  # it has none, and a link to it says so
    tab.open("attention", run=str(folder))
    tab.wait_for_text("has no attention")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_training_leads_to_a_kept_step(scheme: str, visit: Callable[..., Visit]) -> None:
    """Curves on one axis; a kept step picked by keyboard is opened on every page."""
    tab = visit(scheme)
    tab.page.set_viewport_size({"width": 1360, "height": 1240})
    tab.open("training", run=str(ROOT / "checkpoints" / "step_inplace"))
    tab.wait_for_text("Circuit formed")
    box = tab.page.get_by_role("combobox", name=re.compile("[Ww]eights|[Ss]tep")).first
    box.focus()
    box.press("ArrowDown")
    box.press("ArrowDown")
    box.press("Enter")
    tab.page.wait_for_function("() => new URL(location).searchParams.has('weights')")
    tab.settle()
    kept = tab.address["weights"]
    tab.page.get_by_text(re.compile(f"step_inplace@{kept}")).first.wait_for()
    photograph(tab, "training", scheme)
    tab.click("link", "Probes")
    tab.page.get_by_text(re.compile(f"step_inplace@{kept}")).first.wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_data_offers_its_files(scheme: str, visit: Callable[..., Visit]) -> None:
    """At the first click, whether or not a model loads meanwhile."""
    tab = visit(scheme)
    tab.page.set_viewport_size({"width": 1360, "height": 1240})
    tab.open("data")
    tab.wait_for_text("tapelens probe")
    photograph(tab, "data", scheme)
    button = tab.page.get_by_test_id("stDownloadButton").get_by_role("button").first
    with tab.page.expect_download(timeout=PATIENCE) as offered:
        button.click()
    assert Path(offered.value.path()).stat().st_size > 100


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_edit_is_made_and_undone_by_keyboard(scheme: str, visit: Callable[..., Visit]) -> None:
    tab = visit(scheme)
    tab.page.set_viewport_size({"width": 1360, "height": 1240})
    tab.open("intervene", step="6")
    tab.wait_for_text("Nothing is edited: the model is right at")
    tab.page.get_by_role("button", name="Make the edit").focus()
    tab.page.keyboard.press("Enter")
    tab.page.wait_for_function("() => new URL(location).searchParams.has('edits')")
    tab.page.get_by_text(re.compile("The edited model (answers|does not answer) as the machine")).first.wait_for()
    photograph(tab, "intervene", scheme)
    tab.page.get_by_role("button", name="Undo").focus()
    tab.page.keyboard.press("Enter")
    tab.wait_for_text("Nothing is edited")
    tab.wait_for_address(edits=None)


def test_a_run_is_picked_by_keyboard(visit: Callable[..., Visit]) -> None:
    tab = visit().open()
    tab.page.get_by_role("button", name=re.compile("^Run ")).first.focus()
    tab.page.keyboard.press("Enter")
    choice = tab.page.get_by_role("button", name=re.compile("^output ·"))
    choice.wait_for()
    choice.focus()
    tab.page.keyboard.press("Enter")
    tab.wait_for_run("output")
    tab.wait_for_status("held-out example 1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_an_edge_is_followed_from_place_to_place(scheme: str, visit: Callable[..., Visit]) -> None:
    """Where the instruction is fetched can be seen, read in a sentence, and clicked."""
    tab = visit(scheme)
    tab.page.set_viewport_size({"width": 1360, "height": 1500})
    tab.open("circuit", op="INC")
    tab.wait_for_text("Where it happens: INC from place to place")
    tab.page.get_by_text(re.compile("What decides it is read from the instruction that runs by L1H2")).first.wait_for()
    tab.page.locator("svg text", has_text="the instruction that runs").first.wait_for()
    tab.page.locator("svg text", has_text="the cell under the pointer").first.wait_for()
    photograph(tab, "places", scheme)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_cross_attention_is_chosen(scheme: str, visit: Callable[..., Visit]) -> None:
    """From the answer at the prompt, its tokens beside the places; then the encoder's own."""
    tab = visit(scheme)
    tab.page.set_viewport_size({"width": 1360, "height": 1500})
    tab.open("attention", run=str(ROOT / "checkpoints" / "step_encoder_decoder"))
    tab.wait_for_text("of cross-attention")
    tab.wait_for_text("From next.cells[0] = 1 it looks most at cells[0] = 0")
    tab.page.locator('[data-testid="stEChartsChart"] canvas').first.wait_for()
    photograph(tab, "cross_attention", scheme)
    tab.click("radio", "encoder self-attention")
    tab.wait_for_text("of encoder self-attention")


def test_a_model_without_attention_says_where_to_look(visit: Callable[..., Visit], home: Path) -> None:
    folder = home / "runs" / "mamba"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        untrained(folder, "trace", model=MambaConfig)
    tab = visit().open("attention", run=str(folder))
    tab.wait_for_text("A model of the kind mamba has no attention")
    tab.wait_for_text(
        "Pages that have nothing to show for this run are left out: Attention, Memory, Thinking, Circuit."
    )
    bar = tab.page.get_by_test_id("stTopNavLinkContainer")
    assert bar.filter(has_text="State").count() and not bar.filter(has_text="Attention").count()
    tab.click("link", "State")
    tab.wait_for_status("step 1 of")
    photograph(tab, "state_mamba", "light")


def test_the_first_page_under_its_own_address_is_marked(visit: Callable[..., Visit]) -> None:
    """A link to it by name, from where it was not the first, leads to the bare address and keeps what was picked."""
    tab = visit().open("step", step="3")
    tab.wait_for_status("step 3 of")
    tab.page.wait_for_function("() => location.pathname === '/'")
    tab.wait_for_address(step="3")
    assert tab.page.locator('a[aria-current="page"]').inner_text().endswith("Step")


def photograph(tab: Visit, name: str, scheme: str) -> None:
    """A settled page's picture, and axe on it."""
    tab.settle()
    tab.page.mouse.move(0, 0)
    tab.page.wait_for_timeout(700)
    tab.page.screenshot(path=str(shot(name, scheme)))
    assert shot(name, scheme).stat().st_size > 20_000
    assert faults(tab) == []
