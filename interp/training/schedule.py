"""The learning rate over a run, as a multiplier of each optimizer's peak."""

from __future__ import annotations

import math

from interp.runs.training_config import TrainingConfig


def rate_at(config: TrainingConfig, step: int) -> float:
    """The multiplier of 0-based `step`, in [0, 1]: linear warm-up, then what `config.schedule` says.

    linear: constant, then a straight line to zero over the last `decay_fraction` of the steps. wsd: the same, with a
    decay of 1 - sqrt (Hägele et al. 2024). cosine: half a cosine from the end of the warm-up to zero (Loshchilov &
    Hutter 2017); `decay_fraction` has no part in it.
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    if config.schedule == "cosine":
        after_warmup = max(1, config.steps - config.warmup_steps)
        done = min(1.0, max(0.0, (step - config.warmup_steps) / after_warmup))
        return warm * 0.5 * (1 + math.cos(math.pi * done))
    decay_steps = max(1, round(config.steps * config.decay_fraction))
    left = min(1.0, (config.steps - step) / decay_steps)
    return warm * (left if config.schedule == "linear" else 1 - math.sqrt(1 - left))
