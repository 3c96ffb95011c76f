"""Edges resolved by position: which slots of the stream an edge carries its message at.

The residual stream keeps positions apart, so that an edge u -> v at a set of positions is what u writes there and v
reads there; attention inside v, not the edge, moves things between positions. Position sets are blocks of the state
("cells", "instruction_ptr") and "brackets", which together hold every position once. Scores and effects are those of
`attribution` and `exact`, with all positions outside the set left clean; scores add up over sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.edges import edge_hooks, reader_hook, reader_rows, written
from interp.circuits.graph import Edge, Graph
from interp.circuits.pairs import Pairs
from interp.interventions import block_slots
from interp.results import Aggregation, Method, Metric
from interp.tasks import Task


@dataclass(frozen=True)
class PlacedEdge:
    """An edge at a set of positions."""

    edge: Edge
    positions: str

    @property
    def name(self) -> str:
        return f"{self.edge.name} at {self.positions}"


def disjoint_sets(task: Task) -> dict[str, list[int]]:
    """Blocks of the state and of a shown answer, and "brackets" for the rest: each position is in one."""
    sets, left = {}, set(range(task.n_ctx))
    for prefix in ("", "next."):
        for block in task.spec.layout.blocks:
            slots = [int(slot) for slot in block_slots(task.position_names, prefix + block)]
            if slots:
                sets[prefix + block] = slots
                left -= set(slots)
    if left:
        sets["brackets"] = sorted(left)
    return sets


def eap_ig_by_position(
    model: Any, pairs: Pairs, *, steps: int = 5, batch_size: int = 64
) -> tuple[np.ndarray, tuple[str, ...]]:
    """EAP-IG scores by set of positions: (float64 [reader, writer, set], names of the sets). Their sum is `eap_ig`.

    Raises:
        ValueError: `steps` is below 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    graph, sets = Graph.of(model), disjoint_sets(pairs.task)
    total = torch.zeros(*graph.mask.shape, len(sets), dtype=torch.float64)
    for start in range(0, len(pairs), batch_size):
        part = pairs[slice(start, start + batch_size)]
        clean, _ = written(model, graph, part.clean.tokens)
        corrupted, _ = written(model, graph, part.corrupted.tokens)
        gradient = torch.zeros(len(graph.readers), *clean.shape[1:], dtype=clean.dtype)
        for step in range(steps):
            embedding = corrupted[0] + (step + 0.5) / steps * (clean[0] - corrupted[0])
            for rows, found in _gradients(model, graph, part, embedding):
                gradient[rows] += found / steps
        change = corrupted - clean
        for index, slots in enumerate(sets.values()):
            total[..., index] += (gradient[:, :, slots].flatten(1) @ change[:, :, slots].flatten(1).T).double()
    return (total / len(pairs)).numpy() * graph.mask[..., None], tuple(sets)


def _gradients(model: Any, graph: Graph, pairs: Pairs, embedding: Tensor) -> list[tuple[slice, Tensor]]:
    """(rows of readers, dm/d(their inputs) [reader, batch, pos, d_model])."""
    kept: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any) -> None:
        kept[hook.name] = activation

    rows = reader_rows(graph)
    with edge_hooks(model), model.hooks(fwd_hooks=[(name, keep) for name, _ in rows]), torch.enable_grad():
        logits = model(embedding.detach().requires_grad_(), start_at_layer=0)
        m = pairs.logit_difference(logits).sum()
        found = torch.autograd.grad(m, [kept[name] for name, _ in rows])
    return [
        (where, value.permute(2, 0, 1, 3) if value.ndim == 4 else value[None])
        for (_, where), value in zip(rows, found, strict=True)
    ]


@torch.no_grad()
def exact_by_position(model: Any, pairs: Pairs, placed: Sequence[PlacedEdge]) -> np.ndarray:
    """Effect of patching each edge at its positions alone, m(patched) - m(clean), float64 [len(placed), n]."""
    graph, sets = Graph.of(model), disjoint_sets(pairs.task)
    clean, logits = written(model, graph, pairs.clean.tokens)
    corrupted, _ = written(model, graph, pairs.corrupted.tokens)
    before = pairs.logit_difference(logits).double()
    streams = {
        layer: model(pairs.clean.tokens, stop_at_layer=layer)
        for layer in {graph.n_layers if each.edge.target.layer is None else each.edge.target.layer for each in placed}
    }
    effects = np.zeros((len(placed), len(pairs)))
    for row, each in enumerate(placed):
        target, slots = each.edge.target, sets[each.positions]
        column = graph.writers.index(each.edge.source)
        change = torch.zeros_like(clean[0])
        change[:, slots] = (corrupted - clean)[column][:, slots]
        if target.kind == "logits":
            after = model(streams[graph.n_layers] + change, start_at_layer=graph.n_layers)
        else:
            assert target.layer is not None

            def add(activation: Tensor, hook: Any, change: Tensor = change, head: int | None = target.head) -> Tensor:
                activation = activation.clone()
                where = activation if head is None else activation[:, :, head]
                where += change
                return activation

            hooks = [(reader_hook(graph, target.kind, target.layer), add)]
            with edge_hooks(model), model.hooks(fwd_hooks=hooks):
                after = model(streams[target.layer], start_at_layer=target.layer)
        effects[row] = (pairs.logit_difference(after).double() - before).numpy()
    return effects


def position_rows(model: Any, pairs: Pairs, *, steps: int = 5, n_exact: int = 30) -> list[dict[str, Any]]:
    """Rows of the `n_exact` placed edges of highest |score|: score, and effect as measured. `site` is the edge."""
    graph = Graph.of(model)
    scores, sets = eap_ig_by_position(model, pairs, steps=steps)
    sizes = np.where(graph.mask[..., None], np.abs(scores), -1.0)
    order = np.argsort(-sizes, axis=None, kind="stable")[: min(n_exact, graph.n_edges * len(sets))]
    places = [tuple(int(i) for i in place) for place in np.transpose(np.unravel_index(order, scores.shape))]
    placed = [PlacedEdge(graph.edge(row, column), sets[index]) for row, column, index in places]
    exact = exact_by_position(model, pairs, placed)
    rows = []
    for each, place, effect in zip(placed, places, exact, strict=True):
        key = {
            "op": pairs.op.name,
            "site": each.edge.name,
            "position": each.positions,
            "granularity": "edge by position",
            "ablation": "resample",
            "metric": Metric.EFFECT,
            "aggregation": Aggregation.MEAN,
            "n": len(pairs),
        }
        rows.append({**key, "method": Method.EAP_IG, "estimate": float(scores[place])})
        rows.append({**key, "method": Method.EXACT_PATCHING, "estimate": float(effect.mean())})
    return rows
