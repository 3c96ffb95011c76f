"""Checkpoints along a run, kept in `steps/`, so that later work can watch what forms when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from interp.runs import STEPS, RunConfig, save_weights

_SPAN = 1000  # the first trained checkpoint comes after this fraction of the run


def steps_along(steps: int, n: int) -> tuple[int, ...]:
    """At which of `steps` optimizer steps to keep the weights: step 0, and up to n - 1 log-spaced from steps/1000 on.

    The last is the final step. Fewer than n where the run has fewer steps; none for n = 0.
    """
    if n < 2:
        return (steps,) * n
    spaced = np.geomspace(max(1, steps / _SPAN), steps, n - 1).round().astype(int)
    return tuple(sorted({0, *spaced.tolist()}))


def keep_step(folder: Path, model: Any, config: RunConfig, step: int) -> None:
    """Write `steps/STEP.safetensors`, in bfloat16."""
    save_weights(folder / STEPS / f"{step}.safetensors", model, config, step=step, dtype=torch.bfloat16)
