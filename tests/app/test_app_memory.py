"""The Memory page: a slot machine's memory step by step, and what a content set by hand does."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import interp
from app import memory_data
from app.components.memory_table import Slot, memory_table
from app.examples_view import SEED
from app.memory_data import Setting
from app.run_access import LoadedModel
from cython_vm import slots as machine

BUNDLED = Path(interp.__file__).parents[1] / "checkpoints"


@pytest.fixture(scope="module", params=["slots_add", "slots_alu", "slots_strings"])
def loaded(request: pytest.FixtureRequest) -> LoadedModel:
    return LoadedModel(interp.load(BUNDLED / request.param), threading.Lock(), request.param)


def test_memories_are_the_machines(loaded: LoadedModel) -> None:
    task = loaded.run.task
    for number in range(3):
        found = memory_data.memories(loaded, loaded.key, number)
        example = task.sample(1, seed=SEED, start=number, split="evaluation").examples
        true = task.world.trace(example)[0]
        assert (found.true == true).all() and found.truth == tuple(task.world.answer(example).values[0])
        assert (found.model == true).all() and found.answer == found.truth, "both runs are right on what they learned"
        assert found.p.shape == (len(true), task.world.spec.n_slots) and (found.p > 0.5).all()


@pytest.mark.parametrize("step", [0, 3])
def test_a_content_that_is_set_runs_on(loaded: LoadedModel, step: int) -> None:
    task = loaded.run.task
    example = task.sample(1, seed=SEED, start=0, split="evaluation").examples
    slot = task.world.program.inputs[0]
    for value in (0, 9):
        after = memory_data.changed(loaded, loaded.key, 0, Setting(step, slot, value))
        row = task.world.trace(example, step)[0, -1].copy()
        row[task.world.spec.column("content", slot)] = value
        final = machine.run(task.world.spec, row[None], task.world.limit).final
        assert after.truth == tuple(np.asarray(task.world.program.contents(final))[0])
        assert after.model == after.truth


def test_a_row_says_what_differs() -> None:
    fields = ("ADC", "→ 1 a", "", "", "3")
    same = Slot("step[0]", fields, fields, 1.0, (False,) * 5, counter=True)
    other = Slot("a", fields, (*fields[:4], "4"), 0.25, (False, False, False, False, True), model_counter=True)
    html = memory_table([same, other], picked=1)
    rows = re.findall(r"<tr.*?</tr>", html, re.S)
    assert "▶" in rows[1] and "✗" not in rows[1] and "class='now'" in rows[1]
    assert "▷" in rows[2] and "<u>3</u> <span class='cross'>✗ 4</span>" in rows[2] and "class='picked'" in rows[2]
    assert "the model holds 1 of its fields otherwise" in rows[2]


def test_the_page(open_page: Callable[..., AppTest]) -> None:
    at = open_page("memory", BUNDLED / "slots_add", step="4")
    assert not at.exception
    assert "step 4 of" in at.markdown[0].value and "next **" in at.markdown[0].value
    assert any("slot for slot" in each.value for each in at.markdown)
    at.number_input[0].set_value(7)
    at.button[[each.label for each in at.button].index("Set it")].click().run()
    assert any("before step 4 the machine" in each.value for each in at.markdown)
    at.button(key="undo_set").click().run()
    assert not any("before step 4 the machine" in each.value for each in at.markdown)
    at.button(key="next").click().run()
    assert "step 5 of" in at.markdown[0].value
    assert not at.exception


def test_other_models_are_sent_elsewhere(open_page: Callable[..., AppTest], run_folder: Path) -> None:
    at = open_page("memory", run_folder)
    assert any("has no memory of slots" in each.value for each in [*at.info, *at.markdown, *at.warning])
