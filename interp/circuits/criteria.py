"""Does a circuit hold all of what the model uses, and nothing else? (Wang et al. 2022)

F is the mean logit difference of a run, C the circuit, M the model. Removing a set K of nodes excludes every edge into
or out of them; the numbers are shares of the model's gap F(M) - F(empty), so that they read as faithfulness does.

1. Completeness: the largest |F(C less K) - F(M less K)| over sets K of nodes of C; 0 is best. A model with a second
   way to the answer that C lacks gives itself away when the first is removed. Sets: none, random halves of C, and
   greedy ones, which from nothing add at each step the node, of a random few, that parts C and M most.
2. Minimality: for each node v of C the largest |F(C less K and v) - F(C less K)| over such sets K without v. Near 0,
   nothing was found that v is needed for. With K empty this is v's own effect; a node with a twin needs a K that
   holds the twin.

Both are maxima over sampled sets: lower bounds, that grow with the number of samples; compare circuits by the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from interp.circuits.faithfulness import run_circuits
from interp.circuits.pairs import Pairs
from interp.circuits.standing import taken_apart
from interp.models.graph import Graph
from interp.ranges import counted
from interp.stage_options import Ablation


@dataclass(frozen=True)
class Completeness:
    """How far a circuit and the model part when the same nodes are removed from both."""

    score: float  # the largest difference, a share of the model's gap; 0 is best
    nodes: tuple[str, ...]  # the K that gives it
    circuit: float  # faithfulness of C less that K
    model: float  # of M less that K
    differences: tuple[float, ...]  # of every K tried, the empty one first, then random, then greedy ones
    kinds: tuple[str, ...]  # "empty", "random" or "greedy" for each


@dataclass(frozen=True)
class NodeNeed:
    """What a node of a circuit is needed for."""

    node: str
    score: float  # the largest change that removing it makes, a share of the model's gap; near 0: not needed
    alone: float  # the same with nothing else removed
    given: tuple[str, ...]  # the K, removed beforehand, that gives `score`


def circuit_nodes(graph: Graph, members: np.ndarray) -> list[str]:
    """Heads and MLPs of a circuit, bool [reader, writer], that lie on a path from the input to the logits."""
    used = graph.prune(members).any(axis=0)
    return [
        writer.name
        for writer, here in zip(graph.writers, np.asarray(used), strict=True)
        if here and writer.kind != "input"
    ]


def without(graph: Graph, members: np.ndarray, nodes: Sequence[str]) -> np.ndarray:
    """The circuit less every edge into or out of `nodes`.

    Raises:
        ValueError: a node that the graph lacks.
    """
    known = [writer.name for writer in graph.writers]
    if unknown := sorted({*nodes} - {*known}):
        raise ValueError(f"the graph has no node {unknown[0]!r}; its nodes are {', '.join(known)}")
    left = members.copy()
    left[:, [known.index(node) for node in nodes]] = False
    left[[reader.node in nodes for reader in graph.readers]] = False
    return left


@counted(pairs=1, n_random=0, n_greedy=0, n_steps=0, n_candidates=1, batch_size=1)
def completeness(
    model: Any,
    pairs: Pairs,
    circuit: np.ndarray,
    *,
    n_random: int = 16,
    n_greedy: int = 2,
    n_steps: int = 4,
    n_candidates: int = 6,
    ablation: Ablation = "resample",
    reference: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> Completeness:
    """The completeness of a circuit, bool [reader, writer].

    Args:
        model: the hooked transformer.
        pairs: clean and corrupted inputs.
        circuit: edges kept.
        n_random: random sets, each node of the circuit in it with probability 1/2.
        n_greedy: greedy searches; every set on their way counts.
        n_steps: nodes that a greedy search adds at most.
        n_candidates: nodes that each of its steps chooses among.
        ablation: what excluded edges carry.
        reference: tokens that "mean" averages over.
        seed: of the sets.
        batch_size: rows a forward pass.

    Raises:
        ValueError: a circuit of another shape, or what `run_circuits` refuses.
    """
    samples = _Samples(model, pairs, circuit, ablation, reference, batch_size)
    rng = np.random.default_rng(seed)
    tried = [("empty", frozenset[str]())]
    tried += [("random", samples.random_set(rng)) for _ in range(n_random)]
    values = samples.both([nodes for _, nodes in tried])
    for _ in range(n_greedy):
        grown: frozenset[str] = frozenset()
        for _ in range(min(n_steps, len(samples.nodes))):
            left = [node for node in samples.nodes if node not in grown]
            some = [grown | {left[index]} for index in rng.permutation(len(left))[:n_candidates]]
            found = samples.both(some)
            tried += [("greedy", nodes) for nodes in some]
            values = np.concatenate([values, found])
            grown = some[int(np.abs(found[:, 0] - found[:, 1]).argmax())]
    differences = np.abs(values[:, 0] - values[:, 1])
    worst = int(differences.argmax())
    return Completeness(
        score=float(differences[worst]),
        nodes=samples.ordered(tried[worst][1]),
        circuit=float(values[worst, 0]),
        model=float(values[worst, 1]),
        differences=tuple(differences.tolist()),
        kinds=tuple(kind for kind, _ in tried),
    )


@counted(pairs=1, n_random=0, batch_size=1)
def minimality(
    model: Any,
    pairs: Pairs,
    circuit: np.ndarray,
    *,
    n_random: int = 8,
    ablation: Ablation = "resample",
    reference: Tensor | None = None,
    seed: int = 0,
    batch_size: int = 256,
) -> list[NodeNeed]:
    """For each head and MLP of a circuit, bool [reader, writer], what it is needed for; the least needed first.

    Sets K: none, every single other node, and `n_random` random halves of the circuit. Arguments and errors as for
    `completeness`.
    """
    samples = _Samples(model, pairs, circuit, ablation, reference, batch_size)
    rng = np.random.default_rng(seed)
    sets = [frozenset[str](), *(frozenset([node]) for node in samples.nodes)]
    sets += [samples.random_set(rng) for _ in range(n_random)]
    wanted = {nodes | extra for nodes in sets for extra in [frozenset(), *({node} for node in samples.nodes)]}
    wanted |= {nodes - {node} for nodes in sets for node in samples.nodes}
    some = list(wanted)
    value = dict(zip(some, samples.circuit_values(some), strict=True))
    needs = []
    for node in samples.nodes:
        changes = {nodes - {node}: abs(value[nodes | {node}] - value[nodes - {node}]) for nodes in sets}
        given = max(changes, key=lambda nodes: (changes[nodes], -len(nodes)))
        needs.append(NodeNeed(node, changes[given], changes[frozenset()], samples.ordered(given)))
    return sorted(needs, key=lambda need: need.score)


class _Samples:
    """Faithfulness of a circuit and of the model with sets of the circuit's nodes removed."""

    def __init__(
        self,
        model: Any,
        pairs: Pairs,
        circuit: np.ndarray,
        ablation: Ablation,
        reference: Tensor | None,
        batch_size: int,
    ):
        self.graph = taken_apart(model)
        self.circuit = self.graph.prune(self.graph.read(circuit, single=True))
        self.nodes = circuit_nodes(self.graph, self.circuit)
        self._model, self._pairs, self._batch_size = model, pairs, batch_size
        self._ablation: Ablation = ablation
        self._reference = reference
        ends = self._means([np.zeros_like(self.graph.mask), self.graph.mask])
        self._empty, self._gap = ends[0], ends[1] - ends[0]
        if abs(self._gap) < 1e-6:
            raise ValueError(
                "the full model and the empty circuit have the same mean logit difference: nothing to explain"
            )

    def random_set(self, rng: np.random.Generator) -> frozenset[str]:
        return frozenset(node for node in self.nodes if rng.random() < 0.5)

    def ordered(self, nodes: frozenset[str]) -> tuple[str, ...]:
        return tuple(node for node in self.nodes if node in nodes)

    def both(self, sets: Sequence[frozenset[str]]) -> np.ndarray:
        """Faithfulness of the circuit and of the model, each less the set, [set, 2]."""
        wholes = (self.circuit, self.graph.mask)
        circuits = [without(self.graph, whole, [*nodes]) for nodes in sets for whole in wholes]
        return self._faithfulness(circuits).reshape(len(sets), 2)

    def circuit_values(self, sets: Sequence[frozenset[str]]) -> list[float]:
        return self._faithfulness([without(self.graph, self.circuit, [*nodes]) for nodes in sets]).tolist()

    def _faithfulness(self, circuits: list[np.ndarray]) -> np.ndarray:
        return (self._means(circuits) - self._empty) / self._gap

    def _means(self, circuits: list[np.ndarray]) -> np.ndarray:
        runs = run_circuits(
            self._model,
            self._pairs,
            np.stack(circuits),
            ablation=self._ablation,
            reference=self._reference,
            batch_size=self._batch_size,
        )
        return runs.m.mean(axis=1)
