"""A circuit drawn as a layered graph, and its faithfulness over circuit sizes beside random circuits.

A file holds effects m(corrupted) - m(clean) of the logit difference m: what the answer needs is negative there.
Drawings show the contribution, the effect with its sign turned: positive (solid, blue) is what the answer needs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.figures.style import (
    DARK_TEXT,
    GRID,
    MUTED,
    NEGATIVE,
    POSITIVE,
    TEMPLATE,
    figure,
    node_words,
    op_words,
    present,
    records,
    select,
)
from interp.results import Control, Metric

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Circuit
    from interp.circuits.store import CircuitEdge, CircuitNode

_HELPS, _HURTS, _ASIDE = "#9CC7E6", "#F2B872", "#E4E7EB"  # node fills that dark text reads on
_BENDS = {"q": 0.32, "k": 0.14, "v": -0.22}  # how far an edge leaves the straight line, by which input it feeds
_WIDTHS = (0.8, 1.5, 2.5, 4.0, 6.0)  # plotly draws one width a trace, so edges fall into classes


@dataclass(frozen=True)
class _Point:
    """One circuit size: faithfulness beside that of random circuits with as many edges."""

    n_edges: int
    estimate: float
    low: float | None
    high: float | None
    null: tuple[float, float, float] | None  # mean, low, high
    exact_match: float | None
    n: int


def faithfulness_curve(found: Circuit | pd.DataFrame, op: str | None = None, *, ranking: str = "absolute") -> go.Figure:
    """Faithfulness against the number of edges kept (log axis), with the range of random circuits of equal size.

    1 is the full model, 0 the empty circuit; the measure is unbounded. A thin line shows the share of whole next
    states that the circuit alone gets right, where it was measured.

    Args:
        found: a circuit, or the run's circuits frame.
        op: the opcode; needed with a frame.
        ranking: "absolute" (edges by |score|) or "signed" (helpful edges first).

    Raises:
        ValueError: no faithfulness of this op and ranking is there.
    """
    chosen = threshold = None
    if isinstance(found, pd.DataFrame):
        if op is None:
            raise ValueError("faithfulness_curve needs op=… to choose among the opcodes of a circuits frame")
        points = _points_of_frame(found, op, ranking)
    else:
        op = found.op if op is None else op
        points = _points_of_circuit(found, ranking) if found.op == op else []
        if ranking == found.ranking:
            chosen, threshold = found.size, found.threshold
    if not points:
        raise ValueError(f"there is no faithfulness of {op!r} by the {ranking} ranking")
    drawn = figure(
        _curve(points), title=f"{op_words(op)}: faithfulness of its highest-scored edges".replace("<", "&lt;")
    )
    low = min(-0.1, *(p.estimate for p in points), *(p.null[1] for p in points if p.null))
    high = max(1.1, *(p.estimate for p in points), *(p.null[2] for p in points if p.null))
    drawn.update_layout(
        xaxis={"type": "log", "title": "edges kept", "dtick": "D2", "range": _log_range(points)},
        yaxis={"title": "faithfulness", "range": [low - 0.02, high + 0.02]},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        height=360,
        margin={"l": 10, "r": 16, "t": 74, "b": 46},
    )
    drawn.add_hline(y=1, line={"color": MUTED, "width": 1})
    drawn.add_hline(y=0, line={"color": GRID, "width": 1})
    if threshold is not None and chosen is not None:
        drawn.add_hline(y=threshold, line={"color": MUTED, "width": 1, "dash": "dash"})
        note = f"{chosen} edges: {threshold:g} or above from here on"
        drawn.add_vline(x=chosen, line={"color": MUTED, "width": 1, "dash": "dash"})
        drawn.add_annotation(
            x=math.log10(chosen), y=0.03, yref="paper", yanchor="bottom", showarrow=False, text=note,
            textangle=-90, xanchor="right", font={"size": 10, "color": MUTED},
        )  # fmt: skip
    return drawn


def circuits_overview(circuits: pd.DataFrame, *, ranking: str = "absolute") -> go.Figure:
    """Faithfulness over circuit sizes of every opcode in the frame, in small multiples on shared axes.

    Raises:
        ValueError: the frame has no faithfulness by this ranking.
    """
    ops = present(select(circuits, metric=Metric.FAITHFULNESS, stratum=ranking, control=None), "op")
    if not ops:
        raise ValueError(f"the frame has no faithfulness by the {ranking} ranking; expected a circuits frame")
    n_cols = min(3, len(ops))
    n_rows = math.ceil(len(ops) / n_cols)
    grid = make_subplots(
        rows=n_rows,
        cols=n_cols,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.28 / (n_rows + 1),
        subplot_titles=[op_words(op).replace("<", "&lt;") for op in ops],
    )
    points: list[_Point] = []
    for place, op in enumerate(ops):
        own = _points_of_frame(circuits, op, ranking)
        points += own
        for trace in _curve(own):
            trace.showlegend = bool(trace.showlegend is not False and place == 0)
            grid.add_trace(trace, row=1 + place // n_cols, col=1 + place % n_cols)
    grid.add_hline(y=1, line={"color": MUTED, "width": 1})
    grid.update_xaxes(type="log", dtick="D2", range=_log_range(points), showticklabels=True)
    grid.update_xaxes(title="edges kept", row=n_rows)
    grid.update_yaxes(range=[-0.25, 1.25])
    grid.update_yaxes(title="faithfulness", col=1)
    grid.update_layout(
        template=TEMPLATE,
        title="How many edges carry each instruction",
        height=90 + 210 * n_rows,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "yref": "container", "x": 1, "xanchor": "right"},
        margin={"l": 10, "r": 10, "t": 90, "b": 46},
    )
    return grid


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
    places = _places(circuit.n_layers, circuit.n_heads)
    count = f"{len(members)} edges" if len(shown) == len(members) else f"top {len(shown)} of {len(members)} edges"
    drawn = figure(
        [*_edge_lines(shown, places), *_node_markers(circuit.nodes, places), _edge_hovers(shown, places)],
        title=f"{op_words(circuit.op)}: {count} of {len(circuit.edges)} in the model".replace("<", "&lt;"),
        height=360,
        margin={"l": 6, "r": 6, "t": 50, "b": 6},
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


def _points_of_circuit(circuit: Circuit, ranking: str) -> list[_Point]:
    points = {"absolute": circuit.faithfulness, "signed": circuit.faithfulness_signed}.get(ranking, ())
    drawn = []
    for p in points:
        missing = p.null_mean is None or p.null_low is None or p.null_high is None
        null = None if missing else (p.null_mean, p.null_low, p.null_high)
        drawn.append(_Point(p.n_edges, p.estimate, p.ci_low, p.ci_high, null, p.exact_match, circuit.n))  # type: ignore[arg-type]
    return drawn


def _points_of_frame(frame: pd.DataFrame, op: str, ranking: str) -> list[_Point]:
    rows = select(frame, op=op, stratum=ranking)
    faithful = select(rows, metric=Metric.FAITHFULNESS)
    nulls = {row.circuit_size: row for row in records(select(faithful, control=Control.RANDOM_CIRCUIT))}
    exact = {row.circuit_size: row.estimate for row in records(select(rows, metric=Metric.EXACT_MATCH))}
    points = []
    for row in records(select(faithful, control=None).sort_values("circuit_size")):
        size: Any = row.circuit_size
        null: Any = nulls.get(size)
        triple = None if null is None else (float(null.estimate), float(null.ci_low), float(null.ci_high))
        low, high = (None if pd.isna(end) else float(end) for end in (row.ci_low, row.ci_high))  # type: ignore[arg-type]
        points.append(_Point(int(size), float(row.estimate), low, high, triple, exact.get(size), int(row.n)))  # type: ignore[arg-type]
    return points


def _curve(points: list[_Point]) -> list[go.Scatter]:
    """Bands first, then the random circuits, exact match, and the circuit on top."""
    nulls = [(p.n_edges, *p.null) for p in points if p.null is not None]
    traces = []
    if nulls:
        traces += _band([n[0] for n in nulls], [n[2] for n in nulls], [n[3] for n in nulls], MUTED, 0.22)
    if all(p.low is not None for p in points):
        traces += _band([p.n_edges for p in points], [p.low for p in points], [p.high for p in points], POSITIVE, 0.22)
    if nulls:
        traces.append(
            go.Scatter(
                x=[n[0] for n in nulls],
                y=[n[1] for n in nulls],
                mode="lines+markers",
                name="random circuits",
                line={"color": MUTED, "width": 1.6, "dash": "dot"},
                marker={"symbol": "triangle-up", "size": 6},
                hovertext=[
                    f"{n[0]} edges, random: {n[1]:.3f}, 95 % of them in [{n[2]:.3f}, {n[3]:.3f}]" for n in nulls
                ],
                hoverinfo="text",
            )
        )
    exact = [(p.n_edges, p.exact_match) for p in points if p.exact_match is not None]
    if exact:
        traces.append(
            go.Scatter(
                x=[size for size, _ in exact],
                y=[value for _, value in exact],
                mode="lines",
                name="whole states right",
                line={"color": NEGATIVE, "width": 1.6, "dash": "dash"},
                hovertemplate="%{x} edges: %{y:.3f} of whole states right<extra></extra>",
            )
        )
    ends = ["" if p.low is None else f" [{p.low:.3f}, {p.high:.3f}]" for p in points]
    traces.append(
        go.Scatter(
            x=[p.n_edges for p in points],
            y=[p.estimate for p in points],
            mode="lines+markers",
            name="this circuit",
            line={"color": POSITIVE, "width": 2.5},
            marker={"size": 7},
            hovertext=[
                f"<b>{p.n_edges} edges: {p.estimate:.3f}</b>{end}, n = {p.n}"
                for p, end in zip(points, ends, strict=True)
            ],
            hoverinfo="text",
        )
    )
    return traces


def _band(x: list[int], low: Iterable[Any], high: Iterable[Any], color: str, opacity: float) -> list[go.Scatter]:
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return [
        go.Scatter(
            x=[*x, *reversed(x)],
            y=[*high, *reversed(list(low))],
            fill="toself",
            fillcolor=f"rgba({red},{green},{blue},{opacity})",
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
            showlegend=False,
        )
    ]


def _log_range(points: list[_Point]) -> list[float]:
    sizes = [point.n_edges for point in points]
    return [math.log10(min(sizes) * 0.85), math.log10(max(sizes) * 1.15)]


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
                    "line": {"width": [1.6 if node.in_circuit else 0.6 for node in members], "color": DARK_TEXT},
                },
                text=[_node_label(node) for node in members],
                textfont={"size": 10, "color": DARK_TEXT},
                hovertext=[_node_hover(node) for node in members],
                hoverinfo="text",
            )
        )
    return traces


def _node_label(node: CircuitNode) -> str:
    return node_words(node.id).replace("MLP ", "MLP")


def _fill(node: CircuitNode) -> str:
    if not node.in_circuit:
        return "#F4F5F7"
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
