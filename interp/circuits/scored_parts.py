"""Edges and nodes as a circuit file holds them: scored, and the effects of the strongest measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from interp.circuits.config import CircuitConfig
from interp.circuits.exact import exact_effects
from interp.circuits.faithfulness import ranked
from interp.circuits.nodes import node_effects
from interp.circuits.pairs import Pairs
from interp.models.graph import Edge, Graph
from interp.runs.circuit_files import CircuitEdge, CircuitNode
from probes.scores import bootstrap_mean


def scored_edges(
    model: Any,
    graph: Graph,
    pairs: Pairs,
    scores: np.ndarray,
    chosen: np.ndarray,
    config: CircuitConfig,
    seed: int,
    progress: Callable[[float], None],
) -> tuple[tuple[CircuitEdge, ...], float | None]:
    """Every edge with its score, those of highest |score| with their exact effect; and the two's rank correlation."""
    top = np.argwhere(graph.top(ranked(scores, "absolute"), config.n_exact))
    exact: dict[Edge, tuple[float, float, float]] = {}
    spearman = None
    if len(top):
        patched = [graph.edge(row, column) for row, column in top]
        effects = exact_effects(model, pairs, patched, progress=progress)
        exact = dict(zip(patched, _intervals(effects, pairs, config, seed), strict=True))
        frame = pd.DataFrame({"score": scores[tuple(top.T)], "exact": effects.mean(axis=1)})
        spearman = float(frame.rank().corr().iloc[0, 1]) if len(top) > 2 else None
    edges = []
    for row, column in np.argwhere(graph.mask):
        edge = graph.edge(row, column)
        value, low, high = exact.get(edge, (None, None, None))
        edges.append(
            CircuitEdge(
                source=edge.source.name,
                target=edge.target.name,
                score=float(scores[row, column]),
                exact=value,
                exact_low=low,
                exact_high=high,
                in_circuit=bool(chosen[row, column]),
            )
        )
    return tuple(edges), spearman


def scored_nodes(
    model: Any,
    graph: Graph,
    pairs: Pairs,
    scores: np.ndarray,
    chosen: np.ndarray,
    config: CircuitConfig,
    seed: int,
) -> tuple[CircuitNode, ...]:
    effects = _intervals(node_effects(model, pairs), pairs, config, seed)
    touched = {graph.readers[row].node for row, _ in np.argwhere(chosen)}
    touched |= {graph.writers[column].name for _, column in np.argwhere(chosen)}
    nodes = [
        CircuitNode(
            id=writer.name,
            kind=writer.kind,
            layer=writer.layer,
            head=writer.head,
            score=float(scores[:, column].sum()),
            effect=effects[column][0],
            effect_low=effects[column][1],
            effect_high=effects[column][2],
            in_circuit=writer.name in touched,
        )
        for column, writer in enumerate(graph.writers)
    ]
    logits = CircuitNode("logits", "logits", None, None, None, None, None, None, "logits" in touched)
    return (*nodes, logits)


def _intervals(effects: np.ndarray, pairs: Pairs, config: CircuitConfig, seed: int) -> list[tuple[float, float, float]]:
    """(mean, low, high) of each row of [part, n], by bootstrap over programs."""
    found = bootstrap_mean(effects, pairs.groups, seed=seed, n_resamples=config.n_bootstrap)
    return [(float(a), float(b), float(c)) for a, b, c in np.stack(found, axis=1)]
