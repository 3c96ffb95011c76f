"""`step_inplace`: the next state read off in place; position i of the answer is position i of the input."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from interp.tasks.batch import Batch
from interp.tasks.machine_task import NextStateTask, as_targets
from interp.worlds.machine import States


class StepInplace(NextStateTask):
    """S_t in, S_{t+1} out, at the same positions; attention is bidirectional."""

    name = "step_inplace"
    words = (
        "one step of the machine, in place: the model sees the whole state and answers, at each position, "
        "with the token that stands there one step later"
    )
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

    @property
    def prompt_positions(self) -> slice:
        return slice(0, self.spec.state_length)

    @property
    def answer_positions(self) -> np.ndarray:
        return np.arange(self.spec.state_length)

    def render(self, examples: States, answers: np.ndarray | None = None) -> Batch:
        answers = self.expected(self.world.answer(examples)) if answers is None else answers
        return Batch(*as_targets(self.world.encode(examples), self.answer_positions, answers), examples)

    def predict(self, model: Callable[[Tensor], Tensor], tokens: Tensor) -> Tensor:
        return model(tokens).argmax(dim=-1)
