"""Hashes of what a model is shown, against tuples of it made in plain Python: equal exactly where these are equal."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_vm import (
    MachineSpec,
    Op,
    Outcome,
    States,
    program_hash,
    reachable_hash,
    reference,
    run_fate,
    sample,
    start_states,
    stream_hash,
)
from cython_vm.long_runs import sample_long_runs

TINY = MachineSpec(5, 2, 2, 2, bits=1)  # so small that many of its runs are equal
SPECS = {"tiny": TINY, "padded": replace(TINY, padded=True), "usual": MachineSpec()}
N = 150


def shown(spec, state, n_steps):
    """The stream of a run: opcodes, and what GET read, PUT wrote and loops decided."""
    stream = []
    for _ in range(n_steps):
        after, variables = reference.step(spec, state)
        stream.append(Op(variables["op"]).name)
        if variables["outcome"] != Outcome.RAN:
            break
        name: dict[int | None, str] = {
            Op.PUT: "emitted",
            Op.GET: "result",
            Op.WHILE: "branch_taken",
            Op.ENDW: "branch_taken",
        }
        if variables["op"] in name:
            stream.append(variables[name[variables["op"]]])
        state = after
    return tuple(stream)


def reached(spec, state, n_steps):
    """The state, with the instructions that its run does not come to left out."""
    now, slots = state, set()
    for _ in range(n_steps):
        slots.add(now.instruction_ptr)
        after, variables = reference.step(spec, now)
        if variables["outcome"] != Outcome.RAN:
            break
        now = after
    kept = tuple(op if slot in slots else None for slot, op in enumerate(state.program))
    # The own length of a padded row's program is part of `kept`.
    return replace(state, program=kept)


def assert_one_to_one(hashes, meanings):
    assert len(dict(zip(meanings, hashes, strict=True))) == len(set(meanings)) == len(set(hashes.tolist()))
    of = {}
    assert all(of.setdefault(meaning, hash_) == hash_ for meaning, hash_ in zip(meanings, hashes.tolist(), strict=True))


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(list(SPECS)), st.integers(0, 10**6), st.integers(0, 12), st.booleans())
def test_hashes_are_equal_exactly_where_what_is_shown_is(name, seed, n_steps, starts):
    spec = SPECS[name]
    states = sample(spec, N, seed=seed)
    states = start_states(states) if starts else states
    plain = [reference.to_state(states, row) for row in range(N)]
    assert_one_to_one(stream_hash(states, n_steps), [shown(spec, state, n_steps) for state in plain])
    assert_one_to_one(reachable_hash(states, n_steps), [reached(spec, state, n_steps) for state in plain])


@pytest.mark.parametrize("name", SPECS)
def test_hashes_are_those_of_the_specification(name):
    spec, n_steps = SPECS[name], 20
    states = sample(spec, 60, seed=4)
    plain = [reference.to_state(states, row) for row in range(60)]
    for state, hash_ in zip(plain, stream_hash(states, n_steps).tolist(), strict=True):
        words: list[int] = []
        for token in shown(spec, state, n_steps):
            loop = words and words[-1] in (Op.WHILE, Op.ENDW)
            words.append(int(Op[token]) if isinstance(token, str) else (512 if loop else 16) + token)
        assert hash_ == reference.hash_words(words)
    for row, hash_ in enumerate(reachable_hash(states, n_steps).tolist()):
        packed = states.rows[row].tolist()
        kept = reached(spec, plain[row], n_steps).program
        for slot in range(spec.n_instructions):
            if slot >= len(kept) or kept[slot] is None:
                packed[4 + slot] = 255
        assert hash_ == reference.hash_words(packed)


def test_hashes_are_the_same_for_ever():
    """Splits by them name units of published runs: a change here is a change of every published number."""
    states = States.build(MachineSpec(), program=[",[.-]", "+>+[-].", "<", ""], input=[[3, 1], [], [], []])
    assert stream_hash(states, 64).tolist() == [
        0xE53BA82CE183081D, 0x3D29047A9D3EC60A, 0x9199613C82722924, 0xBCA486BF8CEF1E18
    ]  # fmt: skip
    assert reachable_hash(states, 64).tolist() == [
        0xB1574E96253CF8F9, 0xDE54BAFAC5896BFC, 0xC959EDC171402697, 0x957AD839994F3202
    ]  # fmt: skip


def test_long_streams():
    spec = MachineSpec()
    states = sample_long_runs(spec, 60, n_steps=64, required=20, seed=3)
    plain = [reference.to_state(states, row) for row in range(60)]
    assert_one_to_one(stream_hash(states, 64), [shown(spec, state, 64) for state in plain])
    assert_one_to_one(reachable_hash(states, 64), [reached(spec, state, 64) for state in plain])


def test_streams_by_hand():
    def of(program, n_steps=9, **parts):
        return int(stream_hash(States.build(MachineSpec(), program=program, **parts), n_steps)[0])

    assert of("+.") == of("+.", input=[3]) != of("++.")  # an input that nothing reads is not shown
    assert of(",.", input=[3]) == of(",.", input=[3, 5]) != of(",.", input=[4])
    assert of("+[-].", n_steps=5) == of("+[-].>", n_steps=5) and of("+[-].") != of("+[-].>")
    assert of("[+].") == of("[-].")  # a loop that is jumped over
    assert of("+++", n_steps=2) == of("++>", n_steps=2) != of("+++")
    assert of("<") == of("<+") != of(">")  # PREV freezes; what would come next is not shown
    assert of("-", n_steps=1) == of(
        "-+", n_steps=1, cells=[1]
    )  # that it freezes is not shown either, as it is the last
    assert of(".", cells=[1]) != of(".", cells=[2])


def test_reachable_programs_by_hand():
    def of(program, n_steps=9, **parts):
        return int(reachable_hash(States.build(MachineSpec(), program=program, **parts), n_steps)[0])

    assert of("[+].") == of("[-].") != of("+[-].")
    assert of("<+") == of("<-") != of(">+")  # PREV freezes at cell 0
    assert of("+.", n_steps=1) == of("+,", n_steps=1) and of("+.", n_steps=2) != of("+,", n_steps=2)
    assert of("+.", input=[3]) != of("+.", input=[4]) != of("+.")  # the input counts, read or not
    assert of("+", input=[0]) != of("+")  # with its length
    assert of(",[.,]", input=[0, 7]) == of(",[,.]", input=[0, 7]) and of(",[.]", input=[1]) != of(",[,]", input=[1])


@pytest.mark.parametrize("name", ["tiny", "usual"])
def test_an_instruction_counts_exactly_where_it_is_reached(name):
    """Other plain instructions in place of one: equal hashes where the run does not come to it, else different."""
    spec, n_steps = SPECS[name], 10
    states = start_states(sample(spec, 400, seed=8))
    fates = run_fate(states, n_steps)
    visited = fates.executed.copy()
    stopped = (fates.n_steps < n_steps) & (fates.outcome != Outcome.RAN)
    visited[stopped, fates.final.instruction_ptr[stopped]] = True
    slot, plain = 2, [Op.NEXT, Op.PREV, Op.INC, Op.DEC]
    rows = states[np.isin(states.program[:, slot], plain)]
    was_reached = visited[np.isin(states.program[:, slot], plain), slot]
    hashes = [reachable_hash(rows.replace(f"instruction[{slot}]", int(op)), n_steps) for op in plain]
    for one, other in pairwise(hashes):
        assert ((one != other) == was_reached).all()
    assert 0 < was_reached.sum() < len(rows)


def test_hashes_do_not_depend_on_the_batch_and_leave_the_states_alone():
    states = sample(TINY, 50, seed=1)
    before = states.rows.copy()
    for of in (stream_hash, reachable_hash):
        whole = of(states, 7)
        assert whole.dtype == np.uint64 and whole.tolist() == [int(of(one, 7)[0]) for one in states]
        assert of(states[:0], 7).shape == (0,)
        with pytest.raises(ValueError, match="n_steps must be from 0 to 1048576, got -1"):
            of(states, -1)
    assert (states.rows == before).all()


def test_the_remainders_that_split_are_even():
    """Of 20 parts none is favoured, although neighbouring streams differ in one token."""
    states = sample_long_runs(MachineSpec(), 20000, n_steps=32, seed=1)
    for hashes in (stream_hash(states, 32), reachable_hash(states, 32), program_hash(states)):
        counts = np.bincount((np.unique(hashes) % np.uint64(20)).astype(int), minlength=20)
        expected = counts.sum() / 20
        assert ((counts - expected) ** 2 / expected).sum() < 50  # chi-square, 19 degrees: p about 1e-4
