"""The app as a person uses it: Chromium, clicks and keys, light and dark, nothing fetched from elsewhere.

Screenshots of the pages are kept in tests/app/screenshots.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from .browser import MARKS, Visit, faults, shot

PAGES = {"step": "", "attention": "attention", "probes": "probes", "circuit": "circuit"}
pytestmark = MARKS


def test_something_real_before_the_model(visit: Callable[..., Visit], server: str) -> None:
    """The first test of the module: the first page is drawn while torch, the slow part, is not even imported."""
    tab = visit()
    tab.page.goto(server)
    tab.page.get_by_role("button", name="instruction 0").wait_for()
    tab.wait_for_status("step 1 of")
    tab.wait_for_text("The model is loading")
    tab.page.get_by_text(re.compile(r"The model is loading: .*, [123] of 3")).first.wait_for()
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
    tab.page.get_by_text(re.compile(r"The nearest state that is answered right has")).first.wait_for()
    tab.page.get_by_text(
        re.compile(r"of \d+ edges.*mend the whole answer|together.*do, and none|No edge")
    ).first.wait_for()
    tab.settle()
    tab.page.screenshot(path=str(shot("why", "light")))
    assert faults(tab) == []
    tab.choose_first("Look at one of them in the circuit")
    tab.wait_for_address(op=op, kind="edge")
    tab.settle()
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
    tab.page.locator("svg[role=group] text", has_text="MLP 0").first.click()
    tab.settle()
    tab.wait_for_address(kind="node", id="m0")
    tab.wait_for_text("the answer loses")
    tab.choose_first("Edge, strongest first")
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
        tab.page.locator("svg[role=group] text", has_text="MLP 0").first.click()
        tab.settle()
    tab.page.mouse.move(0, 0)
    tab.page.wait_for_timeout(700)
    tab.page.screenshot(path=str(shot(name, scheme)))
    assert shot(name, scheme).stat().st_size > 20_000
    assert faults(tab) == []
