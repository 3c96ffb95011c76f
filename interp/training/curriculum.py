"""A staged curriculum: from a small language, or a small machine, to the whole one, each stage until it is mastered."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cython_vm import MachineSpec, States, sample, strata_weights
from cython_vm.spec import SIZES
from interp.tasks import Task, macro_average

_GATE_SEED = 7  # of the held-out states that decide whether a stage is mastered; no figure uses it
_SIZES = (0.25, 0.5, 0.75)  # of a padded machine, before the whole


@dataclass(frozen=True)
class Stage:
    """What a stage draws: states of a machine with the same slots, on which some instructions or sizes are missing."""

    name: str
    spec: MachineSpec
    sizes: Mapping[str, tuple[int, int]] | None = None  # of a padded machine's rows

    def draw(
        self, whole: MachineSpec, n: int, *, seed: int, start: int, split: str, weights: NDArray[np.float64] | None
    ) -> States:
        """States of the stage as states of the whole machine; the arguments are those of `cython_vm.sample`."""
        states = sample(self.spec, n, seed=seed, start=start, split=split, weights=weights, sizes=self.sizes)
        return States.wrap(whole, states.rows)


def language_stages(spec: MachineSpec) -> tuple[Stage, ...]:
    """Programs of moves and counts alone, then with I/O, then with loops instead; the whole language is next."""
    named = {
        "moves and counts": dataclasses.replace(spec, io=False, loops=False),
        "I/O": dataclasses.replace(spec, loops=False),
        "loops": dataclasses.replace(spec, io=False),
    }
    seen: dict[MachineSpec, Stage] = {}
    for name, small in named.items():
        if small != spec:
            seen.setdefault(small, Stage(name, small))
    return tuple(seen.values())


def size_stages(spec: MachineSpec) -> tuple[Stage, ...]:
    """Rows of up to a quarter, a half, three quarters of a padded machine's sizes; all sizes are next."""
    if not spec.padded:
        raise ValueError("training curriculum 'sizes' needs a padded machine: --machine padded=true")
    least = {"n_instructions": 2, "n_cells": 1, "n_input": 0, "n_output": 0}
    stages = []
    for share in _SIZES:
        sizes = {name: (least[name], max(least[name], round(share * getattr(spec, name)))) for name in SIZES}
        stages.append(Stage(f"{share:.0%} of the sizes", spec, sizes))
    return tuple(stages)


STAGES: dict[str, Callable[[MachineSpec], tuple[Stage, ...]]] = {"language": language_stages, "sizes": size_stages}


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


def stage_score(model: Callable[[Tensor], Tensor], task: Task, stage: Stage, *, n: int) -> float:
    """Macro exact match over op × outcome on `n` states of a stage's held-out programs."""
    states = stage.draw(task.spec, n, seed=_GATE_SEED, start=0, split="evaluation", weights=strata_weights(stage.spec))
    batch = task.batch(states)
    with torch.inference_mode():
        scores = task.score(task.answer(model, batch), batch)
    return macro_average(scores)
