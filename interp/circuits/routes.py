"""Edges resolved by two places: where an edge's message is read, and where what comes of it is written.

A head moves what it reads. Of an edge u -> v into the keys or values of a head, the *start* is the set of key positions
at which u's message is exchanged, and the *end* the set of query positions at which the head's output may change:

1. Run clean, but let the reader read, at the start alone, what u writes on the corrupted input.
2. Of what the head then writes, keep the change at the end alone; everywhere else it writes what it wrote clean.
3. The effect is the metric then, minus the clean one: measured, not estimated.

Queries, MLPs and the logits work position by position: what they read at a place comes out at that place, and start and
end are one. Effects of places need not add up to the edge's: attention and norms are not linear.

The places are the task's blocks and "brackets", with the slots that pointers point to, in the clean example, as places
of their own: "instructions[@instruction_ptr]" is the instruction that runs. Together they hold every position once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.attention import can_average, position_sets, set_members
from interp.circuits.edges import edge_hooks, written
from interp.circuits.head_swaps import intervals
from interp.circuits.hooked import streams
from interp.circuits.pairs import Pairs
from interp.circuits.standing import taken_apart
from interp.models.graph import ARROW, Edge, Graph, Reader
from interp.tasks import Batch, Task

_MOVES = ("k", "v")  # inputs that are read at one place and work at another


@dataclass(frozen=True)
class Route:
    """An edge between two places, and by how much patching it there changes the metric."""

    source: str  # names of the writer and the reader, as circuits spell them
    target: str
    start: str  # the place at which the message is read
    end: str  # the place at which what comes of it is written
    effect: float  # m(patched) - m(clean) in logits, the mean over pairs; negative where it helps
    ci_low: float  # 95 %, bootstrap over units
    ci_high: float

    @property
    def edge(self) -> str:
        return f"{self.source}{ARROW}{self.target}"

    @property
    def node(self) -> str:
        """The component that reads."""
        return self.target.split("<")[0]

    @property
    def moves(self) -> bool:
        """Whether something is brought from one place to another."""
        return self.start != self.end


def place_names(task: Task) -> tuple[str, ...]:
    """The names of a task's places: each block, its pointed slot before it if it has one; then "brackets"."""
    known = position_sets(task)
    brackets = known.index("brackets")
    pointed = known[brackets + 1 :]
    return (*(name for block in known[:brackets] for name in (*_in(block, pointed), block)), "brackets")


def _in(block: str, pointed: Sequence[str]) -> list[str]:
    return [name for name in pointed if name.startswith(f"{block}[@")]


def place_members(task: Task, batch: Batch) -> Tensor:
    """Which positions belong to each of `place_names` in each example, bool [batch, place, pos]; each is in one.

    Raises:
        ValueError: a position means something else in every example.
    """
    if not can_average(task):
        raise ValueError(
            f"edges between places need positions that mean the same in every example; those of {task.name} do not"
        )
    known, names = position_sets(task), place_names(task)
    members = set_members(task, known, batch).bool()[:, [known.index(name) for name in names]]
    for column, name in enumerate(names):
        for pointed in _in(name, names):
            members[:, column] &= ~members[:, names.index(pointed)]
    return members


@torch.no_grad()
def edge_routes(
    model: Any,
    pairs: Pairs,
    edges: Sequence[Edge],
    *,
    share: float = 0.05,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Route]:
    """Patch edges between places, the largest effect first.

    Args:
        model: the hooked transformer.
        pairs: clean and corrupted inputs.
        edges: edges of `Graph.of(model)`.
        share: starts with less than this share of the largest effect of any start are not followed to their ends; and
            routes below it are left out.
        seed: of the bootstrap.
        progress: called with the share done, 0 to 1.

    Raises:
        ValueError: a model that `taken_apart` refuses, or positions that mean something else in every example.
    """
    run = _Patched(model, pairs)
    starts = []
    for done, edge in enumerate(edges):
        starts.append(run.at_starts(edge))
        if progress is not None:
            progress(0.5 * (done + 1) / len(edges))
    least = share * max((float(np.abs(each.mean(1)).max()) for each in starts), default=0.0)
    found: list[tuple[Edge, str, str, np.ndarray]] = []
    for done, (edge, effects) in enumerate(zip(edges, starts, strict=True)):
        for place, effect in zip(run.places, effects, strict=True):
            if abs(effect.mean()) < least or not effect.any():
                continue
            ends = run.at_ends(edge, place) if edge.target.kind in _MOVES else {place: effect}
            found += [(edge, place, end, each) for end, each in ends.items() if abs(each.mean()) >= max(least, 1e-9)]
        if progress is not None:
            progress(0.5 + 0.5 * (done + 1) / len(edges))
    if not found:
        return []
    bounds = intervals(np.stack([each[-1] for each in found]), pairs.groups, seed=seed)
    routes = [
        Route(edge.source.name, edge.target.name, start, end, *(float(value) for value in bound))
        for (edge, start, end, _), bound in zip(found, bounds, strict=True)
    ]
    return sorted(routes, key=lambda route: -abs(route.effect))


class _Patched:
    """The clean run of n pairs, and its metric when an edge is patched at places."""

    def __init__(self, model: Any, pairs: Pairs):
        self.model, self.pairs, self.graph = model, pairs, taken_apart(model)
        if not self.graph.one_stream:
            raise ValueError("routes are followed along one residual stream; this model has one a side")
        self.places = place_names(pairs.task)
        self.members = place_members(pairs.task, pairs.clean)  # [n, place, pos]
        clean, logits = written(model, self.graph, pairs.clean.tokens)
        self.change = written(model, self.graph, pairs.corrupted.tokens)[0] - clean  # [writer, n, pos, d_model]
        self.streams = streams(model, pairs.clean.tokens)
        self.m = pairs.logit_difference(logits).double()

    def at_starts(self, edge: Edge) -> np.ndarray:
        """Effects with the message exchanged at each place, wherever it goes, float64 [place, n]."""
        change = self.change[self.graph.writers.index(edge.source)]  # [n, pos, d_model]
        here = self.members.transpose(0, 1)[..., None] * change  # [place, n, pos, d_model]
        return self._effects(self._logits(edge.target, here.flatten(0, 1)), len(self.places))

    def at_ends(self, edge: Edge, start: str) -> dict[str, np.ndarray]:
        """Effects with the message exchanged at `start` and its head's output changed at each place, [n] each."""
        reader, layer = edge.target, edge.target.layer
        assert layer is not None and reader.head is not None
        at = self.members[:, self.places.index(start), :, None]
        change = at * self.change[self.graph.writers.index(edge.source)]
        z = f"blocks.{layer}.attn.hook_z"
        kept: dict[str, Tensor] = {}
        listen = [(z, lambda value, hook: kept.__setitem__("z", value[:, :, reader.head].clone()))]
        with edge_hooks(self.model), self.model.hooks(fwd_hooks=[*self._reads(reader, change), *listen]):
            self.model(self.streams[layer], start_at_layer=layer, stop_at_layer=layer + 1)
        moved = kept["z"].repeat(len(self.places), 1, 1)  # [place * n, pos, d_head]
        ends = self.members.transpose(0, 1).flatten(0, 1)[..., None]  # [place * n, pos, 1]

        def write(value: Tensor, hook: Any) -> Tensor:
            value = value.clone()
            value[:, :, reader.head] = torch.where(ends, moved, value[:, :, reader.head])
            return value

        with self.model.hooks(fwd_hooks=[(z, write)]):
            stack = self.streams[layer].repeat(len(self.places), 1, 1)
            logits = self.model(stack, start_at_layer=layer)
        return dict(zip(self.places, self._effects(logits, len(self.places)), strict=True))

    def _logits(self, reader: Reader, change: Tensor) -> Tensor:
        """Logits [k * n, pos, d_vocab] when one reader reads `change` [k * n, pos, d_model] besides."""
        layer = self.graph.n_layers if reader.layer is None else reader.layer
        stack = self.streams[layer].repeat(len(change) // len(self.pairs), 1, 1)
        if reader.layer is None:
            return self.model(stack + change, start_at_layer=layer)
        with edge_hooks(self.model), self.model.hooks(fwd_hooks=self._reads(reader, change)):
            return self.model(stack, start_at_layer=layer)

    def _reads(self, reader: Reader, change: Tensor) -> list[tuple[str, Callable[[Tensor, Any], Tensor]]]:
        def add(value: Tensor, hook: Any) -> Tensor:
            value = value.clone()
            where = value if reader.head is None else value[:, :, reader.head]
            where += change
            return value

        return [(self.graph.reader_place(reader).hook, add)]

    def _effects(self, logits: Tensor, k: int) -> np.ndarray:
        return (self.pairs.logit_difference(logits.unflatten(0, (k, -1))).double() - self.m).numpy()


def strongest_edges(graph: Graph, scores: np.ndarray, n: int) -> list[Edge]:
    """The `n` edges of highest |score| [reader, writer]."""
    chosen = graph.top(np.abs(scores), n)
    order = sorted(zip(*np.nonzero(chosen), strict=True), key=lambda place: -abs(scores[place]))
    return [graph.edge(int(row), int(column)) for row, column in order]


def traced(routes: Sequence[Route], *, most: int = 4) -> tuple[str, list[Route]]:
    """Where the answer is said, and the moves that bring there what decides it, the last one first.

    The place is the start of the strongest helpful route into the logits. The strongest helpful move into it comes
    next, then the strongest of an earlier layer into where that one starts, and so on. Routes alone, no path is
    patched: that one move hands on to the next is read off the places.

    Returns:
        ("" where no route into the logits helps, at most `most` moves).
    """
    said = [route for route in routes if route.node == "logits" and route.effect < 0]
    if not said:
        return "", []
    place = answer = min(said, key=lambda route: route.effect).start
    moves: list[Route] = []
    while len(moves) < most:
        before = _layer(moves[-1]) if moves else None
        into = [
            route
            for route in routes
            if route.moves and route.effect < 0 and route.end == place and (before is None or _layer(route) < before)
        ]
        if not into:
            break
        moves.append(min(into, key=lambda route: route.effect))
        place = moves[-1].start
    return answer, moves


def _layer(move: Route) -> int:
    """Of the head that moves something."""
    return int(move.node[1:].split(".")[0])


def routes_detail(routes: Sequence[Route], places: Sequence[str], *, n: int, m_clean: float) -> dict[str, Any]:
    """What a file keeps; `read_routes` reads it back."""
    keys = ("source", "target", "start", "end")
    numbers = ("effect", "ci_low", "ci_high")
    kept = [
        {key: getattr(each, key) for key in keys} | {name: round(getattr(each, name), 4) for name in numbers}
        for each in routes
    ]
    return {"places": list(places), "n": n, "m_clean": round(m_clean, 4), "routes": kept}


def read_routes(detail: Mapping[str, Any]) -> list[Route]:
    """The routes of a file."""
    return [Route(**each) for each in detail["routes"]]
