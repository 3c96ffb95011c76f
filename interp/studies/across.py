"""What only several models side by side can tell, from the rows of all of them. No torch.

1. Does what is readable tell what is used? At each hook of the residual stream and of each variable: how far the best
   probe stands above the strongest of its controls, and how far the best swap stands above the model left alone. A rank
   correlation a model, over its (variable, hook) pairs; their mean over models, with an interval by drawing models
   again, as the pairs of one model are not independent.
2. Do models that hold beyond the trained length keep the tape alike? Cells by their place or by their distance from the
   pointer, each with its null, beside exact match on longer runs.
3. Does the size of what is carried bound what can be kept? Numbers carried past a token beside answers whose value was
   told long ago.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from interp.reading import RunError
from interp.results import Aggregation, Control, Method, Metric, records, select
from interp.runs import Run
from interp.runs.further_frames import BEYOND, STATES
from interp.studies.carried import CLEAR, best, scores
from interp.studies.comparing import input_and_end

RELATIVE = re.compile(r"cell\[@\w+\+\d+\]")
ABSOLUTE = re.compile(r"cell\[\d+\]")
LEAST_PAIRS = 6  # (variable, hook) pairs, below which a rank correlation says nothing
LEAST_OLD = 200  # answers, below which a bin of ages says little
_RESAMPLES = 2_000
_SEED = 6


@dataclass(frozen=True)
class Correlation:
    """How what is read goes with what is used inside one model."""

    run: str
    rho: float
    """Spearman's, over the pairs of (variable, hook)."""
    n: int


@dataclass(frozen=True)
class Kept:
    """How one model keeps the tape, and how far that reaches."""

    run: str
    longer: dict[str, float]
    """Exact match by the length of runs, the trained one first."""
    absolute: tuple[float, float] | None
    """Cells by their place: the mean of what their best part moves and leaves, and of its nulls."""
    relative: tuple[float, float] | None
    """Cells by their distance from the pointer, alike."""
    carried: int | None
    """Numbers carried past a token, the median over the pairs measured."""
    old: tuple[str, float] | None
    """The oldest values that are asked for often enough, and the share of these answers that is right."""


def read_and_used(run: Run) -> pd.DataFrame:
    """Columns variable, site, read, used: of each variable at each hook inside the model, above what is to be beaten.

    Raises:
        RunError: probes or swaps were not measured.
    """
    probes, swaps = run.frame("probes"), run.frame("interventions")
    probes = select(probes, metric=Metric.ACCURACY, method=Method.LOGISTIC, stratum=None)
    swaps = select(swaps, metric=Metric.IIA, method=Method.FULL_VECTOR, stratum="changes", op=None)
    swaps = swaps.loc[(swaps["position"] != "all").fillna(False).to_numpy(dtype=bool)]
    ends = input_and_end(swaps["site"])
    lines = []
    for variable in dict.fromkeys(swaps["variable"].dropna()):
        for site in dict.fromkeys(swaps["site"].dropna()):
            if site in ends:
                continue
            read = _above(select(probes, variable=variable, site=site), controls=None)
            used = _above(select(swaps, variable=variable, site=site), controls=(Control.UNPATCHED,))
            if read is not None and used is not None:
                lines.append({"variable": variable, "site": site, "read": read, "used": used})
    return pd.DataFrame(lines, columns=["variable", "site", "read", "used"])


def _above(rows: pd.DataFrame, *, controls: Sequence[Control] | None) -> float | None:
    """The best estimate over positions, minus the strongest of its controls at its own position."""
    found = None
    for position in dict.fromkeys(rows["position"].dropna()):
        here = records(select(rows, position=position))
        own = [row["estimate"] for row in here if row["control"] is None]
        others = [row for row in here if row["control"] is not None]
        beside = [row["estimate"] for row in others if controls is None or row["control"] in controls]
        if own:
            gap = max(own) - max(beside, default=0.0)
            found = gap if found is None else max(found, gap)
    return found


def correlation(run: Run) -> Correlation | None:
    """Of one run; None where too little was measured, or nothing varies."""
    try:
        pairs = read_and_used(run)
    except RunError:
        return None
    read, used = (pairs[name].to_numpy(dtype=float) for name in ("read", "used"))
    if len(pairs) < LEAST_PAIRS or len(set(read)) < 2 or len(set(used)) < 2:
        return None
    rho: Any = spearmanr(read, used)
    return Correlation(run.name, float(rho.statistic), len(pairs))


def mean_over_models(found: Sequence[Correlation]) -> tuple[float, float, float]:
    """The mean of the models' correlations and a 95 % interval, drawing models again; NaN ends below three models."""
    values = np.array([each.rho for each in found])
    if len(values) < 3:
        return (float(values.mean()) if len(values) else math.nan), math.nan, math.nan
    draws = np.random.default_rng(_SEED).integers(len(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def kept(run: Run) -> Kept:
    """What was measured of how a run keeps the tape; parts that were not are None or empty."""
    return kept_of(
        run.name,
        metrics=_measured(lambda: run.frame("metrics")),
        beyond=_measured(lambda: BEYOND.read(run)),
        states=_measured(lambda: STATES.read(run)),
    )


def _measured(read: Callable[[], pd.DataFrame]) -> pd.DataFrame | None:
    try:
        return read()
    except RunError:
        return None


def kept_of(
    name: str, *, metrics: pd.DataFrame | None, beyond: pd.DataFrame | None, states: pd.DataFrame | None
) -> Kept:
    """The same from the rows themselves."""
    longer: dict[str, float] = {}
    if beyond is not None:
        rows = select(beyond, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO)
        longer = {row["stratum"]: row["estimate"] for row in records(rows)}
    absolute = relative = carried = None
    if states is not None and len(states):
        chosen = best(scores(states))
        absolute, relative = (
            _mean([(s.both, s.null) for name, s in chosen.items() if kind.fullmatch(name)])
            for kind in (ABSOLUTE, RELATIVE)
        )
        carried = int(np.median(states["carrier_size"].to_numpy(dtype=float)))
    return Kept(name, longer, absolute, relative, carried, None if metrics is None else _oldest(metrics))


def addressing(each: Kept) -> str:
    """relative, absolute, both or neither: which is clear of its null, and by how much it is ahead of the other."""
    assert each.absolute is not None and each.relative is not None
    clear = [
        name
        for name, (score, null) in (("absolute", each.absolute), ("relative", each.relative))
        if score > null + CLEAR
    ]
    if len(clear) == 2:
        ahead = each.relative[0] - each.absolute[0]
        return "both" if abs(ahead) <= CLEAR else "relative" if ahead > 0 else "absolute"
    return clear[0] if clear else "neither"


def _mean(pairs: list[tuple[float, float]]) -> tuple[float, float] | None:
    return (float(np.mean([a for a, _ in pairs])), float(np.mean([b for _, b in pairs]))) if pairs else None


def _oldest(metrics: pd.DataFrame) -> tuple[str, float] | None:
    rows = select(metrics, metric=Metric.TOKEN_ACCURACY, method=Method.GREEDY)
    aged = [row for row in records(rows) if str(row["stratum"]).startswith("revealed") and (row["n"] or 0) >= LEAST_OLD]
    return (aged[-1]["stratum"], aged[-1]["estimate"]) if aged else None


def rank_over_models(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's correlation over models; NaN below four of them or where nothing varies."""
    if len(pairs) < 4 or len({a for a, _ in pairs}) < 2 or len({b for _, b in pairs}) < 2:
        return math.nan
    rho: Any = spearmanr([a for a, _ in pairs], [b for _, b in pairs])
    return float(rho.statistic)
