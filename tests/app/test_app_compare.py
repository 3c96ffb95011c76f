"""The Compare page without a browser: two runs' own rows on one scale, filters, and addresses that share the view."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import interp
from app import compared
from app.components.pairs import pairs
from interp.studies.comparing import answers_of

ROOT = Path(__file__).resolve().parents[2]
OTHER = "checkpoints/step_inplace"
Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]


def box(at: AppTest, key: str):  # type: ignore[no-untyped-def]
    return next(each for each in at.selectbox if each.key == key)


@pytest.fixture(autouse=True)
def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_an_address_shares_the_view(open_page: Open, words: Words) -> None:
    run = ROOT / "checkpoints" / "quickstart"
    at = open_page("compare", run, against=OTHER, question="used", variable="operand", op="INC")
    assert not at.exception and not at.error
    shown = [box(at, f"compare_{key}").value for key in ("against", "question", "variable", "op")]
    assert shown == [OTHER, "used", "operand", "INC"]
    table = at.dataframe[0].value
    estimates = [
        next(
            e.estimate
            for e in answers_of(interp.load(each))
            if (e.question, e.item, e.op) == ("used", "operand", "INC")
        )
        for each in (run, ROOT / OTHER)
    ]
    assert table[["quickstart", "step_inplace"]].to_numpy().tolist() == [[f"{each:.3f}" for each in estimates]]
    assert table["difference"].tolist() == [f"{estimates[1] - estimates[0]:+.3f}".replace("-", "−")]
    first, second = (f"{each:.3f}" for each in estimates)
    assert f"**quickstart** is higher at **operand**: {first} and {second}" in words(at)
    box(at, "compare_question").set_value("circuit").run()
    asked = {name: at.query_params[name] for name in ("against", "question", "op")}
    assert {name: value[0] if isinstance(value, list) else value for name, value in asked.items()} == {
        "against": OTHER, "question": "circuit", "op": "INC",
    }  # fmt: skip
    assert at.dataframe[0].value[""].tolist() == ["INC"]
    box(at, "compare_op").set_value("all").run()
    assert len(at.dataframe[0].value) == 9


def test_a_link_to_no_run_is_told(open_page: Open, words: Words) -> None:
    at = open_page("compare", ROOT / "checkpoints" / "quickstart", against="/etc", question="used")
    assert not at.exception and "The link compares with '/etc', which is none of the runs here." in words(at)
    assert box(at, "compare_question").value == "used"


def test_what_was_not_measured_on_both_has_its_command(open_page: Open, bare_run: Path, words: Words) -> None:
    at = open_page("compare", bare_run, against=OTHER)
    assert not at.exception and not at.error
    assert "Nothing was asked of both runs." in words(at)
    assert any(code.value.startswith("tapelens probe") for code in at.code)


def test_tasks_that_differ_are_told(open_page: Open, words: Words) -> None:
    at = open_page("compare", ROOT / "checkpoints" / "trace", against=OTHER)
    assert not at.exception
    assert "trace is about trace, step_inplace about step_inplace" in words(at)


def test_a_run_of_the_same_world_is_held_against_it_and_none_of_another(open_page: Open, words: Words) -> None:
    at = open_page("compare", ROOT / "checkpoints" / "sticky_n4")
    assert not at.exception and box(at, "compare_against").value == "checkpoints/counting"  # the first of its world
    at = open_page("compare", ROOT / "checkpoints" / "text_small")
    assert not at.exception and not at.error and box(at, "compare_against").value is None
    assert "No other run of the world text is here." in words(at)
    box(at, "compare_against").set_value(OTHER).run()
    assert not at.exception and "text_small is about text, step_inplace about step_inplace" in words(at)


def test_both_runs_have_one_scale_and_differences_another() -> None:
    drawing = pairs(["op", "result"], ([0.5, 1.0], [0.25, 1.0]), ([0.1, None], [0.2, 0.3]), names=("a", "b"))
    assert [(axis["min"], axis["max"]) for axis in drawing["xAxis"]] == [(0, 1), (-1, 1)]
    by_name = {each["name"]: each["data"] for each in drawing["series"]}
    assert by_name["a"] == [0.5, 1.0] and by_name["control of a"] == [[0.1, "op"]]
    assert [each["value"] for each in by_name["difference"]] == [-0.25, 0.0]
    labels = [each["label"]["formatter"] for each in drawing["series"][-1]["data"]]
    assert labels == ["−0.25", "0"]
    bare = pairs(["op"], ([0.5], [0.499]), ([None], [None]), names=("a", "b"))  # nothing to hold them against
    assert [each["name"] for each in bare["series"]] == ["a", "b", "difference"]
    assert bare["series"][-1]["data"][0]["label"]["formatter"] == "0"
    assert "decal" in drawing["series"][1]["itemStyle"] and "decal" not in drawing["series"][0]["itemStyle"]


def test_few_examples_are_not_drawn() -> None:
    first, second = (interp.load(ROOT / "checkpoints" / name) for name in ("quickstart", "step_inplace"))
    rows, _ = compared.together(first, second)
    some = rows.head(3).assign(n_1=[19, 20, None], n_2=[100, 20, 20])
    assert compared.drawn(some).index.tolist() == some.index[1:].tolist()
