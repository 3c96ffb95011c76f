"""A circuit drawn as a layered graph.

A file holds effects m(corrupted) - m(clean) of the logit difference m: what the answer needs is negative there.
Drawings show the contribution, the effect with its sign turned: positive (solid, blue) is what the answer needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from interp.figures.style import DARK_TEXT, MUTED, NEGATIVE, POSITIVE, figure, node_words, op_words

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Circuit
    from interp.runs.circuit_files import CircuitEdge, CircuitNode

_HELPS, _HURTS, _ASIDE = "#9CC7E6", "#F2B872", "#D3D8DE"  # node fills that dark text reads on
_BENDS = {"q": 0.32, "k": 0.14, "v": -0.22}  # how far an edge leaves the straight line, by which input it feeds
_WIDTHS = (0.8, 1.5, 2.5, 4.0, 6.0)  # plotly draws one width a trace, so edges fall into classes


def circuit_graph(circuit: Circuit, *, max_edges: int = 60) -> go.Figure:
    """The chosen circuit as a layered node-link drawing: the model's input left, its logits right.

    Width is |score|; blue and solid is what the answer needs, orange and dashed what works against it. A node's colour
    is its measured effect. Edges into one head bend apart: queries, keys, values.

    Args:
        circuit: what `interp.circuits.read_circuit` returns.
        max_edges: draw at most so many, those of largest |score|; the title says how many there are.

    Raises:
        ValueError: the circuit has no edges.
    """
    members = sorted((edge for edge in circuit.edges if edge.in_circuit), key=lambda edge: -abs(edge.score))
    if not members:
        raise ValueError(f"the circuit of {circuit.op} has no edges to draw")
    shown = members[:max_edges]
    places = _places(circuit.n_layers, circuit.n_heads, circuit.n_encoder)
    count = f"{len(members)} edges" if len(shown) == len(members) else f"strongest {len(shown)} of {len(members)} edges"
    drawn = figure(
        [*_edge_lines(shown, places), *_node_markers(circuit.nodes, places), _edge_hovers(shown, places)],
        title=f"{op_words(circuit.op)}: {count} (the model has {len(circuit.edges)})".replace("<", "&lt;"),
        height=360,
        margin={"l": 6, "r": 6, "t": 36, "b": 6},
        showlegend=False,
        hovermode="closest",
    )
    drawn.update_xaxes(visible=False, range=[-0.7, 2 * circuit.n_layers + 1.7], fixedrange=True)
    drawn.update_yaxes(visible=False, range=[circuit.n_heads + 0.9, -0.95], fixedrange=True)
    for layer in range(circuit.n_layers):
        drawn.add_annotation(
            x=2 * layer + 1.5, y=-0.8, text=f"layer {layer}", showarrow=False, font={"size": 11, "color": MUTED}
        )
    return drawn


def _places(n_layers: int, n_heads: int, n_encoder: int) -> Mapping[str, tuple[float, float]]:
    """x along the model (a column for a layer's heads, then one for its MLP), y down the heads. Cross-attention stands
    between a decoder layer's own heads and its MLP."""
    middle = (n_heads - 1) / 2
    places = {"input": (0.0, middle), "logits": (2.0 * n_layers + 1.0, middle)}
    for layer in range(n_layers):
        for head in range(n_heads):
            # every other head stands a little aside, so that edges along a row do not hide behind nodes
            places[f"a{layer}.h{head}"] = (2.0 * layer + 1.0 + 0.22 * (head % 2), float(head))
            if 0 < n_encoder <= layer:
                places[f"c{layer}.h{head}"] = (2.0 * layer + 1.5 + 0.22 * (head % 2), head + 0.5)
        places[f"m{layer}"] = (2.0 * layer + 2.0, n_heads + 0.1)
    return places


def _path(edge: CircuitEdge, places: Mapping[str, tuple[float, float]]) -> list[tuple[float, float]]:
    """A quadratic curve from source to target, as points."""
    target, _, port = edge.target.rstrip(">").partition("<")
    (x0, y0), (x1, y1) = places[edge.source], places[target]
    bend = _BENDS.get(port, 0.08)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2 + bend * min(2.0, (x1 - x0) / 2)
    steps = [i / 10 for i in range(11)]
    return [
        ((1 - t) ** 2 * x0 + 2 * t * (1 - t) * cx + t * t * x1, (1 - t) ** 2 * y0 + 2 * t * (1 - t) * cy + t * t * y1)
        for t in steps
    ]


def _edge_lines(edges: list[CircuitEdge], places: Mapping[str, tuple[float, float]]) -> list[go.Scatter]:
    """One trace a sign and width class, thin ones first."""
    largest = max(abs(edge.score) for edge in edges) or 1.0
    classes: dict[tuple[int, bool], list[CircuitEdge]] = {}
    for edge in edges:
        share = math.sqrt(abs(edge.score) / largest)
        classes.setdefault((min(len(_WIDTHS) - 1, int(share * len(_WIDTHS))), edge.score <= 0), []).append(edge)
    traces = []
    for (width, helps), members in sorted(classes.items()):
        paths = [_path(edge, places) for edge in members]
        traces.append(
            go.Scatter(
                x=[value for path in paths for value in (*(x for x, _ in path), None)],
                y=[value for path in paths for value in (*(y for _, y in path), None)],
                mode="lines",
                line={
                    "color": POSITIVE if helps else NEGATIVE,
                    "width": _WIDTHS[width],
                    "dash": "solid" if helps else "5px,4px",
                },
                opacity=0.35 + 0.13 * width,
                hoverinfo="skip",
            )
        )
    return traces


def _edge_hovers(edges: list[CircuitEdge], places: Mapping[str, tuple[float, float]]) -> go.Scatter:
    """Invisible points on every edge that carry its hover."""
    spots = [(edge, _path(edge, places)[i]) for edge in edges for i in (3, 5, 7)]
    return go.Scatter(
        x=[spot[0] for _, spot in spots],
        y=[spot[1] for _, spot in spots],
        mode="markers",
        marker={"size": 10, "color": "rgba(0,0,0,0)"},
        hovertext=[edge_hover(edge) for edge, _ in spots],
        hoverinfo="text",
    )


def edge_hover(edge: CircuitEdge) -> str:
    """An edge in words: where from, where to, its contribution by score and, where it was patched, as measured."""
    text = f"<b>{node_words(edge.source)} → {node_words(edge.target)}</b><br>contribution by score {-edge.score:+.3f}"
    if edge.exact is None or edge.exact_low is None or edge.exact_high is None:
        return text
    return f"{text}<br>really patched {-edge.exact:+.3f} [{-edge.exact_high:+.3f}, {-edge.exact_low:+.3f}]"


def _node_markers(nodes: Iterable[CircuitNode], places: Mapping[str, tuple[float, float]]) -> list[go.Scatter]:
    symbols = {"head": ("circle", 34), "mlp": ("square", 36), "input": ("square", 40), "logits": ("square", 40)}
    traces = []
    for kind, (symbol, size) in symbols.items():
        members = [node for node in nodes if node.kind == kind]
        traces.append(
            go.Scatter(
                x=[places[node.id][0] for node in members],
                y=[places[node.id][1] for node in members],
                mode="markers+text",
                marker={
                    "symbol": symbol,
                    "size": size,
                    "opacity": 1,
                    "color": [_fill(node) for node in members],
                    "line": {
                        "width": [1.4 if node.in_circuit else 0.8 for node in members],
                        "color": [DARK_TEXT if node.in_circuit else MUTED for node in members],
                    },
                },
                text=[_node_label(node) for node in members],
                textfont={"size": 10, "color": [DARK_TEXT if node.in_circuit else MUTED for node in members]},
                hovertext=[_node_hover(node) for node in members],
                hoverinfo="text",
            )
        )
    return traces


def _node_label(node: CircuitNode) -> str:
    return node_words(node.id).replace("MLP ", "MLP")


def _fill(node: CircuitNode) -> str:
    if not node.in_circuit:
        return "rgba(0,0,0,0)"
    if node.effect is None or node.effect_low is None or node.effect_high is None:
        return _ASIDE
    if node.effect_low <= 0 <= node.effect_high:
        return _ASIDE
    return _HELPS if node.effect < 0 else _HURTS


def _node_hover(node: CircuitNode) -> str:
    text = f"<b>{node_words(node.id)}</b>"
    if node.effect is not None and node.effect_low is not None and node.effect_high is not None:
        text += f"<br>contribution {-node.effect:+.3f} [{-node.effect_high:+.3f}, {-node.effect_low:+.3f}]"
    return text if node.in_circuit else f"{text}<br>not in the circuit"
