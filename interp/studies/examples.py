"""Where the strongest edges matter: their exact effects pair by pair, and the pairs themselves.

An effect averaged over pairs hides that an edge may serve a few of them alone. For the edges of highest |score| of a
circuit, each pair's m(edge corrupted) - m(clean) is kept, beside what both of its inputs show, so that a person can go
from an edge to the examples where it does most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interp.circuits.exact import exact_effects
from interp.circuits.overlap import matrices
from interp.circuits.pairs import draw_pairs
from interp.circuits.standing import taken_apart
from interp.runs.circuit_files import Circuit
from interp.tasks import Task


@dataclass(frozen=True, eq=False)
class EdgeExamples:
    """The strongest edges of a circuit, pair by pair."""

    edges: tuple[str, ...]  # names, by |score|, the highest first
    effects: np.ndarray  # m(edge corrupted) - m(clean) in logits, float [edge, n]; negative where the edge helps
    m_clean: np.ndarray  # m of the model left alone, float [n]
    clean: np.ndarray  # tokens of what is given, an answer left out, int64 [n, pos]
    corrupted: np.ndarray  # the same

    def worst(self, edge: str, *, k: int = 3) -> list[int]:
        """The `k` pairs that lose most when the edge is corrupted, the worst first.

        Raises:
            ValueError: the edge is not among those that were patched.
        """
        if edge not in self.edges:
            raise ValueError(f"the edge {edge!r} was not patched pair by pair; {len(self.edges)} others were")
        return np.argsort(self.effects[self.edges.index(edge)], kind="stable")[:k].tolist()

    def detail(self) -> dict[str, Any]:
        """What a file keeps; `read_examples` reads it back."""
        return {
            "edges": {name: _rounded(effects) for name, effects in zip(self.edges, self.effects, strict=True)},
            "m_clean": _rounded(self.m_clean),
            "clean": [" ".join(map(str, row)) for row in self.clean.tolist()],
            "corrupted": [" ".join(map(str, row)) for row in self.corrupted.tolist()],
        }


@torch.no_grad()
def edge_examples(
    model: Any,
    task: Task,
    circuit: Circuit,
    *,
    n_edges: int = 20,
    n_pairs: int = 48,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> EdgeExamples:
    """Patch the `n_edges` edges of highest |score| exactly, on the first pairs that the circuit was scored on.

    Args:
        model: the hooked transformer.
        task: draws the pairs.
        circuit: of one contrast, found with the same seed.
        n_edges: how many edges.
        n_pairs: how many pairs.
        seed: of the pairs.
        progress: called with the share done, 0 to 1.
    """
    graph = taken_apart(model)
    pairs = draw_pairs(task, circuit.op, n_pairs, seed=seed, half=1)
    sizes = np.where(graph.mask, np.abs(matrices(circuit)[0]), -1.0)
    places = np.argsort(-sizes, axis=None, kind="stable")[: min(n_edges, graph.n_edges)]
    edges = [graph.edge(*divmod(int(place), sizes.shape[1])) for place in places]
    effects = exact_effects(model, pairs, edges, progress=progress)
    m_clean = pairs.logit_difference(model(pairs.clean.tokens)).numpy()
    shown = (batch.tokens[:, task.prompt_positions].numpy() for batch in (pairs.clean, pairs.corrupted))
    return EdgeExamples(tuple(edge.name for edge in edges), effects, m_clean, *shown)


def read_examples(detail: Mapping[str, Any]) -> EdgeExamples:
    """The inverse of `EdgeExamples.detail`."""
    clean, corrupted = (
        np.array([row.split() for row in detail[name]], dtype=np.int64) for name in ("clean", "corrupted")
    )
    effects = np.array(list(detail["edges"].values()), dtype=np.float64).reshape(len(detail["edges"]), len(clean))
    return EdgeExamples(tuple(detail["edges"]), effects, np.array(detail["m_clean"]), clean, corrupted)


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]
