"""Do models that were trained from other seeds find the same circuits? (heads matched within layers by role)

Heads have no identity across seeds: they are paired first. Layers and MLPs keep theirs.

1. A head's role: where it looks, the mean attention between named sets of positions under each instruction
   (`AttentionSummary.roles`), as one vector, less the mean of its layer's heads. Circuits play no part in it.
2. Within each layer, the one-to-one pairing of highest summed cosine (the Hungarian method).
3. The second model's circuits are renamed by the pairing; Jaccard of the two circuits, edge by edge.
4. Null: the same with heads paired at random within layers.

Agreement above the null says that the same kinds of heads are wired alike. A pairing cannot follow a role that moved to
another layer, or that two heads share: agreement is a lower bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from interp.circuits.attention import AttentionSummary, read_attention
from interp.circuits.overlap import circuit_graph_of, jaccard, matrices
from interp.circuits.pairs import main_contrasts
from interp.models.graph import Graph
from interp.results import Aggregation, Control, IntervalKind, Metric
from interp.runs import Run
from interp.runs.circuit_files import Circuit, circuit_path, read_circuit


@dataclass(frozen=True, eq=False)
class Matching:
    """Heads of a second model paired with those of a first."""

    heads: np.ndarray  # int [layer, head]: for each head of the second model the head of the first
    similarity: np.ndarray  # cosine of the paired roles, float64 [layer, head of the second]


def match_heads(first: AttentionSummary, second: AttentionSummary) -> Matching:
    """Pair the heads of two models of one shape by where they look.

    Raises:
        ValueError: the two have other layers, heads, instructions or sets of positions.
    """
    if first.roles.shape != second.roles.shape or (first.ops, first.role_names) != (second.ops, second.role_names):
        raise ValueError(
            "heads are matched between models of one shape on one machine; got attention "
            f"{list(first.roles.shape)} of {', '.join(first.ops)} and {list(second.roles.shape)} of "
            f"{', '.join(second.ops)} [op, layer, head, query set, key set]"
        )
    a, b = _role_vectors(first), _role_vectors(second)
    n_layers, n_heads = a.shape[:2]
    heads, similarity = np.zeros((n_layers, n_heads), dtype=int), np.zeros((n_layers, n_heads))
    for layer in range(n_layers):
        cosine = b[layer] @ a[layer].T  # [second, first]
        rows, columns = linear_sum_assignment(-cosine)
        heads[layer, rows], similarity[layer, rows] = columns, cosine[rows, columns]
    return Matching(heads, similarity)


def _role_vectors(summary: AttentionSummary) -> np.ndarray:
    """Unit vectors [layer, head, feature]."""
    roles = np.moveaxis(summary.roles.astype(np.float64), 0, 2)  # [layer, head, op, query, key]
    vectors = roles.reshape(*roles.shape[:2], -1)
    vectors = vectors - vectors.mean(1, keepdims=True)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def renamed(graph: Graph, members: np.ndarray, heads: np.ndarray) -> np.ndarray:
    """A circuit, bool [reader, writer], with head h of layer l called heads[l, h]."""
    rows = {reader.name: row for row, reader in enumerate(graph.readers)}
    columns = {writer.name: column for column, writer in enumerate(graph.writers)}
    to_row = [
        row if reader.head is None else rows[f"a{reader.layer}.h{heads[reader.layer, reader.head]}<{reader.kind}>"]
        for row, reader in enumerate(graph.readers)
    ]
    to_column = [
        column if writer.head is None else columns[f"a{writer.layer}.h{heads[writer.layer, writer.head]}"]
        for column, writer in enumerate(graph.writers)
    ]
    found = np.zeros_like(members)
    found[np.ix_(to_row, to_column)] = members
    return found


@dataclass(frozen=True)
class Agreement:
    """Two models' circuits of one instruction."""

    op: str
    jaccard: float  # after matching
    null_mean: float  # heads paired at random
    null_low: float
    null_high: float
    sizes: tuple[int, int]


def agreement(first: Circuit, second: Circuit, matching: Matching, *, n_null: int = 200, seed: int = 0) -> Agreement:
    """Jaccard of two models' circuits of one instruction, after matching, and with heads paired at random."""
    graph = circuit_graph_of(first)
    ours, theirs = matrices(first)[1], matrices(second)[1]

    def overlap(heads: np.ndarray) -> float:
        other = renamed(graph, theirs, heads)
        return jaccard(np.flatnonzero(ours).tolist(), np.flatnonzero(other).tolist())

    rng = np.random.default_rng(seed)
    shuffled = [np.stack([rng.permutation(graph.n_heads) for _ in range(graph.n_layers)]) for _ in range(n_null)]
    null = np.array([overlap(heads) for heads in shuffled])
    low, high = np.percentile(null, [2.5, 97.5])
    sizes = int(ours.sum()), int(theirs.sum())
    return Agreement(first.op, overlap(matching.heads), float(null.mean()), float(low), float(high), sizes)


def seed_agreement(runs: Sequence[Run], *, n_null: int = 200, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of every two runs and every instruction that both have a circuit of; `run` is "FIRST|SECOND".

    Args:
        runs: at least two runs of one shape on one machine, with circuits and attention measured.
        n_null: random pairings.
        seed: of these.

    Raises:
        ValueError: fewer than two runs, or runs whose heads cannot be paired.
        FileNotFoundError: a run has no attention file.
    """
    if len(runs) < 2:
        raise ValueError(f"agreement across seeds needs at least two runs, got {len(runs)}")
    rows: list[dict[str, Any]] = []
    for one, other in combinations(runs, 2):
        matching = match_heads(*(read_attention(run.path / "attention.safetensors")[0] for run in (one, other)))
        for op in main_contrasts(one.task):
            files = [circuit_path(run.path, one.task.contrast(op).slug) for run in (one, other)]
            if not all(file.exists() for file in files):
                continue
            first, second = (read_circuit(file)[0] for file in files)
            found = agreement(first, second, matching, n_null=n_null, seed=seed)
            key = {
                "run": f"{one.name}|{other.name}",
                "architecture": one.config.model.architecture,
                "task": one.config.task,
                "op": op,
                "granularity": "edge",
                "ablation": first.ablation,
                "metric": Metric.JACCARD,
                "stratum": "seeds",
                "circuit_size": found.sizes[0],
                "aggregation": Aggregation.MEAN,
            }
            rows.append({**key, "estimate": found.jaccard})
            null = {"control": Control.RANDOM_MATCHING, "interval_kind": IntervalKind.NULL_RANGE, "n": n_null}
            ends = {"ci_low": found.null_low, "ci_high": found.null_high}
            rows.append({**key, "estimate": found.null_mean, **ends, **null})
    return rows
