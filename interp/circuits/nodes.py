"""Attribution patching by node: every node's effect from one backward pass (Nanda 2023; Kramár et al. 2024).

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

from interp.circuits.edges import edge_hooks, writer_hooks, written
from interp.circuits.graph import Graph
from interp.circuits.pairs import Pairs


def attribution_patching(model: Any, pairs: Pairs, *, steps: int | None = None, batch_size: int = 128) -> np.ndarray:
    """Estimated effect of patching each writer of `Graph.of(model)`, by example, float64 [writer, n].

    Args:
        model: the hooked transformer.
        pairs: clean and corrupted inputs.
        steps: None for the gradient at the clean run; else for its mean over this many midpoints between the two
            embeddings, a forward and a backward pass each.
        batch_size: examples a pass.

    Raises:
        ValueError: `steps` is below 1, or the model has no heads.
    """
    if steps is not None and steps < 1:
        raise ValueError(f"steps must be at least 1, or None for the clean gradient; got {steps}")
    fractions = [1.0] if steps is None else [(step + 0.5) / steps for step in range(steps)]
    graph = Graph.of(model)
    parts = []
    for start in range(0, len(pairs), batch_size):
        part = pairs[slice(start, start + batch_size)]
        clean, _ = written(model, graph, part.clean.tokens, batch_size=batch_size)
        corrupted, _ = written(model, graph, part.corrupted.tokens, batch_size=batch_size)
        gradient = torch.zeros_like(clean)
        for fraction in fractions:
            gradient += _gradients(model, graph, part, corrupted[0] + fraction * (clean[0] - corrupted[0]))
        parts.append(((corrupted - clean) * gradient).sum((2, 3)).double() / len(fractions))
    return torch.cat(parts, dim=1).numpy()


def _gradients(model: Any, graph: Graph, pairs: Pairs, embedding: Tensor) -> Tensor:
    """dm/d(a_u) of every writer, [writer, batch, pos, d_model]; examples do not mix."""
    kept: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any) -> None:
        kept[hook.name] = activation

    names = [name for name, _ in writer_hooks(graph)]
    with edge_hooks(model), model.hooks(fwd_hooks=[(name, keep) for name in names]), torch.enable_grad():
        logits = model(embedding.detach().requires_grad_(), start_at_layer=0)
        found = torch.autograd.grad(pairs.logit_difference(logits).sum(), [kept[name] for name in names])
    return torch.cat([g.permute(2, 0, 1, 3) if g.ndim == 4 else g[None] for g in found])
