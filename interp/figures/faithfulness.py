"""Faithfulness of a circuit over its sizes, beside that of random circuits of the same size."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.figures.style import GRID, MUTED, NEGATIVE, POSITIVE, named_rows, op_words, present
from interp.figures.template import TEMPLATE, figure
from interp.results import Control, Metric, select

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Circuit


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
    drawn = figure(_curve(points), title=f"{op_words(op)}: faithfulness by size".replace("<", "&lt;"))
    low = min(-0.1, *(p.estimate for p in points), *(p.null[1] for p in points if p.null))
    high = max(1.14, *(p.estimate for p in points), *(p.null[2] for p in points if p.null))
    drawn.update_layout(
        xaxis={"title": "edges kept", **_log_axis(points)},
        yaxis={"title": "faithfulness", "range": [low - 0.02, high + 0.02]},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "font": {"size": 11}},
        height=360,
        margin={"l": 10, "r": 16, "t": 62, "b": 46},
    )
    drawn.add_hline(y=1, line={"color": MUTED, "width": 1})
    drawn.add_hline(y=0, line={"color": GRID, "width": 1})
    if threshold is not None and chosen is not None:
        drawn.add_hline(y=threshold, line={"color": MUTED, "width": 1, "dash": "dash"})
        drawn.add_vline(x=chosen, line={"color": MUTED, "width": 1, "dash": "dash"})
        drawn.add_annotation(
            x=math.log10(chosen), y=1, yanchor="bottom", xanchor="right", showarrow=False, text=f"{chosen} edges",
            font={"size": 11, "color": MUTED},
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
    grid.update_xaxes(**_log_axis(points), showticklabels=True)
    grid.update_xaxes(title="edges kept", row=n_rows)
    ends = [p.estimate for p in points]
    grid.update_yaxes(range=[min(-0.1, *ends) - 0.02, max(1.1, *ends) + 0.02])
    grid.update_yaxes(title="faithfulness", col=1)
    grid.update_layout(
        template=TEMPLATE,
        title="How many edges carry each instruction",
        height=90 + 210 * n_rows,
        legend={"orientation": "h", "y": 1, "yanchor": "top", "yref": "container", "x": 0.95, "xanchor": "right"},
        margin={"l": 10, "r": 10, "t": 70, "b": 46},
    )
    return grid


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
    nulls = {row.circuit_size: row for row in named_rows(select(faithful, control=Control.RANDOM_CIRCUIT))}
    exact = {row.circuit_size: row.estimate for row in named_rows(select(rows, metric=Metric.EXACT_MATCH))}
    points = []
    for row in named_rows(select(faithful, control=None).sort_values("circuit_size")):
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
        traces.append(_random_circuits(nulls))
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


def _random_circuits(nulls: list[tuple[int, float, float, float]]) -> go.Scatter:
    """The mean over random circuits, from (edges, mean, low, high)."""
    return go.Scatter(
        x=[n[0] for n in nulls],
        y=[n[1] for n in nulls],
        mode="lines+markers",
        name="random circuits",
        line={"color": MUTED, "width": 1.6, "dash": "dot"},
        marker={"symbol": "triangle-up", "size": 6},
        hovertext=[f"{n[0]} edges, random: {n[1]:.3f}, 95 % of them in [{n[2]:.3f}, {n[3]:.3f}]" for n in nulls],
        hoverinfo="text",
    )


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


def _log_axis(points: list[_Point]) -> dict[str, Any]:
    sizes = [point.n_edges for point in points]
    ticks = [step * 10**power for power in range(7) for step in (1, 2, 5)]
    shown = [tick for tick in ticks if min(sizes) * 0.85 <= tick <= max(sizes) * 1.15]
    ends = [math.log10(min(sizes) * 0.85), math.log10(max(sizes) * 1.15)]
    return {"type": "log", "range": ends, "tickvals": shown, "ticktext": [str(tick) for tick in shown]}
