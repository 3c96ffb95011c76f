"""What circuits share: with other instructions, with themselves on other pairs, with themselves at another time.

Jaccard of two sets of edges or nodes is the size of what is in both over the size of what is in either, 0 to 1. Beside
it stands what two random sets of the same sizes have, as the ratio of the means.

Stability (Méloux et al. 2025): score the edges on resamples of the pairs, with replacement, take as many of the highest
as the circuit has, and average the Jaccard over all pairs of resamples. 1 = the circuit does not hang on which pairs
were drawn.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from interp.circuits.faithfulness import ranked
from interp.circuits.pairs import Pairs
from interp.circuits.scorers import score_edges
from interp.circuits.standing import taken_apart
from interp.models.graph import Graph
from interp.models.two_sided_graph import graph_of_sizes
from interp.ranges import counted
from interp.results import Aggregation, Control, Metric
from interp.runs.circuit_files import Circuit


def jaccard(first: Collection[Any], second: Collection[Any]) -> float:
    """Overlap of two sets, 0 to 1; 1 for two empty ones."""
    a, b = set(first), set(second)
    return len(a & b) / len(a | b) if a | b else 1.0


def chance_jaccard(n_first: int, n_second: int, n_all: int) -> float:
    """What two random sets of these sizes out of `n_all` have."""
    both = n_first * n_second / n_all
    return both / (n_first + n_second - both) if n_first + n_second else 1.0


def circuit_graph_of(circuit: Circuit) -> Graph:
    """The graph that a circuit is part of."""
    return graph_of_sizes(circuit.n_layers, circuit.n_heads, circuit.n_encoder)


def matrices(circuit: Circuit) -> tuple[np.ndarray, np.ndarray]:
    """A circuit's scores and whether each edge is in it, float64 and bool [reader, writer]."""
    graph = circuit_graph_of(circuit)
    rows = {reader.name: row for row, reader in enumerate(graph.readers)}
    columns = {writer.name: column for column, writer in enumerate(graph.writers)}
    scores, members = np.zeros(graph.mask.shape), np.zeros_like(graph.mask)
    for edge in circuit.edges:
        place = rows[edge.target], columns[edge.source]
        scores[place], members[place] = edge.score, edge.in_circuit
    return scores, members


@dataclass(frozen=True)
class Sharing:
    """Which instructions each edge and node serves."""

    ops: tuple[str, ...]
    edges: dict[str, tuple[str, ...]]  # edge -> instructions whose circuit holds it
    nodes: dict[str, tuple[str, ...]]  # heads and MLPs alike
    n_edges: int  # of the whole graph
    n_nodes: int  # heads and MLPs of the whole graph

    def shared(self, kind: str = "edges") -> tuple[str, ...]:
        """What every instruction uses."""
        return tuple(name for name, ops in getattr(self, kind).items() if len(ops) == len(self.ops))

    def own(self, op: str, kind: str = "edges") -> tuple[str, ...]:
        """What this instruction uses and no other does."""
        return tuple(name for name, ops in getattr(self, kind).items() if ops == (op,))

    def of(self, op: str, kind: str = "edges") -> tuple[str, ...]:
        """All that this instruction uses."""
        return tuple(name for name, ops in getattr(self, kind).items() if op in ops)


def sharing(circuits: Sequence[Circuit]) -> Sharing:
    """What the circuits of several instructions of one model share."""
    edges: dict[str, tuple[str, ...]] = {}
    nodes: dict[str, tuple[str, ...]] = {}
    for circuit in circuits:
        for edge in circuit.edges:
            if edge.in_circuit:
                edges[edge.name] = (*edges.get(edge.name, ()), circuit.op)
        for node in circuit.nodes:
            if node.in_circuit and node.kind in ("head", "mlp"):
                nodes[node.id] = (*nodes.get(node.id, ()), circuit.op)
    graph = circuit_graph_of(circuits[0])
    return Sharing(tuple(c.op for c in circuits), edges, nodes, graph.n_edges, len(graph.writers) - 1)


def sharing_rows(found: Sharing) -> list[dict[str, Any]]:
    """Jaccard of every two circuits, by edge and by node, beside chance; `stratum` is "with:OTHER"."""
    rows: list[dict[str, Any]] = []
    for granularity, kind, n_all in (("edge", "edges", found.n_edges), ("node", "nodes", found.n_nodes)):
        for a, b in combinations(found.ops, 2):
            first, second = found.of(a, kind), found.of(b, kind)
            key = {
                "op": a,
                "stratum": f"with:{b}",
                "granularity": granularity,
                "metric": Metric.JACCARD,
                "circuit_size": len(first),
                "aggregation": Aggregation.MEAN,
            }
            rows.append({**key, "estimate": jaccard(first, second)})
            null = chance_jaccard(len(first), len(second), n_all)
            rows.append({**key, "control": Control.RANDOM_CIRCUIT, "estimate": null})
    return rows


@dataclass(frozen=True)
class Stability:
    """How far a circuit hangs on which pairs were drawn."""

    jaccard: float  # mean over all pairs of resamples
    low: float  # 2.5 percentile over pairs of resamples
    high: float  # 97.5
    chance: float  # of random sets of the size
    size: int  # edges taken
    n_resamples: int
    kept: np.ndarray  # share of resamples that take the edge, float64 [reader, writer]


def mean_pairwise_jaccard(members: np.ndarray) -> tuple[float, float, float]:
    """(mean, 2.5 and 97.5 percentile) of the Jaccard of every two rows of bool [n, ...]; n at least 2."""
    flat = np.asarray(members, dtype=np.float64).reshape(len(members), -1)
    if len(flat) < 2:
        raise ValueError(f"a pairwise Jaccard needs at least 2 sets, got {len(flat)}")
    both, size = flat @ flat.T, flat.sum(1)
    either = size[:, None] + size - both
    values = np.where(either > 0, both / np.maximum(either, 1), 1.0)[np.triu_indices(len(flat), 1)]
    low, high = np.percentile(values, [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


@counted(pairs=1, size=1, steps=1, n_resamples=1, group=1)
def stability(
    model: Any,
    pairs: Pairs,
    *,
    size: int,
    method: str = "eap_ig",
    steps: int = 5,
    n_resamples: int = 50,
    group: int = 4,
    seed: int = 0,
) -> Stability:
    """Bootstrap stability of the `size` edges of highest |score|.

    Args:
        model: the hooked transformer.
        pairs: clean and corrupted inputs.
        size: edges taken from each ranking.
        method: the scorer, a name of SCORERS.
        steps: midpoints of EAP-IG.
        n_resamples: resamples of the pairs.
        group: pairs that are scored, and resampled, together: blocks of independent pairs give the same variance.
        seed: of the resamples.

    Raises:
        ValueError: fewer than two groups, fewer than two resamples, or no such scorer.
    """
    n_groups = len(pairs) // group
    if n_groups < 2:
        raise ValueError(f"stability needs at least two groups of {group} pairs, got {len(pairs)} pairs")
    graph = taken_apart(model)
    parts = [slice(start * group, (start + 1) * group) for start in range(n_groups)]
    scores = np.stack([score_edges(method, model, pairs[part], steps=steps) for part in parts])
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_resamples) / n_groups
    members = np.stack([graph.top(ranked(np.tensordot(w, scores, 1), "absolute"), size) for w in weights])
    mean, low, high = mean_pairwise_jaccard(members)
    chance = chance_jaccard(size, size, graph.n_edges)
    return Stability(mean, low, high, chance, size, n_resamples, members.mean(0))
