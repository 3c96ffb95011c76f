"""Clean and corrupted inputs that differ in one thing, and the metric between their answers.

    m = mean over examples of the mean over compared places of logit(clean token) - logit(corrupted token)

Places are compared where the two answers differ and the two inputs agree, so that copying does not count.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from interp.tasks.base import Task
    from interp.tasks.batch import Batch


class DrawPairs(Protocol):
    """Draws `n` pairs from held-out units; half: 0 or 1 for one of two halves that share none, None for all."""

    def __call__(self, n: int, *, seed: int, half: int | None = None) -> Pairs: ...


@dataclass(frozen=True)
class Contrast:
    """One thing that clean and corrupted inputs differ in: which instruction runs, whether a carry comes."""

    name: str  # "INC", "carry into place 3"
    slug: str  # for file names
    kind: str  # the world's word for what is contrasted: "instruction", "freeze"
    draw: DrawPairs
    examples: Callable[[int, int], Batch]  # (n, seed) -> the first n held-out examples of the clean side, or fewer


@dataclass(frozen=True)
class Pairs:
    """Clean and corrupted inputs of one contrast; k is the number of places that an answer has."""

    task: Task
    contrast: str  # its name
    clean: Batch
    corrupted: Batch  # a task that shows the answer shows the clean one here too
    positions: Tensor  # long [n, k]: the token positions whose logits say the answer
    clean_answer: Tensor  # long [n, k]
    corrupted_answer: Tensor  # long [n, k]; -1 behind the end of either, never compared
    weights: Tensor  # float [n, k]: 1 / number of compared places at each of them, 0 elsewhere
    groups: np.ndarray  # hash of each pair's unit, int64 [n]
    redraw_rate: float  # share of drawn pairs without a place to compare

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: slice) -> Pairs:
        names = ("positions", "clean_answer", "corrupted_answer", "weights", "groups")
        parts = {name: getattr(self, name)[rows] for name in names}
        return replace(self, clean=self.clean[rows], corrupted=self.corrupted[rows], **parts)

    def read(self, logits: Tensor) -> Tensor:
        """Logits [..., n, pos, d_vocab] at the answer's positions: [..., n, k, d_vocab]."""
        where = self.positions[..., None].expand(*logits.shape[:-3], *self.positions.shape, logits.shape[-1])
        return logits.gather(-2, where)

    def logit_difference(self, logits: Tensor) -> Tensor:
        """Each example's m from logits [..., n, pos, d_vocab]: [..., n]."""
        seen = self.read(logits)
        choice = torch.stack([self.clean_answer, self.corrupted_answer], dim=-1).clamp(min=0)  # -1: weight 0
        values = seen.gather(-1, choice.expand(*seen.shape[:-1], 2))
        return ((values[..., 0] - values[..., 1]) * self.weights).sum(-1)

    def exact(self, logits: Tensor) -> Tensor:
        """Whether each example's whole answer is the clean one, bool [..., n], from logits [..., n, pos, d_vocab]; -1:
        nothing is said there."""
        return ((self.read(logits).argmax(-1) == self.clean_answer) | (self.clean_answer < 0)).all(-1)

    def parts(self) -> dict[str, int]:
        """How many clean examples are in each part of their stratum: how the instructions ended; {} without strata."""
        if not self.task.has_strata:
            return {}
        strata = self.task.strata(self.clean)
        if strata.part is None:
            return {}
        counts = np.bincount(strata.part, minlength=len(strata.parts))
        return {name: int(count) for name, count in zip(strata.parts, counts, strict=True) if count}


def pairs_of(
    task: Any,
    contrast: str,
    clean: Any,
    corrupted: Any,
    *,
    compared: np.ndarray,
    redraw_rate: float,
) -> Pairs:
    """Pairs of one-step examples whose answers stand at `task.answer_positions`; compared: bool [n, k]."""
    clean_expected = task.expected(task.world.answer(clean))
    corrupted_expected = task.expected(task.world.answer(corrupted))
    return Pairs(
        task=task,
        contrast=contrast,
        clean=task.render(clean),
        corrupted=task.render(corrupted, clean_expected),
        positions=torch.from_numpy(np.tile(task.answer_positions, (len(clean), 1))),
        clean_answer=torch.from_numpy(clean_expected.astype(np.int64)),
        corrupted_answer=torch.from_numpy(corrupted_expected.astype(np.int64)),
        weights=torch.from_numpy(compared / compared.sum(axis=1, keepdims=True)).float(),
        groups=task.groups(clean).astype(np.int64),
        redraw_rate=redraw_rate,
    )
