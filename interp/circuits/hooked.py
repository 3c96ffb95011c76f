"""The slow, general way to gradients and patched readers: whole passes through the model's hook points.

It counts every hook that stands on the model. Methods go this way where the model offers no fast pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from interp.circuits.edges import edge_hooks, nodes_first
from interp.circuits.pairs import Pairs
from interp.models.graph import Graph, Reader


@torch.enable_grad()
def gradients_at(model: Any, names: Sequence[str], run: Callable[[], Tensor]) -> list[Tensor]:
    """d(run())/d(activation) at hook points, as they stand after every other hook; 0 where nothing comes of one.

    Args:
        model: the hooked model.
        names: hook points that `run` fires, all of them.
        run: a forward pass to a scalar.
    """
    kept: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any) -> Tensor:
        # What another hook put in the place of an activation may be a constant: a leaf of its own then.
        kept[hook.name] = activation if activation.requires_grad else activation.detach().requires_grad_()
        return kept[hook.name]

    with model.hooks(fwd_hooks=[(name, keep) for name in names]):
        m = run()
        return list(torch.autograd.grad(m, [kept[name] for name in names], materialize_grads=True))


def ends(model: Any, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Embeddings of the clean and of the corrupted inputs, [n, pos, d_model] each."""
    with torch.no_grad():
        clean, corrupted = (model(batch.tokens, stop_at_layer=0) for batch in (pairs.clean, pairs.corrupted))
    return clean, corrupted


def input_gradients(model: Any, graph: Graph, pairs: Pairs, fractions: Sequence[float]) -> Tensor:
    """dm/d(in_v) of every reader, [reader, n, pos, d_model]: the mean over points between the two embeddings.

    Args:
        model: the hooked model.
        graph: its graph.
        pairs: their metric is m.
        fractions: of the way from the corrupted to the clean embedding, a point each.
    """
    clean, corrupted = ends(model, pairs)
    total = torch.zeros(len(graph.readers), *clean.shape, dtype=clean.dtype, device=clean.device)
    with edge_hooks(model):
        for fraction in fractions:
            embedding = corrupted + fraction * (clean - corrupted)
            found = gradients_at(
                model,
                [place.hook for place in graph.reader_places],
                lambda embedding=embedding: pairs.logit_difference(model(embedding, start_at_layer=0)).sum(),
            )
            for place, value in zip(graph.reader_places, found, strict=True):
                total[place.nodes, :, place.positions] += nodes_first(value)
    return total / len(fractions)


def streams(model: Any, tokens: Tensor) -> list[Tensor]:
    """The residual stream before every layer and after the last, [n, pos, d_model] each."""
    found = [model(tokens, stop_at_layer=0)]
    for layer in range(model.cfg.n_layers):
        found.append(model(found[-1], start_at_layer=layer, stop_at_layer=layer + 1))
    return found


def moved_logits(model: Any, graph: Graph, before: Sequence[Tensor], reader: Reader, change: Tensor) -> Tensor:
    """Logits [n, pos, d_vocab] when one reader reads `change` [n, pos, d_model] besides.

    `before` are the clean run's `streams`.
    """
    if reader.layer is None:
        return model(before[graph.n_layers] + change, start_at_layer=graph.n_layers)

    place = graph.reader_place(reader)

    def add(activation: Tensor, hook: Any) -> Tensor:
        activation = activation.clone()
        where = activation if reader.head is None else activation[:, :, reader.head]
        where += change[:, place.positions]
        return activation

    with edge_hooks(model), model.hooks(fwd_hooks=[(place.hook, add)]):
        return model(before[reader.layer], start_at_layer=reader.layer)
