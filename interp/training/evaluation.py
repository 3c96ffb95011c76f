"""Exact match on held-out programs, by op x outcome x block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cython_vm import Op, States, strata_weights
from interp.results import Aggregation, IntervalKind, Method, Metric, records, rows_frame
from interp.tasks import Task, macro_average


def evaluate(
    model: Callable[[Tensor], Tensor],
    task: Task,
    *,
    n: int,
    seed: int,
    batch_size: int = 512,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Score a model on `n` states of held-out programs, drawn evenly over op x outcome.

    Inside a stratum the distribution is the natural one. No program here is ever trained on: the split is by a
    hash of the program.

    Returns:
        Rows for the tidy frame: exact match and block accuracy by op x outcome with Wilson intervals, and one row
        (op absent) with their macro average.
    """
    weights = strata_weights(task.spec)
    parts, states = [], []
    with torch.inference_mode():
        for start in range(0, n, batch_size):
            size = min(batch_size, n - start)
            batch = task.sample(size, seed=seed, start=start, split="evaluation", weights=weights)
            # Only S_t goes in: the answer half of a causal record is the model's to write.
            parts.append(task.predict(model, batch.tokens[:, : task.spec.state_length]))
            states.append(batch.states)
            if progress is not None:
                progress(start + size, n)
        whole = task.batch(States.concatenate(states))
        scores = task.score(torch.cat(parts), whole)
    macro = {
        "metric": Metric.EXACT_MATCH,
        "aggregation": Aggregation.MACRO,
        "estimate": macro_average(scores),
        "n": n,
    }
    common = {"aggregation": Aggregation.MEAN, "interval_kind": IntervalKind.WILSON}
    rows = [macro, *({**row, **common} for row in records(scores))]
    return rows_frame({**row, "method": Method.GREEDY} for row in rows)


def training_weights(task: Task, *, balance: str, loop_weight: float) -> np.ndarray | None:
    """Strata weights for `sample` from the training config; None for the natural distribution."""
    if balance == "natural":
        return None
    weights = strata_weights(task.spec, branches=balance == "branches").copy()
    weights[[Op.WHILE, Op.ENDW]] *= loop_weight
    return weights / weights.sum()
