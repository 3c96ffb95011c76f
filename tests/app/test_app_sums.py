"""The Sum page: digits, carries and cascades of held-out and typed sums, and what the model says of each digit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from app.components.sum_board import Column, sum_board
from app.sums_view import parse
from interp.models import build_model
from interp.runs import RunConfig, load, save_weights, write_config
from interp.stage_options import CircuitOptions
from interp.studies.circuit_stage import circuit_stage
from interp.tasks.options import AdditionOptions
from interp.training import TrainingConfig
from interp.training.presets import transformer_for
from interp.worlds.addition import Addition

Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]


def untrained(folder: Path, world: Addition, options: AdditionOptions) -> Path:
    """A run folder of a tiny model with its first weights, which adds almost nothing right."""
    model = transformer_for("addition", world, options=options, n_layers=1, n_heads=2, d_model=16)
    config = RunConfig("addition", world, model, TrainingConfig(), options=options)
    folder.mkdir()
    write_config(folder, config)
    save_weights(folder / "model.safetensors", build_model(config.model), config, step=1)
    return folder


@pytest.fixture(scope="module")
def wrong_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbers of any length, in base 16, with spare slots."""
    folder = tmp_path_factory.mktemp("runs") / "wrong"
    return untrained(folder, Addition(n_digits=3, base=16), AdditionOptions(leading_zeros=False, spare=True))


@pytest.fixture(scope="module")
def decimal_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four digits in decimal, all of the answer said at once, with the circuits of its contrasts."""
    folder = tmp_path_factory.mktemp("runs") / "decimal"
    untrained(folder, Addition(n_digits=4), AdditionOptions(at_once=0))
    circuit_stage(load(folder), CircuitOptions(ops=("carry into 1", "cascade 3"), n_pairs=16, measure=()))
    return folder


def boards(at: AppTest) -> str:
    """The HTML of the page's drawings, as the browser is given it: twice escaped."""
    text = " ".join(str(each.proto) for each in at.get("bidi_component")).replace("\\", "")
    return text.replace("u2190", "←").replace("u2717", "✗").replace("u2713", "✓")


def test_a_typed_sum_is_followed_carry_by_carry(open_page: Open, words: Words, decimal_run: Path) -> None:
    at = open_page("sums", decimal_run, sum="999 1")
    assert not at.exception and not at.error
    said = words(at)
    assert "your sum 999+1" in said and "cascade 3" in said
    run = load(decimal_run)
    batch = run.task.render(run.config.world.examples([(999, 1)]))  # type: ignore[attr-defined]
    right = run.task.right(run.model.answer(run.task, batch), batch)[0]
    assert ("right ✓" if right else "wrong ✗") in said
    assert "The digits of place 0 make the carry that comes into place 1." in said
    board = boards(at)
    assert "lets a carry through" in board and "←←←" in board
    at.session_state["sum_place"] = 3
    at.run()
    assert "has come 3 places: place 0 makes it, and places 1, 2 let it through." in words(at)
    at.text_input(key="typed_sum").set_value("5 + 12345").run()
    assert any("'12345' has more digits than the 4" in each.value for each in at.warning)
    at.text_input(key="typed_sum").set_value("50 + 49").run()
    assert "your sum 50+49" in words(at) and "no carry" in words(at)
    next(button for button in at.button if button.key == "next_sum").click().run()
    assert "held-out sum 1" in words(at)


def test_the_circuit_of_a_carry_is_one_click_away(open_page: Open, words: Words, decimal_run: Path) -> None:
    at = open_page("sums", decimal_run, sum="999 1")
    next(button for button in at.button if button.key == "to_circuit").click().run()
    assert not at.exception and "The circuit of carry into 1" in words(at)
    at = open_page("circuit", decimal_run, op="Cascade 3")
    assert not at.exception and not at.error and "The circuit of cascade 3" in words(at)


def test_mistakes_are_marked_and_found(open_page: Open, words: Words, wrong_run: Path) -> None:
    at = open_page("sums", wrong_run)
    assert not at.exception and not at.error
    assert "base 16" in words(at)
    next(button for button in at.button if button.key == "next_mistake").click().run()
    assert "wrong ✗" in words(at) and "✗" in boards(at)
    bad = open_page("sums", wrong_run, sum="1G 2")
    assert "'1G' is no number in base 16" in words(bad)


def test_what_a_person_types_is_a_sum_of_the_world_or_refused() -> None:
    world = Addition(n_digits=3, base=16)
    assert parse(world, " ff+ 0a1 ") == (255, 161)
    for text, wrong in (("1", "Type 2 numbers"), ("1 2 3", "Type 2 numbers"), ("1 x", "is no number in base 16")):
        with pytest.raises(ValueError, match=wrong):
            parse(world, text)


def test_the_board_tells_right_from_wrong_without_colour() -> None:
    columns = [
        Column(0, ("9", "1"), 0, 0, "10", "makes a carry", "0", "0", 1.0),
        Column(1, ("", ""), 1, 1, "0", "", "1", "2", 0.6),
    ]
    html = sum_board(columns, "ab", picked=1)
    assert html.index('data-pick="1"') < html.index('data-pick="0"'), "the highest place stands left"
    assert html.count("✓") == 1 and html.count("✗") == 1 and "a carry of 1 comes in, which has come 1 place" in html
