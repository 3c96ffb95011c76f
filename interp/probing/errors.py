"""Where a probe errs: confusion counts, and its surest mistakes (the rows of `interp.runs.probe_errors`)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from interp.probing.examples import Examples
from probes import LinearProbe, SoftmaxProbe

WORST = 6  # mistakes kept a probe
ALIKE = 2  # of them with one truth and one prediction


def probe_errors(
    probe: Any,
    index: int,
    x: Any,
    truth: np.ndarray,
    predicted: np.ndarray,
    held: Examples,
    columns: Mapping[str, str],
    *,
    spell: Callable[[Any], np.ndarray],
) -> list[dict[str, Any]]:
    """Rows of the file for variable `index` of a fitted stack of one site, scored on x [m, d].

    spell: examples of the world as tokens [n, k] (`Task.spell`).
    """
    defined = truth >= 0
    pairs, counts = np.unique(np.stack([truth[defined], predicted[defined]]), axis=1, return_counts=True)
    rows: list[dict[str, Any]] = [
        {**columns, "truth": int(t), "predicted": int(p), "count": int(count)}
        for (t, p), count in zip(pairs.T, counts, strict=True)
    ]
    wrong = np.flatnonzero(defined & (predicted != truth))
    if not (isinstance(probe, LinearProbe) and isinstance(probe, SoftmaxProbe)) or not len(wrong):
        return rows
    kept: Counter[tuple[int, int]] = Counter()
    for example, margin in _surest(probe, index, x, truth, predicted, wrong):
        pair = int(truth[example]), int(predicted[example])
        if kept[pair] == ALIKE:
            continue
        kept[pair] += 1
        start = held.starts[held.row[example : example + 1]]
        rows.append(
            {
                **columns,
                "truth": pair[0],
                "predicted": pair[1],
                "count": 1,
                "margin": margin,
                "start": spell(start)[0].tolist(),
                "step": int(held.time[example]),
            }
        )
        if kept.total() == WORST:
            break
    return rows


def _surest(
    probe: Any, index: int, x: Any, truth: np.ndarray, predicted: np.ndarray, wrong: np.ndarray
) -> Iterator[tuple[int, float]]:
    """Mistakes by how much more the probe gave to what it said than to the truth, largest first: (example, margin)."""
    said, right = (
        np.searchsorted(probe.classes_, y[wrong]).clip(max=len(probe.classes_) - 1) for y in (predicted, truth)
    )
    intercept = probe.intercept_[index]
    known = (probe.classes_[right] == truth[wrong]) & np.isfinite(intercept[right])
    wrong, said, right = wrong[known], said[known], right[known]
    weights = probe.coef_[index]
    at = np.asarray(x[wrong].cpu())
    margin = (at * (weights[said] - weights[right])).sum(1) + intercept[said] - intercept[right]
    for i in np.argsort(-margin, kind="stable"):
        yield int(wrong[i]), float(margin[i])
