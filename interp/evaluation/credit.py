"""Partial credit: how much of a wrong answer is right, of all tokens and of those that the step changes."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from cython_vm import Op, Outcome, encode, step
from interp.results import Aggregation, IntervalKind, Method, Metric
from interp.tasks import Batch
from interp.training.tally import Tally, macro_row


class PartialCredit:
    """An observer of `evaluate` for tasks whose answer is the next state.

    Most of a state is copied, so the share of right tokens flatters a model; the share of right tokens among those
    that the step changes does not. Each example counts once, with its own share; those without a change are left out.
    """

    def __init__(self) -> None:
        self._tally = Tally()

    def __call__(self, batch: Batch, answer: Tensor, first: int) -> None:
        transition = step(batch.examples)
        expected = transition.tokens()
        right = answer.cpu().numpy() == expected
        changed = expected != encode(batch.examples)
        n_changed = changed.sum(axis=1)
        of_changed = (right & changed).sum(axis=1) / np.maximum(n_changed, 1)
        ops, outcomes = transition.latents["op"], transition.outcome
        for op, outcome in sorted(set(zip(ops.tolist(), outcomes.tolist(), strict=True))):
            members = (ops == op) & (outcomes == outcome)
            moved = members & (n_changed > 0)
            stratum = {"op": Op(op).name, "stratum": Outcome(outcome).name}
            parts = [
                (Metric.TOKEN_ACCURACY, right.mean(axis=1)[members]),
                (Metric.CHANGED_TOKEN_ACCURACY, of_changed[moved]),
            ]
            self._tally.add(
                {**stratum, "metric": metric, "estimate": float(shares.mean()), "n": len(shares)}
                for metric, shares in parts
                if len(shares)
            )

    def rows(self) -> list[dict[str, Any]]:
        """Both shares by op x outcome and, first, averaged over the strata. Wilson intervals here are conservative."""
        shares = self._tally.rows()
        own = {"aggregation": Aggregation.MEAN, "interval_kind": IntervalKind.WILSON}
        rows = []
        for metric in (Metric.TOKEN_ACCURACY, Metric.CHANGED_TOKEN_ACCURACY):
            some = [row for row in shares if row["metric"] == metric]
            if some:
                rows += [macro_row(some), *({**row, **own} for row in some)]
        return [{**row, "method": Method.GREEDY} for row in rows]
