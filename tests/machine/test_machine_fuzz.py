"""Public entries at the edges of what they take: huge sizes, bad rows, empty batches, random tokens and text."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cython_vm
from cython_vm import (
    MachineSpec,
    States,
    advance,
    decode,
    encode,
    format_program,
    parse_program,
    program_hash,
    run,
    run_fate,
    sample,
    sample_original,
    sample_records,
    start_states,
    step,
    variable,
)

SPEC = MachineSpec(6, 3, 2, 2, bits=2)
STATES = sample(SPEC, 4, seed=0)


# Huge sizes.


@pytest.mark.parametrize(
    "call",
    [
        lambda: sample(SPEC, 2**62, seed=0),
        lambda: sample(SPEC, 2**50, seed=0),
        lambda: sample(SPEC, 2**64 - 1, seed=0),
        lambda: sample_records(SPEC, 2**62, seed=0),
        lambda: sample(SPEC, 2, seed=0, start=2**64 - 1),  # the last row is 2^64 − 1; the next would be row 0 again
    ],
    ids=["2^62 rows", "2^50 rows", "2^64 - 1 rows", "2^62 records", "rows past the last"],
)
def test_too_many_rows(call):
    with pytest.raises((ValueError, MemoryError), match=r"\bn\b|start"):
        call()


def test_too_many_rows_for_a_file():
    with pytest.raises(ValueError, match=r"\bn\b"):
        sample_original("x.npy", SPEC, 2**63, seed=0)


def test_the_last_rows_of_a_stream():
    assert sample(SPEC, 2, seed=2**64 - 1, start=2**64 - 2)[1] == sample(SPEC, 1, seed=2**64 - 1, start=2**64 - 1)


def test_long_runs_of_what_stops():
    states = States.build(SPEC, program="+")
    assert run(states, 2**63 - 1).n_steps.tolist() == [1]
    with pytest.raises(ValueError, match="n_steps"):
        run(states, 2**63)


# Rows that are no states.


@pytest.mark.parametrize("column", range(4 + 6 + 3 + 2 + 2))
def test_rows_that_are_no_states_are_refused(column):
    rows = STATES.rows.copy()
    rows[2, column] = 255
    with pytest.raises(ValueError, match="row 2"):
        States(SPEC, rows)


def test_states_do_not_change_with_the_array_they_came_from():
    rows = STATES.rows.copy()
    states = States(SPEC, rows)
    rows[:, 0] = 0
    assert states == STATES


# Empty batches.


def test_empty_batches():
    none = STATES[:0]
    assert len(none) == len(sample(SPEC, 0, seed=0)) == 0
    assert encode(none).shape == (0, SPEC.state_length)
    assert decode(SPEC, encode(none)) == none
    assert len(step(none).next) == 0
    assert all(len(values) == 0 for values in step(none).latents.values())
    for name in SPEC.variables():
        assert variable(SPEC, name).read(none).shape == (0,)
        if variable(SPEC, name).settable:
            assert len(step(none, {name: 0}).next) == 0
    trace = run(none, 5)
    assert (len(trace), len(trace.at(3)), len(trace.time), len(trace.loop_iteration())) == (0, 0, 0, 0)
    assert program_hash(none).shape == none.equal(none).shape == (0,)
    assert States.concatenate([none, none]) == none[::-1] == none[[]] == none.replace("array_ptr", 0)
    assert len(start_states(none)) == len(advance(none, np.zeros(0, int))) == len(run_fate(none, 9)) == 0


# Random tokens, programs and indices.


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_tokens_are_refused_or_invert(data):
    """Tokens with a few positions overwritten: decode gives a state with these very tokens, or names the row."""
    spec = data.draw(
        st.sampled_from([SPEC, MachineSpec(1, 1, 0, 0, bits=1), MachineSpec(4, 9, 0, 7, bits=8, io=False)])
    )
    tokens = encode(sample(spec, 3, seed=data.draw(st.integers(0, 9)))).astype(np.int64)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, spec.state_length - 1))
        token = data.draw(st.one_of(st.integers(-1, spec.d_vocab), st.integers(-(2**63), 2**63 - 1)))
        tokens[1, position] = token
    try:
        states = decode(spec, tokens)
    except ValueError as error:
        found = re.match(r"row 1, position \d+ \(.+\): ", str(error)) is not None
    else:
        found = np.array_equal(encode(states), tokens)
    assert found


@settings(max_examples=100, deadline=None)
@given(tokens=hnp.arrays(np.uint8, (2, SPEC.state_length), elements=st.integers(0, SPEC.d_vocab)))
def test_tokens_without_any_order_are_refused(tokens):
    with pytest.raises(ValueError, match="row 0, position"):
        decode(SPEC, tokens)


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(), st.text("><+-.,[] STOPINCxX\n", max_size=12)))
def test_text_is_refused_or_survives(text):
    try:
        program = parse_program(text)
    except ValueError as error:
        refused = str(error)
        assert "instruction" in refused
        return
    kept = parse_program(format_program(program))
    assert kept == program[: len(kept)]
    assert all(op == cython_vm.Op.STOP for op in program[len(kept) :])


@settings(max_examples=200, deadline=None)
@given(
    index=hnp.basic_indices((4,), allow_ellipsis=False) | hnp.integer_array_indices((4,), result_shape=st.just((3,)))
)
def test_indices_pick_what_numpy_picks(index):
    """A tuple of one index is that index; what gives a single row gives a batch of one."""
    one = index[0] if isinstance(index, tuple) and index else index
    one = slice(None) if isinstance(one, tuple) else one
    expected = encode(STATES)[one]
    assert np.array_equal(encode(STATES[one]), expected.reshape(-1, SPEC.state_length))


@pytest.mark.parametrize("index", [4, -5, [4], [-5], [True], [True] * 5, slice("a"), np.uint64(2**63)])
def test_indices_outside_are_refused(index):
    with pytest.raises((IndexError, TypeError), match="index|indices|row"):
        STATES[index]


def test_two_indices_are_refused():
    with pytest.raises((IndexError, TypeError), match="index|indices"):
        STATES[0, 1]


@pytest.mark.parametrize(
    "name",
    [
        "cell[\u0662]",  # ARABIC-INDIC DIGIT TWO
        "cell[01]",
        "cell[-1]",
        "cell[1.0]",
        "cell[ 1]",
        "cell[1]\n",
        "Cell[1]",
    ],
)
def test_a_variable_has_one_spelling(name):
    with pytest.raises(ValueError, match="no variable"):
        variable(SPEC, name)
