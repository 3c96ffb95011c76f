"""What every method on edges stands on: what writers write, and adding to what readers read.

Writers come first in the tensors here, [writer, batch, pos, d_model], so that sums over edges are matrix products.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from interp.models.graph import Graph, Reader

_HEAD_INPUTS = ("q", "k", "v")


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


def reader_hook(graph: Graph, kind: str, layer: int | None) -> str:
    """The hook that holds a reader's input before its norm; q, k and v hooks have a head axis."""
    if kind == "logits":
        return f"blocks.{graph.n_layers - 1}.hook_resid_post"
    return f"blocks.{layer}.hook_mlp_in" if kind == "mlp" else f"blocks.{layer}.hook_{kind}_input"


def writer_hooks(graph: Graph) -> list[tuple[str, slice]]:
    """The hooks that hold what writers add to the residual stream, each with the columns of its writers, in order."""
    hooks, column = [("blocks.0.hook_resid_pre", slice(0, 1))], 1
    for layer in range(graph.n_layers):
        hooks.append((f"blocks.{layer}.attn.hook_result", slice(column, column + graph.n_heads)))
        hooks.append((f"blocks.{layer}.hook_mlp_out", slice(column + graph.n_heads, column + graph.n_heads + 1)))
        column += graph.n_heads + 1
    return hooks


@torch.no_grad()
def written(model: Any, graph: Graph, tokens: Tensor, *, batch_size: int = 256) -> tuple[Tensor, Tensor]:
    """What each writer writes, [writer, batch, pos, d_model], and the logits [batch, pos, d_vocab]."""
    parts, logits = [], []
    for batch in tokens.split(batch_size):
        out = torch.empty(len(graph.writers), *batch.shape, model.cfg.d_model, dtype=model.W_U.dtype)
        with recording(model, graph, out):
            logits.append(model(batch))
        parts.append(out)
    return torch.cat(parts, dim=1), torch.cat(logits)


@contextmanager
def recording(model: Any, graph: Graph, out: Tensor) -> Iterator[Any]:
    """Forward passes inside fill `out` [writer, batch, pos, d_model] as they go."""

    def record(activation: Tensor, hook: Any, columns: slice) -> None:
        heads = activation.permute(2, 0, 1, 3) if activation.ndim == 4 else activation[None]
        out[columns] = heads

    hooks: list[tuple[str, Callable]] = [
        (name, lambda activation, hook, columns=columns: record(activation, hook, columns))
        for name, columns in writer_hooks(graph)
    ]
    with edge_hooks(model), model.hooks(fwd_hooks=hooks):
        yield model


def reader_rows(graph: Graph) -> list[tuple[str, slice]]:
    """The readers' hooks in the order in which they fire, each with the rows of its readers."""
    hooks, row = [], 0
    for layer in range(graph.n_layers):
        for kind in _HEAD_INPUTS:
            hooks.append((reader_hook(graph, kind, layer), slice(row, row + graph.n_heads)))
            row += graph.n_heads
        hooks.append((reader_hook(graph, "mlp", layer), slice(row, row + 1)))
        row += 1
    hooks.append((reader_hook(graph, "logits", None), slice(row, row + 1)))
    return hooks


def by_layer(graph: Graph, readers: Sequence[Reader]) -> dict[int, list[int]]:
    """Indices of `readers` by the layer at which a pass that edits them may start; n_layers for the logits."""
    layers: dict[int, list[int]] = {}
    for index, reader in enumerate(readers):
        layers.setdefault(graph.n_layers if reader.layer is None else reader.layer, []).append(index)
    return dict(sorted(layers.items()))
