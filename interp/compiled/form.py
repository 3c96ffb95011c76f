"""What the passes need to know of the machine and of the task: sizes, names of subspaces, ids of tokens.

In `step_inplace` the position that holds a slot also answers for it. In `step` the answer for slot s is given at the
position before it in the second half, so that position has an address of its own (`slot_index`, `slot_role`), says
which token it keeps in `answer`, and looks the old content of its slot up in the first half.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import cast

import numpy as np

from cython_vm import MachineSpec, Op
from interp.compiled.components import Feature
from interp.tasks import TASKS
from interp.tasks.machine_task import NextStateTask
from interp.worlds import as_world

BLOCKS = ("instruction_ptr", "instructions", "array_ptr", "cells", "input", "output")
ROLES = (*BLOCKS, "start", "input_end", "output_end")  # "{", and the brackets that close the two buffers
_LAYOUT = {"padded": False, "pointers": "one_hot", "punctuation": "blocks", "outcome_token": False}


@dataclass(frozen=True)
class Form:
    """One machine under one task."""

    spec: MachineSpec
    task_name: str

    def __post_init__(self) -> None:
        if self.task_name not in ("step_inplace", "step"):
            raise ValueError(f"a program is known for the tasks step_inplace and step; got {self.task_name!r}")
        for name, value in _LAYOUT.items():
            if getattr(self.spec, name) != value:
                raise ValueError(
                    f"a program is known for machines with {name}={value!r}; got {getattr(self.spec, name)!r}"
                )

    @cached_property
    def task(self) -> NextStateTask:
        return cast(NextStateTask, TASKS[self.task_name](as_world(self.spec)))

    @property
    def causal(self) -> bool:
        return self.task_name == "step"

    # Names of the subspaces with which a position speaks of the slot that it answers for.

    @property
    def own_index(self) -> str:
        return "slot_index" if self.causal else "index"

    @property
    def own_role(self) -> str:
        return "slot_role" if self.causal else "role"

    @property
    def answer(self) -> str:
        """The subspace of the next token; until the last MLP it holds the present one."""
        return "answer" if self.causal else "token"

    # Sizes.

    @property
    def n_numbers(self) -> int:
        return self.spec.max_value + 1

    @property
    def n_indices(self) -> int:
        """Slots of the longest block, the brackets that close the buffers counted as one slot more."""
        spec = self.spec
        return max(spec.n_instructions, spec.n_cells, spec.n_input + 1, spec.n_output + 1)

    @property
    def n_levels(self) -> int:
        """How deep loops can nest."""
        return (self.spec.n_instructions - 1) // 2 if self.spec.loops else 0

    # Features.

    def token(self, name: str) -> Feature:
        return ("token", self.spec.token_id(name))

    def answer_token(self, name: str) -> Feature:
        return (self.answer, self.spec.token_id(name))

    def op(self, op: Op) -> Feature:
        """The feature of the subspace `op` for an opcode of this machine."""
        return ("op", self.spec.ops.index(op))

    def own_block(self, block: str) -> Feature:
        return (self.own_role, BLOCKS.index(block))

    def number_ids(self) -> list[int]:
        """Token ids of NUM_0, NUM_1, …"""
        return [self.spec.number_id(value) for value in range(self.n_numbers)]

    # Positions.

    def positions(self, part: str) -> list[int]:
        """Token positions, in the first half, of a block or a named position."""
        layout = self.spec.layout
        if part in BLOCKS:
            where = layout.slice(part)
            return list(range(where.start, where.stop))
        return [layout.index(part)]

    def answers(self, block: str) -> list[int]:
        """Token positions at which the next content of a block's slots is predicted."""
        shift = self.spec.state_length - 1 if self.causal else 0
        return [position + shift for position in self.positions(block)]

    @property
    def answering(self) -> range:
        """Token positions at which S_{t+1} is predicted, all of it."""
        length = self.spec.state_length
        return range(length - 1, 2 * length - 1) if self.causal else range(length)

    def name_of(self, positions: list[int]) -> str:
        """A set of token positions in the words of interp.tasks.sites: whole blocks by their names."""
        names, left = self.task.position_names, set(positions)
        if left == set(range(len(names))):
            return "all"
        parts = []
        for block in [*BLOCKS, *(f"next.{block}" for block in BLOCKS)]:
            slots = {i for i, name in enumerate(names) if name.startswith(f"{block}[")}
            if slots and slots <= left:
                parts.append(block)
                left -= slots
        return "+".join([*parts, *(names[position] for position in sorted(left))])


def embedding_positions(form: Form, spaces: dict[str, int]) -> np.ndarray:
    """What each position embeds to, [n_ctx, n_features]: the address it holds and the address it answers for."""
    spec, layout = form.spec, form.spec.layout
    starts = dict(zip(spaces, np.cumsum([0, *spaces.values()])[:-1], strict=True))
    table = np.zeros((form.task.n_ctx, sum(spaces.values())))

    def mark(position: int, space: str, index: int) -> None:
        table[position, starts[space] + index] = 1.0

    for block in BLOCKS:
        for index, (holds, answers) in enumerate(zip(form.positions(block), form.answers(block), strict=True)):
            mark(holds, "index", index)
            mark(holds, "role", BLOCKS.index(block))
            if form.causal:
                mark(answers, "slot_index", index)
                mark(answers, "slot_role", BLOCKS.index(block))
    mark(layout.index("{"), "role", ROLES.index("start"))
    for block, size in (("input", spec.n_input), ("output", spec.n_output)):
        mark(layout.index(f"{block}.]"), "index", size)
        mark(layout.index(f"{block}.]"), "role", ROLES.index(f"{block}_end"))
    if form.causal:  # braces and brackets are the same in every answer
        for position, name in enumerate(layout.names):
            if name in "{}" or name.endswith((".[", ".]")):
                mark(spec.state_length - 1 + position, "answer", spec.token_id(name[-1]))
    return table
