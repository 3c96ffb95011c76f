"""Path patching: what a corrupted value does along named paths alone (Wang et al. 2022; Goldowsky-Dill et al. 2023).

The computation is unrolled into a tree, the logits its root: every reader's input is clean but for the contributions
that arrive on the chosen paths. At the far end of a path its source carries what it writes on the corrupted input; a
node on the way is computed anew from an input in which only the paths through it differ, and passes its change on
along the paths alone. One edge into the logits is exact edge patching; all paths from the input are the corrupted run.

A path is written as its edges are: "input->a0.h1<v>->a2.h3<q>->logits".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges import edge_hooks, written
from interp.circuits.hooked import streams
from interp.circuits.pairs import Pairs
from interp.circuits.standing import taken_apart
from interp.models.graph import ARROW, Graph, Reader, Writer
from interp.ranges import counted


@dataclass(frozen=True)
class Path:
    """From what one node writes, through inputs of later nodes, to the logits."""

    source: Writer
    readers: tuple[Reader, ...]  # the last is the logits

    @property
    def name(self) -> str:
        return ARROW.join([self.source.name, *(reader.name for reader in self.readers)])


def parse_path(graph: Graph, text: str) -> Path:
    """The path that `text` names.

    Raises:
        ValueError: an unknown node, a path that does not end at the logits, or an edge that the graph lacks.
    """
    writers = {writer.name: writer for writer in graph.writers}
    readers = {reader.name: reader for reader in graph.readers}
    first, *rest = [part.strip() for part in text.split(ARROW)]
    if first not in writers:
        raise ValueError(f"a path starts at a node, one of {', '.join(writers)}; got {first!r} in {text!r}")
    if not rest or rest[-1] != "logits":
        raise ValueError(f"a path ends at the logits, such as input->a0.h1<v>->logits; got {text!r}")
    for name in rest:
        if name not in readers:
            raise ValueError(f"a path leads through inputs such as a0.h1<q>, m0 or logits; got {name!r} in {text!r}")
    path = Path(writers[first], tuple(readers[name] for name in rest))
    source = path.source
    for reader in path.readers:
        if not graph.mask[graph.readers.index(reader), graph.writers.index(source)]:
            raise ValueError(f"{source.name} does not feed {reader.name}: no such edge in {text!r}")
        source = writers.get(reader.node, source)
    return path


def all_paths(graph: Graph, source: Writer) -> Iterator[Path]:
    """Every path from a node to the logits; their number grows exponentially with the layers."""
    for reader in graph.readers:
        if not graph.mask[graph.readers.index(reader), graph.writers.index(source)]:
            continue
        if reader.kind == "logits":
            yield Path(source, (reader,))
            continue
        node = next(writer for writer in graph.writers if writer.name == reader.node)
        for path in all_paths(graph, node):
            yield Path(source, (reader, *path.readers))


@counted(pairs=1)
@torch.no_grad()
def path_effects(model: Any, pairs: Pairs, paths: Sequence[Path]) -> np.ndarray:
    """Effect of patching these paths together, by example: m(paths corrupted) - m(clean), float64 [n].

    Negative where they help.

    Raises:
        ValueError: no path, or a model that `taken_apart` refuses.
    """
    if not paths:
        raise ValueError("path patching needs at least one path, got none")
    return _Tree(model, pairs).effects(list(dict.fromkeys(paths)))


@dataclass(frozen=True)
class _Stub:
    """A path cut off at some node."""

    source: Writer
    readers: tuple[Reader, ...]


class _Tree:
    def __init__(self, model: Any, pairs: Pairs):
        self.model, self.pairs, self.graph = model, pairs, taken_apart(model)
        self.clean, self.logits = written(model, self.graph, pairs.clean.tokens)
        self.corrupted, _ = written(model, self.graph, pairs.corrupted.tokens)
        *self.streams, self.final = streams(model, pairs.clean.tokens)
        self.nodes = {writer.name: writer for writer in self.graph.writers}

    def effects(self, paths: Sequence[Path]) -> np.ndarray:
        change = self._into([_Stub(path.source, path.readers) for path in paths])
        logits = self.model(self.final + change, start_at_layer=self.graph.n_layers)
        before, after = (self.pairs.logit_difference(each).double() for each in (self.logits, logits))
        return (after - before).numpy()

    def _into(self, stubs: Sequence[_Stub]) -> Tensor:
        """What is added to the input of the reader that all stubs end in, [n, pos, d_model]."""
        by_writer: dict[Writer, list[_Stub]] = {}
        for stub in stubs:
            writer = self.nodes[stub.readers[-2].node] if len(stub.readers) > 1 else stub.source
            by_writer.setdefault(writer, []).append(_Stub(stub.source, stub.readers[:-1]))
        changes = [self._out_of(writer, own) for writer, own in by_writer.items()]
        return torch.stack(changes).sum(0)

    def _out_of(self, writer: Writer, stubs: Sequence[_Stub]) -> Tensor:
        """How what a node writes changes, given the paths into it; whole where a path starts here."""
        column = self.graph.writers.index(writer)
        if any(not stub.readers for stub in stubs):
            return self.corrupted[column] - self.clean[column]
        by_reader: dict[Reader, list[_Stub]] = {}
        for stub in stubs:
            by_reader.setdefault(stub.readers[-1], []).append(stub)
        added = {reader: self._into(own) for reader, own in by_reader.items()}
        return self._recomputed(writer, added) - self.clean[column]

    def _recomputed(self, writer: Writer, added: dict[Reader, Tensor]) -> Tensor:
        """What a node writes when its inputs are the clean ones plus `added`."""
        layer, kept = writer.layer, {}
        assert layer is not None

        out = self.graph.writer_place(writer)

        def add(activation: Tensor, hook: Any, reader: Reader, positions: slice) -> Tensor:
            activation = activation.clone()
            target = activation if reader.head is None else activation[:, :, reader.head]
            target += added[reader][:, positions]
            return activation

        def keep(activation: Tensor, hook: Any) -> None:
            kept["out"] = torch.zeros_like(self.clean[0])
            kept["out"][:, out.positions] = activation if writer.head is None else activation[:, :, writer.head]

        hooks: list[tuple[str, Any]] = [(out.hook, keep)]
        for reader in added:
            place = self.graph.reader_place(reader)
            hooks.append((place.hook, partial(add, reader=reader, positions=place.positions)))
        with edge_hooks(self.model), self.model.hooks(fwd_hooks=hooks):
            self.model(self.streams[layer], start_at_layer=layer, stop_at_layer=layer + 1)
        return kept["out"]
