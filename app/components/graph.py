"""A circuit as a layered graph: one column a stage of the model, an edge's width its effect, as an ECharts option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.components.heatmap import PICKED
from app.theme import DARK_TEXT, NEGATIVE, POSITIVE

_HELPS, _HURTS, _ASIDE = "#9CC7E6", "#F2B872", "#C9CED6"  # node fills that dark text reads on
_CURVES = {"q": 0.16, "k": 0.08, "v": -0.12, "": 0.0}


@dataclass(frozen=True)
class DrawnNode:
    """A node with its measured contribution (positive: the answer needs it); None where it was not measured."""

    id: str
    kind: str  # "input", "head", "mlp", "logits"
    layer: int | None
    head: int | None
    contribution: float | None
    in_circuit: bool


@dataclass(frozen=True)
class DrawnEdge:
    """An edge with its contribution (positive: the answer needs it); `target` may name an input, "a1.h3<q>"."""

    source: str
    target: str
    contribution: float
    shared: bool = False  # also in the circuit that is compared with

    @property
    def id(self) -> str:
        return f"{self.source}->{self.target}"


def node_words(node_id: str) -> str:
    """ "L1H3" for "a1.h3", "MLP 1" for "m1"; other names stay; an input is named: "L1H3's keys"."""
    name, _, port = node_id.rstrip(">").partition("<")
    if name.startswith("a") and ".h" in name:
        layer, head = name[1:].split(".h")
        words = f"L{layer}H{head}"
        return words + {"q": "'s queries", "k": "'s keys", "v": "'s values"}.get(port, "")
    return f"MLP {name[1:]}" if name.startswith("m") and name[1:].isdecimal() else name


def layered_graph(
    nodes: Sequence[DrawnNode], edges: Sequence[DrawnEdge], *, n_layers: int, n_heads: int, picked: str
) -> dict[str, Any]:
    """The ECharts option. A picked node or edge arrives as its index into `nodes` or `edges`."""
    places = _places(n_layers, n_heads)
    hidden = {"type": "value", "show": False}
    largest_node = max((abs(node.contribution or 0.0) for node in nodes), default=0.0) or 1.0
    largest_edge = max((abs(edge.contribution) for edge in edges), default=0.0) or 1.0
    return {
        "animation": False,
        "tooltip": {"confine": True},
        "grid": {"left": 10, "right": 10, "top": 10, "bottom": 10},
        "xAxis": {**hidden, "min": -0.6, "max": 2 * n_layers + 1.6},
        "yAxis": {**hidden, "min": -0.45, "max": n_heads + 0.45, "inverse": True},
        "series": [
            {
                "type": "graph",
                "coordinateSystem": "cartesian2d",
                "selectedMode": "single",
                "emphasis": {"focus": "adjacency", "label": {"show": True}},
                "edgeSymbol": ["none", "arrow"],
                "edgeSymbolSize": [0, 7],
                "data": [_node(node, places[node.id], largest_node, picked) for node in nodes],
                "links": [_link(edge, largest_edge, picked) for edge in edges],
            }
        ],
    }


def _places(n_layers: int, n_heads: int) -> Mapping[str, tuple[float, float]]:
    """x along the model (a column for a layer's heads, then one for its MLP), y down the heads."""
    middle = (n_heads - 1) / 2
    places = {"input": (0.0, middle), "logits": (2.0 * n_layers + 1.0, middle)}
    for layer in range(n_layers):
        for head in range(n_heads):
            # every other head stands a little aside, so that edges along a row do not hide behind nodes
            places[f"a{layer}.h{head}"] = (2.0 * layer + 1.0 + 0.22 * (head % 2), float(head))
        places[f"m{layer}"] = (2.0 * layer + 2.0, n_heads + 0.1)
    return places


def _node(node: DrawnNode, place: tuple[float, float], largest: float, picked: str) -> dict[str, Any]:
    value = node.contribution
    color = _ASIDE if not node.in_circuit else _HELPS if value is None or value >= 0 else _HURTS
    size = 40.0 if value is None else 30 + 26 * (abs(value) / largest) ** 0.5
    words = node_words(node.id)
    measured = "" if value is None else f"<br>contribution {value:+.2f}"
    border = {"borderColor": PICKED, "borderWidth": 4} if node.id == picked else {"borderWidth": 1}
    sizes = {"input": [52, 30], "logits": [52, 30], "mlp": [size * 1.25, size * 0.8], "head": size}
    outside = "" if node.in_circuit else "<br>not in the circuit"
    return {
        "name": node.id,
        "value": [*place, node.contribution],
        "symbol": {"head": "circle", "mlp": "roundRect"}.get(node.kind, "rect"),
        "symbolSize": sizes[node.kind],
        "itemStyle": {"color": color, **border} | ({} if node.in_circuit else {"borderType": "dotted"}),
        "label": {"show": True, "formatter": words, "color": DARK_TEXT, "fontSize": 11},
        "select": {"itemStyle": {"borderColor": PICKED, "borderWidth": 4}},
        "tooltip": {"formatter": f"{words}{measured}{outside}"},
    }


def _link(edge: DrawnEdge, largest: float, picked: str) -> dict[str, Any]:
    target, _, port = edge.target.rstrip(">").partition("<")
    share = abs(edge.contribution) / largest
    words = f"{node_words(edge.source)} → {node_words(edge.target)}"
    color = PICKED if edge.id == picked else POSITIVE if edge.contribution >= 0 else NEGATIVE
    return {
        "source": edge.source,
        "target": target,
        "lineStyle": {
            "width": round(0.6 + 7.4 * share**0.5, 2),
            "type": "solid" if edge.contribution >= 0 else "dashed",
            "color": color,
            "opacity": 1.0 if edge.id == picked else round(0.25 + 0.65 * share**0.25, 2),
            "curveness": _CURVES.get(port, 0.0),
        },
        "select": {"lineStyle": {"color": PICKED, "opacity": 1.0}},
        "tooltip": {"formatter": f"{words}<br>contribution {edge.contribution:+.3f}"},
    }
