"""The effect of a whole node: measured, and estimated by attribution patching (Nanda 2023; Kramár et al. 2024).

    s(u) = sum over positions of (a_u corrupted - a_u clean) . dm/d(a_u) at clean

a_u is what node u writes to the residual stream, and the gradient runs through all its readers, so that s(u) is the sum
of the EAP scores of the edges out of u. It predicts `node_effects`, m(u corrupted) - m(clean): a node that helps has
s < 0. With `steps` the gradient is averaged over points between the corrupted and the clean embeddings, as in EAP-IG.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.attribution import midpoints
from interp.circuits.edges import edge_hooks, nodes_first, written
from interp.circuits.faithfulness import run_circuits
from interp.circuits.hooked import ends, gradients_at
from interp.circuits.pairs import Pairs
from interp.circuits.standing import taken_apart
from interp.models.graph import Graph
from interp.ranges import counted


@counted(pairs=1, steps=1, batch_size=1)
@torch.inference_mode(False)  # gradients are needed, whatever mode it is called in
def attribution_patching(model: Any, pairs: Pairs, *, steps: int | None = None, batch_size: int = 128) -> np.ndarray:
    """Estimated effect of patching each writer of `Graph.of(model)`, by example, float64 [writer, n].

    Args:
        model: the hooked transformer.
        pairs: clean and corrupted inputs.
        steps: None for the gradient at the clean run; else for its mean over this many midpoints between the two
            embeddings, a forward and a backward pass each.
        batch_size: examples a pass.

    Raises:
        ValueError: `steps` is below 1, or a model that `taken_apart` refuses.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, or None for the clean gradient; got {steps}")
    fractions = [1.0] if steps is None else midpoints(steps)
    graph = taken_apart(model)
    parts = []
    for start in range(0, len(pairs), batch_size):
        part = pairs[slice(start, start + batch_size)]
        before, _ = written(model, graph, part.clean.tokens, batch_size=batch_size)
        after, _ = written(model, graph, part.corrupted.tokens, batch_size=batch_size)
        clean, corrupted = ends(model, part)
        gradient = torch.zeros_like(before)
        for fraction in fractions:
            gradient += _gradients(model, graph, part, corrupted + fraction * (clean - corrupted))
        parts.append(((after - before) * gradient).sum((2, 3)).double() / len(fractions))
    return torch.cat(parts, dim=1).numpy()


def _gradients(model: Any, graph: Graph, pairs: Pairs, embedding: Tensor) -> Tensor:
    """dm/d(a_u) of every writer, [writer, batch, pos, d_model]; examples do not mix."""
    with edge_hooks(model):
        found = gradients_at(
            model,
            [place.hook for place in graph.writer_places],
            lambda: pairs.logit_difference(model(embedding, start_at_layer=0)).sum(),
        )
    gradients = torch.zeros(len(graph.writers), *embedding.shape, dtype=embedding.dtype, device=embedding.device)
    for place, gradient in zip(graph.writer_places, found, strict=True):
        gradients[place.nodes, :, place.positions] = nodes_first(gradient)
    return gradients


def node_effects(model: Any, pairs: Pairs) -> np.ndarray:
    """m(node corrupted) - m(clean) of each writer, by example, [writer, n]: all its outgoing edges patched together."""
    graph = taken_apart(model)
    without = np.repeat(graph.mask[None], len(graph.writers) + 1, axis=0)
    for column in range(len(graph.writers)):
        without[column, :, column] = False
    # The node's own inputs are pruned then, which changes nothing: what it writes is replaced everywhere.
    m = run_circuits(model, pairs, without).m
    return (m[:-1] - m[-1]).astype(np.float32)
