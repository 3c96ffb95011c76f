"""`step_inplace`: the next state read off in place; position i of the answer is position i of the input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cython_vm import States, encode, step
from interp.tasks.base import Batch, Task


class StepInplace(Task):
    """S_t in, S_{t+1} out, at the same positions; attention is bidirectional."""

    name = "step_inplace"
    attention_dir = "bidirectional"

    @property
    def position_names(self) -> tuple[str, ...]:
        return tuple(self.spec.layout.names)

    @property
    def position_roles(self) -> tuple[int, ...]:
        return tuple(int(role) for role in self.spec.layout.roles)

    @property
    def position_indices(self) -> tuple[int, ...]:
        return tuple(int(index) for index in self.spec.layout.indices)

    def batch(self, states: States, answers: np.ndarray | None = None) -> Batch:
        targets = step(states).tokens() if answers is None else answers
        tokens = torch.from_numpy(encode(states).astype(np.int64))
        return Batch(
            tokens, torch.from_numpy(targets.astype(np.int64)), torch.ones_like(tokens, dtype=torch.bool), states
        )

    def predict(self, model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        return model(tokens).argmax(dim=-1)

    def next_state_logits(self, logits: Tensor) -> Tensor:
        return logits
