"""Two processes train as one does, by the command that people type, and go on where one process stopped."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config

from interp.results import Metric, select
from interp.runs import Run, RunConfig, load
from interp.training import TrainingProgress, train


def config() -> RunConfig:
    settings: dict[str, Any] = {"adaptive": 0.5, "ema_decay": 0.9}
    whole = tiny_config(steps=60, eval_every=60, checkpoint_every=15)
    return dataclasses.replace(whole, training=dataclasses.replace(whole.training, **settings))


def stop(progress: TrainingProgress) -> None:
    if progress.step == 20:
        raise KeyboardInterrupt


def losses(run: Run) -> list[float]:
    return select(run.frame("metrics"), metric=Metric.LOSS)["estimate"].tolist()


def test_two_processes_train_as_one(tmp_path: Path) -> None:
    one = train(config(), tmp_path / "one")
    with pytest.raises(KeyboardInterrupt):
        train(config(), tmp_path / "two", on_progress=stop)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "interp"]
    command = [*launch, "train", "--resume", "--out", str(tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained to step 60") == 1  # one of them speaks
    two = load(tmp_path / "two")
    assert losses(two) == pytest.approx(losses(one), rel=1e-3)
    tokens = one.task.sample(64, seed=3).tokens
    with torch.no_grad():
        logits = [run.model(tokens).log_softmax(-1) for run in (one, two)]
    assert float((logits[0] - logits[1]).abs().mean()) < 1e-3
