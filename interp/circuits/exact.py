"""Exact edge patching: what each edge really does.

Run clean, but give one reader its input with one writer's contribution replaced by what it writes on the corrupted
input; the effect of the edge is the metric then, minus the clean metric. It is what attribution estimates.

Nothing is computed twice. A writer's edges into the queries, keys and values of a layer share one norm and projection,
and attend head by head in three calls: patched queries with clean keys and values, and so on. From the middle of the
reader's layer the stream goes on to the last layer, which is computed only where the metric reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.graph import Edge, Graph, Writer
from interp.circuits.pairs import Pairs
from interp.circuits.passes import (
    Readout,
    attended,
    finish,
    heads,
    layer_passes,
    read_logits,
    take,
    through_mlp,
    written_difference,
)

_PARTS = ("q", "k", "v")


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
    """
    graph = Graph.of(model)
    effects = np.zeros((len(edges), len(pairs)), dtype=np.float32)
    groups: dict[tuple[int | None, Writer], list[int]] = {}  # edges that share a writer and the layer they enter
    for index, edge in enumerate(edges):
        groups.setdefault((edge.target.layer, edge.source), []).append(index)
    done, total = 0, len(edges) * len(pairs)
    for start in range(0, len(pairs), batch_size):
        rows = slice(start, min(start + batch_size, len(pairs)))
        part = pairs[rows]
        clean, corrupted = (model(batch.tokens, stop_at_layer=0) for batch in (part.clean, part.corrupted))
        run = _CleanRun(model, part, clean)
        difference = dict(zip(graph.writers, written_difference(model, corrupted, clean, run.readout), strict=True))
        for (layer, writer), indices in groups.items():
            m = run.patched(layer, [edges[index] for index in indices], difference[writer], batch_size=batch_size)
            effects[indices, rows] = (m - run.m).numpy()
            done += len(indices) * len(part)
            if progress is not None:
                progress(done / total)
    return effects


class _CleanRun:
    """Every layer of the clean run of n pairs, and the metric when an input of one reader is moved."""

    def __init__(self, model: Any, pairs: Pairs, embedding: Tensor):
        self.model, self.readout = model, Readout.of(pairs)
        self.last = model.cfg.n_layers - 1
        self.layers, self.final = layer_passes(model, embedding, self.readout.positions)
        self.heads = [heads(block.attn, layer.raw) for block, layer in zip(model.blocks, self.layers, strict=True)]
        self.m = self.readout.metric(read_logits(model, self.final))

    def patched(self, layer: int | None, edges: Sequence[Edge], delta: Tensor, *, batch_size: int) -> Tensor:
        """m [edge, n] where the reader of each edge, all of one layer, reads delta [n, pos, d_model] besides."""
        positions = self.readout.positions
        if layer is None:
            logits = read_logits(self.model, self.final + take(delta, positions))
            return self.readout.metric(logits)[None].expand(len(edges), -1)
        mixed = self._mixed(layer, delta, kinds={edge.target.kind for edge in edges})
        found = []
        size = max(1, batch_size // len(delta))
        for first in range(0, len(edges), size):
            some = edges[first : first + size]
            resid = torch.cat([self._after(layer, edge, delta, mixed) for edge in some])
            if layer == self.last:
                logits = read_logits(self.model, resid)
            else:
                repeated = positions.repeat(len(some), 1)
                logits = finish(self.model, resid, layer=layer + 1, positions=repeated)
            found.append(self.readout.metric(logits.unflatten(0, (len(some), -1))))
        return torch.cat(found)

    def _mixed(self, layer: int, delta: Tensor, *, kinds: set[str]) -> dict[str, Tensor]:
        """By how much every head's z changes when its q, k or v input is moved, [n, query, head, d_head] each."""
        kinds = kinds & set(_PARTS)
        if not kinds:
            return {}
        block, clean, still = self.model.blocks[layer], self.layers[layer], self.heads[layer]
        own = heads(block.attn, block.attn.qkv(block.ln1(clean.resid_pre + delta)))
        positions = self.readout.positions if layer == self.last else None
        changes = {}
        for kind in kinds:
            q, k, v = (own[i] if _PARTS[i] == kind else still[i] for i in range(3))
            q = q if positions is None else take(q, positions)
            changes[kind] = attended(block.attn, q, k, v, positions=positions) - clean.z
        return changes

    def _after(self, layer: int, edge: Edge, delta: Tensor, mixed: dict[str, Tensor]) -> Tensor:
        """The stream after the layer when one edge into it is patched."""
        block, clean, reader = self.model.blocks[layer], self.layers[layer], edge.target
        if reader.kind == "mlp":
            delta = take(delta, self.readout.positions) if layer == self.last else delta
            return clean.resid_mid + block.mlp(block.ln2(clean.resid_mid + delta))
        assert reader.head is not None
        change = mixed[reader.kind][:, :, reader.head] @ block.attn.W_O[reader.head]
        return through_mlp(block, clean.resid_mid + change)
