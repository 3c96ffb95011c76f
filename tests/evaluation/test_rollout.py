"""Rollout: where a model first departs from the machine, against runs of the machine itself."""

from __future__ import annotations

import numpy as np
import pytest
from oracle import SPEC, Oracle

from cython_vm import Op, States, Transition, program_hash, run, run_fate
from interp.evaluation.rollout import rollout
from interp.results import Metric
from interp.tasks import TASKS
from interp.worlds import as_world
from interp.worlds.machine.programs import evolved_programs, long_programs

TASK = TASKS["step_inplace"](as_world(SPEC))


def wrong_on(op: Op):
    def spoil(answer: np.ndarray, transition: Transition, tokens: np.ndarray) -> None:
        rows = transition.latents["op"] == op
        answer[rows, SPEC.layout.position("cells", 0)] = SPEC.token_id("STOP")

    return spoil


def test_the_machine_follows_every_program() -> None:
    starts = long_programs(SPEC, 40, seed=0, pool=20_000)
    found = rollout(Oracle(), TASK, starts, programs="long", max_steps=30)
    assert (found.departed == 0).all() and found.survival(30) == 1
    assert [row["estimate"] for row in found.rows()] == [1.0] * len(found.rows())


@pytest.mark.parametrize("op", [Op.PREV, Op.ENDW, Op.STOP])
def test_the_first_error_is_found_where_it_is(op: Op) -> None:
    starts = long_programs(SPEC, 60, seed=1, pool=20_000)
    found = rollout(Oracle(spoil=wrong_on(op)), TASK, starts, programs="long", max_steps=25, batch_size=7)
    trace = run(starts, 25)
    expected = np.zeros(len(starts), np.int64)
    for row in range(len(starts)):
        states = trace.row(row)[:25]  # the steps from each of these are made
        ops = states.program[np.arange(len(states)), states.instruction_ptr]
        met = np.flatnonzero(ops == op)
        expected[row] = met[0] + 1 if len(met) else 0
    assert (found.departed == expected).all() and (expected > 0).any() and (expected == 0).any()
    assert set(found.stratum[expected > 0].tolist()) == {int(op)} and set(found.stratum[expected == 0].tolist()) <= {-1}
    for row in found.rows():
        if row["metric"] == Metric.SURVIVAL:
            steps = int(row["stratum"].split()[1])
            assert row["estimate"] == pytest.approx(np.mean((expected == 0) | (expected > steps)))
    causes = [row for row in found.rows() if row["metric"] == Metric.DEPARTURE]
    assert sum(row["estimate"] for row in causes) == pytest.approx(np.mean(expected > 0))


def test_a_program_that_goes_round_is_followed_for_ever_once_it_has_closed() -> None:
    starts = States.build(SPEC, program="+[]")
    model = Oracle()
    found = rollout(model, TASK, starts, programs="endless", max_steps=1000)
    assert found.departed.tolist() == [0] and found.survival(1000) == 1
    assert model.calls == int(run_fate(starts, 1000).n_states[0]) < 10


def test_long_programs_are_held_out_different_and_long() -> None:
    starts = long_programs(SPEC, 50, seed=2, pool=20_000)
    hashes = program_hash(starts)
    assert (hashes % 20 == 0).all() and len(np.unique(hashes)) == len(starts) == 50
    lengths = run_fate(starts, 100).n_states
    assert (np.diff(lengths) <= 0).all() and lengths.min() >= 3
    assert (starts.cells == 0).all() and (starts.instruction_ptr == 0).all()


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 program"):
        long_programs(SPEC, 0, seed=0)
    with pytest.raises(ValueError, match="max_steps from 1"):
        rollout(Oracle(), TASK, long_programs(SPEC, 3, seed=0, pool=2000), programs="long", max_steps=0)


def test_evolved_programs_must_be_for_the_machine() -> None:
    from cython_vm import EvolutionConfig, MachineSpec, evolve

    archive = evolve(SPEC, 3, config=EvolutionConfig(batch_size=512, n_inputs=2, max_steps=50))
    assert len(evolved_programs(archive, SPEC, 5, seed=0)) == 5
    with pytest.raises(ValueError, match="but the model was trained on"):
        evolved_programs(archive, MachineSpec(), 5, seed=0)
