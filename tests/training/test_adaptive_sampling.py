"""Adaptive sampling: shares follow errors, strata are the machine's, and a run stays a function of its config."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config

from cython_vm import MachineSpec, Op, Outcome, program_hash, sample, step, strata_weights
from interp.runs import RunConfig
from interp.training import TrainingConfig
from interp.training.devices import Devices
from interp.training.trainer import Trainer
from interp.worlds.machine.adaptive import PERIOD, AdaptiveSampler

SPEC = MachineSpec(n_instructions=9, n_cells=4, n_input=2, n_output=2, bits=2)


def sampler(strength: float = 1.0, **options: Any) -> AdaptiveSampler:
    settings: dict[str, Any] = {"distances": True} | options
    return AdaptiveSampler(SPEC, strata_weights(SPEC, branches=True), strength, **settings)


def stratum_of(adaptive: AdaptiveSampler, op: Op, outcome: Outcome, branch: int = 0) -> int:
    return int(np.flatnonzero((adaptive.plain == (op, outcome, branch)).all(axis=1))[0])


def teach(adaptive: AdaptiveSampler, wrong: list[int], *, steps: int = 2 * PERIOD) -> None:
    """Show every stratum 50 times a step, only those of `wrong` answered wrongly."""
    n = len(adaptive.errors)
    strata = np.repeat(np.arange(n), 50)
    for now in range(steps):
        adaptive.learn(now, strata, ~np.isin(strata, wrong))


def test_each_state_has_the_stratum_that_the_machine_says() -> None:
    adaptive = sampler()
    states = sample(SPEC, 500, seed=3, weights=strata_weights(SPEC, branches=True))
    numbers = adaptive.strata(states)
    latents = step(states).latents
    assert (numbers >= 0).all() and (numbers < len(adaptive.errors)).all()
    for row in range(len(states)):
        program, at = [Op(code) for code in states.program[row]], int(states.instruction_ptr[row])
        if latents["branch_taken"][row] == 1:
            direction, depth, partner = (1 if program[at] == Op.WHILE else -1), 0, at
            while True:  # the matching bracket, by counting
                depth += {Op.WHILE: 1, Op.ENDW: -1}.get(program[partner], 0)
                if not depth:
                    break
                partner += direction
            assert numbers[row] == len(adaptive.plain) + adaptive.buckets[abs(partner - at)]
        else:
            expected = (latents["op"][row], latents["outcome"][row], max(0, latents["branch_taken"][row]))
            assert tuple(adaptive.plain[numbers[row]]) == expected


def test_buckets_are_half_octaves_that_rise_with_the_distance() -> None:
    assert sampler().buckets.tolist() == [0, 0, 1, 2, 3, 3, 4, 4]


def test_what_is_wrong_is_drawn_more() -> None:
    adaptive = sampler()
    before = adaptive.table(0)
    full, far = stratum_of(adaptive, Op.PUT, Outcome.OUTPUT_FULL), len(adaptive.errors) - 1
    teach(adaptive, [full, far])
    after = 2 * PERIOD
    states = adaptive.draw(after, 2000, seed=0)
    shares = np.bincount(adaptive.strata(states), minlength=len(adaptive.errors)) / 2000
    assert shares[full] > 0.45 and shares[far] > 0.45
    assert before[Op.PUT, Outcome.OUTPUT_FULL, 0] == pytest.approx(1 / len(adaptive.errors))
    assert (program_hash(states) % 20 != 0).all()


def test_the_base_keeps_its_share() -> None:
    adaptive = sampler(0.25)
    teach(adaptive, [0])
    shares = adaptive.table(2 * PERIOD)
    assert shares.sum() + adaptive.distance_shares(2 * PERIOD).sum() == pytest.approx(1)
    assert (shares >= 0.75 * adaptive.base - 1e-12).all()


def test_equal_errors_give_equal_shares() -> None:
    adaptive = sampler()
    teach(adaptive, [])
    assert adaptive.shares[0] == pytest.approx(1 / len(adaptive.errors), rel=1e-6)


def test_shares_change_only_between_periods_and_ignore_the_last_step_before() -> None:
    first, second = sampler(), sampler()
    strata = np.arange(len(first.errors))
    for now in range(PERIOD):
        right = np.arange(len(strata)) % 2 == 0
        first.learn(now, strata, right)
        second.learn(
            now, strata, right if now < PERIOD - 1 else ~right
        )  # that batch is learned while the next is drawn
    assert (first.table(PERIOD - 1) == first.table(0)).all()
    assert (first.table(PERIOD) != first.table(0)).any() and (first.table(PERIOD) == second.table(PERIOD)).all()


def test_jumps_drawn_for_their_distance_jump() -> None:
    adaptive = sampler()
    n_strata = len(adaptive.errors)
    teach(adaptive, list(range(len(adaptive.plain), n_strata)))
    states = adaptive.draw(2 * PERIOD, 1000, seed=1)
    taken = step(states).latents["branch_taken"] == 1
    assert taken.mean() > 0.95
    moved = np.abs(step(states).next.instruction_ptr.astype(int) - states.instruction_ptr.astype(int))
    assert set(np.unique(moved[taken])) >= {1, 2, 6, 7}


def config(steps: int = 130, **training: Any) -> RunConfig:
    settings: dict[str, Any] = {"adaptive": 0.5} | training
    whole = tiny_config(steps=steps, eval_every=60, checkpoint_every=20)
    return dataclasses.replace(whole, training=dataclasses.replace(whole.training, **settings))


def test_a_resumed_run_draws_what_the_whole_one_did(tmp_path: Path) -> None:
    """Also when the checkpoint lies on the border of a period, or a step before or after it."""
    trainer = Trainer(config(), tmp_path, Devices(8))
    assert trainer.batches.adaptive is not None
    drawn, states = [trainer.batches.draw(0)], []
    for now in range(2 * PERIOD + 2):  # as the loop does: the next batch is drawn before this one is learned
        drawn.append(trainer.batches.draw(now + 1))
        states.append(trainer.batches.adaptive.state_tensors())
        trainer.update(drawn[now], now)
    for stop in (1, PERIOD - 2, PERIOD - 1, PERIOD, PERIOD + 1, 2 * PERIOD - 1, 2 * PERIOD):
        resumed = Trainer(config(), tmp_path, Devices(8))
        assert resumed.batches.adaptive is not None
        resumed.batches.adaptive.load_state_tensors(states[stop])
        assert torch.equal(resumed.batches.draw(stop).tokens, drawn[stop].tokens)


def test_settings_that_leave_no_strata_are_refused() -> None:
    with pytest.raises(ValueError, match="adaptive needs balance 'branches'"):
        TrainingConfig(adaptive=0.5, balance="natural")
    with pytest.raises(ValueError, match=r"adaptive must lie in \[0, 1\], got 2"):
        TrainingConfig(adaptive=2)
