"""`cell[@array_ptr+k]` read and set, against the machine in slow Python."""

import dataclasses

import numpy as np
import pytest

from cython_vm import MachineSpec, Outcome, reference
from interp.tasks import Trace
from interp.tasks.options import TaskOptions
from interp.worlds.machine import MachineWorld
from interp.worlds.machine.relative import relative_name

SPEC = MachineSpec(n_instructions=24, n_cells=4, n_input=6, n_output=6, bits=3)
TASK = Trace(SPEC, TaskOptions(n_steps=24))


def state_at(examples, row: int, step: int):
    """The reference's state after `step` steps, None where the run has ended."""
    state = reference.to_state(examples, row)
    for _ in range(step):
        state, latents = reference.step(SPEC, state)
        if latents["outcome"] != Outcome.RAN:
            return None
    return state


@pytest.mark.parametrize("offset", [-2, 0, 1])
def test_read_and_set_by_hand(offset: int) -> None:
    world, examples = MachineWorld(SPEC), TASK.draw(60, seed=1)
    name, rng = relative_name(offset), np.random.default_rng(0)
    at = rng.integers(0, 12, len(examples))
    values = rng.integers(0, SPEC.max_value + 1, len(examples))
    read = world.read(examples, name, at)
    answer = world.answer(examples, do={name: values}, at=at)
    later = answer.after(at + 4)
    possible = 0
    for row in range(len(examples)):
        state = state_at(examples, row, at[row])
        place = -1 if state is None else state.array_ptr + offset
        if state is None or not 0 <= place < SPEC.n_cells:
            assert read[row] == -1
            assert not answer.valid[row]
            continue
        assert read[row] == state.cells[place]
        cells = list(state.cells)
        cells[place] = int(values[row])
        state = dataclasses.replace(state, cells=tuple(cells))
        for _ in range(4):
            state, _ = reference.step(SPEC, state)
        assert reference.to_state(later, row).cells == state.cells
        possible += 1
    assert possible > 20


def test_a_relative_cell_is_another_cell_as_the_pointer_moves() -> None:
    world, examples = MachineWorld(SPEC), TASK.draw(40, seed=2)
    at = np.full(len(examples), 9)
    pointer, relative = world.read(examples, "array_ptr", at), world.read(examples, relative_name(1), at)
    for cell in range(SPEC.n_cells - 1):
        here = pointer == cell
        np.testing.assert_array_equal(relative[here], world.read(examples, f"cell[{cell + 1}]", at)[here])


def test_offsets_beyond_the_tape_are_refused() -> None:
    with pytest.raises(ValueError, match="offsets up to 3"):
        MachineWorld(SPEC).variable("cell[@array_ptr+4]")


def test_labels_are_of_visited_cells_alone() -> None:
    batch = TASK.render(TASK.draw(30, seed=3))
    labels, checked = TASK.labels(batch, relative_name(1)), 0
    for row in range(len(batch)):
        visited: set[int] = set()
        for position in range(1, TASK.n_ctx):
            step = batch.step_of[row, position]
            state = state_at(batch.examples, row, step) if step >= 0 else None
            if state is None:
                continue
            visited.add(state.array_ptr)
            place = state.array_ptr + 1
            expected = state.cells[place] if place in visited else -1
            assert labels[row, position] == expected
            checked += expected >= 0
    assert checked > 50
