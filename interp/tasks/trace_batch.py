"""Streams as a batch of the task `trace`, with the runs that they tell of."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from interp.tasks.batch import Batch
from interp.worlds.machine import MachineRun, MachineWorld


@dataclass(frozen=True)
class TraceBatch(Batch):
    """Streams, with the runs that they tell of. `examples` are the states at the start of each run."""

    run: MachineRun  # every state on the way, the row of example i at run.offsets[i] …
    step_of: np.ndarray  # int64 [batch, pos]: the executed instruction that a token belongs to; -1 past the end
    is_answer: np.ndarray  # bool [batch, pos]: the token is what an instruction read, emitted or decided
    world: MachineWorld
    n_steps: int  # of each run, at most

    def __getitem__(self, rows: slice | np.ndarray) -> TraceBatch:
        """Some of the streams, by a slice or their numbers; their runs are made anew."""
        examples = self.examples[rows]
        return TraceBatch(
            self.tokens[rows],
            self.targets[rows],
            self.loss_mask[rows],
            examples,
            self.world.run(examples, self.n_steps),
            self.step_of[rows],
            self.is_answer[rows],
            self.world,
            self.n_steps,
        )

    @cached_property
    def state_of(self) -> np.ndarray:
        """The row of `run.states` in which a token's instruction is executed, int64 [batch, pos]; -1 past the end."""
        assert self.run.offsets is not None
        return np.where(self.step_of >= 0, self.run.offsets[:-1, None] + self.step_of, -1)

    def op_position(self, steps: np.ndarray) -> np.ndarray:
        """The position of the op token of one executed instruction of each stream, int64 [batch]."""
        found = (self.step_of == steps[:, None]) & ~self.is_answer
        found[:, 0] = False
        if not found.any(axis=1).all():
            row = int(np.argmin(found.any(axis=1)))
            raise ValueError(f"stream {row} has no executed instruction {steps[row]}")
        return found.argmax(axis=1)


def streams_of(batch: Batch) -> TraceBatch:
    """The batch, if it is one of streams. Raises TypeError."""
    if not isinstance(batch, TraceBatch):
        raise TypeError(f"expected a batch of the trace task, got {type(batch).__name__}")
    return batch
