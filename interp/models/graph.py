"""The computational graph of a residual stream, as a model declares it (`ModelFacts.graph`).

Writers add to the stream: the input (token and position embeddings together), every head, every MLP. Readers take
from it: the query, key and value input of every head, every MLP, the logits. Each writer feeds each later reader by
an edge; heads of one layer do not feed each other, and they do feed the MLP of their layer. With L layers of H heads:

    writers   1 + L (H + 1)         readers   L (3 H + 1) + 1

Readers and writers are numbered along the model, so scores are matrices [reader, writer]: rows are targets, columns
sources. Names follow the edge-attribution literature: "input", "a1.h3", "m1", "logits", "a1.h3<q>", and for an edge
"a1.h3->logits". They are made and read here alone (`Writer.named`, `Reader.named`, `Edge.named`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np

WriterKind = Literal["input", "head", "cross", "mlp"]
ReaderKind = Literal["q", "k", "v", "cross_q", "cross_k", "cross_v", "mlp", "logits"]
ARROW = "->"  # between the ends of an edge, and between the nodes of a path
_NODE = re.compile(
    r"(?P<plain>input|logits)|(?P<kind>[ac])(?P<layer>\d+)\.h(?P<head>\d+)(?:<(?P<port>[qkv])>)?|m(?P<mlp>\d+)"
)
_PORTS: dict[str, dict[str, ReaderKind]] = {
    "a": {"q": "q", "k": "k", "v": "v"},
    "c": {"q": "cross_q", "k": "cross_k", "v": "cross_v"},
}


@dataclass(frozen=True)
class Place:
    """A hook at which nodes write or read: which of them, and at which positions of the record."""

    hook: str
    nodes: slice  # columns of the writers, or rows of the readers, in order
    positions: slice = field(default_factory=lambda: slice(None))  # all of them


@dataclass(frozen=True)
class Writer:
    """A node seen as a source."""

    kind: WriterKind
    layer: int | None = None
    head: int | None = None

    @property
    def name(self) -> str:
        return _node_name(self.kind, self.layer, self.head)

    @classmethod
    def named(cls, name: str) -> Writer:
        """The writer of a name, "a1.h3". Raises ValueError: none is called so."""
        found = _NODE.fullmatch(name)
        if found is None or found["plain"] == "logits" or found["port"]:
            raise ValueError(f"no node that writes is called {name!r}; names are like input, a1.h3 and m1")
        if found["plain"]:
            return cls("input")
        if found["mlp"]:
            return cls("mlp", int(found["mlp"]))
        return cls("cross" if found["kind"] == "c" else "head", int(found["layer"]), int(found["head"]))


@dataclass(frozen=True)
class Reader:
    """A node's input seen as a target; a head has three."""

    kind: ReaderKind
    layer: int | None = None
    head: int | None = None

    @property
    def node(self) -> str:
        """The name of the node that this is an input of."""
        kind = "cross" if self.kind.startswith("cross") else "head" if self.kind in ("q", "k", "v") else self.kind
        return _node_name(kind, self.layer, self.head)

    @property
    def name(self) -> str:
        return f"{self.node}<{self.kind[-1]}>" if self.head is not None else self.node

    def of(self, node: str) -> Reader:
        """The same input of another node, "a1.h3"."""
        return Reader.named(f"{node}<{self.kind[-1]}>" if self.head is not None else node)

    @classmethod
    def named(cls, name: str) -> Reader:
        """The reader of a name, "a1.h3<q>". Raises ValueError: none is called so."""
        found = _NODE.fullmatch(name)
        if found is None or found["plain"] == "input" or (found["head"] and not found["port"]):
            raise ValueError(f"no input of a node is called {name!r}; names are like a1.h3<q>, m1 and logits")
        if found["plain"]:
            return cls("logits")
        if found["mlp"]:
            return cls("mlp", int(found["mlp"]))
        return cls(_PORTS[found["kind"]][found["port"]], int(found["layer"]), int(found["head"]))


@dataclass(frozen=True)
class Edge:
    """One writer's contribution to one reader's input."""

    source: Writer
    target: Reader

    @property
    def name(self) -> str:
        return f"{self.source.name}{ARROW}{self.target.name}"

    @classmethod
    def named(cls, name: str) -> Edge:
        """The edge of a name, "a1.h3->m2". Raises ValueError: none is called so."""
        source, arrow, target = name.partition(ARROW)
        if not arrow:
            raise ValueError(f"an edge leads from one node to another, such as a1.h3{ARROW}m2; got {name!r}")
        return cls(Writer.named(source), Reader.named(target))


def _node_name(kind: str, layer: int | None, head: int | None) -> str:
    return {"head": f"a{layer}.h{head}", "cross": f"c{layer}.h{head}", "mlp": f"m{layer}"}.get(kind, kind)


@dataclass(frozen=True)
class Graph:
    """All nodes and edges of a model with `n_layers` layers of `n_heads` heads and an MLP."""

    n_layers: int
    n_heads: int

    one_stream: ClassVar[bool] = True  # whether every layer writes at every position

    @property
    def sizes(self) -> dict[str, int]:
        """What tells the graph of one model from another's, as circuit files have it."""
        return {"n_layers": self.n_layers, "n_heads": self.n_heads, "n_encoder": 0}

    @classmethod
    def of(cls, model: Any) -> Graph:
        """The graph that a model declares.

        Raises:
            ValueError: it declares none: its stream is not made of what attention heads and MLPs write.
        """
        graph = model.graph()
        if graph is None:
            kind = model.cfg.architecture
            raise ValueError(f"circuits need a model with attention heads and MLPs; this one, {kind!r}, has no graph")
        return graph

    @cached_property
    def writers(self) -> tuple[Writer, ...]:
        writers = [Writer("input")]
        for layer in range(self.n_layers):
            writers += [Writer("head", layer, head) for head in range(self.n_heads)]
            writers.append(Writer("mlp", layer))
        return tuple(writers)

    @cached_property
    def readers(self) -> tuple[Reader, ...]:
        readers: list[Reader] = []
        kinds: tuple[ReaderKind, ...] = ("q", "k", "v")
        for layer in range(self.n_layers):
            readers += [Reader(kind, layer, head) for kind in kinds for head in range(self.n_heads)]
            readers.append(Reader("mlp", layer))
        return (*readers, Reader("logits"))

    @cached_property
    def mask(self) -> np.ndarray:
        """Whether an edge exists, bool [reader, writer]."""
        mask = np.zeros((len(self.readers), len(self.writers)), dtype=bool)
        for row, reader in enumerate(self.readers):
            mask[row, : self.n_sources(reader)] = True
        return mask

    def n_sources(self, reader: Reader) -> int:
        """How many writers stand before a reader: the first so many, all of which feed it here."""
        if reader.layer is None:
            return len(self.writers)
        before = 1 + reader.layer * (self.n_heads + 1)
        return before + self.n_heads if reader.kind == "mlp" else before

    def n_written(self, layer: int) -> int:
        """How many writers stand before a layer."""
        return 1 + layer * (self.n_heads + 1)

    @cached_property
    def writer_places(self) -> tuple[Place, ...]:
        """The hooks that hold what writers add to the residual stream, in the order in which they fire."""
        places, column = [Place("blocks.0.hook_resid_pre", slice(0, 1))], 1
        for layer in range(self.n_layers):
            places.append(Place(f"blocks.{layer}.attn.hook_result", slice(column, column + self.n_heads)))
            column += self.n_heads + 1
            places.append(Place(f"blocks.{layer}.hook_mlp_out", slice(column - 1, column)))
        return tuple(places)

    @cached_property
    def reader_places(self) -> tuple[Place, ...]:
        """The hooks that hold what readers read, before its norm, in the order in which they fire."""
        places, row = [], 0
        for layer in range(self.n_layers):
            for kind in ("q", "k", "v"):
                places.append(Place(f"blocks.{layer}.hook_{kind}_input", slice(row, row + self.n_heads)))
                row += self.n_heads
            places.append(Place(f"blocks.{layer}.hook_mlp_in", slice(row, row + 1)))
            row += 1
        return (*places, Place(f"blocks.{self.n_layers - 1}.hook_resid_post", slice(row, row + 1)))

    def reader_place(self, reader: Reader) -> Place:
        """The hook that holds a reader's input."""
        row = self.readers.index(reader)
        return next(place for place in self.reader_places if place.nodes.start <= row < place.nodes.stop)

    def writer_place(self, writer: Writer) -> Place:
        """The hook that holds what a writer writes; of the input the residual stream itself."""
        column = self.writers.index(writer)
        return next(place for place in self.writer_places if place.nodes.start <= column < place.nodes.stop)

    def unit_hook(self, writer: Writer) -> str:
        """Where the value of a head or an MLP is taken and replaced: its z, or what it writes."""
        return self.writer_place(writer).hook.replace("hook_result", "hook_z")

    @cached_property
    def n_edges(self) -> int:
        return int(self.mask.sum())

    def edge(self, row: int, column: int) -> Edge:
        """The edge in row `row` (reader) and column `column` (writer) of a score matrix.

        Raises:
            ValueError: there is no such edge.
        """
        edge = Edge(self.writers[column], self.readers[row])
        if not self.mask[row, column]:
            raise ValueError(f"there is no edge {edge.name}: its source does not come before its target")
        return edge

    @cached_property
    def _feeds(self) -> np.ndarray:
        """For each writer the rows of its own inputs, bool [writer, reader]; the input has none."""
        nodes = [reader.node for reader in self.readers]
        return np.array([[writer.name == node for node in nodes] for writer in self.writers])

    def read(self, circuits: Any, *, single: bool = False) -> np.ndarray:
        """Circuits, or one, as an array, bool [..., reader, writer]; ValueError for another shape or kind (scores)."""
        found = np.asarray(circuits)
        if found.shape[-2:] != self.mask.shape or found.dtype != bool or (single and found.ndim != 2):
            shape = ", ".join(map(str, self.mask.shape))
            raise ValueError(f"a circuit must be bool [{shape}], got {found.dtype} {list(found.shape)}")
        return found

    def prune(self, members: np.ndarray) -> np.ndarray:
        """Drop edges that lie on no path from the input to the logits, bool [..., reader, writer].

        A head is reached when any of its q, k or v inputs is.
        """
        members = self.read(members) & self.mask
        reached = np.zeros((*members.shape[:-2], len(self.writers)), dtype=bool)
        reached[..., 0] = True
        for column in range(1, len(self.writers)):  # sources come before targets
            inputs = members[..., self._feeds[column], :]
            reached[..., column] = (inputs & reached[..., None, :]).any(axis=(-2, -1))
        useful = np.zeros((*members.shape[:-2], len(self.readers)), dtype=bool)
        useful[..., -1] = True
        for column in range(len(self.writers) - 1, 0, -1):
            used = np.any(members[..., :, column] & useful, axis=-1)
            useful[..., self._feeds[column]] = used[..., None]
        return members & reached[..., None, :] & useful[..., :, None]

    def top(self, scores: np.ndarray, n_edges: int) -> np.ndarray:
        """The `n_edges` edges of highest score, bool [reader, writer]; ties go to the earlier edge."""
        flat = np.where(self.mask, scores, -np.inf).ravel()
        chosen = np.zeros(flat.size, dtype=bool)
        chosen[np.argsort(-flat, kind="stable")[:n_edges]] = True
        return chosen.reshape(self.mask.shape) & self.mask

    def random(self, n_edges: int, *, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` sets of `n_edges` edges, each uniform over all such sets, bool [n, reader, writer]."""
        edges = np.flatnonzero(self.mask)
        chosen = np.zeros((n, self.mask.size), dtype=bool)
        for row in range(n):
            chosen[row, rng.choice(edges, size=min(n_edges, len(edges)), replace=False)] = True
        return chosen.reshape(n, *self.mask.shape)

    def random_paths(self, n_edges: int, *, n: int, rng: np.random.Generator) -> np.ndarray:
        """`n` unions of random paths from the input to the logits, bool [n, reader, writer], none with more edges.

        A path grows backwards from the logits: a source uniform over those of the reader, then one of the source's own
        inputs. Paths are added while they fit; fifty that do not in a row end the union.
        """
        inputs = [np.flatnonzero(rows) for rows in self._feeds]
        sources = [np.flatnonzero(row) for row in self.mask]
        chosen = np.zeros((n, *self.mask.shape), dtype=bool)
        for members in chosen:
            failed = 0
            while failed < 50:
                path, row = [], len(self.readers) - 1
                while True:
                    column = int(sources[row][rng.integers(len(sources[row]))])
                    path.append((row, column))
                    if column == 0:
                        break
                    row = int(rng.choice(inputs[column]))
                new = [place for place in path if not members[place]]
                if members.sum() + len(new) > n_edges:
                    failed += 1
                    continue
                failed = 0 if new else failed + 1
                for place in new:
                    members[place] = True
        return chosen
