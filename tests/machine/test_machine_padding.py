"""Padded machines: rows of different sizes in one batch, each of which acts as a machine of its own size."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from cython_vm import MachineSpec, Outcome, States, decode, encode, run, sample, step, strata_weights, variable

PADDED = MachineSpec(padded=True)


def own_machine(states: States, row: int) -> States:
    """One row as a state of a machine that has just its size."""
    sizes: dict[str, Any] = {name: int(size[row]) for name, size in states.sizes.items()}
    spec = MachineSpec(**sizes, bits=states.spec.bits)
    return States.build(
        spec,
        program=states.program[row, : spec.n_instructions],
        instruction_ptr=states.instruction_ptr[row],
        array_ptr=states.array_ptr[row],
        cells=states.cells[row, : spec.n_cells],
        input=states.input[row, : states.input_length[row]],
        output=states.output[row, : states.output_length[row]],
    )


def same(states: States, row: int, own: States) -> bool:
    spec = own.spec
    return (
        states.instruction_ptr[row] == own.instruction_ptr[0]
        and states.array_ptr[row] == own.array_ptr[0]
        and np.array_equal(states.cells[row, : spec.n_cells], own.cells[0])
        and np.array_equal(states.input[row, : spec.n_input], own.input[0])
        and np.array_equal(states.output[row, : spec.n_output], own.output[0])
        and states.output_length[row] == own.output_length[0]
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_a_row_acts_as_a_machine_of_its_size(seed):
    states = sample(PADDED, 40, seed=seed)
    transition, trace = step(states), run(states, 60)
    for row in range(len(states)):
        own = own_machine(states, row)
        after, whole = step(own), run(own, 60)
        assert same(transition.next, row, after.next)
        assert transition.outcome[row] == after.outcome[0]
        assert same(trace.final, row, whole.final)
        assert (trace.n_steps[row], trace.outcome[row]) == (whole.n_steps[0], whole.outcome[0])


def test_sizes_are_drawn_uniformly_in_their_ranges():
    sizes = {"n_instructions": (4, 9), "n_cells": (2, 5), "n_input": (0, 3), "n_output": (5, 5)}
    states = sample(PADDED, 12_000, seed=3, sizes=sizes)
    for name, (low, high) in sizes.items():
        values, counts = np.unique(states.sizes[name], return_counts=True)
        assert values.tolist() == list(range(low, high + 1))
        assert len(counts) == 1 or chisquare(counts).pvalue > 1e-4
    assert (states.instruction_ptr < states.sizes["n_instructions"]).all()
    assert (states.array_ptr < states.sizes["n_cells"]).all()
    assert (states.input_length <= states.sizes["n_input"]).all()


def test_programs_of_one_size_are_those_of_that_machine():
    """Given its size, a row's program is uniform over the programs of that size: 4 slots before STOP, loops alone."""
    spec = MachineSpec(n_instructions=5, n_cells=1, n_input=0, n_output=0, io=False, padded=True)
    states = sample(spec, 30_000, seed=0, sizes={"n_instructions": (3, 3)})
    _, counts = np.unique(states.program, axis=0, return_counts=True)
    assert len(counts) == 5**2 + 1
    assert chisquare(counts).pvalue > 1e-4


def test_strata_of_a_padded_machine_keep_the_natural_distribution():
    """NEXT at the last cell is likelier on short arrays: sizes inside the stratum follow 1 / n_cells."""
    spec = MachineSpec(n_instructions=4, n_cells=4, n_input=1, n_output=1, padded=True)
    weights = np.zeros((9, 8))
    weights[0, Outcome.ARRAY_OVERFLOW] = 1
    states = sample(spec, 6_000, seed=1, weights=weights, sizes={"n_instructions": (4, 4)})
    assert (step(states).outcome == Outcome.ARRAY_OVERFLOW).all()
    counts = np.bincount(states.sizes["n_cells"], minlength=5)[1:]
    shares = np.array([1, 1 / 2, 1 / 3, 1 / 4])
    assert chisquare(counts, shares / shares.sum() * counts.sum()).pvalue > 1e-4
    weights[0, Outcome.RAN] = 1  # never at one cell
    ran = sample(spec, 500, seed=2, weights=weights)
    assert len(ran) == 500


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), punctuation=st.sampled_from(["blocks", "none", "spaced"]), index=st.booleans())
def test_padded_tokens_are_read_back(seed, punctuation, index):
    spec = MachineSpec(padded=True, punctuation=punctuation, pointers="index" if index else "one_hot")
    states = sample(spec, 50, seed=seed)
    tokens = encode(states)
    assert decode(spec, tokens) == states
    beyond = np.arange(15) >= states.sizes["n_instructions"][:, None]
    assert np.array_equal(tokens[:, spec.layout.slice("instructions")] == spec.token_id("PAD"), beyond)


def test_values_beyond_a_rows_size_do_not_exist():
    states = States.build(PADDED, program="INC NEXT", cells=[3, 4], sizes={"n_instructions": 3, "n_cells": 2})
    assert variable(PADDED, "cell[1]").read(states) == 4
    assert variable(PADDED, "cell[2]").read(states) == -1
    assert variable(PADDED, "instruction[3]").read(states) == -1
    assert variable(PADDED, "next_cell[2]").read(states) == -1
    for do in ({"array_ptr": 2}, {"cell[2]": 1}, {"instruction_ptr": 3}, {"next_cell[2]": 0}, {"next_array_ptr": 2}):
        assert not step(states, do=do).valid[0], do
    assert step(states, do={"array_ptr": 1, "op": 0}).outcome[0] == Outcome.ARRAY_OVERFLOW


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": {"n_cells": 11}}, r"sizes\['n_cells'\] must be from 1 to 10, got 11"),
        ({"sizes": {"cells": 3}}, "sizes has no 'cells'"),
        (
            {"sizes": {"n_cells": 2}, "array_ptr": 2},
            "array_ptr must be from 0 to 1 in a row of this size, got 2 at row 0",
        ),
        ({"sizes": {"n_input": 1}, "input": [1, 2]}, "input_length must be from 0 to 1 in a row of this size"),
        ({"sizes": {"n_instructions": 2}, "program": "INC INC"}, "the last instruction must be STOP, got INC"),
        ({"sizes": {"n_cells": 1}, "cells": [0, 5]}, r"cell\[1\] of row 0 lies beyond its 1 cells"),
    ],
)
def test_faults_of_padded_states_are_told(change, message):
    with pytest.raises(ValueError, match=message):
        States.build(PADDED, **{"program": "INC", **change})


def test_faults_of_padded_tokens_are_told():
    spec = MachineSpec(padded=True)
    tokens = encode(States.build(spec, program="INC", sizes={"n_instructions": 2, "n_cells": 2}))
    pad = spec.token_id("PAD")
    for name, token, message in (
        ("cells[5]", spec.token_id("NUM_0"), r"\(cells\[5\]\): PAD belongs|\(cells\[2\]\): PAD only"),
        ("cells[0]", pad, "PAD"),
        ("instructions[1]", spec.token_id("INC"), "last instruction must be STOP"),
        ("instruction_ptr[4]", spec.token_id("0"), "PAD"),
    ):
        wrong = tokens.copy()
        wrong[0, spec.layout.index(name)] = token
        with pytest.raises(ValueError, match=message):
            decode(spec, wrong)


def test_sizes_need_a_padded_machine():
    with pytest.raises(ValueError, match="sizes need a padded machine"):
        sample(MachineSpec(), 3, seed=0, sizes={"n_cells": (1, 2)})
    with pytest.raises(ValueError, match="sizes need a padded machine"):
        States.build(MachineSpec(), program="INC", sizes={"n_cells": 2})
    with pytest.raises(ValueError, match=r"sizes\['n_cells'\] must be \(smallest, largest\) between 1 and 10"):
        sample(PADDED, 3, seed=0, sizes={"n_cells": (5, 2)})
    with pytest.raises(ValueError, match="rows of one size"):
        sample(PADDED, 3, seed=0, weights=[1.0] * 8, by="loop_depth")
    with pytest.raises(ValueError, match="rows of one size"):
        sample(PADDED, 3, seed=0, weights=strata_weights(PADDED, by="jump_distance"), by="jump_distance")
