"""Exact edge patching: what each edge really does.

Run clean, but give one reader its input with one writer's contribution replaced by what it writes on the corrupted
input; the effect of the edge is the metric then, minus the clean metric. It is what attribution estimates.

Nothing is computed twice. A writer's edges into the queries, keys and values of a layer share one norm and projection,
and attend head by head in three calls: patched queries with clean keys and values, and so on. From the middle of the
reader's layer the stream goes on to the last layer, which is computed only where the metric reads. That is so where
the model offers its fast pass; else, and so with hooks standing on the model, an edge is a hooked pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges import written
from interp.circuits.hooked import ends, moved_logits, streams
from interp.circuits.pairs import Pairs
from interp.circuits.readout import Readout
from interp.circuits.standing import taken_apart
from interp.models.fast_pass import FastPass, take
from interp.models.graph import Edge, Graph, Writer
from interp.ranges import counted

_PARTS = ("q", "k", "v")


@counted(pairs=1, batch_size=1)
@torch.no_grad()
def exact_effects(
    model: Any,
    pairs: Pairs,
    edges: Sequence[Edge],
    *,
    batch_size: int = 128,
    progress: Callable[[float], None] | None = None,
) -> np.ndarray:
    """Effect of patching each edge, by example: m(edge corrupted) - m(clean), float32 [len(edges), len(pairs)].

    Negative where the edge helps.

    Args:
        model: the hooked transformer.
        pairs: clean and corrupted inputs.
        edges: edges of `Graph.of(model)`.
        batch_size: rows a forward pass; several edges share one where `pairs` are fewer.
        progress: called with the share done, 0 to 1.

    Raises:
        ValueError: a model that `taken_apart` refuses.
    """
    graph, fast = taken_apart(model), model.fast_pass()
    effects = np.zeros((len(edges), len(pairs)), dtype=np.float32)
    groups: dict[tuple[int | None, Writer], list[int]] = {}  # edges that share a writer and the layer they enter
    for index, edge in enumerate(edges):
        groups.setdefault((edge.target.layer, edge.source), []).append(index)
    done, total = 0, len(edges) * len(pairs)
    for start in range(0, len(pairs), batch_size):
        rows = slice(start, min(start + batch_size, len(pairs)))
        part = pairs[rows]
        run = _HookedRun(model, graph, part) if fast is None else _FastRun(model, graph, fast, part, batch_size)
        for (layer, writer), indices in groups.items():
            m = run.patched(layer, [edges[index] for index in indices], writer)
            effects[indices, rows] = (m - run.m).numpy()
            done += len(indices) * len(part)
            if progress is not None:
                progress(done / total)
    return effects


class _HookedRun:
    """The clean run of n pairs, and the metric when an input of one reader is moved, by a hook on that reader."""

    def __init__(self, model: Any, graph: Graph, pairs: Pairs):
        self.model, self.graph, self.pairs = model, graph, pairs
        clean, logits = written(model, graph, pairs.clean.tokens)
        self.difference = written(model, graph, pairs.corrupted.tokens)[0] - clean
        self.streams = streams(model, pairs.clean.tokens)
        self.m = pairs.logit_difference(logits)

    def patched(self, layer: int | None, edges: Sequence[Edge], writer: Writer) -> Tensor:
        """m [edge, n] where the reader of each edge, all of one layer, reads the writer's difference besides."""
        change = self.difference[self.graph.writers.index(writer)]
        if not change.any():
            return self.m.expand(len(edges), -1)  # a pass in other pieces would add float error
        return torch.stack(
            [
                self.pairs.logit_difference(moved_logits(self.model, self.graph, self.streams, edge.target, change))
                for edge in edges
            ]
        )


class _FastRun:
    """The same, every layer of the clean run kept, and what edges share computed once."""

    def __init__(self, model: Any, graph: Graph, fast: FastPass, pairs: Pairs, batch_size: int):
        self.fast, self.readout, self.batch_size = fast, Readout.of(pairs), batch_size
        positions = self.readout.positions
        clean, corrupted = ends(model, pairs)
        self.difference = dict(zip(graph.writers, fast.written_difference(corrupted, clean, positions), strict=True))
        self.last = fast.n_layers - 1
        self.layers, self.final = fast.layers(clean, positions)
        self.heads = [fast.heads(number, layer.raw) for number, layer in enumerate(self.layers)]
        self.m = self.readout.metric(fast.logits(self.final))

    def patched(self, layer: int | None, edges: Sequence[Edge], writer: Writer) -> Tensor:
        """m [edge, n] where the reader of each edge, all of one layer, reads the writer's difference besides."""
        positions, delta = self.readout.positions, self.difference[writer]  # [n, pos, d_model]
        if layer is None:
            logits = self.fast.logits(self.final + take(delta, positions))
            return self.readout.metric(logits)[None].expand(len(edges), -1)
        mixed = self._mixed(layer, delta, kinds={edge.target.kind for edge in edges})
        found = []
        size = max(1, self.batch_size // len(delta))
        for first in range(0, len(edges), size):
            some = edges[first : first + size]
            resid = torch.cat([self._after(layer, edge, delta, mixed) for edge in some])  # [edge * n, pos, d_model]
            if layer == self.last:
                logits = self.fast.logits(resid)
            else:
                logits = self.fast.finish(resid, layer=layer + 1, positions=positions.repeat(len(some), 1))
            found.append(self.readout.metric(logits.unflatten(0, (len(some), -1))))
        return torch.cat(found)

    def _mixed(self, layer: int, delta: Tensor, *, kinds: set[str]) -> dict[str, Tensor]:
        """By how much every head's z changes when its q, k or v input is moved, [n, query, head, d_head] each."""
        kinds = kinds & set(_PARTS)
        if not kinds:
            return {}
        clean, still = self.layers[layer], self.heads[layer]
        own = self.fast.heads(layer, self.fast.project(layer, clean.resid_pre + delta))
        positions = self.readout.positions if layer == self.last else None
        changes = {}
        for kind in kinds:
            q, k, v = (own[i] if _PARTS[i] == kind else still[i] for i in range(3))
            q = q if positions is None else take(q, positions)
            changes[kind] = self.fast.attended(layer, q, k, v, positions=positions) - clean.z
        return changes

    def _after(self, layer: int, edge: Edge, delta: Tensor, mixed: dict[str, Tensor]) -> Tensor:
        """The stream after the layer when one edge into it is patched."""
        clean, reader = self.layers[layer], edge.target
        if reader.kind == "mlp":
            delta = take(delta, self.readout.positions) if layer == self.last else delta
            return self.fast.after_mlp(layer, clean.resid_mid, moved=delta)
        assert reader.head is not None
        change = self.fast.head_out(layer, reader.head, mixed[reader.kind][:, :, reader.head])
        return self.fast.after_mlp(layer, clean.resid_mid + change)
