"""`step`: the causal record S_t S_{t+1}, predicted token by token."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from interp.tasks.answers import fixed_point_of
from interp.tasks.batch import Batch
from interp.tasks.machine_task import NextStateTask, as_targets
from interp.worlds.machine import States


class Step(NextStateTask):
    """S_t followed by S_{t+1}; logits at position p predict token p + 1, the loss is taken on S_{t+1} alone."""

    name = "step"
    words = "one step of the machine, token by token: the model sees the whole state and writes the next one after it"
    attention_dir = "causal"
    shows_answer = True

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

    @property
    def prompt_positions(self) -> slice:
        return slice(0, self.spec.state_length)

    @property
    def answer_positions(self) -> np.ndarray:
        return np.arange(self.spec.state_length - 1, 2 * self.spec.state_length - 1)

    def render(self, examples: States, answers: np.ndarray | None = None) -> Batch:
        answers = self.expected(self.world.answer(examples)) if answers is None else answers
        tokens = np.concatenate([self.world.encode(examples), answers], axis=1)
        return Batch(*as_targets(tokens, self.answer_positions, answers), examples)

    def predict(self, model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        """Greedy decoding by fixed-point iteration: the whole answer is guessed, and re-read until it stands still.

        An answer in which every token is the arg max given the tokens before it *is* the greedy answer; token i is
        right after i + 1 rounds at the latest, and after a few when most of the state is copied (Jacobi decoding,
        Santilli et al. 2023). Where nobody watches the model, S_t is read once and rows that stand still are left out.
        """
        if (decode := fixed_point_of(model)) is not None:
            return decode(tokens, tokens)
        answer = tokens.clone()
        for _ in range(self.spec.state_length + 1):
            logits = model(torch.cat([tokens, answer], dim=1))
            better = self.next_state_logits(logits).argmax(dim=-1)
            if torch.equal(better, answer):
                break
            answer = better
        return answer
