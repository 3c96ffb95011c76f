"""What a run measured along its training, as curves on one axis of steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app import run_access
from interp import Run, RunError
from interp.results import Aggregation, Method, Metric, records, select


@dataclass(frozen=True)
class Curve:
    """One line: (step, value) with the steps rising, and on how many examples each value stands, at least."""

    name: str
    points: tuple[tuple[int, float], ...]
    n: int


def accuracy(run: Run) -> list[Curve]:
    """Exact match during training: the mean over strata, then each stratum (over its parts)."""
    frame = run_access.frame(run, "metrics")
    rows = select(frame, metric=Metric.EXACT_MATCH)
    macro = records(select(rows, aggregation=Aggregation.MACRO))
    found = [_curve("mean over strata", macro)] if macro else []
    single: dict[str, list[dict[str, Any]]] = {}
    for row in records(rows):
        if row["op"] is not None and row["position"] is None:
            single.setdefault(row["op"], []).append(row)
    return found + [_curve(name, of) for name, of in single.items()]


def probes(run: Run) -> list[Curve]:
    """The best accuracy of a linear probe of each variable over all places, at each kept step that was probed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for step in run.steps:
        try:
            frame = run_access.frame(run.at_step(step), "probes")
        except RunError:
            continue
        best: dict[str, dict[str, Any]] = {}
        for row in records(select(frame, metric=Metric.ACCURACY, method=Method.LOGISTIC, control=None, stratum=None)):
            name = row["variable"]
            if name is not None and (name not in best or row["estimate"] > best[name]["estimate"]):
                best[name] = row | {"checkpoint_step": step}
        for name, row in best.items():
            found.setdefault(name, []).append(row)
    return [_curve(name, rows) for name, rows in found.items() if len(rows) > 1]


def circuits(run: Run) -> list[Curve]:
    """How much of the final circuit of each stratum's edges a kept step's own circuit shares (Jaccard)."""
    try:
        frame = run_access.frame(run, "circuits")
    except RunError:
        return []
    rows = select(frame, metric=Metric.JACCARD, stratum="final", control=None)
    found: dict[str, list[dict[str, Any]]] = {}
    for row in records(rows):
        if row["op"] is not None:
            found.setdefault(row["op"], []).append(row)
    return [curve for name, of in found.items() if len((curve := _curve(name, of)).points) > 1]


def _curve(name: str, rows: list[dict[str, Any]]) -> Curve:
    """Several rows of a step (parts of a stratum) are averaged."""
    by_step: dict[int, list[float]] = {}
    for row in rows:
        by_step.setdefault(int(row["checkpoint_step"]), []).append(float(row["estimate"]))
    points = tuple((step, sum(values) / len(values)) for step, values in sorted(by_step.items()))
    counts = [int(row["n"]) for row in rows if row["n"] is not None]
    return Curve(name, points, min(counts, default=0))
