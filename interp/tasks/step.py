"""`step`: the causal record S_t S_{t+1}, predicted token by token."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from interp.tasks.answers import greedy_answer
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
        """Greedy decoding from a guess that nothing changes, see `greedy_answer`: most of a state is copied."""
        return greedy_answer(model, tokens, tokens)
