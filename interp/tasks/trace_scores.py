"""How much of streams is answered right: by op and branch, by the age of what is asked, and whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from interp.results import Metric, wilson_interval
from interp.tasks.trace_batch import TraceBatch
from interp.worlds.machine import MachineSpec, Op
from interp.worlds.machine.streams import StreamLabels

_AGES = ((-1, -1), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 63), (64, 4096))  # steps since a cell was revealed


def stream_scores(spec: MachineSpec, predicted: Tensor, streams: TraceBatch) -> pd.DataFrame:
    """The rows of `Trace.score`, from the token predicted at every position, [n, pos]."""
    asked = streams.loss_mask.cpu().numpy()
    right = (predicted.cpu() == streams.targets.cpu()).numpy() & asked
    whole = (right == asked).all(axis=1)
    rows = [
        *_by_branch(spec, streams, asked, right),
        *_by_age(spec, streams, asked, right),
        *_row(np.ones(len(whole), dtype=bool), whole, metric=Metric.SEQUENCE_MATCH),
    ]
    return pd.DataFrame(rows)


def _by_branch(spec: MachineSpec, streams: TraceBatch, asked: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """Exact match of each op that is asked about: what PUT emits, jumps taken and not."""
    tokens, targets = streams.tokens.cpu().numpy(), streams.targets.cpu().numpy()
    strata = [(Op.PUT, "emitted", asked)]
    for branch, stratum in ((1, "taken"), (0, "not_taken")):
        answered = targets == spec.token_id("0") + branch
        strata += [(op, stratum, answered) for op in (Op.WHILE, Op.ENDW)]
    return [
        row
        for op, stratum, answered in strata
        if op in spec.ops
        for row in _row(
            (tokens == spec.op_id(op)) & asked & answered,
            right,
            op=op.name,
            stratum=stratum,
            metric=Metric.EXACT_MATCH,
        )
    ]


def _by_age(spec: MachineSpec, streams: TraceBatch, asked: np.ndarray, right: np.ndarray) -> list[dict[str, Any]]:
    """What PUT emits, by the steps since the stream last revealed the cell."""
    if Op.PUT not in spec.ops:
        return []
    since = StreamLabels(spec, streams.run).steps_since_revealed[0]
    rows_of, positions = np.nonzero(asked & (streams.tokens.cpu().numpy() == spec.op_id(Op.PUT)))
    at = streams.state_of[rows_of, positions]
    assert streams.run.states is not None
    age = since[at, streams.run.states.array_ptr[at]]
    rows = []
    for low, high in _AGES:
        members = np.zeros(asked.shape, dtype=bool)
        chosen = (age >= low) & (age <= high)
        members[rows_of[chosen], positions[chosen]] = True
        name = "never revealed" if low < 0 else f"revealed {low}–{high} steps before"
        rows += _row(members, right, op=Op.PUT.name, stratum=name, metric=Metric.TOKEN_ACCURACY)
    return rows


def _row(members: np.ndarray, right: np.ndarray, **columns: str | Metric) -> list[dict[str, Any]]:
    """The share of right ones among members, with its Wilson interval; [] where there are none."""
    n = int(members.sum())
    if not n:
        return []
    successes = int((right & members).sum())
    low, high = wilson_interval(successes, n)
    return [{**columns, "estimate": successes / n, "ci_low": low, "ci_high": high, "n": n}]
