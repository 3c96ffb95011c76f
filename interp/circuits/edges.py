"""What every method on edges stands on: what writers write, and adding to what readers read.

Writers come first in the tensors here, [writer, batch, pos, d_model], so that sums over edges are matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from interp.models.graph import Graph, Place, Reader


@contextmanager
def edge_hooks(model: Any) -> Iterator[Any]:
    """The model with its per-head inputs and results switched on; switched back afterwards."""
    switches = ("use_attn_result", "use_split_qkv_input", "use_hook_mlp_in")
    before = {name: getattr(model.cfg, name) for name in switches}
    try:
        for name in switches:
            getattr(model, f"set_{name}")(True)
        yield model
    finally:
        for name, value in before.items():
            getattr(model, f"set_{name}")(value)


@torch.no_grad()
def written(model: Any, graph: Graph, tokens: Tensor, *, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """What each writer writes, [writer, batch, pos, d_model], and the logits [batch, pos, d_vocab]."""
    parts, logits = [], []
    for batch in tokens.split(batch_size):
        # Where a writer does not write, as on the other side of an encoder–decoder, it writes 0.
        out = torch.zeros(len(graph.writers), *batch.shape, model.cfg.d_model, dtype=model.W_U.dtype)
        with recording(model, graph, out):
            logits.append(model(batch))
        parts.append(out)
    return torch.cat(parts, dim=1), torch.cat(logits)


@contextmanager
def recording(model: Any, graph: Graph, out: Tensor) -> Iterator[Any]:
    """Forward passes inside fill `out` [writer, batch, pos, d_model] as they go."""

    def record(activation: Tensor, hook: Any, place: Place) -> None:
        out[place.nodes, :, place.positions] = nodes_first(activation)

    hooks: list[tuple[str, Callable]] = [(place.hook, partial(record, place=place)) for place in graph.writer_places]
    with edge_hooks(model), model.hooks(fwd_hooks=hooks):
        yield model


def nodes_first(activation: Tensor) -> Tensor:
    """The activation at a hook of nodes as [node, batch, pos, d_model]; heads have their axis behind the position's."""
    return activation.permute(2, 0, 1, 3) if activation.ndim == 4 else activation[None]


def by_layer(graph: Graph, readers: Sequence[Reader]) -> dict[int, list[int]]:
    """Indices of `readers` by the layer at which a pass that edits them may start; n_layers for the logits."""
    layers: dict[int, list[int]] = {}
    for index, reader in enumerate(readers):
        layers.setdefault(graph.n_layers if reader.layer is None else reader.layer, []).append(index)
    return dict(sorted(layers.items()))
