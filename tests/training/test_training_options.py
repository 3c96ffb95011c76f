"""Choices of a training: optimizers, schedules, averaged weights, checkpoints along the run."""

from __future__ import annotations

import dataclasses
import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_config

import interp
from interp.configuration import config_dict
from interp.models import build_model
from interp.results import Metric, select
from interp.runs import Run, RunConfig, RunError
from interp.training import TrainingConfig, train
from interp.training.along import steps_along
from interp.training.devices import Devices
from interp.training.ema import AveragedWeights
from interp.training.schedule import rate_at
from interp.training.trainer import Trainer


def configured(steps: int = 30, **training: Any) -> RunConfig:
    config = tiny_config(steps=steps)
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


def test_new_settings_leave_the_digest_of_earlier_runs_alone() -> None:
    """What the first runs were saved with, and no more, as long as the newer settings have their defaults."""
    first = (
        "adamw_lr balance batch_size checkpoint_every decay_fraction eval_every eval_states gradient_clip loop_weight "
        "muon_lr precision seed steps threads warmup_steps weight_decay"
    )
    assert sorted(config_dict(TrainingConfig())) == first.split()
    assert configured(optimizer="adamw").digest != configured().digest


def test_adamw_takes_every_parameter(tmp_path: Path) -> None:
    trainer = Trainer(configured(optimizer="adamw"), tmp_path, Devices(8))
    trainer.update(trainer.batches.draw(0), 0)
    owners = {name.rpartition("/")[0] for name in trainer.optimizers.state_tensors()}
    assert owners == {f"adamw/{name}" for name, _ in trainer.model.named_parameters()}


def test_schedules_by_hand() -> None:
    cosine = TrainingConfig(steps=110, warmup_steps=10, schedule="cosine")
    assert [rate_at(cosine, step) for step in (4, 10, 60)] == pytest.approx([0.5, 1, 0.5])
    assert rate_at(cosine, 109) < 0.001
    wsd = TrainingConfig(steps=100, warmup_steps=10, schedule="wsd", decay_fraction=0.4)
    assert [rate_at(wsd, step) for step in (0, 59, 60, 90)] == pytest.approx([0.1, 1, 1, 1 - 0.75**0.5])


def test_the_average_is_that_of_the_formula(tmp_path: Path) -> None:
    trainer = Trainer(configured(ema_decay=0.5), tmp_path, Devices(8))
    name = "embed.W_E"
    expected = trainer.model.state_dict()[name].clone()
    for step in range(6):
        trainer.update(trainer.batches.draw(step), step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trainer.model.state_dict()[name]
    assert trainer.average is not None
    assert torch.allclose(trainer.average.averaged.state_dict()[name], expected, atol=1e-6)


def test_the_average_of_a_constant_is_the_constant() -> None:
    config = configured().model
    model = build_model(config)
    average = AveragedWeights(model, build_model(dataclasses.replace(config, seed=5)), 0.999)
    for step in range(20):
        average.update(step)
    for name, tensor in average.averaged.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])


def test_an_averaged_run_saves_and_evaluates_the_average(tmp_path: Path) -> None:
    plain, averaged = (train(configured(ema_decay=d), tmp_path / str(d)) for d in (0.0, 0.9))
    raw = load_file(averaged.path / "resume" / "state.safetensors")
    saved = load_file(averaged.path / "model.safetensors")
    assert all(torch.equal(raw[f"ema/{name}"], tensor) for name, tensor in saved.items())
    trained = load_file(plain.path / "model.safetensors")
    assert all(torch.equal(raw[f"model/{name}"], tensor) for name, tensor in trained.items())
    assert not all(torch.equal(saved[name], trained[name]) for name in saved)


def test_steps_along_are_log_spaced_from_the_untrained_to_the_final() -> None:
    steps = steps_along(16_000, 20)
    assert len(steps) == 20 and steps[:2] == (0, 16) and steps[-1] == 16_000
    ratios = [b / a for a, b in itertools.pairwise(steps[1:])]
    assert max(ratios) / min(ratios) < 1.1
    assert steps_along(3, 20) == (0, 1, 2, 3) and steps_along(100, 0) == () and steps_along(100, 1) == (100,)


def test_checkpoints_along_the_run_load_as_runs(tmp_path: Path) -> None:
    run = train(configured(steps_along=5), tmp_path / "run")
    assert run.steps == steps_along(30, 5)
    untrained, early, final = (run.at_step(step) for step in (0, run.steps[2], 30))
    for name, tensor in run.untrained_model().state_dict().items():
        assert torch.equal(untrained.model.state_dict()[name], tensor.bfloat16().float())
    for name, tensor in run.model.state_dict().items():
        assert torch.equal(final.model.state_dict()[name], tensor.bfloat16().float())
    assert early.step == run.steps[2] and early.name == f"run@{early.step}"
    assert interp.load(run.path, step=early.step).model.cfg == run.model.cfg
    with pytest.raises(RunError, match="keeps no weights of step 7; it keeps 0, "):
        run.at_step(7)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on the CPU needs a C++ compiler")
def test_compiled_training_follows_the_same_curve_and_saves_the_same_model(tmp_path: Path) -> None:
    plain, compiled = (train(configured(compile=c), tmp_path / str(c)) for c in (False, True))
    torch._dynamo.reset()
    assert _losses(compiled) == pytest.approx(_losses(plain), rel=1e-3)
    for name, tensor in plain.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[name], tensor, atol=1e-3, rtol=1e-2)


def test_bfloat16_trains_near_the_curve_of_float32_with_weights_in_float32(tmp_path: Path) -> None:
    full, half = (train(configured(precision=p), tmp_path / p) for p in ("float32", "bfloat16"))
    assert _losses(half) == pytest.approx(_losses(full), rel=0.02)
    assert _losses(half) != _losses(full)
    assert {tensor.dtype for tensor in load_file(half.path / "model.safetensors").values()} == {torch.float32}


def _losses(run: Run) -> list[float]:
    return select(run.frame("metrics"), metric=Metric.LOSS)["estimate"].tolist()


@pytest.mark.parametrize(
    ("field", "value"),
    [("optimizer", "sgd"), ("schedule", "step"), ("ema_decay", 1.0), ("steps_along", -1), ("precision", "float16")],
)
def test_unknown_choices_are_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"training {field} must"):
        dataclasses.replace(TrainingConfig(), **{field: value})
