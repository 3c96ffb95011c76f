"""The Intervene page without a browser: edits, undo, the address, and the recipe that gives the same answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import interp
from app import edit_places
from app.pages import PAGES
from interp.interventions import Edit, carry_out
from interp.worlds import World

Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]


def press(at: AppTest, key: str) -> AppTest:
    return next(button for button in at.button if button.key == key).click().run()


def box(at: AppTest, key: str):
    return next(each for each in at.selectbox if each.key == key)


def test_setting_a_variable_moves_the_answer_as_the_machine_says(
    open_page: Open, words: Words, run_folder: Path
) -> None:
    at = open_page("intervene", run_folder, program="INC NEXT DEC", cells="2.1", array_ptr="1")
    assert "Nothing is edited" in words(at)
    assert box(at, "edit_variable").value == "result"  # what the run's own swaps move mostly
    assert "result moved most with" in words(at)
    box(at, "edit_value").set_value(0).run()
    press(at, "make_edit")
    assert not at.exception and not at.error
    assert "1. set result to 0 at" in words(at)
    assert "The edited model answers as the machine would with result = 0" in words(at)
    assert "What should change, changed at **1 of 1** places" in words(at)
    edits = json.loads(at.query_params["edits"][0] if isinstance(at.query_params["edits"], list)
                       else at.query_params["edits"])  # fmt: skip
    assert edits[0]["variable"] == "result" and edits[0]["value"] == 0
    press(at, "undo_edit")
    assert "Nothing is edited" in words(at) and "edits" not in at.query_params


def test_the_python_on_the_page_gives_what_the_page_shows(open_page: Open, run_folder: Path) -> None:
    """What a person copies is executed."""
    run = interp.load(run_folder)
    edits = [
        {"kind": "set", "hook": "blocks.0.hook_resid_post", "positions": "array_ptr", "variable": "array_ptr",
         "value": 2},
        {"kind": "ablate", "hook": "blocks.1.attn.hook_z", "positions": "all", "head": 1, "ablation": "mean"},
    ]  # fmt: skip
    at = open_page("intervene", run_folder, program="INC NEXT DEC", cells="2.1.3", array_ptr="1",
                   edits=json.dumps(edits))  # fmt: skip
    assert not at.exception and not at.error
    recipe, code = (each.value for each in at.code)
    assert json.loads(recipe)["edits"] == edits and json.loads(recipe)["config"] == run.config.digest
    assert 8 <= len([line for line in code.splitlines() if line and not line.startswith(("import", "from"))]) <= 14
    told: dict = {}
    exec(compile(code, "recipe", "exec"), told)
    base = told["base"]
    assert base.array_ptr[0] == 1 and base.cells[0][2] == 3
    found = carry_out(run.model, run.task, base, [Edit.from_dict(each) for each in edits]).answer
    np.testing.assert_array_equal(told["answer"].after, found.after)
    assert (found.before != found.after).any()


def test_a_link_with_a_broken_recipe_is_told_and_left_out(open_page: Open, words: Words, run_folder: Path) -> None:
    at = open_page("intervene", run_folder, edits="[1]")
    assert not at.exception
    assert "a list of up to 8 edits was expected" in words(at) and "Nothing is edited" in words(at)
    gone = json.dumps([{"kind": "ablate", "hook": "blocks.9.hook_mlp_out"}])
    at = open_page("intervene", run_folder, edits=gone)
    assert not at.exception
    assert "This edit cannot be made: the model has no hook 'blocks.9.hook_mlp_out'" in words(at)
    press(at, "undo_edit")
    assert "Nothing is edited" in words(at)


def test_another_page_proposes_a_place(open_page: Open, run_folder: Path) -> None:
    at = open_page("circuit", run_folder, kind="node", id="a1.h2", op="INC")
    press(at, "to_intervene")
    while any("is loading" in caption.value for caption in at.caption):
        at.run()
    assert box(at, "edit_place").value == "blocks.1.attn.hook_z#2" and box(at, "edit_positions").value == "all"
    assert next(each for each in at.segmented_control if each.key == "edit_kind").value == "ablate"


@pytest.mark.parametrize("name", ["trace", "output"])
def test_worlds_without_a_next_state_are_edited_too(name: str, open_page: Open, words: Words) -> None:
    at = open_page("intervene", Path(__file__).resolve().parents[2] / "checkpoints" / name, example="4", step="3")
    press(at, "make_edit")
    assert not at.exception and not at.error
    assert "1. set " in words(at) and "edited model" in words(at)


class Silent(World):
    """A world that cannot be asked what would be."""

    name, unit = "silent", "document"

    def variables(self) -> dict:
        return {}

    draw = read = groups = strata = lambda self, *_, **__: None  # type: ignore[assignment]

    def to_dict(self) -> dict:
        return {}


def test_a_world_without_do_is_refused_in_a_sentence() -> None:
    class Config:
        world = Silent()

    class Told:
        config = Config()

    assert PAGES["intervene"].refuses(Told()) == (  # type: ignore[arg-type]
        "The world silent cannot be asked what would come out if one of its variables had another value, so there is "
        "nothing to hold an edit of the model against."
    )


@pytest.fixture
def attention_free() -> object:
    from interp.models import MODELS, build_model

    return build_model(MODELS["gru"].config(d_vocab=9, n_ctx=9, n_layers=1, d_model=16))


def test_places_are_what_a_model_declares(attention_free: object) -> None:
    found = edit_places.places(attention_free)
    assert not any(place.head is not None for place in found.values())
    assert set(attention_free.residual_hooks()) <= set(found)  # type: ignore[attr-defined]


def test_it_proposes_a_place_inside_the_model() -> None:
    """Before the first layer a swap edits the input, after the last one the answer: neither says anything."""
    run = interp.load(Path(__file__).resolve().parents[2] / "checkpoints" / "quickstart")
    last = run.model.residual_hooks()[-1]
    for name in ("result", "array_ptr", "operand"):
        best = edit_places.best_site(run, name)
        assert best is not None and best[0] != last and best[0] in run.model.residual_hooks()[1:]
