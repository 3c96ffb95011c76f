"""Which records each training step learns from: from the machine or the disk, staged, and weighted by strata."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cython_vm import MachineSpec, Op, States, strata_weights
from interp.runs import RunConfig
from interp.tasks import Batch, Task
from interp.training.adaptive import AdaptiveSampler
from interp.training.checkpoint import Resumable
from interp.training.curriculum import STAGES, Curriculum, Stage
from interp.training.records import TrainingRecords


class Batches:
    """The batches of a run: `draw(step)` is a function of the config and of the state of `parts`.

    Raises:
        ValueError: the task has no strata to weight or to stage, or the settings contradict each other.
    """

    def __init__(self, config: RunConfig, task: Task, *, records: TrainingRecords | None = None):
        self.settings, self.task, self.records = config.training, task, records
        self.weights = self._weights(task.spec)
        self.adaptive = self._adaptive()
        self.curriculum = self._curriculum()

    @property
    def parts(self) -> list[Resumable]:
        """What has a state of its own."""
        optional: list[Resumable | None] = [self.adaptive, self.curriculum]
        return [part for part in optional if part is not None]

    def draw(self, step: int) -> Batch:
        """The batch of 0-based `step`, of training programs alone."""
        size, seed, task = self.settings.batch_size, self.settings.seed, self.task
        stage = self.curriculum.stage(step) if self.curriculum else None
        if stage is not None:
            return task.batch(self._staged(stage, step))
        if self.records is not None:
            weights = self.adaptive.table(step) if self.adaptive else self.weights
            return task.batch(*self.records.draw(step, size, seed=seed, weights=weights))
        if self.adaptive:
            return task.batch(self.adaptive.draw(step, size, seed=seed))
        return task.trim(task.sample(size, seed=seed, start=step * size, split="train", weights=self.weights))

    def _staged(self, stage: Stage, step: int) -> States:
        size = self.settings.batch_size
        return stage.draw(
            self.task.spec,
            size,
            seed=self.settings.seed,
            start=step * size,
            split="train",
            weights=self._weights(stage.spec),
        )

    def _weights(self, spec: MachineSpec) -> NDArray[np.float64] | None:
        if not self.task.has_strata:
            return None
        return training_weights(spec, balance=self.settings.balance, loop_weight=self.settings.loop_weight)

    def _adaptive(self) -> AdaptiveSampler | None:
        if not self.settings.adaptive:
            return None
        if self.weights is None:
            raise ValueError(f"training adaptive needs a task with op x outcome strata; {self.task.name} has none")
        return AdaptiveSampler(self.task.spec, self.weights, self.settings.adaptive, distances=self.records is None)

    def _curriculum(self) -> Curriculum | None:
        kind = self.settings.curriculum
        if kind == "none":
            return None
        if not self.task.has_strata:
            raise ValueError(f"training curriculum needs a task with op x outcome strata; {self.task.name} has none")
        if self.records is not None:
            raise ValueError("training curriculum draws from the machine, not from records: leave data out")
        longest = round(self.settings.stage_share * self.settings.steps)
        return Curriculum(STAGES[kind](self.task.spec), threshold=self.settings.stage_threshold, longest=longest)


def training_weights(spec: MachineSpec, *, balance: str, loop_weight: float) -> NDArray[np.float64] | None:
    """Strata weights for `cython_vm.sample` from the training settings; None for the natural distribution."""
    if balance == "natural":
        return None
    weights = strata_weights(spec, branches=balance == "branches").copy()
    weights[[Op.WHILE, Op.ENDW]] *= loop_weight
    return weights / weights.sum()
