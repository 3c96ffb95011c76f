"""Exact edge patching: what each edge really does.

Run clean, but give one reader its input with one writer's contribution replaced by what it writes on the corrupted
input; the effect of the edge is the metric then, minus the clean metric. It is what attribution estimates.

Nothing is computed twice. A pass starts inside the reader's layer: an edge into a query, key or value changes one
head's z, so that head alone attends anew. From there the stream goes on to the last layer, which is computed only where
the metric reads. Edges into one reader share a pass along the batch axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from interp.circuits.edges import written
from interp.circuits.graph import Edge, Graph, Reader
from interp.circuits.pairs import Pairs
from interp.circuits.passes import (
    LayerPass,
    Readout,
    attended,
    finish,
    heads,
    layer_passes,
    read_logits,
    take,
    through_mlp,
    turned,
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
    by_reader: dict[Reader, list[int]] = {}
    for index, edge in enumerate(edges):
        by_reader.setdefault(edge.target, []).append(index)
    column = {writer: place for place, writer in enumerate(graph.writers)}
    done, total = 0, len(edges) * len(pairs)
    for start in range(0, len(pairs), batch_size):
        rows = slice(start, min(start + batch_size, len(pairs)))
        part, n = pairs[rows], rows.stop - rows.start
        run = _CleanRun(model, part)
        corrupted, _ = written(model, graph, part.corrupted.tokens, batch_size=batch_size)
        clean, _ = written(model, graph, part.clean.tokens, batch_size=batch_size)
        difference = corrupted.sub_(clean)
        per_pass = max(1, batch_size // n)
        for reader, indices in by_reader.items():
            for first in range(0, len(indices), per_pass):
                group = indices[first : first + per_pass]
                deltas = difference[[column[edges[index].source] for index in group]]
                effects[group, rows] = (run.patched(reader, deltas) - run.m).numpy()
                done += len(group) * n
                if progress is not None:
                    progress(done / total)
    return effects


class _CleanRun:
    """Every layer of the clean run of some pairs, and the metric when one reader's input is moved."""

    def __init__(self, model: Any, pairs: Pairs):
        self.model, self.readout = model, Readout.of(pairs)
        self.last = model.cfg.n_layers - 1
        embedding = model(pairs.clean.tokens, stop_at_layer=0)
        self.layers, self.final = layer_passes(model, embedding, self.readout.positions)
        self.heads = [heads(block.attn, layer.raw) for block, layer in zip(model.blocks, self.layers, strict=True)]
        self.m = self.readout.metric(read_logits(model, self.final))

    def patched(self, reader: Reader, deltas: Tensor) -> Tensor:
        """m [edge, n] with each of deltas [edge, n, pos, d_model] added to what `reader` reads."""
        positions = self.readout.positions.repeat(len(deltas), 1)
        at_end = reader.layer in (None, self.last)
        if at_end and reader.kind in ("mlp", "logits"):
            deltas = take(deltas.flatten(0, 1), positions).unflatten(0, deltas.shape[:2])
        if reader.layer is None:
            logits = read_logits(self.model, self.final + deltas).flatten(0, 1)
        else:
            block, layer = self.model.blocks[reader.layer], self.layers[reader.layer]
            if reader.kind == "mlp":
                resid = layer.resid_mid + block.mlp(block.ln2(layer.resid_mid + deltas))
            else:
                resid = through_mlp(block, layer.resid_mid + self._head_change(reader, block, layer, deltas))
            resid = resid.flatten(0, 1)
            if at_end:
                logits = read_logits(self.model, resid)
            else:
                logits = finish(self.model, resid, layer=reader.layer + 1, positions=positions)
        return self.readout.metric(logits.unflatten(0, deltas.shape[:2]))

    def _head_change(self, reader: Reader, block: Any, layer: LayerPass, deltas: Tensor) -> Tensor:
        """By how much a head writes something else, [edge, n, query, d_model], when one of its inputs is moved."""
        assert reader.layer is not None and reader.head is not None
        attn, kind, head = block.attn, _PARTS.index(reader.kind), reader.head
        weight = attn.qkv.weight.unflatten(0, (3, attn.n_heads, attn.d_head))[kind, head]
        bias = None if attn.qkv.bias is None else attn.qkv.bias.view(3, attn.n_heads, attn.d_head)[kind, head]
        own = F.linear(block.ln1(layer.resid_pre + deltas), weight, bias).flatten(0, 1)[:, :, None]
        if reader.kind != "v":
            own = turned(attn, (attn.q_norm if reader.kind == "q" else attn.k_norm)(own))
        parts = [part[:, :, head, None].repeat(len(deltas), 1, 1, 1) for part in self.heads[reader.layer]]
        parts[kind] = own
        positions = None
        if reader.layer == self.last:
            positions = self.readout.positions.repeat(len(deltas), 1)
            parts[0] = take(parts[0], positions)
        z = attended(attn, *parts, positions=positions)[:, :, 0].unflatten(0, deltas.shape[:2])
        return (z - layer.z[:, :, head]) @ attn.W_O[head]
