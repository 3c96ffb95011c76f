"""Reliability of confidence: is an answer given with confidence p right with probability p?

1. The confidence of a whole answer is the product over its positions of the probability of the token answered.
2. Answers are binned by confidence; the edges crowd towards 1, where a trained model's answers are.
3. The expected calibration error is Σ n_bin / n · |mean confidence − share right| in the bin (Guo et al. 2017).
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from interp.results import Aggregation, IntervalKind, Method, Metric, wilson_interval
from interp.tasks import Batch, Task
from interp.tasks.answers import read_answers

EDGES = (0.0, 0.5, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0)


class Reliability:
    """An observer of `evaluate` for tasks with whole answers. Use it as a context manager.

    It listens to the model's forward pass, so that an answer read off one pass costs no second one; an autoregressive
    answer is scored by one more pass over the record with that answer in it.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], task: Task):
        self._model, self._task = model, task
        self._last: tuple[Tensor, Tensor] | None = None
        self._handle: Any = None
        self._n = np.zeros(len(EDGES) - 1, dtype=np.int64)
        self._right = np.zeros(len(EDGES) - 1)
        self._confidence = np.zeros(len(EDGES) - 1)

    def __enter__(self) -> Reliability:
        if isinstance(self._model, nn.Module):
            self._handle = self._model.register_forward_hook(self._listen)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._last = None
        if self._handle is not None:
            self._handle.remove()

    def _listen(self, model: nn.Module, inputs: tuple[Any, ...], logits: Any) -> None:
        if inputs and isinstance(inputs[0], Tensor) and isinstance(logits, Tensor):
            self._last = inputs[0], logits

    def __call__(self, batch: Batch, answer: Tensor, first: int) -> None:
        confidence = self.confidence(batch, answer)
        right = self._task.right(answer, batch)
        place = np.clip(np.searchsorted(EDGES, confidence, side="right") - 1, 0, len(self._n) - 1)
        self._n += np.bincount(place, minlength=len(self._n))
        self._right += np.bincount(place, weights=right, minlength=len(self._n))
        self._confidence += np.bincount(place, weights=confidence, minlength=len(self._n))

    def confidence(self, batch: Batch, answer: Tensor) -> np.ndarray:
        """The model's probability of each whole answer, float64 [n]."""
        tokens = self._task.render(batch.examples, answer.cpu().numpy()).tokens
        logits = self._logits(tokens)
        scores = torch.log_softmax(read_answers(logits, self._task.answer_positions).double(), dim=-1)
        said = scores.gather(-1, answer.clamp(min=0)[..., None]).squeeze(-1)
        return said.masked_fill(answer < 0, 0.0).sum(dim=-1).exp().cpu().numpy()  # -1: the answer is over

    def _logits(self, tokens: Tensor) -> Tensor:
        if self._last is not None and torch.equal(self._last[0], tokens):
            return self._last[1]
        return self._model(tokens)

    def rows(self) -> list[dict[str, Any]]:
        """The expected calibration error, then the mean confidence and the share right of every bin that is not empty.

        `stratum` names the bin, such as "0.99 to 0.995". All are over the distribution that was drawn.
        """
        total = int(self._n.sum())
        common = {"method": Method.GREEDY, "aggregation": Aggregation.MEAN}
        error = float(np.abs(self._confidence - self._right).sum() / max(total, 1))
        rows: list[dict[str, Any]] = [{**common, "metric": Metric.CALIBRATION_ERROR, "estimate": error, "n": total}]
        for k in np.flatnonzero(self._n):
            n, right = int(self._n[k]), float(self._right[k])
            low, high = wilson_interval(right, n)
            own = {**common, "stratum": f"{EDGES[k]:g} to {EDGES[k + 1]:g}", "n": n}
            interval = {"ci_low": low, "ci_high": high, "interval_kind": IntervalKind.WILSON}
            rows.append({**own, "metric": Metric.CONFIDENCE, "estimate": float(self._confidence[k]) / n})
            rows.append({**own, "metric": Metric.RELIABILITY, "estimate": right / n, **interval})
        return rows
