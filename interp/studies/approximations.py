"""How well do approximations find what exact patching finds, on the model at hand?

Every edge of the graph is patched exactly, and every node; the truth is

    effect    the mean over pairs of |m(patched) - m(clean)|: effects of opposite sign do not cancel
    matters   the effect is at least 1 % of the model's gap, m(clean) - m(corrupted)

Each method's |scores| are held against it over all edges (or nodes): Spearman's rank correlation with the effect, and
AUROC and precision at true size of telling what matters. Signed scores also against the signed mean effect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from interp.calibration.scores import auroc, precision_at_size
from interp.circuits.exact import exact_effects
from interp.circuits.nodes import attribution_patching, node_effects
from interp.circuits.pairs import Pairs
from interp.circuits.scorers import SCORERS, Scoring
from interp.circuits.standing import taken_apart
from interp.results import Aggregation, Control, Method, Metric, method_named, steps_of

MATTERS = 0.01  # of the gap


def compare_approximations(
    model: Any,
    pairs: Pairs,
    *,
    steps: int = 5,
    n_search: int = 6,
    progress: Callable[[float], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of every method against exact patching of all edges and nodes on the same pairs, and the edges' numbers.

    The second holds "edges", their names, and by method one number an edge in that order: its score, or under
    "exact_patching" the mean over pairs of its effect, under "mean_absolute" that of the effect's size; and the "gap".

    Args:
        model: the hooked transformer.
        pairs: clean and corrupted inputs.
        steps: midpoints of EAP-IG.
        n_search: of the pairs, those that searches, by far the slowest, run on; 0: no search.
        progress: called with the share done, 0 to 1.
    """
    report = progress or (lambda share: None)
    graph = taken_apart(model)
    places = np.argwhere(graph.mask)
    edges = [graph.edge(row, column) for row, column in places]
    exact = exact_effects(model, pairs, edges, progress=lambda share: report(0.5 * share))
    nodes = node_effects(model, pairs)
    gap = abs(float(nodes[0].mean()))  # the input corrupted is everything corrupted
    ours: dict[str, np.ndarray] = {}
    rows = []
    tried = {name: scorer for name, scorer in SCORERS.items() if scorer.approximates}
    for name, scorer in sorted(tried.items(), key=lambda item: item[1].searches):
        if scorer.searches and not n_search:
            continue
        scoring, some = Scoring(steps), pairs
        if scorer.searches:
            scoring, some = Scoring(steps, progress=lambda share: report(0.6 + 0.4 * share)), pairs[:n_search]
        scores = ours[method_named(name)] = scorer.function(model, some, scoring)[graph.mask]
        method = method_named(name)
        found = agreement_rows(scores, exact, gap, method=method, granularity="edge", signed=scorer.signed)
        rows += [{**row, "steps": steps_of(method, steps)} for row in found]
    by_node = {
        "one gradient": attribution_patching(model, pairs).mean(1)[1:],
        f"{steps} gradients": attribution_patching(model, pairs, steps=steps).mean(1)[1:],
    }
    for stratum, scores in by_node.items():
        found = agreement_rows(
            scores, nodes[1:], gap, method=Method.ATTRIBUTION_PATCHING, granularity="node", signed=True
        )
        rows += [{**row, "position": stratum} for row in found]
    report(1.0)
    numbers = {str(method): scores for method, scores in ours.items()}
    numbers |= {str(Method.EXACT_PATCHING): exact.mean(1), "mean_absolute": np.abs(exact).mean(1)}
    detail = {name: [float(f"{value:.4g}") for value in values] for name, values in numbers.items()}
    named = {"edges": [edge.name for edge in edges], "gap": gap}
    return [{"op": pairs.contrast, **row} for row in rows], {**named, **detail}


def agreement_rows(
    scores: np.ndarray, exact: np.ndarray, gap: float, *, method: str, granularity: str, signed: bool
) -> list[dict[str, Any]]:
    """Rows of scores [part] against exact effects [part, n]; `circuit_size` is the number of parts that matter."""
    effect, size = np.abs(exact).mean(1), np.abs(scores)
    matters = effect >= MATTERS * gap
    key: dict[str, Any] = {
        "method": method,
        "granularity": granularity,
        "ablation": "resample",
        "aggregation": Aggregation.MEAN,
        "circuit_size": int(matters.sum()),
        "n": exact.shape[1],
    }
    rows = [{**key, "stratum": "absolute", "metric": Metric.SPEARMAN, "estimate": spearman(size, effect)}]
    if signed:
        value = spearman(scores, exact.mean(1))
        rows.append({**key, "stratum": "signed", "metric": Metric.SPEARMAN, "estimate": value})
    if matters.any() and not matters.all():
        rows.append({**key, "metric": Metric.AUROC, "estimate": auroc(size, matters)})
        rows.append({**key, "metric": Metric.PRECISION_AT_SIZE, "estimate": precision_at_size(size, matters)})
        chance = {"metric": Metric.PRECISION_AT_SIZE, "control": Control.RANDOM_CIRCUIT}
        rows.append({**key, **chance, "estimate": float(matters.mean())})
    return rows


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Rank correlation, ties sharing their mean rank; nan where either is constant."""
    ranks = pd.DataFrame({"first": first, "second": second}).rank()
    return float(ranks.corr().iloc[0, 1])
