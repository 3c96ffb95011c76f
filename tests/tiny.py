"""A configuration that trains in a second, for tests of everything that surrounds a model."""

from __future__ import annotations

from typing import Any

from cython_vm import MachineSpec
from interp.runs import RunConfig
from interp.training import TrainingConfig
from interp.training.presets import transformer_for
from interp.worlds import as_world


def tiny_config(*, task: str = "step_inplace", steps: int = 30, seed: int = 0, **training: int) -> RunConfig:
    """A run that trains in a second: 6 instructions, 3 cells, one layer of width 16."""
    spec = MachineSpec(n_instructions=6, n_cells=3, n_input=1, n_output=1, bits=1)
    settings: dict[str, Any] = {
        "batch_size": 8,
        "eval_every": 10,
        "eval_states": 60,
        "checkpoint_every": 10,
        "threads": 1,
    } | training
    return RunConfig(
        task=task,
        world=as_world(spec),
        model=transformer_for(task, spec, seed=seed, n_layers=1, n_heads=2, d_model=16),
        training=TrainingConfig(steps=steps, seed=seed, warmup_steps=5, **settings),
    )
