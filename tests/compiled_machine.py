"""A machine small enough to be quick, with everything in it, and what tests ask of a compiled interpreter."""

from __future__ import annotations

import numpy as np
import torch

from cython_vm import MachineSpec, States, sample, step, strata_weights
from interp.compiled import Compiled

SPEC = MachineSpec(n_instructions=7, n_cells=4, n_input=2, n_output=2, bits=2)


def stratified(spec: MachineSpec, n: int, *, seed: int = 0) -> States:
    """States with every op x outcome x branch equally often."""
    return sample(spec, n, seed=seed, weights=strata_weights(spec, branches=True))


@torch.inference_mode()
def margins(compiled: Compiled, states: States, *, batch_size: int = 256) -> torch.Tensor:
    """By how much the right token's logit exceeds the best other, the least over the answer's slots, [n]."""
    task = compiled.form.task
    tokens = task.render(states).tokens
    logits = torch.cat([task.next_state_logits(compiled.model(part)) for part in tokens.split(batch_size)]).float()
    right = torch.from_numpy(step(states).tokens().astype(np.int64))[..., None]
    best_other = logits.scatter(-1, right, -torch.inf).amax(-1)
    return (logits.gather(-1, right)[..., 0] - best_other).amin(-1)
