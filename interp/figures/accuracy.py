"""Exact match on held-out programs: by op x outcome, by block, and over training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.figures.style import INK, MUTED, OP_COLORS, SEQUENTIAL, named_rows, op_words, present, with_certainty
from interp.figures.template import TEMPLATE, figure
from interp.results import Aggregation, Method, Metric, select

_FLOORS = (0.99, 0.98, 0.95, 0.9, 0.8, 0.5, 0.0)  # where the accuracy axis may start


def final_evaluation(metrics: pd.DataFrame) -> pd.DataFrame:
    """The rows of the last and largest evaluation: at the greatest training step, each stratum of largest n.

    Evaluations made while training are smaller and on other states; they belong to `learning_curve`.

    Raises:
        ValueError: the frame has no evaluation by op and outcome.
    """
    rows = metrics.loc[metrics.metric.isin([Metric.EXACT_MATCH, Metric.BLOCK_ACCURACY])]
    rows = select(rows, method=Method.GREEDY)
    last = rows.loc[rows.checkpoint_step.isna() | (rows.checkpoint_step == rows.checkpoint_step.max())]
    if select(last, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MEAN).empty:
        raise ValueError("the frame has no exact match by op and outcome; expected a metrics frame after an evaluation")
    largest = last.assign(n=last.n.fillna(0)).sort_values("n", ascending=False, kind="stable")
    largest = largest.drop_duplicates(["op", "stratum", "position", "metric", "aggregation"])
    return last.loc[largest.index.sort_values()]


def accuracy_by_op(metrics: pd.DataFrame) -> go.Figure:
    """Exact match of the next state by op x outcome: points with 95 % Wilson intervals, n and misses beside them.

    The axis ends at 1 and starts at the last of 0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99 below every interval; it says so.

    Raises:
        ValueError: the frame has no evaluation by op and outcome.
    """
    rows = select(final_evaluation(metrics), metric=Metric.EXACT_MATCH, aggregation=Aggregation.MEAN)
    labels = [_label(row) for row in named_rows(rows)]
    wrong = [round((1 - row.estimate) * row.n) for row in named_rows(rows)]
    lowest = float(rows.ci_low.fillna(rows.estimate).min())
    floor = next(value for value in _FLOORS if value <= lowest)
    points = go.Scatter(
        x=rows.estimate.tolist(),
        y=labels,
        mode="markers",
        marker={
            "size": 10,
            "color": [OP_COLORS.get(str(op), MUTED) for op in rows.op],
            "line": {"width": 1, "color": INK},
        },
        error_x={
            "type": "data",
            "symmetric": False,
            "array": (rows.ci_high - rows.estimate).tolist(),
            "arrayminus": (rows.estimate - rows.ci_low).tolist(),
            "color": MUTED,
            "thickness": 1.6,
            "width": 4,
        },
        hovertext=[
            f"<b>{label}</b><br>exact match {with_certainty(row, digits=4)}<br>{missed:,} wrong"
            for label, missed, row in zip(labels, wrong, named_rows(rows), strict=True)
        ],
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )
    counts = [
        {
            "x": 1.0, "xref": "paper", "xanchor": "left", "xshift": 16, "y": label, "yref": "y", "showarrow": False,
            "text": f"{missed:,} of {int(row.n):,} wrong", "font": {"size": 11, "color": MUTED},
        }
        for label, missed, row in zip(labels, wrong, named_rows(rows), strict=True)
    ]  # fmt: skip
    starts = "" if floor == 0 else f" — the axis starts at {floor:g}"
    return figure(
        [points],
        title="Whole next state right, by instruction and what happens",
        xaxis={"range": [floor, 1], "title": f"exact match, 95 % Wilson interval{starts}", "tickformat": ".4~g"},
        yaxis={"autorange": "reversed", "type": "category", "automargin": True},
        annotations=counts,
        height=96 + 26 * len(rows),
        margin={"l": 10, "r": 130, "t": 40, "b": 50},
    )


def accuracy_by_block(metrics: pd.DataFrame) -> go.Figure:
    """Share of states whose named block is right, op x outcome by block; colour from 0 to 1.

    Raises:
        ValueError: the frame's last evaluation has no block accuracy.
    """
    rows = select(final_evaluation(metrics), metric=Metric.BLOCK_ACCURACY)
    if rows.empty:
        raise ValueError("the frame's last evaluation has no block accuracy; expected rows with metric block_accuracy")
    rows = rows.assign(label=[_label(row) for row in named_rows(rows)])
    labels, blocks = present(rows, "label"), present(rows, "position")
    found = {(row.label, row.position): row for row in named_rows(rows)}
    grid = [[found.get((label, block)) for block in blocks] for label in labels]
    heatmap = go.Heatmap(
        x=blocks,
        y=labels,
        z=[[None if cell is None else cell.estimate for cell in line] for line in grid],
        zmin=0,
        zmax=1,
        colorscale=SEQUENTIAL,
        xgap=2,
        ygap=2,
        text=[["" if cell is None else f"{100 * cell.estimate:.4g}" for cell in line] for line in grid],
        texttemplate="%{text}",
        textfont={"size": 11},
        hovertext=[
            [
                ""
                if cell is None
                else f"<b>{cell.label}</b><br>{cell.position} right: {with_certainty(cell, digits=4)}"
                for cell in line
            ]
            for line in grid
        ],
        hoverinfo="text",
        colorbar={"title": {"text": "share right", "side": "right"}, "thickness": 12, "outlinewidth": 0},
    )
    return figure(
        [heatmap],
        title="Percent of states whose block is right",
        xaxis={"side": "bottom", "showgrid": False, "type": "category"},
        yaxis={"autorange": "reversed", "showgrid": False, "type": "category"},
        height=96 + 26 * len(labels),
        margin={"l": 10, "r": 10, "t": 40, "b": 40},
    )


def learning_curve(metrics: pd.DataFrame) -> go.Figure:
    """Exact match on held-out programs (macro average, and by op), and training loss, against records seen.

    The horizontal axis is optimizer steps where the frame does not say how many records a step had. Every point of
    the upper panel is an evaluation of equal size; the final, larger evaluation is left out.

    Raises:
        ValueError: the frame has no macro exact match of a training step.
    """
    whole = select(metrics, metric=Metric.EXACT_MATCH, method=Method.GREEDY)
    whole = whole.loc[whole.checkpoint_step.notna()]
    macro = select(whole, aggregation=Aggregation.MACRO).sort_values("checkpoint_step")
    if macro.empty:
        raise ValueError("the frame has no macro exact match over training; expected the metrics frame of a training")
    macro = macro.sort_values("n", kind="stable").drop_duplicates("checkpoint_step").sort_values("checkpoint_step")
    loss = select(metrics, metric=Metric.LOSS, method=Method.TRAINING).sort_values("checkpoint_step")
    per_step = select(metrics, metric=Metric.RECORDS).set_index("checkpoint_step").estimate.to_dict()
    counted = set(macro.checkpoint_step) <= set(per_step)

    def x(steps: pd.Series) -> list[float]:
        return [float(per_step.get(step, float("nan")) if counted else step) for step in steps]

    grid = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.06, row_heights=[0.66, 0.34])
    for curve in _curves_by_op(whole, x):
        grid.add_trace(curve, row=1, col=1)
    grid.add_scatter(
        x=x(macro.checkpoint_step),
        y=macro.estimate.tolist(),
        mode="lines+markers",
        line={"color": INK, "width": 3},
        marker={"size": 5},
        name="macro average",
        customdata=macro[["checkpoint_step", "n"]].astype(float).values.tolist(),
        hovertemplate="<b>macro: %{y:.4f}</b> at step %{customdata[0]:,.0f}, n = %{customdata[1]:,.0f}<extra></extra>",
        row=1,
        col=1,
    )
    grid.add_scatter(
        x=x(loss.checkpoint_step),
        y=loss.estimate.tolist(),
        mode="lines",
        line={"color": MUTED, "width": 1},
        name="loss",
        showlegend=False,
        hovertemplate="loss %{y:.2e}<extra></extra>",
        row=2,
        col=1,
    )
    return _learning_layout(grid, "records seen" if counted else "optimizer steps")


def _curves_by_op(whole: pd.DataFrame, x: Callable[[pd.Series], list[float]]) -> Iterator[go.Scatter]:
    """Exact match of each instruction over training, the mean over its outcomes."""
    strata = select(whole, aggregation=Aggregation.MEAN).sort_values("n", kind="stable")
    strata = strata.drop_duplicates(["checkpoint_step", "op", "stratum"])
    for op in [op for op in OP_COLORS if op in set(strata.op.dropna())]:
        curve = select(strata, op=op).groupby("checkpoint_step").estimate.mean()
        label = op_words(op).replace("<", "&lt;")
        yield go.Scatter(
            x=x(curve.index.to_series()),
            y=curve.tolist(),
            mode="lines",
            line={"color": OP_COLORS[op], "width": 1.6, "dash": "dot" if op == "ENDW" else "solid"},
            name=label,
            hovertemplate=f"{label}: %{{y:.4f}}<extra></extra>",
        )


def _learning_layout(grid: go.Figure, seen: str) -> go.Figure:
    """Axes and titles of the learning curve, whose horizontal axis is what was `seen`."""
    grid.update_yaxes(row=1, col=1, range=[0, 1.02], title="exact match")
    grid.update_yaxes(
        row=2, col=1, type="log", title="loss, nats a token", exponentformat="power", dtick=2, tickfont={"size": 11}
    )
    grid.update_xaxes(row=2, col=1, title=seen)
    grid.update_layout(
        template=TEMPLATE,
        title="Learning: held-out exact match by instruction, and training loss",
        height=460,
        margin={"l": 10, "r": 10, "t": 40, "b": 50},
        hovermode="closest",
    )
    return grid


def _label(row: Any) -> str:
    """ "+ INC · value overflow"; plotly reads a little HTML in labels, so PREV's sign is escaped.

    Tasks whose answers belong to no op are labelled by their stratum alone, or "all".
    """
    parts = [op_words(str(row.op))] if pd.notna(row.op) else []
    parts += [str(row.stratum).replace("_", " ").lower()] if pd.notna(row.stratum) else []
    return " · ".join(parts).replace("<", "&lt;") or "all"
