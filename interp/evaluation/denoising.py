"""What more passes gain: exact match of answers that are filled in over several of them, in each order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from interp.results import Aggregation, IntervalKind, Metric, rows_frame
from interp.tasks import Batch, Task
from interp.training.scoring import evaluate

Progress = Callable[[float, float, str], None]
_BOUND_EXAMPLES = 512  # of the bound, which takes eight passes an example
_RESAMPLES = 1_000  # of the bound


class _FillsIn:
    """A model that answers in so many passes, and counts which of them decides each token."""

    def __init__(self, model: Any, steps: int, order: str, remask: bool) -> None:
        self._model, self._steps, self._order, self._remask = model, steps, order, remask
        self.n, self.decided = 0, np.zeros(model.cfg.n_answer)

    def answer(self, task: Task, batch: Batch) -> Tensor:
        prompt = batch.tokens[:, : self._model.cfg.n_prompt]
        tokens, decided = self._model.filled_in(prompt, self._steps, self._order, remask=self._remask, seed=self.n)
        self.decided += decided.double().sum(0).numpy()
        self.n += len(prompt)
        return tokens


def denoising_curve(
    model: Any,
    task: Task,
    *,
    steps: Sequence[int],
    orders: Sequence[str] = (),
    remask: bool = False,
    n: int = 2_000,
    seed: int = 2,
    progress: Progress = lambda done, total, at: None,
) -> pd.DataFrame:
    """Exact match by the number of passes and the order in which they fill in answers, on held-out examples.

    Args:
        model: one that fills in answers, `ModelFacts.denoising_orders`; used as it is, hooks included.
        task: what is asked.
        steps: numbers of passes; one of 1 is one step from full mask, and the same in every order.
        orders: ways to fill in, by default all of the model's: which tokens first, or by which sampler.
        remask: whether tokens may be masked again.
        n, seed: of the examples, as in `evaluate`.
        progress: called with (done, total, what it is at).

    Returns:
        Rows of EXACT_MATCH, macro and by stratum, `time` the number of passes and `method` "denoise_<order>"; of
        DECIDED_AT by token of the answer that is no punctuation; and of VARIATIONAL_BOUND.

    Raises:
        ValueError: a model that does not fill in answers, or a number of passes or examples out of range.
    """
    if model.max_denoising_steps is None:
        raise ValueError(
            f"the architecture {model.cfg.architecture} does not fill in answers pass by pass; masked_diffusion does"
        )
    for each in steps:
        if not 1 <= each <= model.max_denoising_steps:
            raise ValueError(
                f"denoising steps must be from 1 to the {model.max_denoising_steps} {model.denoising_limit}; got {each}"
            )
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    orders = tuple(orders) or model.denoising_orders
    ways = [(count, order) for count in steps for order in (orders if count > 1 else orders[:1])]
    parts: list[pd.DataFrame] = []
    for done, (count, order) in enumerate(ways):
        progress(done, len(ways), f"{count} passes, {order.replace('_', ' ')}")
        filling = _FillsIn(model, count, order, remask)
        scored = evaluate(filling, task, n=n, seed=seed)  # type: ignore[arg-type]  # it answers in its own way
        method = f"denoise_{order}" if count > 1 else "denoise_once"
        parts.append(scored.loc[scored["metric"] == Metric.EXACT_MATCH].assign(time=count, method=method))
        if count > 1 and model.decides_for_good:
            parts.append(rows_frame(_decided(task, filling, count, method)))
    progress(len(ways), len(ways), "the bound")
    bound = model.answer_bound(task.sample(min(n, _BOUND_EXAMPLES), seed=seed).tokens).double().numpy()
    return pd.concat([*parts, rows_frame([_bound_row(bound, seed)])], ignore_index=True)


def _bound_row(bound: np.ndarray, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    means = bound[rng.integers(len(bound), size=(_RESAMPLES, len(bound)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {
        "method": "denoise_any",
        "metric": Metric.VARIATIONAL_BOUND,
        "aggregation": Aggregation.MEAN,
        "estimate": float(bound.mean()),
        "ci_low": float(low),
        "ci_high": float(high),
        "interval_kind": IntervalKind.BOOTSTRAP_PROGRAMS,
        "n": len(bound),
    }


def _decided(task: Task, filling: _FillsIn, count: int, method: str) -> list[dict[str, Any]]:
    """When each token is decided on the average, as a share of the passes: 0 in the first, 1 in the last."""
    shares = filling.decided / filling.n / (count - 1)
    return [
        {
            "position": name,
            "time": count,
            "method": method,
            "metric": Metric.DECIDED_AT,
            "aggregation": Aggregation.MEAN,
            "estimate": float(share),
            "n": filling.n,
        }
        for name, share, counts in zip(task.answer_names, shares, task.content, strict=True)
        if counts
    ]
