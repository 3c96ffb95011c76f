"""Is the carry of a loop what the rest of the run goes by? Swapped between two programs after each loop step.

Base and source are two held-out programs that the model answers differently. After loop step t base goes on from
source's whole carry; its input, where the loop is fed with it, stays its own. If the carry were the state of the run,
the answer would be source's; where the loop comes to a fixed point that hangs on the input alone, it is base's again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from interp.results import Aggregation, IntervalKind, Method, Metric, wilson_interval
from interp.runs import Run
from interp.training.scoring import BATCH_SIZE


@torch.inference_mode()
def swap_rows(run: Run, n: int, *, seed: int) -> Iterator[dict[str, Any]]:
    """IIA (the answer is source's) and RETURN (it is base's own) by the loop step that is swapped, rows with `time`.

    Args:
        run: of a looped model whose answers stand at positions that are asked.
        n: pairs that are drawn; those that are answered alike are left out.
        seed: of the pairs.
    """
    model, task = run.model, run.task
    hooks = model.step_hooks()[: model.cfg.n_loops]
    found: dict[int, list[np.ndarray]] = {t: [] for t in range(len(hooks))}
    for start in range(0, n, BATCH_SIZE):
        size = min(BATCH_SIZE, n - start)
        both = task.sample(2 * size, seed=seed, start=2 * start, split="evaluation")
        base, asked = both.tokens[:size], both.targets >= 0
        with model.looping(len(hooks)):
            logits, cache = model.run_with_cache(both.tokens, names_filter=list(hooks), return_cache_object=False)
            own = _answers(logits, asked)
            apart = (own[:size] != own[size:]).any(axis=1)
            for t, hook in enumerate(hooks):
                swapped = model.run_with_hooks(base, fwd_hooks=[(hook, _put(cache[hook][size:]))])
                said = _answers(swapped, asked[:size])
                as_source, as_base = ((said == own[part]).all(axis=1) for part in (slice(size, None), slice(0, size)))
                found[t].append(np.stack([as_source, as_base])[:, apart])
    for t, parts in found.items():
        for metric, hits in zip((Metric.IIA, Metric.RETURN), np.concatenate(parts, axis=1), strict=True):
            low, high = wilson_interval(int(hits.sum()), max(1, len(hits)))
            yield {
                "method": Method.FULL_VECTOR,
                "metric": metric,
                "aggregation": Aggregation.MEAN,
                "interval_kind": IntervalKind.WILSON,
                "part": "whole carry",
                "time": t + 1,
                "estimate": float(hits.mean()) if len(hits) else float("nan"),
                "ci_low": low,
                "ci_high": high,
                "n": len(hits),
            }


def _answers(logits: torch.Tensor, asked: torch.Tensor) -> np.ndarray:
    """The likeliest tokens where something is asked, -1 elsewhere, int64 [n, pos]."""
    return torch.where(asked, logits.argmax(-1), -1).numpy()


def _put(values: torch.Tensor) -> Any:
    return lambda activation, hook: values
