"""`slots`: a task of the slot machine and its input go in; what the machine's memory holds in the end comes out.

    add  a[0] … a[n-1]  |  b[0] … b[n-1]  =  memory[0] memory[1] …

The prompt names the task and shows the input, group by group, numbers least significant digit first. Behind it stands a
blank for each slot of the memory that would do the task; the answer is asked for at the slots that hold it once the
compiled program has run. A model may say it at once, or write the memory and run it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.tasks.base import Task
from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast
from interp.worlds.slots import SlotWorld
from interp.worlds.slots_assembler import array_role
from interp.worlds.slots_programs import COMPILERS

_CANONICAL = 4  # a size at which every role of a looped plan occurs


class SlotsTask(Task):
    """The world `slots` as tokens."""

    name = "slots"
    words = (
        "The model reads the name of a task and its input, and says what a small computer's memory holds once the "
        "task is done: at once, or by writing a program into memory and running it."
    )
    attention_dir = "bidirectional"
    positions = "block"
    has_strata = False
    whole_answers = True
    has_plan = True
    world: SlotWorld

    @property
    def vocab(self) -> tuple[str, ...]:
        """Contents, the names of all tasks, and what stands between them."""
        return (*map(str, range(self.world.spec.n_values)), *COMPILERS, "|", "=", "_")

    @cached_property
    def _shown(self) -> list[tuple[str, tuple[str, int]]]:
        """Name and role of every token of the prompt."""
        return _prompt(self.world)

    @property
    def position_names(self) -> tuple[str, ...]:
        """The prompt's, then memory[0] and on."""
        return (*(name for name, _ in self._shown), *(f"memory[{s}]" for s in range(self.world.spec.n_slots)))

    @cached_property
    def _roles(self) -> list[tuple[str, int]]:
        return [*(role for _, role in self._shown), *self.world.program.roles]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        """Roles by number, the same at every size as far as they occur at the canonical one."""
        world = self.world.changed(size=_CANONICAL, least=1)
        canonical = [role for _, (role, _) in _prompt(world)] + [role for role, _ in world.program.roles]
        every = dict.fromkeys([*canonical, *(role for role, _ in self._roles)])
        return {role: number for number, role in enumerate(every)}

    @property
    def position_roles(self) -> tuple[int, ...]:
        """A slot's own, of an array its first's, its last's or that of those between; likewise in the prompt."""
        return tuple(self._numbers[role] for role, _ in self._roles)

    @property
    def position_indices(self) -> tuple[int, ...]:
        return tuple(index for _, index in self._roles)

    @property
    def prompt_positions(self) -> slice:
        return slice(0, len(self._shown))

    @property
    def answer_positions(self) -> np.ndarray:
        return len(self._shown) + np.array(self.world.program.answers)

    # What a model sees.

    def render(self, examples: Any, answers: np.ndarray | None = None) -> Batch:
        """The tokens of the task, and what is asked; `answers` are judged, never shown."""
        if answers is None:
            answers = self.expected(self.world.answer(examples))
        vocab, inputs = self.vocab, list(self.world.input_names)
        tokens = torch.full((len(examples), self.n_ctx), vocab.index("_"))
        values = torch.from_numpy(examples.values)
        for position, (name, _) in enumerate(self._shown):
            if name in inputs:
                tokens[:, position] = values[:, inputs.index(name)]
            else:
                tokens[:, position] = vocab.index(self.world.task.program if name == "task" else name.partition(" ")[0])
        targets = torch.full_like(tokens, -1)
        targets[:, torch.from_numpy(self.answer_positions)] = torch.from_numpy(np.asarray(answers).astype(np.int64))
        return Batch(tokens, targets, targets >= 0, examples)

    def expected(self, answer: Any) -> np.ndarray:
        """The contents of the answer's slots, −1 where there is none."""
        return np.where(answer.valid[:, None], answer.values, -1)

    # What a model that plans is held against.

    def memories(self, batch: Batch) -> Tensor:
        """The memory that does each example, before the first step, long [batch, width]; see `cython_vm.slots`."""
        return torch.from_numpy(self.world.memories(batch.examples).astype(np.int64))

    def trace(self, batch: Batch, n_steps: int) -> Tensor:
        """The memory before the first step and after each, long [batch, n_steps + 1, width]."""
        return torch.from_numpy(self.world.trace(batch.examples, n_steps).astype(np.int64))

    def n_steps(self, batch: Batch) -> np.ndarray:
        """How many steps each example's run has, int64 [batch]."""
        return self.world.n_steps(batch.examples)

    # What is asked of a model's inside.

    def contrasts(self) -> Mapping[str, Contrast]:
        """None."""
        return {}

    def position_sets(self) -> list[str]:
        """Each token of the input's first places, the slots of the answer's, and all positions (a ceiling)."""
        inputs = [name for name, _ in self._shown if name in self.world.input_names][:4]
        return [*inputs, *(f"memory[{s}]" for s in self.world.program.inputs[:4]), "all"]

    def probe_places(self) -> list[str]:
        """The first token of the input, and the slot that is to hold it."""
        return [self.world.input_names[0], f"memory[{self.world.program.inputs[0]}]"]


def _prompt(world: SlotWorld) -> list[tuple[str, tuple[str, int]]]:
    """Name and role of every token of the prompt: groups of the input, separated; shown and stored places are told
    apart by their roles, and correspond in their indices."""
    found: list[tuple[str, tuple[str, int]]] = [("task", ("task", 0))]
    families = list(dict.fromkeys(name.partition("[")[0] for name in world.input_names))
    for number, family in enumerate(families):
        if number:
            found.append((f"| {number}", (f"| {number}", 0)))
        members = [name for name in world.input_names if name.partition("[")[0] == family]
        for i, name in enumerate(members):
            role = array_role(f"shown {family}", i, len(members)) if "[" in name else (f"shown {name}", 0)
            found.append((name, role))
    return [*found, ("=", ("=", 0))]
