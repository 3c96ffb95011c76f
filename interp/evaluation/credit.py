"""Partial credit: how much of a wrong answer is right, of all tokens and of those that are no copy of what is given."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from interp.results import Aggregation, IntervalKind, Method, Metric
from interp.tasks import Batch, Task
from interp.training.tally import Tally, by_stratum, macro_row


class PartialCredit:
    """An observer of `evaluate` for tasks with whole answers.

    Where most of an answer is copied, the share of right tokens flatters a model; the share of right tokens among those
    that change does not. Each example counts once, with its own share; those without a change are left out, and a task
    whose answers copy nothing has no such row.
    """

    def __init__(self, task: Task) -> None:
        self._task, self._tally = task, Tally.of(task.world)

    def __call__(self, batch: Batch, answer: Tensor, first: int) -> None:
        expected = self._task.expected(self._task.world.answer(batch.examples))
        asked = expected >= 0
        right = (answer.cpu().numpy() == expected) & asked
        share = right.sum(axis=1) / np.maximum(asked.sum(axis=1), 1)
        given = self._task.given(batch)
        changed = np.zeros_like(right) if given is None else expected != given
        n_changed = changed.sum(axis=1)
        of_changed = (right & changed).sum(axis=1) / np.maximum(n_changed, 1)
        for stratum, members in by_stratum(self._task.strata(batch)):
            moved = members & (n_changed > 0)
            parts = [
                (Metric.TOKEN_ACCURACY, share[members]),
                (Metric.CHANGED_TOKEN_ACCURACY, of_changed[moved]),
            ]
            self._tally.add(
                {**stratum, "metric": metric, "estimate": float(shares.mean()), "n": len(shares)}
                for metric, shares in parts
                if len(shares)
            )

    def rows(self) -> list[dict[str, Any]]:
        """Both shares by stratum and, first, averaged over the strata. Wilson intervals here are conservative."""
        shares = self._tally.rows()
        own = {"aggregation": Aggregation.MEAN, "interval_kind": IntervalKind.WILSON}
        rows = []
        for metric in (Metric.TOKEN_ACCURACY, Metric.CHANGED_TOKEN_ACCURACY):
            some = [row for row in shares if row["metric"] == metric]
            if some:
                rows += [macro_row(some), *({**row, **own} for row in some)]
        return [{**row, "method": Method.GREEDY} for row in rows]
