"""`step`: the causal record S_t S_{t+1}, predicted token by token."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from cython_vm import States, encode
from cython_vm import step as machine_step
from interp.tasks.base import Batch, Task, fixed_point_of


class Step(Task):
    """S_t followed by S_{t+1}; logits at position p predict token p + 1, the loss is taken on S_{t+1} alone."""

    name = "step"
    attention_dir = "causal"

    @property
    def position_names(self) -> tuple[str, ...]:
        names = tuple(self.spec.layout.names)
        return names + tuple(f"next.{name}" for name in names)

    @property
    def position_roles(self) -> tuple[int, ...]:
        roles = [int(role) for role in self.spec.layout.roles]
        return tuple(roles + [role + self.spec.layout.n_roles for role in roles])

    @property
    def position_indices(self) -> tuple[int, ...]:
        return tuple(int(index) for index in self.spec.layout.indices) * 2

    def batch(self, states: States, answers: np.ndarray | None = None) -> Batch:
        answers = machine_step(states).tokens() if answers is None else answers
        tokens = torch.from_numpy(np.concatenate([encode(states), answers], axis=1).astype(np.int64))
        length = self.spec.state_length
        loss_mask = torch.zeros_like(tokens, dtype=torch.bool)
        loss_mask[:, length - 1 : -1] = True
        targets = torch.full_like(tokens, -1)
        targets[:, length - 1 : -1] = tokens[:, length:]
        return Batch(tokens, targets, loss_mask, states)

    def predict(self, model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        """Greedy decoding by fixed-point iteration: the whole answer is guessed, and re-read until it stands still.

        An answer in which every token is the arg max given the tokens before it *is* the greedy answer; token i is
        right after i + 1 rounds at the latest, and after a few when most of the state is copied (Jacobi decoding,
        Santilli et al. 2023). Where nobody watches the model, S_t is read once and rows that stand still are left out.
        """
        if (decode := fixed_point_of(model)) is not None:
            return decode(tokens, tokens)
        length = self.spec.state_length
        answer = tokens.clone()
        for _ in range(length + 1):
            logits = model(torch.cat([tokens, answer], dim=1))
            better = self.next_state_logits(logits).argmax(dim=-1)
            if torch.equal(better, answer):
                break
            answer = better
        return answer

    def next_state_logits(self, logits: Tensor) -> Tensor:
        length = self.spec.state_length
        return logits[:, length - 1 : 2 * length - 1]
