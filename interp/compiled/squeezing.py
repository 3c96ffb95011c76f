"""How far ahead of all others the right token is, and how far a model can be squeezed before that is lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from cython_vm import MachineSpec, States, sample, strata_weights
from interp.compiled.build import CLEAN, Compiled, compile_model
from interp.compiled.config import NoiseConfig

_BATCH = 64


def margin(compiled: Compiled, states: States) -> float:
    """The smallest lead of a right token's logit over every other's, at any slot of S_{t+1}; below 0 at a mistake."""
    task, smallest = compiled.form.task, float("inf")
    with torch.inference_mode():
        for start in range(0, len(states), _BATCH):
            batch = task.render(states[start : start + _BATCH])
            logits = task.next_state_logits(compiled.model(batch.tokens))
            right = batch.targets[batch.loss_mask].view(len(batch), -1, 1)
            lead = logits.gather(-1, right) - logits.scatter(-1, right, -torch.inf).amax(-1, keepdim=True)
            smallest = min(smallest, float(lead.min()))
    return smallest


def tightest(
    spec: MachineSpec,
    *,
    task: str = "step_inplace",
    noise: NoiseConfig = CLEAN,
    least: float = 5.0,
    sharpness: float = 12.0,
    gain: float = 10.0,
    n_states: int = 600,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> NoiseConfig:
    """`noise` with the largest `squeeze` before the first that leaves a margin below `least`.

    Judged on n_states, every op × outcome as often as any other. `progress` is told (squeeze, margin).

    Raises:
        ValueError: the margin is below `least` without any squeeze.
    """
    states = sample(spec, n_states, seed=seed, weights=strata_weights(spec, branches=True))
    held = None
    while True:
        tried = replace(noise, squeeze=0 if held is None else held.squeeze + 1)
        try:
            compiled = compile_model(spec, task=task, noise=tried, sharpness=sharpness, gain=gain)
        except ValueError:
            if held is None:
                raise
            return held  # nothing left to squeeze
        lead = margin(compiled, states)
        if progress is not None:
            progress(tried.squeeze, lead)
        if lead < least:
            if held is None:
                raise ValueError(f"without any squeeze the right token leads by {lead:.2f} logits, not by {least:g}")
            return held
        held = tried
