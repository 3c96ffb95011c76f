"""What docs/diffusion.md reads from its rows: exact match by order, ranks, places, values by pass."""

from __future__ import annotations

from typing import Any

import pandas as pd

from interp.results import Aggregation, Control, Metric, records, select

ORDERS = {
    "denoise_once": "all at once, one pass",
    "denoise_confidence": "by confidence",
    "denoise_left_to_right": "left to right",
    "denoise_right_to_left": "right to left",
    "denoise_random": "in any order",
}


def way(method: str) -> str:
    """An order or a sampler, in words."""
    return ORDERS[method] if method in ORDERS else method.removeprefix("denoise_")


def exact_matches(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Macro averages over all strata."""
    rows = records(select(frame, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO))
    return [row for row in rows if row["stratum"] is None]


def order_ranks(frame: pd.DataFrame) -> dict[str, float]:
    found = select(frame, metric=Metric.SPEARMAN)
    return dict(zip(found["part"], found["estimate"], strict=True))


def fetching_places(frame: pd.DataFrame) -> list[tuple[str, float]]:
    """Of minimal pairs: the words of each place, and how much of what should change changed."""
    rows = records(select(frame, pair_design="minimal", stratum="changes", metric=Metric.EFFECT_ACCURACY))
    return [(row["part"], float(row["estimate"])) for row in rows if row["control"] is None]


def unswapped(frame: pd.DataFrame) -> list[dict[str, Any]]:
    rows = records(select(frame, pair_design="minimal", stratum="changes", metric=Metric.EFFECT_ACCURACY))
    return [row for row in rows if row["control"] == Control.UNPATCHED]


def by_time(frame: pd.DataFrame, metric: Metric, part: str) -> dict[int, float]:
    found = select(frame, metric=metric, part=part).sort_values("time")
    return {int(t): float(e) for t, e in zip(found["time"], found["estimate"], strict=True)}


def mean_over_passes(values: dict[int, float]) -> float:
    return sum(values.values()) / max(1, len(values))
