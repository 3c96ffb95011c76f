"""Edge attribution patching: the effect of every edge at once, from gradients.

    1. EAP (Syed et al. 2023): s(u -> v) = sum over positions of (a_u corrupted - a_u clean) . dm/d(in_v) at clean.
    2. EAP-IG, inputs (Hanna et al. 2024): the same difference times the gradient averaged over M points between the
       corrupted and the clean embeddings, here the midpoints of M equal parts.

in_v is the reader's input before its norm. s predicts m(corrupted) - m(clean) when the edge alone is corrupted, so an
edge that helps has s < 0. As M grows, the scores of the edges out of the input sum to m(corrupted) - m(clean).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges import edge_hooks, reader_rows, written
from interp.circuits.graph import Graph
from interp.circuits.pairs import Pairs


def eap(model: Any, pairs: Pairs, *, batch_size: int = 128) -> np.ndarray:
    """EAP scores, float64 [reader, writer], summed over positions and averaged over pairs; 0 where there is no edge."""
    return _scores(model, pairs, [1.0], batch_size=batch_size)


def eap_ig(model: Any, pairs: Pairs, *, steps: int = 5, batch_size: int = 128) -> np.ndarray:
    """EAP-IG scores with gradients at `steps` midpoints, as `eap` returns them. One forward and backward pass a step.

    Raises:
        ValueError: `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    return _scores(model, pairs, [(step + 0.5) / steps for step in range(steps)], batch_size=batch_size)


def _scores(model: Any, pairs: Pairs, fractions: list[float], *, batch_size: int) -> np.ndarray:
    graph = Graph.of(model)
    total = torch.zeros(graph.mask.shape, dtype=torch.float64)
    for start in range(0, len(pairs), batch_size):
        rows = slice(start, start + batch_size)
        clean, _ = written(model, graph, pairs.clean.tokens[rows], batch_size=batch_size)
        corrupted, _ = written(model, graph, pairs.corrupted.tokens[rows], batch_size=batch_size)
        part = pairs[rows]
        gradient = clean.new_zeros(len(graph.readers), *clean.shape[1:])
        for fraction in fractions:
            embedding = corrupted[0] + fraction * (clean[0] - corrupted[0])
            _add_gradients(model, graph, part, embedding, gradient)
        total += (gradient.flatten(1) @ (corrupted - clean).flatten(1).T).double() / len(fractions)
    return (total / len(pairs)).numpy() * graph.mask


def _add_gradients(model: Any, graph: Graph, pairs: Pairs, embedding: Tensor, gradient: Tensor) -> None:
    """Add dm/d(in_v) for every reader, summed m, to `gradient` [reader, batch, pos, d_model]."""
    inputs: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any) -> None:
        inputs[hook.name] = activation

    rows = reader_rows(graph)
    with edge_hooks(model), model.hooks(fwd_hooks=[(name, keep) for name, _ in rows]), torch.enable_grad():
        logits = model(embedding.detach().requires_grad_(), start_at_layer=0)
        m = pairs.logit_difference(logits).sum()
        found = torch.autograd.grad(m, [inputs[name] for name, _ in rows])
    for (_, where), value in zip(rows, found, strict=True):
        gradient[where] += value.permute(2, 0, 1, 3) if value.ndim == 4 else value[None]
