"""What a compiled program is made of: named subspaces, attention heads that read and write them, and gates.

The residual stream is a direct sum of named subspaces, each a number of *features*, and every component is declared
in their terms, in the manner of a RASP program (Weiss et al. 2021; Lindner et al. 2023, "Tracr"). Most features are 0
or 1, and a subspace of several is then a one-hot. The assembler turns declarations into weights, the evaluator runs
them as they are written, and the answer key is read off them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Feature = tuple[str, int]  # a subspace and an index in it
Matrix = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Score:
    """A term of an attention score: `query^T matrix key`, summed over the terms of a head.

    `query` None stands for the constant 1; its matrix has one row.
    """

    query: str | None
    key: str
    matrix: Matrix  # [size of query subspace, size of key subspace]


@dataclass(frozen=True, eq=False)
class Move:
    """What a head carries from the position attended to: `target += source @ matrix`."""

    source: str
    target: str
    matrix: Matrix  # [size of source, size of target]


@dataclass(frozen=True, eq=False)
class Head:
    """One attention head, in nats: its pattern is the softmax of its scores."""

    name: str
    layer: int
    scores: tuple[Score, ...]
    moves: tuple[Move, ...]
    keys: str  # the positions that it attends to where its output is used, in the words of interp.tasks.sites
    variable: str | None  # the machine's variable that it carries, if any
    role: str  # in words, for people
    holds_at: str | None = None  # where its output is that variable, if not wherever it is read

    @cached_property
    def query_reads(self) -> frozenset[Feature]:
        return frozenset(f for s in self.scores if s.query is not None for f in _nonzero(s.query, s.matrix, axis=0))

    @cached_property
    def key_reads(self) -> frozenset[Feature]:
        return frozenset(f for s in self.scores for f in _nonzero(s.key, s.matrix, axis=1))

    @cached_property
    def value_reads(self) -> frozenset[Feature]:
        return frozenset(f for m in self.moves for f in _nonzero(m.source, m.matrix, axis=0))

    @cached_property
    def writes(self) -> frozenset[Feature]:
        return frozenset(f for m in self.moves for f in _nonzero(m.target, m.matrix, axis=1))


@dataclass(frozen=True, eq=False)
class Gate:
    """One hidden neuron of an MLP: `relu(sum of weight * feature + bias)`, added with weights to what it writes."""

    name: str
    layer: int
    reads: dict[Feature, float]
    bias: float
    writes: dict[Feature, float]
    variable: str | None = None  # the machine's variable that it computes, if any
    at: frozenset[int] | None = None  # the positions that it can fire at; None: any


@dataclass(frozen=True, eq=False)
class Constant:
    """A bias of an MLP's output: added at every position."""

    layer: int
    writes: dict[Feature, float]
    variable: str | None = None


@dataclass(frozen=True, eq=False)
class Pass:
    """A step of the program: the subspaces that it adds, and the components that fill them."""

    spaces: dict[str, int] = field(default_factory=dict)
    heads: tuple[Head, ...] = ()
    gates: tuple[Gate, ...] = ()
    constants: tuple[Constant, ...] = ()


@dataclass(frozen=True, eq=False)
class Program:
    """A whole model, declared."""

    task: str  # its key in TASKS
    spaces: dict[str, int]  # subspace -> number of features, in the order of the residual stream
    tokens: Matrix  # what each token embeds to, [d_vocab, n_features]
    positions: Matrix  # what each position embeds to, [n_ctx, n_features]
    answer: str  # the subspace, one feature a token, that the logits are read from
    gain: float  # logits are `gain` times its features
    n_layers: int
    heads: tuple[Head, ...] = ()
    gates: tuple[Gate, ...] = ()
    constants: tuple[Constant, ...] = field(default=())

    @cached_property
    def _slices(self) -> dict[str, slice]:
        slices, start = {}, 0
        for name, size in self.spaces.items():
            slices[name] = slice(start, start + size)
            start += size
        return slices

    @property
    def n_features(self) -> int:
        return sum(self.spaces.values())

    def slice(self, space: str) -> slice:
        """The features of a subspace. Raises ValueError for an unknown one."""
        if space not in self._slices:
            raise ValueError(f"the program has no subspace {space!r}; it has {', '.join(self.spaces)}")
        return self._slices[space]

    def index(self, feature: Feature) -> int:
        """The number of a feature in the residual stream. Raises ValueError outside its subspace."""
        space, index = feature
        where = self.slice(space)
        if not 0 <= index < where.stop - where.start:
            raise ValueError(f"subspace {space!r} has {where.stop - where.start} features; got index {index}")
        return where.start + index

    def heads_of(self, layer: int) -> list[Head]:
        """The heads of a layer, in the order in which the assembler numbers them."""
        return [head for head in self.heads if head.layer == layer]

    def gates_of(self, layer: int) -> list[Gate]:
        """The gates of a layer, in the order of their neurons."""
        return [gate for gate in self.gates if gate.layer == layer]

    def node(self, component: Head | Gate | Constant) -> str:
        """The node of the graph that a component belongs to: "a1.h0", "m2"."""
        if isinstance(component, Head):
            return f"a{component.layer}.h{self.heads_of(component.layer).index(component)}"
        return f"m{component.layer}"


def conjunction(*features: Feature, unless: Feature | None = None) -> tuple[dict[Feature, float], float]:
    """Weights and bias of a gate that is 1 where all of these 0-or-1 features are 1 (and `unless` is 0), else 0."""
    reads = dict.fromkeys(features, 1.0)
    if unless is not None:
        reads[unless] = -1.0
    return reads, 1.0 - len(features)


def selects(size: int, *indices: int, weight: float = 1.0) -> Matrix:
    """One row [1, size] with `weight` at some indices: the matrix of a Score with a constant query."""
    row = np.zeros((1, size))
    row[0, list(indices)] = weight
    return row


def _nonzero(space: str, matrix: Matrix, *, axis: int) -> list[Feature]:
    """Features of `space`, which is the given axis of `matrix`, that any entry uses."""
    return [(space, int(i)) for i in np.flatnonzero(np.abs(matrix).sum(axis=1 - axis))]
