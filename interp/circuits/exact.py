"""Exact edge patching: what each edge really does.

Run clean, but give one reader its input with one writer's contribution replaced by what it writes on the corrupted
input; the effect of the edge is the metric then, minus the clean metric. It is what attribution estimates. Passes start
at the reader's layer, from the clean run's residual stream, and many edges share a pass along the batch axis.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges import by_layer, edge_hooks, reader_hook, written
from interp.circuits.graph import Edge, Graph
from interp.circuits.pairs import Pairs


@torch.no_grad()
def exact_effects(
    model: Any,
    pairs: Pairs,
    edges: Sequence[Edge],
    *,
    batch_size: int = 512,
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
    layers = by_layer(graph, [edge.target for edge in edges])
    columns = [graph.writers.index(edge.source) for edge in edges]
    for start in range(0, len(pairs), batch_size):
        rows = slice(start, min(start + batch_size, len(pairs)))
        part, n = pairs[rows], rows.stop - rows.start
        clean, logits = written(model, graph, part.clean.tokens, batch_size=batch_size)
        corrupted, _ = written(model, graph, part.corrupted.tokens, batch_size=batch_size)
        difference, before = corrupted - clean, part.logit_difference(logits)
        per_pass, done = max(1, batch_size // n), 0
        for layer, indices in layers.items():
            resid = model(part.clean.tokens, stop_at_layer=layer)
            for first in range(0, len(indices), per_pass):
                group = indices[first : first + per_pass]
                deltas = difference[[columns[index] for index in group]]
                logits = _patched_logits(model, graph, resid, [edges[index] for index in group], deltas, layer)
                effects[group, rows] = (part.logit_difference(logits) - before).numpy()
                done += len(group)
                if progress is not None:
                    progress((rows.start + n * done / len(edges)) / len(pairs))
    return effects


def _patched_logits(
    model: Any, graph: Graph, resid: Tensor, edges: Sequence[Edge], deltas: Tensor, layer: int
) -> Tensor:
    """Logits [edge, n, pos, d_vocab] with deltas[i] [n, pos, d_model] added to the input of the target of edges[i]."""
    n = len(resid)
    stack = resid.repeat(len(edges), 1, 1)
    if layer == graph.n_layers:  # the logits read the residual stream itself
        return model(stack + deltas.flatten(0, 1), start_at_layer=layer).unflatten(0, (len(edges), n))
    places: dict[str, list[int]] = {}
    for place, edge in enumerate(edges):
        places.setdefault(reader_hook(graph, edge.target.kind, layer), []).append(place)

    def add(activation: Tensor, hook: Any) -> Tensor:
        for place in places[hook.name]:
            rows, head = slice(place * n, (place + 1) * n), edges[place].target.head
            target = activation[rows] if head is None else activation[rows, :, head]
            target += deltas[place]
        return activation

    with edge_hooks(model), model.hooks(fwd_hooks=[(name, add) for name in places]):
        return model(stack, start_at_layer=layer).unflatten(0, (len(edges), n))
