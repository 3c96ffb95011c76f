"""The kernels equal the specification: on every op × outcome, over sizes, with and without interventions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_vm import (
    MachineSpec,
    Op,
    Outcome,
    States,
    encode,
    program_hash,
    reference,
    run,
    sample,
    step,
    strata_weights,
    variable,
)
from cython_vm._machine import NO_OUTCOME

SEEDS = st.integers(0, 2**64 - 1)


@st.composite
def specs(draw, largest=64):
    size = st.one_of(st.integers(1, 6), st.integers(1, largest))
    return MachineSpec(
        n_instructions=draw(size),
        n_cells=draw(size),
        n_input=draw(st.integers(0, 7)),
        n_output=draw(st.integers(0, 7)),
        bits=draw(st.integers(1, 8)),
        io=draw(st.booleans()),
        loops=draw(st.booleans()),
        stops=draw(st.booleans()),
        padded=draw(st.booleans()),
    )


@st.composite
def batches(draw):
    """A few states of a random machine, every op × outcome that can occur as likely as any other."""
    spec = draw(specs())
    weights = strata_weights(spec, branches=True)
    if spec.padded and spec.n_instructions > 20:
        weights = None  # every row is redrawn whole until it fits, which takes long programs long
    states = sample(spec, 24, seed=draw(SEEDS), weights=weights)
    depth = (spec.n_instructions - 1) // 2
    if (
        spec.loops and depth and (spec.stops or not spec.padded)
    ):  # loops nested to the limit, the pointer on any of them
        inner = [Op.INC] * (spec.n_instructions - 1 - 2 * depth)
        program = [Op.WHILE] * depth + inner + [Op.ENDW] * depth + [Op.STOP]
        pointers = np.arange(24) % spec.n_instructions
        nested = States.build(spec, program=program, instruction_ptr=pointers, cells=states.cells)
        states = States.concatenate([states, nested])
    return states


def assert_equal_to_reference(states, do=None):
    transition = step(states, do)
    for row in range(len(states)):
        plain = reference.to_state(states, row)
        row_do = {name: int(np.broadcast_to(values, len(states))[row]) for name, values in (do or {}).items()}
        latents = {name: int(values[row]) for name, values in transition.latents.items()}
        try:
            after, variables = reference.step(states.spec, plain, row_do)
        except reference.NoValue:
            assert not transition.valid[row], (plain, row_do)
            assert reference.to_state(transition.next, row) == plain
            assert transition.outcome[row] == NO_OUTCOME
            assert set(latents.values()) == {-1}
            continue
        assert transition.valid[row], (plain, row_do)
        assert reference.to_state(transition.next, row) == after, (plain, row_do)
        assert latents == {name: -1 if value is None else value for name, value in variables.items()}, (plain, row_do)
        assert transition.outcome[row] == variables["outcome"]


@settings(max_examples=120, deadline=None)
@given(states=batches())
def test_step_equals_reference(states):
    assert_equal_to_reference(states)


@settings(max_examples=150, deadline=None)
@given(states=batches(), data=st.data())
def test_step_under_do_equals_reference(states, data):
    spec = states.spec
    settable = [name for name in spec.variables() if variable(spec, name).settable]
    scalars = [name for name in settable if "[" not in name]
    names = data.draw(st.lists(st.one_of(st.sampled_from(scalars), st.sampled_from(settable)), max_size=4, unique=True))
    rng = np.random.default_rng(data.draw(SEEDS))
    do = {}
    for name in names:
        values = rng.integers(0, variable(spec, name).n_values(spec), len(states))
        do[name] = np.where(rng.random(len(states)) < 0.05, -1, values)
    assert_equal_to_reference(states, do)


@pytest.mark.parametrize("variables", [("op",), ("op", "outcome"), ("op", "operand", "input_head", "output_length")])
def test_every_stratum_under_do_equals_reference(variables):
    spec = MachineSpec(n_instructions=6, n_cells=3, n_input=2, n_output=2, bits=2)
    states = sample(spec, 600, seed=1, weights=strata_weights(spec, branches=True))
    rng = np.random.default_rng(0)
    do = {name: rng.integers(0, variable(spec, name).n_values(spec), len(states)) for name in variables}
    assert_equal_to_reference(states, do)


def test_all_strata_of_the_default_machine_occur():
    spec = MachineSpec()
    weights = strata_weights(spec, branches=True)
    states = sample(spec, 4000, seed=0, weights=weights)
    transition = step(states)
    branch = np.maximum(transition.latents["branch_taken"], 0)
    seen = np.zeros(weights.shape, dtype=bool)
    seen[transition.latents["op"], transition.outcome, branch] = True
    assert np.array_equal(seen, weights > 0)
    assert (weights > 0).sum() == 17  # six ops that run or freeze, two loops with two branches, STOP


def test_every_state_of_a_small_machine_equals_reference():
    spec = MachineSpec(n_instructions=3, n_cells=2, n_input=1, n_output=1, bits=1)
    buffers = [(), (0,), (1,)]
    plain = [
        reference.State(ip, program, ap, (a, b), given, written, spec.n_input, spec.n_output)
        for program in reference.all_programs(spec)
        for ip in range(3)
        for ap in range(2)
        for a in range(2)
        for b in range(2)
        for given in buffers
        for written in buffers
    ]
    assert len(plain) == (7**2 + 1) * 3 * 2 * 4 * 9
    assert_equal_to_reference(reference.to_states(spec, plain))


@settings(max_examples=60, deadline=None)
@given(states=batches())
def test_tokens_and_hash_equal_reference(states):
    tokens, hashes = encode(states), program_hash(states)
    for row in range(len(states)):
        plain = reference.to_state(states, row)
        assert [states.spec.vocab[token] for token in tokens[row]] == reference.tokens(states.spec, plain)
        padding = [Op.STOP] * (states.spec.n_instructions - len(plain.program))
        assert int(hashes[row]) == reference.program_hash([*plain.program, *padding])


@settings(max_examples=60, deadline=None)
@given(states=batches(), n_steps=st.integers(0, 25))
def test_run_equals_reference(states, n_steps):
    trace = run(states, n_steps)
    for row in range(len(states)):
        expected = reference.run(states.spec, reference.to_state(states, row), n_steps)
        recorded = trace.row(row)
        assert [reference.to_state(recorded, t) for t in range(len(recorded))] == expected
        _, variables = reference.step(states.spec, expected[-1])
        assert trace.outcome[row] == variables["outcome"]
    assert trace.stopped.tolist() == [outcome != Outcome.RAN for outcome in trace.outcome]
    assert run(states, n_steps, keep="last").final == trace.final
