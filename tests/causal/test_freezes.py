"""Pairs for the ways to freeze: clean freezes, corrupted is the same instruction and runs."""

import numpy as np
import pytest

from cython_vm import MachineSpec, Outcome, program_hash, step
from interp.circuits import FREEZES, draw_pairs, freezes
from interp.tasks import TASKS


@pytest.mark.parametrize("outcome", list(FREEZES))
def test_one_cause_is_taken_away(inplace, outcome):
    pairs = draw_pairs(inplace, outcome, 24, seed=3, half=1)
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
    assert freezes(spec) == (Outcome.VALUE_OVERFLOW, Outcome.VALUE_UNDERFLOW)
    assert len(freezes(MachineSpec())) == 6
    with pytest.raises(ValueError, match="HALTED has no pairs of its own"):
        draw_pairs(TASKS["step_inplace"](spec), Outcome.HALTED, 2, seed=0)
