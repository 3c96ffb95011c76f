"""Learning from sampled answers: advantages by hand, the gradient against differences, resume, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from interp.models import build_model
from interp.results import Metric, read_frame
from interp.runs import RunConfig
from interp.tasks import TASKS
from interp.tasks.options import ScratchpadOptions
from interp.training import TrainingConfig, train
from interp.training.presets import transformer_for
from interp.training.reward import Reward, Samples
from interp.training.start import started_from
from interp.training.trainer import TrainingProgress
from interp.worlds import as_world, world_from_dict

SIZES = {"n_instructions": 8, "n_cells": 2, "n_input": 2, "n_output": 1, "bits": 1}
SPEC = world_from_dict({"name": "machine", **SIZES}).spec  # type: ignore[attr-defined]
OPTIONS = ScratchpadOptions(n_steps=4, units="shown", even=True, longest=3)
SETTINGS = TrainingConfig(steps=1, batch_size=4, threads=1, objective="reward", group=4, kl=0.1)


def task() -> Any:
    return TASKS["scratchpad"](SPEC, OPTIONS)


def model(seed: int = 0) -> Any:
    """An untrained one that likes to answer at once that nothing is printed: now and then that is right."""
    shape = transformer_for("scratchpad", SPEC, options=OPTIONS, n_layers=2, n_heads=2, d_model=32, seed=seed)
    ids = task().id
    built: Any = build_model(shape)
    with torch.no_grad():
        built.unembed.b_U[[ids["="], ids["EOO"]]] = 3.0
    return built


def test_advantages_by_hand() -> None:
    right = torch.tensor([True, False, False, True, True, True])
    written = torch.tensor([[1, 2], [1, -1], [1, 2], [1, 2], [3, 3], [1, -1]])
    credit = right.float()[:, None] * (written >= 0)
    samples = Samples(written, written, credit, right)
    reward = Reward(task(), replace(SETTINGS, group=3, kl=0.0), None)
    third = 1 / 3
    expected = [
        [2 * third, 2 * third],
        [-third, 0],
        [-third, -third],
        [0, 0],
        [0, 0],
        [0, 0],
    ]  # the second: no variance
    torch.testing.assert_close(reward.advantages(samples), torch.tensor(expected))
    steps = Reward(task(), replace(SETTINGS, group=3, kl=0.0, judged="process"), None)
    judged = Samples(written[:3], written[:3], torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), right[:3])
    expected = [[third, -0.5], [third, 0], [-2 * third, 0.5]]  # each place has a mean of those who wrote there
    torch.testing.assert_close(steps.advantages(judged), torch.tensor(expected))
    rejection = Reward(task(), replace(SETTINGS, group=3, objective="rejection"), None)
    assert torch.equal(rejection.advantages(samples), credit)


def test_the_loss_is_minus_advantage_times_likelihood() -> None:
    pad, policy = task(), model()
    batch = pad.sample(4, seed=0, split="train")
    reward = Reward(pad, SETTINGS, model())
    draws = [reward.sample(policy, batch, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(draws[0].written, draws[1].written)
    samples = draws[0]
    assert 0 < samples.right.float().mean() < 1
    loss, report = reward.loss(policy, batch, torch.Generator().manual_seed(3))
    assert report[Metric.POLICY_KL] == pytest.approx(0, abs=1e-6)  # at the start it is the model that it started from
    by_hand, advantage = 0.0, reward.advantages(samples)
    with torch.no_grad():
        logits = policy(samples.tokens).log_softmax(-1)
    for row, written in enumerate(samples.written.tolist()):
        for place, token in enumerate(written):
            if token >= 0:
                by_hand -= float(advantage[row, place] * logits[row, len(pad.shown) - 1 + place, token])
    assert float(loss.detach()) == pytest.approx(by_hand / (16 * pad.n_written), abs=1e-6)
    other = Reward(pad, SETTINGS, model(seed=1))
    assert other.loss(policy, batch, torch.Generator().manual_seed(3))[1][Metric.POLICY_KL] > 0.01


def test_credit_of_steps_and_of_the_whole() -> None:
    pad = task()
    batch = pad.sample(6, seed=1, split="train")
    written = batch.targets[:, pad.slots].clone()
    said = written >= 0
    assert torch.equal(pad.credit(written, batch)[said], torch.ones(int(said.sum())))
    written[3, 1] = pad.id["ip[0]"]  # what the first instruction of the fourth example is
    spoilt = pad.credit(written, batch)
    assert (spoilt[3, :4] == 0).all() and (spoilt[3, 4:][said[3, 4:]] == 1).all() and (spoilt[0][said[0]] == 1).all()


def test_reward_needs_a_start_and_answers_that_are_written(tmp_path) -> None:
    config = RunConfig("scratchpad", as_world(SPEC), model().cfg, SETTINGS, options=OPTIONS)
    with pytest.raises(ValueError, match="a reward is learned from a run that answers already: give --start RUN"):
        train(config, tmp_path / "none")
    with pytest.raises(ValueError, match="those of the task output are not"):
        Reward(TASKS["output"](SPEC), SETTINGS, None)
    with pytest.raises(ValueError, match="training kl must not be negative, got -1"):
        TrainingConfig(kl=-1)


def test_reward_goes_on_where_it_stopped_and_learns(tmp_path) -> None:
    torch.set_num_threads(1)
    first = TrainingConfig(
        steps=60,
        batch_size=16,
        muon_lr=0.01,
        eval_every=60,
        eval_states=120,
        threads=1,
        warmup_steps=5,
        validation=True,
    )
    start = train(RunConfig("scratchpad", as_world(SPEC), model().cfg, first, options=OPTIONS), tmp_path / "start")
    settings = replace(
        first, steps=30, objective="reward", seed=1, optimizer="adamw", adamw_lr=2e-3, checkpoint_every=10, kl=0.001
    )
    shape = replace(model().cfg, seed=1)
    config = started_from(RunConfig("scratchpad", as_world(SPEC), shape, settings, options=OPTIONS), start.path)
    whole = train(config, tmp_path / "whole")

    class Stopped(Exception):
        pass

    def stop(progress: TrainingProgress) -> None:
        if progress.step == 13:
            raise Stopped

    with pytest.raises(Stopped):
        train(config, tmp_path / "parts", on_progress=stop)
    parts = train(config, tmp_path / "parts")
    for name, weights in whole.model.state_dict().items():
        assert torch.equal(weights, parts.model.state_dict()[name]), name
    curve = read_frame(tmp_path / "whole" / "metrics.parquet")
    assert {Metric.REWARD, Metric.ENTROPY, Metric.POLICY_KL, Metric.KEPT} <= set(curve["metric"])
    pad, prompts = task(), task().sample(120, seed=9, split="validation")
    reward = Reward(pad, replace(settings, group=4), start.model)
    before, after = (
        float(reward.sample(run.model, prompts, torch.Generator().manual_seed(0)).right.float().mean())
        for run in (start, whole)
    )
    assert 0.1 < before < 0.9 and after > before + 0.05
