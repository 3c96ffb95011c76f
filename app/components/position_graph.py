"""Routes between places as a layered graph: a column a part of the model, a row a place of the stream; ECharts option.

A line that stays in its row is a message read where it was written; one that changes rows is something that a head
brings from one place to another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.components.heatmap import PICKED
from app.theme import NEGATIVE, POSITIVE
from interp.figures import node_words

_NODE = "#9CC7E6"
_CURVES = {"q": 0.2, "k": 0.1, "v": -0.12, "": 0.0}
_ROLES = {  # of a pointer, of what it points into: the slot pointed to, then the rest
    "instruction_ptr": ("instruction pointer: where it is", "instruction pointer: elsewhere"),
    "instructions": ("the instruction that runs", "other instructions"),
    "array_ptr": ("array pointer: where it is", "array pointer: elsewhere"),
    "cells": ("the cell under the pointer", "other cells"),
}


@dataclass(frozen=True)
class DrawnRoute:
    """An edge from a place to a place, with its contribution (positive: the answer needs it)."""

    source: str
    target: str
    start: str
    end: str
    contribution: float

    @property
    def edge(self) -> str:
        return f"{self.source}->{self.target}"

    @property
    def node(self) -> str:
        return self.target.split("<")[0]


def place_words(place: str, places: Sequence[str]) -> str:
    """A place as a person reads it: "instructions[@instruction_ptr]" is the instruction that runs."""
    block, _, pointer = place.rstrip("]").partition("[@")
    prefix, _, name = block.rpartition(".")
    prefix = f"{prefix}: " if prefix else ""
    if pointer:
        return prefix + _ROLES.get(name, (f"{name} at {pointer}",))[0]
    if any(each.startswith(f"{place}[@") for each in places):
        return prefix + _ROLES.get(name, ("", f"other {name}"))[1]
    return f"{prefix}{name}"


def position_graph(
    routes: Sequence[DrawnRoute], *, places: Sequence[str], parts: Sequence[str], picked: str
) -> tuple[dict[str, Any], list[str]]:
    """The option, and the parts that its nodes stand for: a picked node or edge arrives as its index into these or
    into `routes`.

    Args:
        routes: what is drawn.
        places: all places, in the order of the stream; those that no route touches are left out.
        parts: all parts of the model, in its order; the same.
        picked: id of a node or edge.
    """
    ends = [(route.source, route.start) for route in routes] + [(route.node, route.end) for route in routes]
    rows = [place for place in places if any(place == at for _, at in ends)]
    columns = [part for part in parts if any(part == name for name, _ in ends)]
    nodes = sorted(dict.fromkeys(ends), key=lambda end: (columns.index(end[0]), rows.index(end[1])))
    largest = max((abs(route.contribution) for route in routes), default=0.0) or 1.0
    axis = {"type": "category", "axisTick": {"show": False}, "axisLine": {"show": False},
            "splitLine": {"show": True, "lineStyle": {"type": "dotted", "opacity": 0.5}}}  # fmt: skip
    words = [node_words(part) for part in columns]
    option = {
        "animation": False,
        "tooltip": {"confine": True},
        "grid": {"left": 8, "right": 24, "top": 8, "bottom": 4, "containLabel": True},
        "xAxis": {**axis, "data": words, "position": "top", "axisLabel": {"fontSize": 11, "interval": 0}},
        "yAxis": {**axis, "data": [place_words(place, places) for place in rows], "inverse": True,
                  "axisLabel": {"fontSize": 12, "interval": 0}},
        "series": [
            {
                "type": "graph",
                "coordinateSystem": "cartesian2d",
                "selectedMode": "single",
                "emphasis": {"focus": "adjacency"},
                "edgeSymbol": ["none", "arrow"],
                "edgeSymbolSize": [0, 8],
                "data": [_node(part, place, columns, rows, places, picked) for part, place in nodes],
                "links": [_link(route, largest, places, picked) for route in routes],
            }
        ],
    }  # fmt: skip
    return option, [part for part, _ in nodes]


def _name(part: str, place: str) -> str:
    return f"{part} at {place}"


def _node(
    part: str, place: str, columns: list[str], rows: list[str], places: Sequence[str], picked: str
) -> dict[str, Any]:
    border = {"borderColor": PICKED, "borderWidth": 4} if part == picked else {"borderWidth": 1}
    return {
        "name": _name(part, place),
        "value": [columns.index(part), rows.index(place)],
        "symbol": "circle" if ".h" in part else "roundRect" if part.startswith("m") else "rect",
        "symbolSize": 20,
        "itemStyle": {"color": _NODE, "borderColor": "#35566E", **border},
        "select": {"itemStyle": {"borderColor": PICKED, "borderWidth": 4}},
        "tooltip": {"formatter": f"{node_words(part)} at {place_words(place, places)}"},
    }


def _link(route: DrawnRoute, largest: float, places: Sequence[str], picked: str) -> dict[str, Any]:
    share = abs(route.contribution) / largest
    color = PICKED if route.edge == picked else POSITIVE if route.contribution >= 0 else NEGATIVE
    start, end = (place_words(place, places) for place in (route.start, route.end))
    where = f"at {start}" if start == end else f"from {start} to {end}"
    return {
        "source": _name(route.source, route.start),
        "target": _name(route.node, route.end),
        "lineStyle": {
            "width": round(1 + 8 * share**0.7, 2),
            "type": "solid" if route.contribution >= 0 else "dashed",
            "color": color,
            "opacity": 1.0 if route.edge == picked else round(0.35 + 0.6 * share**0.5, 2),
            "curveness": _CURVES.get(route.target.rstrip(">").partition("<")[2], 0.0),
        },
        "select": {"lineStyle": {"color": PICKED, "opacity": 1.0}},
        "tooltip": {"formatter": f"{node_words(route.source)} → {node_words(route.target)}<br>{where}"
                                 f"<br>contribution {route.contribution:+.2f}"},
    }  # fmt: skip
