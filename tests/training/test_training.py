"""Training: exact resume, refusals, the schedule, and that something is learned."""

from __future__ import annotations

import dataclasses
import math
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_config

from cython_vm import program_hash
from interp.models import build_model
from interp.results import Aggregation, Metric, read_frame, select
from interp.runs import RunConfig, RunError
from interp.training import TrainingConfig, TrainingProgress, train
from interp.training.checkpoint import peek_checkpoint
from interp.training.devices import Devices
from interp.training.optimizer import Optimizers
from interp.training.schedule import rate_at
from interp.training.trainer import Trainer


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def assert_same_run(first: Path, second: Path) -> None:
    """Equal weights to the last bit, and equal curves but for the clock."""
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    curves = [read_frame(folder / "metrics.parquet") for folder in (first, second)]
    along = [sorted(file.name for file in (folder / "steps").glob("*")) for folder in (first, second)]
    assert along[0] == along[1]
    for name in along[0]:
        a, b = (load_file(folder / "steps" / name) for folder in (first, second))
        assert all(torch.equal(a[each], b[each]) for each in a)
    kept = [frame.loc[frame["metric"] != Metric.SECONDS].drop(columns="run").reset_index(drop=True) for frame in curves]
    assert kept[0].equals(kept[1])


def stop_at(step: int):
    def report(progress: TrainingProgress) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    return report


@pytest.mark.parametrize("task", ["step_inplace", "step"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(task: str, tmp_path: Path) -> None:
    config = tiny_config(task=task)
    train(config, tmp_path / "whole")
    for step in (14, 25):  # between checkpoints
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "broken", on_progress=stop_at(step))
    train(config, tmp_path / "broken")
    assert_same_run(tmp_path / "whole", tmp_path / "broken")


def every_option() -> RunConfig:
    config = tiny_config(steps=120, eval_every=60)
    options: dict[str, Any] = {"adaptive": 0.5, "ema_decay": 0.95, "steps_along": 6, "checkpoint_every": 25}
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **options))


KILLED = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
from test_training import every_option
from interp.training import train
train(every_option(), Path(sys.argv[2]), on_progress=lambda progress: time.sleep(0.02))
"""


def test_a_run_killed_at_a_random_moment_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(Path(__file__).parent), str(folder)])
    deadline = time.monotonic() + 240
    while not (folder / "resume" / "state.safetensors").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    time.sleep(random.uniform(0, 1.5))
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    state = peek_checkpoint(folder, every_option())
    assert state is not None and state.step % 25 == 0 and not state.done
    assert_same_run(train(every_option(), tmp_path / "whole").path, train(every_option(), folder).path)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    config = tiny_config(steps=10)
    train(config, tmp_path / "run")
    before = (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    train(config, tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns == before


def test_a_folder_of_another_run_is_refused_and_left_alone(tmp_path: Path) -> None:
    train(tiny_config(steps=10), tmp_path / "run")
    before = weights(tmp_path / "run")
    with pytest.raises(RunError, match="holds a run with config .* but .* was asked for"):
        train(tiny_config(steps=10, seed=1), tmp_path / "run")
    assert all(torch.equal(before[name], value) for name, value in weights(tmp_path / "run").items())


def test_the_loss_falls_and_the_curve_is_recorded(tmp_path: Path) -> None:
    run = train(tiny_config(steps=300, eval_every=100), tmp_path / "run")
    losses = select(run.frame("metrics"), metric=Metric.LOSS)["estimate"].tolist()
    assert losses[-1] < 0.5 * losses[0]
    macro = select(run.frame("metrics"), aggregation=Aggregation.MACRO)
    assert macro["checkpoint_step"].tolist() == [100, 200, 300] and macro["estimate"].between(0, 1).all()


def test_only_training_programs_are_trained_on(tmp_path: Path) -> None:
    trainer = Trainer(tiny_config(), tmp_path, Devices(8))
    for step in (0, 1, 29):
        assert (program_hash(trainer.batches.draw(step).examples) % 20 != 0).all()
    assert not torch.equal(trainer.batches.draw(0).tokens, trainer.batches.draw(1).tokens)


def test_optimizer_state_round_trips(tmp_path: Path) -> None:
    config = tiny_config()
    trainer = Trainer(config, tmp_path, Devices(8))
    for step in range(3):
        trainer.update(trainer.batches.draw(step), step)
    saved = trainer.optimizers.state_tensors()
    fresh = Optimizers(build_model(config.model), config.training)
    fresh.load_state_tensors(saved)
    again = fresh.state_tensors()
    assert saved.keys() == again.keys() and all(torch.equal(saved[name], again[name]) for name in saved)
    assert any(name.startswith("muon/blocks.0.mlp") for name in saved) and any("embed" in name for name in saved)
    with pytest.raises(ValueError, match="belongs to no parameter"):
        fresh.load_state_tensors({"muon/blocks.7.mlp.fc_in.weight/momentum_buffer": torch.zeros(1)})


def test_float32_orthogonalization_steps_where_bfloat16_does(tmp_path: Path) -> None:
    """The same Muon step as torch's own, up to bfloat16's rounding."""
    config = tiny_config()
    ours, torchs = Trainer(config, tmp_path, Devices(8)), Trainer(config, tmp_path, Devices(8))
    name = "blocks.0.mlp.fc_in.weight"
    before = ours.model.get_parameter(name).detach().clone()
    for trainer in (ours, torchs):
        batch = trainer.batches.draw(0)
        torch.nn.functional.cross_entropy(trainer.model(batch.tokens).flatten(0, 1), batch.targets.flatten()).backward()
    ours.optimizers.step(10)
    muon = torchs.optimizers._optimizers["muon"]
    muon.param_groups[0]["lr"] = config.training.muon_lr * rate_at(config.training, 10)
    muon.step()
    step, reference = (t.model.get_parameter(name).detach() - before for t in (ours, torchs))
    assert torch.cosine_similarity(step.flatten(), reference.flatten(), dim=0) > 0.999
    assert math.isclose(float(step.norm()), float(reference.norm()), rel_tol=0.02)


def test_the_rate_warms_up_holds_and_falls_to_zero() -> None:
    config = TrainingConfig(steps=100, warmup_steps=10, decay_fraction=0.4)
    rates = [rate_at(config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9] == rates[50] == 1
    assert rates[80] == pytest.approx(0.5) and rates[99] == pytest.approx(1 / 40)
    assert rates == sorted(rates[:10]) + rates[10:60] + sorted(rates[60:], reverse=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("batch_size", -1), ("muon_lr", 0.0), ("decay_fraction", 1.5), ("warmup_steps", -1), ("threads", 0)],
)
def test_settings_out_of_range_are_refused_by_name(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(TrainingConfig(), **{field: value})


def test_bfloat16_autocast_trains(tmp_path: Path) -> None:
    config = tiny_config(steps=60)
    half = dataclasses.replace(config, training=dataclasses.replace(config.training, precision="bfloat16"))
    whole_losses, half_losses = (
        select(train(each, tmp_path / name).frame("metrics"), metric=Metric.LOSS)["estimate"].to_numpy()
        for name, each in (("whole", config), ("half", half))
    )
    assert half_losses == pytest.approx(whole_losses, rel=0.2)
