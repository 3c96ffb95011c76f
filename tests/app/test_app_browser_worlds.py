"""Pages of other worlds than the machine, in a browser: text and the slot memory. Other runs than the server's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import interp

from .browser import Visit, faults, marked, shot

BUNDLED = Path(interp.__file__).parents[1] / "checkpoints"
SCHEMES = pytest.mark.parametrize("scheme", ["light", "dark"])


@marked
@SCHEMES
def test_a_text_in_a_browser(visit: Callable[..., Visit], scheme: str) -> None:
    tab = visit(scheme).open("text", run=str(BUNDLED / "text_small"), prompt="each modul")
    tab.wait_for_status("next e, p = ")
    assert faults(tab) == []
    field = tab.page.get_by_role("textbox", name="Prompt", exact=True)
    field.focus()  # by keyboard: written over, and sent off
    tab.page.keyboard.press("Control+A")
    tab.page.keyboard.type("each objec")
    tab.page.keyboard.press("Control+Enter")
    tab.wait_for_status("next t, p = ")
    tab.settle().wait_for_address(prompt="each objec")
    assert faults(tab) == []
    tab.page.screenshot(path=str(shot("text", scheme)))


@marked
@SCHEMES
def test_a_slot_memory_in_a_browser(visit: Callable[..., Visit], scheme: str) -> None:
    tab = visit(scheme).open("memory", run=str(BUNDLED / "slots_add"), step="4")
    tab.wait_for_status("step 4 of")
    assert faults(tab) == []
    tab.settle().page.keyboard.press("ArrowRight")
    tab.wait_for_status("step 5 of")
    tab.settle().wait_for_address(step="5")
    assert faults(tab) == []
    tab.page.screenshot(path=str(shot("memory", scheme)))
