"""Pairs for the ways to freeze: clean freezes, corrupted is the same instruction and runs."""

import numpy as np
import pytest

from cython_vm import MachineSpec, Outcome, program_hash, step
from interp.circuits import draw_pairs, other_contrasts
from interp.tasks import TASKS
from interp.worlds import as_world
from interp.worlds.machine import FREEZES


@pytest.mark.parametrize("outcome", list(FREEZES))
def test_one_cause_is_taken_away(inplace, outcome):
    pairs = draw_pairs(inplace, outcome.name, 24, seed=3, half=1)
    clean, corrupted = pairs.clean.examples, pairs.corrupted.examples
    before, after = step(clean), step(corrupted)
    assert (before.outcome == outcome).all()
    assert (after.outcome == Outcome.RAN).all()
    assert (before.latents["op"] == FREEZES[outcome]).all()
    assert (clean.instruction_ptr == corrupted.instruction_ptr).all()
    assert (clean.program == corrupted.program).all()
    assert (program_hash(clean) % 20 == 0).all()
    # the instruction pointer's own slot is compared in every pair: it stays in one and moves in the other
    pointer = inplace.spec.layout.slice("instruction_ptr").start + clean.instruction_ptr.astype(int)
    assert (pairs.weights.numpy()[np.arange(24), pointer] > 0).all()
    changed = {
        "array_ptr": (clean.array_ptr != corrupted.array_ptr).any(),
        "cells": (clean.cells != corrupted.cells).any(),
        "input": (clean.input_length != corrupted.input_length).any(),
        "output": (clean.output_length != corrupted.output_length).any(),
    }
    assert sum(changed.values()) == 1


def test_a_machine_has_the_freezes_that_it_can_leave():
    spec = MachineSpec(n_instructions=4, n_cells=1, n_input=0, n_output=0, bits=1, io=False)
    task, default = (TASKS["step_inplace"](as_world(each)) for each in (spec, MachineSpec()))
    assert other_contrasts(task) == ("VALUE_OVERFLOW", "VALUE_UNDERFLOW")
    assert len(other_contrasts(default)) == 6
    assert {default.contrast(name).kind for name in other_contrasts(default)} == {"freeze"}
    with pytest.raises(ValueError, match="has no contrast 'HALTED'; it has NEXT"):
        draw_pairs(task, "HALTED", 2, seed=0)
