"""Rollout: a model runs whole programs on its own predictions, until it first departs from the world.

1. Held-out programs begin where the world says (`World.rollout_starts`: those of the machine with pointers 0, cells 0
   and an empty output, and a random input).
2. The model's answer to an example is its next example to answer (`World.advance`); the world steps beside it.
3. A program ends where the world stands still or comes back (`World.different_steps`): a deterministic model that was
   right there is right for ever, so such a program counts as followed to the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.ranges import counted
from interp.results import Aggregation, IntervalKind, Method, Metric, wilson_interval
from interp.stage_options import EvaluationOptions
from interp.tasks import Task
from interp.training.scoring import answered
from interp.training.tally import Tally
from interp.worlds import World

_SHOWN_STEPS = (1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100)


@dataclass(frozen=True, eq=False)
class Rollout:
    """How far a model followed n programs. Arrays are [n]."""

    programs: str  # where they come from, in words of one row's stratum: long or evolved
    max_steps: int
    n_steps: NDArray[np.int64]  # different steps that the program has within the limit
    departed: NDArray[np.int64]  # the number of the first wrong step, from 1; 0: none
    stratum: NDArray[np.int64]  # number of the stratum of the first wrong step, its op; -1: none
    part: NDArray[np.int64]  # number of the stratum's part, its outcome; -1: none
    world: World

    def __len__(self) -> int:
        return len(self.departed)

    def survival(self, steps: int) -> float:
        """Share of the programs that are followed without an error for so many steps."""
        return float(((self.departed == 0) | (self.departed > steps)).mean())

    def rows(self) -> list[dict[str, Any]]:
        """Survival after 1, 2, 3, 5 … steps (`stratum` "long: 20 steps"), and first errors by stratum."""
        n = len(self)
        common = {
            "method": Method.GREEDY,
            "aggregation": Aggregation.MEAN,
            "interval_kind": IntervalKind.WILSON,
            "n": n,
        }
        rows: list[dict[str, Any]] = []
        for steps in [k for k in _SHOWN_STEPS if k < self.max_steps] + [self.max_steps]:
            low, high = wilson_interval(round(self.survival(steps) * n), n)
            own = {"metric": Metric.SURVIVAL, "stratum": f"{self.programs}: {steps} steps"}
            rows.append({**common, **own, "estimate": self.survival(steps), "ci_low": low, "ci_high": high})
        causes = Tally.of(self.world)
        for at, part in sorted({*zip(self.stratum.tolist(), self.part.tolist(), strict=True)} - {(-1, -1)}):
            share = float(((self.stratum == at) & (self.part == part)).mean())
            named = [self.world.stratum_names[at], *([self.world.part_names[part]] if part >= 0 else [])]
            stratum = f"{self.programs}: {named[-1]}"
            row = {"metric": Metric.DEPARTURE, "op": named[0], "stratum": stratum, "estimate": share, "n": n}
            causes.add([row])
        return rows + [{**common, **row} for row in causes.rows()]


@counted(batch_size=1)
def rollout(
    model: Callable[[Tensor], Tensor],
    task: Task,
    starts: Any,
    *,
    programs: str,
    max_steps: int = EvaluationOptions.max_steps,
    batch_size: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> Rollout:
    """Let the model run each program on its own predictions for up to `max_steps` steps.

    Args:
        model, task: a task with whole answers, whose world can be asked for "rollout".
        starts: where the programs begin, one a row.
        programs: what they are, in a word that names the rows of the result.
        max_steps: the limit.
        batch_size: programs a forward pass.
        progress: called with (steps done, max_steps).

    Raises:
        ValueError: max_steps is below 1, or there are no programs.
    """
    if max_steps < 1 or not len(starts):
        raise ValueError(f"expected programs and max_steps from 1, got {len(starts)} programs and {max_steps}")
    needed = task.world.different_steps(starts, max_steps)
    departed, stratum, part = np.zeros(len(starts), np.int64), *np.full((2, len(starts)), -1)
    alive, examples = np.arange(len(starts)), starts
    for k in range(1, max_steps + 1):
        going = needed[alive] >= k
        alive, examples = alive[going], examples[going]
        if not len(alive):
            break
        batch = task.render(examples)
        with torch.inference_mode():
            rows = range(0, len(batch), batch_size)
            parts = [answered(model, task, batch[at : at + batch_size]) for at in rows]
        answer = torch.cat(parts)
        right, strata = task.right(answer, batch), task.strata(batch)
        lost = alive[~right]
        departed[lost], stratum[lost] = k, strata.number[~right]
        if strata.part is not None:
            part[lost] = strata.part[~right]
        # A right answer spells the world's own next example.
        alive, examples = alive[right], task.world.advance(examples[right], answer.cpu().numpy()[right])
        if progress is not None:
            progress(k, max_steps)
    if progress is not None:
        progress(max_steps, max_steps)
    return Rollout(programs, max_steps, needed, departed, stratum, part, task.world)
