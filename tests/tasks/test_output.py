"""What a program prints if a variable is changed on the way."""

from __future__ import annotations

import numpy as np

import cython_vm
from cython_vm import MachineSpec
from interp.tasks import Output
from interp.tasks.options import OutputOptions, StreamOptions
from interp.worlds import in_split

SPEC = MachineSpec(n_instructions=10, n_cells=3, n_input=2, n_output=3, bits=2)
TASK = Output(SPEC, StreamOptions(n_steps=16))


def test_a_variable_is_set_at_any_executed_step() -> None:
    """Against running base step by step; at the first step alone nothing but the program and its input would differ."""
    pairs = TASK.counterfactual(60, "array_ptr", seed=0)
    assert (pairs.edit_time > 0).any() and (pairs.source_time > 0).any()
    assert pairs.changes.any(), "do(array_ptr) changes what is printed"
    block = SPEC.layout.slice("output")
    for row in range(60):
        state = pairs.base.examples[row : row + 1]
        for time in range(16):
            do = {"array_ptr": pairs.values[row : row + 1]} if time == pairs.edit_time[row] else None
            state = cython_vm.step(state, do=do).next
        assert (cython_vm.encode(state)[0, block] == pairs.expected[row].numpy()).all()


def test_units_are_the_reachable_program_with_its_input() -> None:
    task = Output(SPEC, StreamOptions(n_steps=16, units="shown"))
    starts = task.draw(200, seed=1, split="evaluation")
    assert in_split(task.groups(starts), "evaluation").all()
    unread = starts.replace("instruction_ptr", 0)
    assert (task.groups(unread) == task.groups(starts)).all()
    other = starts.replace("input", (starts.input + 1) % 4 * (np.arange(2) < starts.input_length[:, None]))
    changed = (other.input != starts.input).any(axis=1)
    assert (task.groups(other)[changed] != task.groups(starts)[changed]).all()


def test_even_draws_run_every_number_of_steps_and_end() -> None:
    task = Output(SPEC, OutputOptions(n_steps=12, units="shown", even=True))
    starts = task.draw(48, seed=1, split="validation")
    assert in_split(task.groups(starts), "validation").all()
    run = cython_vm.run(starts, 13, keep="last")
    assert run.n_steps.tolist() == [1 + row % 12 for row in range(48)]  # and none goes on
    again = task.draw(20, seed=1, start=7, split="validation")
    assert (cython_vm.encode(again) == cython_vm.encode(starts[np.arange(7, 27)])).all()


def test_runs_that_are_cut_are_told_apart() -> None:
    task = Output(SPEC, OutputOptions(n_steps=4))
    batch = task.sample(300, seed=2)
    rows = task.score(batch.targets[:, task.slots], batch)
    cut = rows.loc[rows["stratum"] == "cut at 4 steps", "n"].item()
    ended = rows.loc[rows["stratum"] == "04 steps", "n"].item()
    longer = cython_vm.run(batch.examples, 100, keep="last").n_steps
    assert (cut, ended) == ((longer > 4).sum(), (longer == 4).sum())
