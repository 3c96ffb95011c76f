"""Faithfulness over circuit sizes: curves of both rankings, their null, and the size that is chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from interp.circuits.config import CircuitConfig
from interp.circuits.faithfulness import faithfulness, run_circuits
from interp.circuits.pairs import Pairs
from interp.models.graph import Graph
from interp.runs.circuit_files import FaithfulnessPoint

Curves = tuple[tuple[FaithfulnessPoint, ...], tuple[FaithfulnessPoint, ...]]  # by |score|, and by -score


def null_curves(
    model: Any,
    graph: Graph,
    pairs: Pairs,
    sizes: list[int],
    reference: Tensor | None,
    config: CircuitConfig,
    seed: int,
    progress: Callable[[float], None],
) -> np.ndarray | None:
    """Faithfulness of random circuits, [size, draw]."""
    if not config.n_null:
        return None
    rng = np.random.default_rng(seed)
    random = np.concatenate([graph.random(size, n=config.n_null, rng=rng) for size in sizes])
    circuits = np.concatenate([random, np.stack([np.zeros_like(graph.mask), graph.mask])])
    few = pairs[: config.n_null_pairs]
    m = run_circuits(model, few, circuits, ablation=config.ablation, reference=reference, progress=progress).m
    m = m.mean(axis=1)
    return ((m[:-2] - m[-2]) / (m[-1] - m[-2])).reshape(len(sizes), config.n_null)


def curves_of(
    graph: Graph,
    pairs: Pairs,
    sizes: list[int],
    circuits: np.ndarray,
    m: np.ndarray,
    exact: np.ndarray,
    null: np.ndarray | None,
    config: CircuitConfig,
    seed: int,
) -> Curves:
    """Points of both rankings; circuits are the absolute ones, the signed ones, the empty and the full."""
    found = faithfulness(m[:-2], m[-1], m[-2], pairs.groups, seed=seed, n_bootstrap=config.n_bootstrap)
    connected = graph.prune(circuits).sum(axis=(1, 2))
    points = []
    for row in range(2 * len(sizes)):
        place = row % len(sizes)
        draws = None if null is None else null[place]
        points.append(
            FaithfulnessPoint(
                n_edges=sizes[place],
                n_connected=int(connected[row]),
                fraction=sizes[place] / graph.n_edges,
                estimate=float(found.estimate[row]),
                ci_low=float(found.ci_low[row]),
                ci_high=float(found.ci_high[row]),
                exact_match=float(exact[row].mean()),
                null_mean=None if draws is None else float(draws.mean()),
                null_low=None if draws is None else float(np.percentile(draws, 2.5)),
                null_high=None if draws is None else float(np.percentile(draws, 97.5)),
                n_null=0 if draws is None else len(draws),
            )
        )
    return tuple(points[: len(sizes)]), tuple(points[len(sizes) :])


def chosen_size(points: tuple[FaithfulnessPoint, ...], threshold: float) -> int:
    """The smallest size from which on faithfulness stays at the threshold; the largest where none does."""
    size = points[-1].n_edges
    for point in reversed(points):
        if point.estimate < threshold:
            break
        size = point.n_edges
    return size
