"""Where edges read and write on the Circuit page, and how far a model has loaded; without a browser."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from streamlit.testing.v1 import AppTest

from app import run_access
from app.components.position_graph import DrawnRoute, place_words, position_graph

Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]
PLACES = ["instruction_ptr[@instruction_ptr]", "instruction_ptr", "instructions[@instruction_ptr]", "instructions"]


def test_the_page_says_where_the_instruction_is_fetched(open_page: Open, words: Words, copied_run: Path) -> None:
    at = open_page("circuit", copied_run, op="INC")
    assert not at.exception and not at.error
    assert "the answer is said at *the cell under the pointer*" in words(at)
    assert "is read from *the instruction that runs* by **L1H2**" in words(at)
    assert any(stage.endswith("3 of 3") for stage in run_access._stages.values())
    shutil.rmtree(copied_run / "circuits" / "routes")
    at.run()
    assert any(code.value.endswith("--measure routes") for code in at.code)


def test_a_line_stays_in_its_row_unless_a_head_brings_something() -> None:
    routes = [
        DrawnRoute("input", "a0.h1<v>", PLACES[0], PLACES[2], 4.0),
        DrawnRoute("a0.h1", "m0", PLACES[2], PLACES[2], -1.0),
    ]
    option, nodes = position_graph(routes, places=PLACES, parts=["input", "a0.h0", "a0.h1", "m0"], picked="m0")
    series = option["series"][0]
    places = {node["name"]: node["value"] for node in series["data"]}
    rows = [(places[link["source"]][1], places[link["target"]][1]) for link in series["links"]]
    assert rows == [(0, 1), (1, 1)]
    assert nodes == ["input", "a0.h1", "m0"] == [name.split(" at ")[0] for name in places]
    assert option["yAxis"]["data"] == ["instruction pointer: where it is", "the instruction that runs"]
    assert [link["lineStyle"]["type"] for link in series["links"]] == ["solid", "dashed"]


def test_places_in_words() -> None:
    assert place_words("instructions", PLACES) == "other instructions"
    assert place_words("input", PLACES) == "input"
    assert place_words("next.cells", PLACES) == "next: cells"
    assert place_words("stack[@top]", PLACES) == "stack at top"
