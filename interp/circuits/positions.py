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

from interp.circuits.attribution import midpoints
from interp.circuits.edges import written
from interp.circuits.hooked import input_gradients, moved_logits, streams
from interp.circuits.pairs import Pairs
from interp.circuits.standing import taken_apart
from interp.models.graph import Edge
from interp.ranges import counted
from interp.results import Aggregation, Method, Metric
from interp.tasks import Task
from interp.tasks.sites import block_slots


@dataclass(frozen=True)
class PlacedEdge:
    """An edge at a set of positions."""

    edge: Edge
    positions: str

    @property
    def name(self) -> str:
        return f"{self.edge.name} at {self.positions}"


def disjoint_sets(task: Task) -> dict[str, list[int]]:
    """The task's blocks of slots, and "brackets" for the rest: each position is in one."""
    sets, left = {}, set(range(task.n_ctx))
    for block in task.blocks():
        sets[block] = [int(slot) for slot in block_slots(task.position_names, block)]
        left -= set(sets[block])
    if left:
        sets["brackets"] = sorted(left)
    return sets


@counted(pairs=1, steps=1, batch_size=1)
@torch.inference_mode(False)  # gradients are needed, whatever mode it is called in
def eap_ig_by_position(
    model: Any, pairs: Pairs, *, steps: int = 5, batch_size: int = 64
) -> tuple[np.ndarray, tuple[str, ...]]:
    """EAP-IG scores by set of positions: (float64 [reader, writer, set], names of the sets). Their sum is `eap_ig`.

    Raises:
        ValueError: `steps` is below 1, or a model that `taken_apart` refuses.
    """
    fractions = midpoints(steps)
    graph, sets = taken_apart(model), disjoint_sets(pairs.task)
    total = torch.zeros(*graph.mask.shape, len(sets), dtype=torch.float64)
    for start in range(0, len(pairs), batch_size):
        part = pairs[slice(start, start + batch_size)]
        change = written(model, graph, part.corrupted.tokens)[0] - written(model, graph, part.clean.tokens)[0]
        gradient = input_gradients(model, graph, part, fractions)
        for index, slots in enumerate(sets.values()):
            total[..., index] += (gradient[:, :, slots].flatten(1) @ change[:, :, slots].flatten(1).T).double()
    return (total / len(pairs)).numpy() * graph.mask[..., None], tuple(sets)


@counted(pairs=1)
@torch.no_grad()
def exact_by_position(model: Any, pairs: Pairs, placed: Sequence[PlacedEdge]) -> np.ndarray:
    """Effect of patching each edge at its positions alone, m(patched) - m(clean), float64 [len(placed), n].

    Raises:
        ValueError: a model that `taken_apart` refuses.
    """
    graph, sets = taken_apart(model), disjoint_sets(pairs.task)
    clean, logits = written(model, graph, pairs.clean.tokens)
    corrupted, _ = written(model, graph, pairs.corrupted.tokens)
    before = pairs.logit_difference(logits).double()
    stream = streams(model, pairs.clean.tokens)
    effects = np.zeros((len(placed), len(pairs)))
    for row, each in enumerate(placed):
        slots, column = sets[each.positions], graph.writers.index(each.edge.source)
        change = torch.zeros_like(clean[0])
        change[:, slots] = (corrupted - clean)[column][:, slots]
        after = moved_logits(model, graph, stream, each.edge.target, change)
        effects[row] = (pairs.logit_difference(after).double() - before).numpy()
    return effects


def position_rows(model: Any, pairs: Pairs, *, steps: int = 5, n_exact: int = 30) -> list[dict[str, Any]]:
    """Rows of the `n_exact` placed edges of highest |score|: score, and effect as measured. `site` is the edge."""
    graph = taken_apart(model)
    scores, sets = eap_ig_by_position(model, pairs, steps=steps)
    sizes = np.where(graph.mask[..., None], np.abs(scores), -1.0)
    order = np.argsort(-sizes, axis=None, kind="stable")[: min(n_exact, graph.n_edges * len(sets))]
    places = [tuple(int(i) for i in place) for place in np.transpose(np.unravel_index(order, scores.shape))]
    placed = [PlacedEdge(graph.edge(row, column), sets[index]) for row, column, index in places]
    exact = exact_by_position(model, pairs, placed)
    rows = []
    for each, place, effect in zip(placed, places, exact, strict=True):
        key = {
            "op": pairs.contrast,
            "site": each.edge.name,
            "position": each.positions,
            "granularity": "edge by position",
            "ablation": "resample",
            "metric": Metric.EFFECT,
            "aggregation": Aggregation.MEAN,
            "n": len(pairs),
        }
        rows.append({**key, "method": Method.EAP_IG, "steps": steps, "estimate": float(scores[place])})
        rows.append({**key, "method": Method.EXACT_PATCHING, "estimate": float(effect.mean())})
    return rows
