"""Answers that are wrong, kept as examples and told in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from interp.tasks import Batch, Task
from interp.training.tally import by_stratum


@dataclass(frozen=True, eq=False)
class Failure:
    """One example whose answer the model got wrong."""

    task: Task
    row: int  # of the evaluation's stream of examples: (seed, row) draws it again
    stratum: str | None  # the world's: the op
    part: str | None  # of the stratum: the outcome
    example: Any  # of the world, one row
    answer: np.ndarray  # tokens [k]

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the answer's tokens that are wrong."""
        return tuple(self.task.answer_names[place] for place in self._wrong())

    def words(self) -> str:
        """What was asked, what is right, and what was answered."""
        task, names = self.task, self.task.answer_names
        expected, given = self._expected(), task.given(task.render(self.example))
        wrong = []
        for place in self._wrong():
            right, said = (task.vocab[int(tokens[place])] for tokens in (expected, self.answer))
            was = "" if given is None else f" was {task.vocab[int(given[0, place])]},"
            wrong.append(f"{names[place]}{was} is {right}{'' if given is None else ' next'}, answered {said}")
        return f"row {self.row}: {task.world.describe(self.example)}: {'; '.join(wrong)}"

    def _expected(self) -> np.ndarray:
        return self.task.expected(self.task.world.answer(self.example))[0]

    def _wrong(self) -> np.ndarray:
        expected = self._expected()
        return np.flatnonzero((self.answer != expected) & (expected >= 0))


class Failures:
    """An observer of `evaluate` for tasks with whole answers: counts errors, keeps examples.

    kept: how many examples of a stratum and part, the first that come.
    """

    def __init__(self, task: Task, *, kept: int = 3):
        self._task, self._kept = task, kept
        self._counts: dict[tuple[str | None, str | None], int] = {}
        self.examples: list[Failure] = []

    @property
    def n_wrong(self) -> int:
        """How many answers are not wholly right."""
        return sum(self._counts.values())

    def __call__(self, batch: Batch, answer: Tensor, first: int) -> None:
        task, given = self._task, answer.cpu().numpy()
        expected = task.expected(task.world.answer(batch.examples))
        rows = np.flatnonzero(((given != expected) & (expected >= 0)).any(axis=1))
        if not len(rows):
            return
        named: list[tuple[str | None, str | None]] = [(None, None)] * len(batch)
        for columns, members in by_stratum(task.strata(batch)):
            for row in np.flatnonzero(members):
                named[row] = columns.get("op"), columns.get("stratum")
        for row in rows:
            stratum = named[row]
            self._counts[stratum] = self._counts.get(stratum, 0) + 1
            if self._counts[stratum] <= self._kept:
                example = batch.examples[[row]]
                self.examples.append(Failure(task, first + int(row), *stratum, example, given[row].copy()))
