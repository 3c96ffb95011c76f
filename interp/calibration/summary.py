"""One line a method: what calibration says of it, for the captions of results on trained models."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interp.files import write_json
from interp.results import Method, Metric, method_named, select

if TYPE_CHECKING:
    import pandas as pd

SUMMARY_FILE = "summary.json"
_PROBES = (Method.LOGISTIC, Method.RIDGE, Method.MEAN_DIFFERENCE, Method.MLP)


def score(method: str) -> str | None:
    """What calibration on compiled models says of a method, in a phrase; None where it has not been calibrated.

    It is read from the summary that ships with the package, written by `tapelens calibrate --publish`.

    Raises:
        ValueError: there is no such method.
    """
    if method not in set(Method):
        raise ValueError(f"no method {method!r}; there are {', '.join(Method)}")
    return _bundled().get(method)


@cache
def _bundled() -> dict[str, str]:
    file = resources.files("interp.calibration") / SUMMARY_FILE
    return json.loads(file.read_text(encoding="utf-8"))["methods"] if file.is_file() else {}


def summarise(frame: pd.DataFrame) -> dict[str, str]:
    """A phrase a method from a calibration's rows; methods without rows are absent."""
    from interp.circuits.scorers import SCORERS  # with torch, which reading a summary does without

    found = {method: _probe(frame, method) for method in _PROBES}
    found |= {
        method_named(name): _scorer(frame, method_named(name)) for name in [*SCORERS, Method.ATTRIBUTION_PATCHING]
    }
    found |= {
        Method.FULL_VECTOR: _full_vector(frame),
        Method.DAS: _das(frame),
        Method.PROBE_SUBSPACE: _probe_subspace(frame),
        Method.CIRCUIT_RUN: _criteria(frame),
        Method.HEAD_ROLE: _roles(frame),
    }
    return {str(method): phrase for method, phrase in found.items() if phrase is not None}


def write_summary(folder: Path, frame: pd.DataFrame, *, provenance: dict[str, Any]) -> None:
    """Write summary.json into a folder."""
    write_json(folder / SUMMARY_FILE, {"provenance": provenance, "methods": summarise(frame)})


def mean(frame: pd.DataFrame, **columns: Any) -> float | None:
    """Mean estimate of the rows that match, weighted by n for shares of cells, heads or mutants; None for no rows."""
    import pandas as pd

    rows = select(frame, **columns)
    if rows.empty:
        return None
    counted = rows.granularity.isin(["cell", "head"]).all()
    weights = rows.n.astype(float) if counted else pd.Series(1.0, index=rows.index)
    return float((rows.estimate * weights).sum() / weights.sum())


def short(value: float | None, digits: int = 2) -> str:
    """ "0.47"; 1 and 0 are written as 1.00 and 0.00 only where they are exact."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    return f"{value:.{digits + 2}f}" if text in ("1.00", "0.00") and value not in (0.0, 1.0) else text


def _probe(frame: pd.DataFrame, method: str) -> str | None:
    rows = select(frame, method=method, granularity="cell")
    recall = mean(rows, stratum="decodable", metric=Metric.RECALL)
    false = mean(rows, stratum="decodable", metric=Metric.FALSE_POSITIVE_RATE)
    if recall is None or false is None:
        return None
    edited = mean(rows, stratum="edit", metric=Metric.FALSE_POSITIVE_RATE)
    phrase = f"calls {_percent(recall)} of live places decodable, and {_percent(false)} of the others"
    return phrase if edited is None else f"{phrase} ({_percent(edited)} where an edit must work too)"


def _scorer(frame: pd.DataFrame, method: str) -> str | None:
    rows = select(frame, method=method, ablation="resample", control=None)
    parts = []
    for granularity in ("edge", "node"):
        at = select(rows, granularity=granularity)
        area, precision = (mean(at, metric=metric) for metric in (Metric.AUROC, Metric.PRECISION_AT_SIZE))
        if area is not None and precision is not None:
            parts.append(
                f"{granularity} AUROC {short(area, 3)}, and {_percent(precision)} true among as many top "
                f"{granularity}s as are true"
            )
    return "; ".join(parts) or None


def _full_vector(frame: pd.DataFrame) -> str | None:
    rows = select(frame, method=Method.FULL_VECTOR, stratum="sweep")
    false = mean(rows, metric=Metric.FALSE_POSITIVE_RATE)
    whole = mean(select(frame, method=Method.FULL_VECTOR, granularity="set"), metric=Metric.IIA)
    if false is None or whole is None:
        return None
    true = mean(select(frame, method=Method.TRUE_SUBSPACE, control=None), metric=Metric.IIA)
    return (
        f"IIA of at least 0.5 at {_percent(false)} of dead places; at the true places {short(whole)} on average for "
        f"whole vectors against {short(true)} in the true subspaces"
    )


def _das(frame: pd.DataFrame) -> str | None:
    rows = select(frame, method=Method.DAS, control=None)
    iia = mean(rows, metric=Metric.IIA)
    median = mean(rows, metric=Metric.PRINCIPAL_ANGLE, stratum="median")
    if iia is None or median is None:
        return None
    return f"IIA {short(iia)} on other programs, at a median angle of {median:.0f}° to the true subspace"


def _probe_subspace(frame: pd.DataFrame) -> str | None:
    angle = mean(select(frame, method=Method.PROBE_SUBSPACE), metric=Metric.PRINCIPAL_ANGLE)
    return None if angle is None else f"the largest angle to the true subspace is {angle:.0f}° on average"


def _criteria(frame: pd.DataFrame) -> str | None:
    rows = select(frame, method=Method.CIRCUIT_RUN, metric=Metric.AUROC, stratum="faithfulness")
    found = {kind: mean(rows, site=kind) for kind in ("dropped", "swapped", "added")}
    if any(value is None for value in found.values()):
        return None
    words = ", ".join(f"{_percent(value)} {kind}" for kind, value in found.items() if value is not None)
    return f"faithfulness prefers the true circuit to mutants with an edge {words}"


def _roles(frame: pd.DataFrame) -> str | None:
    rows = select(frame, method=Method.HEAD_ROLE, stratum="variable")
    right, false = mean(rows, metric=Metric.RECALL), mean(rows, metric=Metric.FALSE_POSITIVE_RATE)
    if right is None or false is None:
        return None
    return f"names the variable of {_percent(right)} of true heads, and one for {_percent(false)} of idle ones"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
