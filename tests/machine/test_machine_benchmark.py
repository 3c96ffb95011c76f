"""What `tapelens bench machine` compares does the same work on both sides. Nothing here is timed."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import numpy as np
import pytest

from benchmarks.machine import BATCH, long_runs, make_records, rate_row, rows, step_by_step
from benchmarks.numpy_machine import NumpyMachine
from cython_vm import MachineSpec, Outcome, decode, encode, reference, run, sample, step

SPECS = {
    "default": MachineSpec(),
    "no buffers, one cell": MachineSpec(n_instructions=8, n_cells=1, n_input=0, n_output=0, bits=7),
    "one slot": MachineSpec(n_instructions=1, n_cells=3, bits=2),
    "long": MachineSpec(n_instructions=40, n_cells=12, n_input=9, n_output=3, bits=1, stops=False),
    "no loops": MachineSpec(loops=False),
    "no io": MachineSpec(io=False, n_cells=2),
}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_numpy_steps_and_encodes_as_the_kernels_do(spec: MachineSpec) -> None:
    tokens, next_tokens, latents = NumpyMachine(spec).records(3000, np.random.default_rng(0))
    states = decode(spec, tokens)  # refuses what is no state of this machine
    after = step(states)
    np.testing.assert_array_equal(next_tokens, encode(after.next))
    assert list(latents) == list(after.latents)
    for name, values in after.latents.items():
        np.testing.assert_array_equal(latents[name], values, err_msg=name)
        assert latents[name].dtype == values.dtype


@pytest.mark.parametrize("switches", [{}, {"stops": False}, {"io": False}, {"loops": False}], ids=str)
def test_numpy_draws_programs_uniformly(switches: dict[str, Any]) -> None:
    spec = MachineSpec(n_instructions=5, n_cells=2, n_input=1, n_output=1, bits=1, **switches)
    programs = list(reference.all_programs(spec))
    n = 100 * len(programs)
    drawn = decode(spec, NumpyMachine(spec).sample(n, np.random.default_rng(1)).tokens).program
    counts = Counter(map(bytes, drawn))
    assert set(counts) <= {bytes(program) for program in programs}
    observed = np.array([counts[bytes(program)] for program in programs])
    chi_square, freedom = ((observed - 100) ** 2 / 100).sum(), len(programs) - 1
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)  # five standard deviations


def test_numpy_draws_pointers_lengths_and_values_as_the_sampler_does() -> None:
    """Each marginal of 60,000 states of either side, compared value by value at five standard errors."""
    spec, n = MachineSpec(n_cells=3, n_input=4, bits=3), 60_000
    theirs = decode(spec, NumpyMachine(spec).sample(n, np.random.default_rng(2)).tokens)
    ours = sample(spec, n, seed=2)
    for name in ("instruction_ptr", "array_ptr", "input_length", "output_length"):
        _same_shares(getattr(ours, name), getattr(theirs, name), name)
    for block in ("program", "cells", "input", "output"):
        for slot in range(getattr(ours, block).shape[1]):
            _same_shares(getattr(ours, block)[:, slot], getattr(theirs, block)[:, slot], f"{block}[{slot}]")
    spread = ours.cells.astype(float).mean(axis=1).var(), theirs.cells.astype(float).mean(axis=1).var()
    assert spread[0] == pytest.approx(spread[1], rel=0.05)  # the cells of a row share one shape
    assert spread[0] > 1.2 * ours.cells[:, 0].astype(float).var() / 3


def _same_shares(ours: np.ndarray, theirs: np.ndarray, name: str) -> None:
    a, b = (np.bincount(values, minlength=256) / len(values) for values in (ours, theirs))
    error = np.sqrt((a + b) / len(ours))
    assert (np.abs(a - b) <= 5 * error).all(), f"{name}: {a[a + b > 0]} and {b[a + b > 0]}"


def test_numpy_refuses_more_tokens_than_a_byte_holds() -> None:
    with pytest.raises(ValueError, match="at most 256 tokens"):
        NumpyMachine(MachineSpec(bits=8))


def test_records_of_two_ranges_are_those_of_one() -> None:
    """The threads' halves together are the rows that one thread makes."""
    spec = MachineSpec(n_instructions=6, n_cells=3)
    records = make_records(spec, range(1, 2), seed=7)
    tokens, next_tokens, latents = step_by_step(spec, 1, seed=7)
    states = sample(spec, 2 * BATCH, seed=7)[BATCH:]
    for before, after in ((records["state"], records["next_state"]), (tokens, next_tokens)):
        np.testing.assert_array_equal(before, encode(states))
        np.testing.assert_array_equal(after, encode(step(states).next))
    for name, values in step(states).latents.items():
        np.testing.assert_array_equal(records[name], values)
        np.testing.assert_array_equal(latents[name], values)


def test_long_runs_are_long_and_both_sides_run_them_alike() -> None:
    states = long_runs(MachineSpec(), 30, seed=0)
    trace = run(states, 100, keep="last")
    assert len(states) == 30 and trace.n_steps.min() >= 32
    for row in range(len(states)):
        path = reference.run(states.spec, reference.to_state(states, row), 100)
        assert len(path) - 1 == trace.n_steps[row]
        assert path[-1] == reference.to_state(trace.final, row)


def test_what_does_not_run_costs_no_steps() -> None:
    """A limit of 10^15 steps: a row that halted, froze or will soon do so ends there, or this test never does."""
    states = sample(MachineSpec(loops=False), 5000, seed=3)
    trace = run(states, 10**15, keep="all")
    assert trace.stopped.all() and trace.n_steps.max() < states.spec.n_instructions
    assert {Outcome.HALTED, Outcome.ARRAY_OVERFLOW, Outcome.INPUT_EMPTY} <= set(trace.outcome.tolist())
    again = run(trace.final, 10**15, keep="all")
    assert again.states is not None and len(again.states) == len(states)  # one recorded state each, no more
    assert again.final == trace.final and not again.n_steps.any()


def test_rows_are_complete(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="benchmarks.machine"):
        found = rows(spec=MachineSpec(n_instructions=8, n_cells=4), size=0.01, rounds=2)
    assert [row["name"] for row in found] == [
        "labelled_records",
        "run_last_state",
        "run_all_states",
        "step_do",
        "two_threads",
    ]
    for row in found:
        assert set(row) == {"name", "ours", "peer", "peer_name", "ratio", "unit"}
        assert min(row["ours"], row["peer"], row["ratio"]) > 0
    assert all(word in caplog.text for word in ("drawing states", "stepping and writing", "random words", "memcpy"))


def test_a_ratio_compares_the_two_sides_of_a_round() -> None:
    """Neighbours that slow both sides of some rounds move the median rates, and not the ratio."""
    ours, peer = np.array([1.0, 1, 1, 4, 4]), np.array([2.0, 2, 2, 8, 8])
    assert rate_row("row", (10, ours), (10, peer), "peer", "records/s")["ratio"] == 2
    shifted = rate_row("row", (10, np.array([1.0, 1, 4, 4, 4])), (10, peer), "peer", "records/s")
    assert shifted["ratio"] == 2 and shifted["ours"] / shifted["peer"] == 0.5
