"""How runs end, against a detector that remembers every state; and states met while running, against enumeration."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cython_vm import MachineSpec, Op, Outcome, States, program_hash, run, sample, step
from cython_vm.fate import Fate, run_fate
from cython_vm.reachable import advance, draw_steps, sample_reachable, start_states

SPEC = MachineSpec(n_instructions=12, n_cells=4, n_input=3, n_output=3, bits=3)


def slow_fate(state: States, limit: int) -> tuple[Fate, int, int, int, int]:
    """(fate, n_steps, cycle_start, period, jumps back), by keeping every state met."""
    met = {state.rows.tobytes(): 0}
    jumps = 0
    for t in range(limit + 1):
        transition = step(state)
        if transition.outcome[0] == Outcome.HALTED:
            return Fate.HALTED, t, -1, -1, jumps
        if transition.outcome[0] != Outcome.RAN:
            return Fate.FROZE, t, -1, -1, jumps
        if t == limit:
            break
        op = transition.latents["op"][0]
        jumps += int(op == Op.ENDW and transition.latents["branch_taken"][0] == 1)
        state = transition.next
        again = met.setdefault(state.rows.tobytes(), t + 1)
        if again != t + 1:
            return Fate.LOOPS, t + 1, again, t + 1 - again, jumps
    return Fate.UNDECIDED, limit, -1, -1, jumps


def fates_of(states: States, limit: int) -> list[tuple[Fate, int, int, int, int]]:
    f = run_fate(states, limit)
    columns = (f.fate, f.n_steps, f.cycle_start, f.period, f.loop_iterations)
    return [(Fate(a), *rest) for a, *rest in zip(*(column.tolist() for column in columns), strict=True)]


# Loops that turn round longer and longer, so that limits fall before, inside and after the cycle.
LOOPERS = ["[]", "+[]", "+[>+<]", "+[[->+<]>[-<+>]<]", ">>+<<+[->+[-]<+]", "+++[-[+]+]", "+[>+[-]<]", "++[->[-]+<+]"]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), bits=st.integers(1, 3), n_cells=st.integers(1, 4), limit=st.integers(0, 70))
def test_fates_equal_a_detector_that_remembers_every_state(data, bits, n_cells, limit):
    spec = MachineSpec(n_instructions=20, n_cells=n_cells, n_input=2, n_output=2, bits=bits)
    seed = data.draw(st.integers(0, 2**32))
    states = sample(spec, 8, seed=seed)
    looping = sample(spec, 4, seed=seed + 1)
    looping = looping.replace("instruction_ptr", 0).replace(
        "program",
        States.build(spec, program=data.draw(st.lists(st.sampled_from(LOOPERS), min_size=4, max_size=4))).program,
    )
    states = States.concatenate([states, looping])
    assert fates_of(states, limit) == [slow_fate(state, limit) for state in states]


def test_fates_by_hand():
    cases = [
        ("++", (Fate.HALTED, 2, -1, -1, 0)),
        ("+<", (Fate.FROZE, 1, -1, -1, 0)),
        ("[]", (Fate.HALTED, 1, -1, -1, 0)),
        ("+[]", (Fate.LOOPS, 3, 2, 1, 1)),  # s0 INC, s1 WHILE, s2 ENDW jumps back to itself
        ("++[-]", (Fate.HALTED, 2 + 1 + 4, -1, -1, 1)),
        ("+[>+<]", (Fate.FROZE, 2 + 4 * 7 + 1, -1, -1, 7)),  # cell 1 fills up to 7, then INC cannot
        ("+[>+[-]<]", (Fate.LOOPS, 2 + 7, 2, 7, 1)),  # all that a round of seven steps does, it undoes
    ]
    states = States.build(SPEC, program=[program for program, _ in cases])
    assert fates_of(states, 1000) == [fate for _, fate in cases]
    fates = run_fate(states, 1000)
    assert Outcome(fates.outcome[1]) is Outcome.ARRAY_UNDERFLOW
    assert Outcome(fates.outcome[5]) is Outcome.VALUE_OVERFLOW
    assert fates.n_states.tolist() == [3, 2, 2, 3, 8, 32, 9]
    assert np.flatnonzero(fates.executed[2]).tolist() == [0]  # WHILE jumped over its ENDW
    assert np.flatnonzero(fates.executed[6]).tolist() == list(range(9))


def test_a_cycle_is_reported_exactly_when_it_closes_within_the_limit():
    """Start 2, period 7: the first state met twice comes after 9 steps."""
    states = States.build(SPEC, program="+[>+[-]<]")
    for limit in range(20):
        expected = (Fate.LOOPS, 9, 2, 7, 1) if limit >= 9 else (Fate.UNDECIDED, limit, -1, -1, 0)
        assert fates_of(states, limit)[0] == expected, limit


def test_short_cycles_behind_a_long_way_in():
    """k times INC, then [] for ever: start k + 1, period 1, whatever power of two or limit lies between."""
    for k in range(1, 8):
        states = States.build(SPEC, program="+" * k + "[]")
        for limit in range(24):
            looped = (Fate.LOOPS, k + 2, k + 1, 1, 1)
            expected = looped if limit >= k + 2 else (Fate.UNDECIDED, limit, -1, -1, 0)
            assert fates_of(states, limit)[0] == expected, (k, limit)


def test_what_lies_behind_the_limit_does_not_show():
    """An undecided run is left in its state at the limit, with what ran to there, though the search looks further."""
    states = States.build(SPEC, program=["+++++[->+<]", ">>++[<]<+", "+[>+[-]<]"])
    for limit in range(9):
        fates, trace = run_fate(states, limit), run(states, limit)
        assert (fates.fate[:2] == Fate.UNDECIDED).all()
        assert fates.final == trace.final
        for row, executed in enumerate(fates.executed):
            assert set(np.flatnonzero(executed)) == set(trace.row(row).instruction_ptr[:-1]), (row, limit)


def test_long_cycles_against_the_slow_detector():
    """A value is carried to the next cell and back, for ever: cycles of tens of steps behind a long way in."""
    spec = MachineSpec(n_instructions=40, n_cells=4, n_input=0, n_output=0, bits=4)
    states = States.build(spec, program=["++++++++[->+<]+[>[->+<]>[-<+>]<<]", "+[>++++++++++[-]<>+[-]<]"])
    slow = [slow_fate(state, 3000) for state in states]
    assert [fate for fate, *_ in slow] == [Fate.LOOPS] * 2
    assert slow[0][2] > 25 and slow[0][3] > 50
    assert fates_of(states, 3000) == slow
    for row, (_, n_steps, *_) in enumerate(slow):
        assert fates_of(states[row], n_steps) == [slow[row]]
        assert fates_of(states[row], n_steps - 1)[0][0] is Fate.UNDECIDED


def test_fates_agree_with_run():
    states = sample(SPEC, 3000, seed=4)
    fates, trace = run_fate(states, 60), run(states, 60, keep="last")
    ended = np.isin(fates.fate, (Fate.HALTED, Fate.FROZE))
    assert np.array_equal(ended, trace.stopped)
    assert np.array_equal(fates.n_steps[ended], trace.n_steps[ended])
    assert np.array_equal(fates.outcome, trace.outcome)
    assert fates.final[~ended] == advance(states, fates.n_steps)[~ended]
    assert fates.final[ended] == trace.final[ended]
    loops = fates.fate == Fate.LOOPS
    assert loops.sum() > 50
    again = advance(states[loops], fates.cycle_start[loops] + fates.period[loops])
    assert again == advance(states[loops], fates.cycle_start[loops]) == fates.final[loops]


def test_a_drawn_state_lies_on_the_run_of_its_program():
    """Every row's program and input, started, meets the row."""
    rows = sample_reachable(SPEC, 300, seed=1, max_steps=40)
    for row in rows:
        length = int(row.input_length[0])
        if length < SPEC.n_input and (row.program[0] == Op.GET).any():
            continue  # what it may have read is lost
        begun = start_states(row)
        assert any(state == row for state in run(begun, 40).row(0))


def test_which_step_is_uniform():
    """Of programs with runs of five states, each state is drawn equally often; five sigma."""
    spec = MachineSpec(n_instructions=5, n_cells=3, n_input=1, n_output=1, bits=2, loops=False, stops=False)
    rows = sample_reachable(spec, 60_000, seed=3)
    runs = run_fate(start_states(rows), 100)
    plain = ~(rows.program == Op.GET).any(axis=1) & (runs.n_states == 5)
    counts = np.bincount(rows.instruction_ptr[plain], minlength=5)
    assert counts.sum() > 3000
    assert np.abs(counts - counts.mean()).max() < 5 * np.sqrt(counts.mean())
    programs = Counter(bytes(program) for program in rows.program)
    expected = len(rows) / 6**4  # however long it runs, every program counts the same
    assert len(programs) == 6**4
    assert max(abs(count - expected) for count in programs.values()) < 6 * np.sqrt(expected)


def test_rows_do_not_depend_on_the_batch():
    options = {"seed": 5, "exclude": ("stuck", "frozen"), "max_steps": 50}
    rows = sample_reachable(SPEC, 9000, **options)
    assert sample_reachable(SPEC, 700, **options) == rows[:700]
    assert sample_reachable(SPEC, 900, start=8000, **options) == rows[8000:8900]
    assert sample_reachable(SPEC, 1, start=4321, **options) == rows[4321]
    assert sample_reachable(SPEC, 700, **{**options, "seed": 6}) != rows[:700]


def test_what_is_excluded_is_absent():
    everything = sample_reachable(SPEC, 4000, seed=7, max_steps=200)
    outcomes, fates = step(everything).outcome, run_fate(everything, 400).fate
    assert (outcomes > Outcome.HALTED).any() and (outcomes == Outcome.HALTED).any() and (fates == Fate.LOOPS).any()
    unfrozen = sample_reachable(SPEC, 4000, seed=7, max_steps=200, exclude=("frozen",))
    assert set(step(unfrozen).outcome) == {Outcome.RAN, Outcome.HALTED}
    assert (run_fate(unfrozen, 400).fate == Fate.FROZE).any()  # states on the way to a freeze stay
    unstuck = sample_reachable(SPEC, 4000, seed=7, max_steps=200, exclude=("stuck", "undecided"))
    assert set(run_fate(unstuck, 400).fate) == {Fate.HALTED, Fate.FROZE}
    running = sample_reachable(SPEC, 4000, seed=7, max_steps=200, exclude=("frozen", "halted"))
    assert set(step(running).outcome) == {Outcome.RAN}


def test_splits():
    evaluation = sample_reachable(SPEC, 500, seed=8, split="evaluation")
    train = sample_reachable(SPEC, 500, seed=8, split="train")
    assert (program_hash(evaluation) % 20 == 0).all()
    assert (program_hash(train) % 20 != 0).all()


def test_advance_stops_where_the_run_stops():
    states = sample(SPEC, 200, seed=9)
    steps = np.arange(200) % 17
    trace = run(states, 17)
    expected = States.concatenate([trace.at(int(t))[row] for row, t in enumerate(steps)])
    assert advance(states, steps) == expected


def test_draw_steps_covers_its_range():
    steps = draw_steps(np.full(10_000, 7), 0, np.arange(10_000))
    counts = np.bincount(steps, minlength=7)
    assert len(counts) == 7 and np.abs(counts - 10_000 / 7).max() < 5 * np.sqrt(10_000 / 7)
    assert draw_steps(np.array([0, 1]), 0, np.arange(2)).tolist() == [0, 0]


def test_bad_arguments():
    states = sample(SPEC, 2, seed=0)
    with pytest.raises(TypeError, match="max_steps must be an integer"):
        run_fate(states, 1.5)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="max_steps must be from 0"):
        run_fate(states, -1)
    with pytest.raises(ValueError, match="stuck, frozen, halted, undecided; got"):
        sample_reachable(SPEC, 1, seed=0, exclude=("asleep",))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="split must be one of"):
        sample_reachable(SPEC, 1, seed=0, split="test")
    with pytest.raises(ValueError, match="must be 2 integers"):
        advance(states, np.array([1]))
    with pytest.raises(ValueError, match="-1 at row 1"):
        advance(states, np.array([0, -1]))
    only_stop = MachineSpec(n_instructions=1, n_cells=1, n_input=0, n_output=0)
    with pytest.raises(ValueError, match="found no reachable state"):
        sample_reachable(only_stop, 1, seed=0, exclude=("halted",))
    assert len(run_fate(states[:0], 5)) == 0
    assert len(sample_reachable(SPEC, 0, seed=0)) == 0


def test_padded_machines_run_within_their_own_sizes():
    spec = MachineSpec(n_instructions=14, n_cells=4, n_input=2, n_output=2, bits=2, padded=True)
    states = sample(spec, 400, seed=0)
    assert fates_of(states, 60) == [slow_fate(state, 60) for state in states]
    assert advance(states, np.full(400, 9)) == run(states, 9, keep="last").final
    cells = States.build(spec, program=">>>", sizes={"n_cells": [1, 2, 3, 4]})
    assert run_fate(cells, 9).n_steps.tolist() == [0, 1, 2, 3]
    rows = sample_reachable(spec, 300, seed=1, exclude=("frozen",), sizes={"n_cells": (2, 3)})
    assert set(rows.sizes["n_cells"]) == {2, 3} and len(set(rows.sizes["n_instructions"])) > 5
    assert (step(rows).outcome <= Outcome.HALTED).all()
    assert sample_reachable(spec, 50, seed=1, start=70, exclude=("frozen",), sizes={"n_cells": (2, 3)}) == rows[70:120]
