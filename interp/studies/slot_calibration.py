"""Does a model that fills in answers know, slot by slot, where it errs?

Every slot of an answer that is no punctuation has a confidence, the probability that it was given when it was decided,
and is right or not. By block of slots: the expected calibration error, over bins whose edges crowd towards 1 (Guo et
al. 2017), and the share of slots that is wrong; over all slots also the reliability of every bin.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from interp.evaluation.confidence import EDGES
from interp.results import Aggregation, IntervalKind, Metric, wilson_interval
from interp.tasks.sites import block_slots


def slot_calibration(
    confidence: np.ndarray, right: np.ndarray, names: tuple[str, ...], **columns: Any
) -> Iterator[dict[str, Any]]:
    """Rows of CALIBRATION_ERROR and TOKEN_ACCURACY by block (`position`) and over all slots, and RELIABILITY by bin.

    Args:
        confidence: of each slot, [n, slot], 0 to 1.
        right: bool [n, slot].
        names: of the slots, `task.answer_names`, punctuation included.
        columns: of all rows.
    """
    blocks = {name.rpartition("[")[0] for name in names if name.endswith("]")} - {""}
    where = {block: block_slots(names, block) for block in sorted(blocks, key=_numbered)}
    every = np.concatenate(list(where.values()))
    common = {"aggregation": Aggregation.MEAN, **columns}
    for position, slots in [(None, every), *where.items()]:
        p, hits = confidence[:, slots].ravel(), right[:, slots].ravel()
        low, high = wilson_interval(int(hits.sum()), len(hits))
        own = {**common, "position": position, "n": len(hits)}
        yield {**own, "metric": Metric.CALIBRATION_ERROR, "estimate": _error(p, hits)}
        interval = {"ci_low": low, "ci_high": high, "interval_kind": IntervalKind.WILSON}
        yield {**own, "metric": Metric.TOKEN_ACCURACY, "estimate": float(hits.mean()), **interval}
    p, hits = confidence[:, every].ravel(), right[:, every].ravel()
    place = _bins(p)
    for k in np.unique(place):
        chosen = place == k
        low, high = wilson_interval(int(hits[chosen].sum()), int(chosen.sum()))
        own = {**common, "stratum": f"{EDGES[k]:g} to {EDGES[k + 1]:g}", "n": int(chosen.sum())}
        yield {**own, "metric": Metric.CONFIDENCE, "estimate": float(p[chosen].mean())}
        interval = {"ci_low": low, "ci_high": high, "interval_kind": IntervalKind.WILSON}
        yield {**own, "metric": Metric.RELIABILITY, "estimate": float(hits[chosen].mean()), **interval}


def _numbered(block: str) -> list[tuple[int, str]]:
    """In the order of the numbers in a name, "t+4" before "t+12"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", block)]


def _bins(p: np.ndarray) -> np.ndarray:
    return np.clip(np.searchsorted(EDGES, p, side="right") - 1, 0, len(EDGES) - 2)


def _error(p: np.ndarray, right: np.ndarray) -> float:
    place, n = _bins(p), len(EDGES) - 1
    return float(np.abs(np.bincount(place, p, n) - np.bincount(place, right.astype(float), n)).sum() / len(p))
