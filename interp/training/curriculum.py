"""A staged curriculum: from a small language, or a small machine, to the whole one, each stage until it is mastered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.tasks import Task
from interp.training.scoring import answered
from interp.worlds import Split

_GATE_SEED = 7  # of the held-out states that decide whether a stage is mastered; no figure uses it


class Stage(Protocol):
    """A part of a world that is learned before the whole."""

    @property
    def name(self) -> str: ...

    def draw(self, n: int, *, seed: int, start: int, split: Split, weights: NDArray[np.float64] | None) -> Any:
        """Examples of the stage, as examples of the whole world."""
        ...

    def weights(self, balance: str, loop_weight: float = 1.0) -> NDArray[np.float64] | None:
        """Shares of the stage's strata, as `World.training_weights`."""
        ...


class Curriculum:
    """Which stage is being trained, decided by a competence gate.

    A stage gives way to the next when the model's macro exact match on the stage's held-out programs reaches
    `threshold`, or when the stage has had `longest` steps. The next batch is drawn by then, so that the change takes
    effect one step later; it is kept as the step at which each stage begins, and so survives an interruption.
    """

    prefixes = ("curriculum/",)

    def __init__(self, stages: tuple[Stage, ...], *, threshold: float, longest: int):
        self.stages, self.threshold, self.longest = stages, threshold, longest
        self.begins = [0]  # the step at which each stage so far begins; the one after the last is the whole machine

    @property
    def finished(self) -> bool:
        """Whether the last change, to the whole machine, has been decided."""
        return len(self.begins) > len(self.stages)

    def stage(self, step: int) -> Stage | None:
        """The stage of 0-based `step`; None: the whole machine."""
        number = sum(begin <= step for begin in self.begins) - 1
        return self.stages[number] if number < len(self.stages) else None

    def advance(self, done: int, score: float | None = None) -> bool:
        """Decide after `done` steps whether the current stage is over; score: its macro exact match, if measured."""
        if self.finished:
            return False
        over = done - self.begins[-1] >= self.longest or (score is not None and score >= self.threshold)
        if over:
            self.begins.append(done + 1)
        return over

    def state_tensors(self) -> dict[str, Tensor]:
        """The steps at which stages began."""
        return {"curriculum/begins": torch.tensor(self.begins)}

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state_tensors` gave."""
        self.begins = tensors["curriculum/begins"].tolist()


def stage_score(model: Callable[[Tensor], Tensor], task: Task, stage: Stage, *, n: int, split: Split) -> float:
    """Macro exact match on `n` examples of a stage's held-out units."""
    batch = task.render(stage.draw(n, seed=_GATE_SEED, start=0, split=split, weights=stage.weights("op_outcome")))
    with torch.inference_mode():
        scores = task.score(answered(model, task, batch), batch)
    return task.headline(scores)
