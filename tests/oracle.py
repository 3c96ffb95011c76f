"""Models whose mistakes are known: the machine itself as a model of `step_inplace`, spoilt where a test says so."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cython_vm import MachineSpec, Transition, decode, step

SPEC = MachineSpec(n_instructions=6, n_cells=3, n_input=2, n_output=2, bits=2)
Spoil = Callable[[np.ndarray, Transition, np.ndarray], None]  # right tokens to change, the transition, tokens of S_t


class Oracle(torch.nn.Module):
    """Logits of the machine's next state, `sharpness` on the right token; `spoil` edits the answer first."""

    def __init__(self, spec: MachineSpec = SPEC, spoil: Spoil | None = None, sharpness: float = 60.0):
        super().__init__()
        self.spec, self.spoil, self.sharpness = spec, spoil, sharpness
        self.calls = 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        states = decode(self.spec, tokens.numpy())
        transition = step(states)
        answer = transition.tokens().copy()
        if self.spoil is not None:
            self.spoil(answer, transition, tokens.numpy())
        one_hot = torch.nn.functional.one_hot(torch.from_numpy(answer.astype(np.int64)), len(self.spec.vocab))
        return self.sharpness * one_hot.double()
