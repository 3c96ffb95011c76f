"""Which records each training step learns from: from the world or the disk, staged, and weighted by strata."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.runs import RunConfig
from interp.tasks import Batch, Task
from interp.training.checkpoint import Resumable
from interp.training.curriculum import Curriculum, Stage
from interp.worlds import Split


class Batches:
    """The batches of a run: `draw(step)` is a function of the config and of the state of `parts`.

    Raises:
        ValueError: the task has no strata to weight or to stage, or the settings contradict each other.
    """

    def __init__(self, config: RunConfig, task: Task, *, records: Any = None):
        self.settings, self.task, self.records = config.training, task, records
        self.split: Split = self.settings.training_split
        self.weights = self._weights()
        self.adaptive = self._adaptive()
        self.curriculum = self._curriculum()

    @property
    def parts(self) -> list[Resumable]:
        """What has a state of its own."""
        optional: list[Resumable | None] = [self.adaptive, self.curriculum]
        return [part for part in optional if part is not None]

    def draw(self, step: int) -> Batch:
        """The batch of 0-based `step`, of training units alone."""
        size, seed, task = self.settings.batch_size, self.settings.seed, self.task
        stage = self.curriculum.stage(step) if self.curriculum else None
        if stage is not None:
            return task.render(self._staged(stage, step))
        if self.records is not None:
            weights = self.adaptive.table(step) if self.adaptive else self.weights
            return task.render(*self.records.draw(step, size, seed=seed, weights=weights))
        if self.adaptive:
            return task.render(self.adaptive.draw(step, size, seed=seed))
        return task.trim(task.sample(size, seed=seed, start=step * size, split=self.split, weights=self.weights))

    def _staged(self, stage: Stage, step: int) -> Any:
        size, settings = self.settings.batch_size, self.settings
        weights = stage.weights(settings.balance, settings.loop_weight)
        return stage.draw(size, seed=settings.seed, start=step * size, split=self.split, weights=weights)

    def _weights(self) -> NDArray[np.float64] | None:
        if not self.task.has_strata:
            return None
        return self.task.world.training_weights(self.settings.balance, self.settings.loop_weight)

    def _adaptive(self) -> Any:
        if not self.settings.adaptive:
            return None
        if self.weights is None:
            raise ValueError(f"training adaptive needs a task whose examples have strata; {self.task.name} has none")
        return self.task.world.adaptive_sampler(
            self.weights, self.settings.adaptive, distances=self.records is None, split=self.split
        )

    def _curriculum(self) -> Curriculum | None:
        kind = self.settings.curriculum
        if kind == "none":
            return None
        if not self.task.has_strata:
            raise ValueError(f"training curriculum needs a task whose examples have strata; {self.task.name} has none")
        if self.records is not None:
            raise ValueError("training curriculum draws from the world, not from records: leave data out")
        longest = round(self.settings.stage_share * self.settings.steps)
        return Curriculum(self.task.world.stages(kind), threshold=self.settings.stage_threshold, longest=longest)
