"""Reliability and rollout of an evaluation: a reliability diagram and survival curves."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from interp.figures.style import INK, MUTED, named_rows, with_certainty
from interp.figures.template import figure
from interp.results import Metric, select

_COLORS = ("#0072B2", "#D55E00", "#009E73")


def reliability_diagram(metrics: pd.DataFrame) -> go.Figure:
    """Share of whole answers that are right against the model's confidence in them, one point a bin, with intervals.

    Points above the diagonal: less sure than right. The size of a point grows with the number of answers in its bin.

    Raises:
        ValueError: the frame has no rows of reliability.
    """
    right = select(metrics, metric=Metric.RELIABILITY).drop_duplicates("stratum", keep="last")
    if right.empty:
        raise ValueError(
            "the frame has no reliability of confidence; expected rows with metric reliability, as tapelens eval gives"
        )
    sure = select(metrics, metric=Metric.CONFIDENCE).drop_duplicates("stratum", keep="last")
    confidence = dict(zip(sure["stratum"], sure["estimate"], strict=True))
    total = float(right["n"].to_numpy().sum())
    points = go.Scatter(
        x=[confidence[row.stratum] for row in named_rows(right)],
        y=right["estimate"].tolist(),
        mode="markers",
        marker={
            "size": [8 + 18 * (row.n / total) ** 0.5 for row in named_rows(right)],
            "color": _COLORS[0],
            "line": {"width": 1, "color": INK},
        },
        error_y={
            "type": "data",
            "symmetric": False,
            "array": (right["ci_high"] - right["estimate"]).tolist(),
            "arrayminus": (right["estimate"] - right["ci_low"]).tolist(),
            "color": MUTED,
            "thickness": 1.4,
        },
        hovertext=[
            f"<b>confidence {row.stratum}</b><br>mean {confidence[row.stratum]:.4f}<br>right {with_certainty(row)}"
            for row in named_rows(right)
        ],
        hoverinfo="text",
        showlegend=False,
        cliponaxis=False,
    )
    even = go.Scatter(
        x=[0, 1], y=[0, 1], mode="lines", line={"color": MUTED, "dash": "dot"}, hoverinfo="skip", showlegend=False
    )
    error = select(metrics, metric=Metric.CALIBRATION_ERROR)["estimate"].iloc[-1]
    return figure(
        [even, points],
        title=f"Confidence in the whole answer, and how often it is right (expected error {error:.1e})",
        xaxis={"range": [0, 1], "title": "confidence"},
        yaxis={"range": [0, 1.02], "title": "share right, 95 % Wilson interval"},
        height=380,
        margin={"l": 10, "r": 20, "t": 40, "b": 50},
    )


def survival_curves(metrics: pd.DataFrame) -> go.Figure:
    """Share of whole programs that the model follows without an error, by step, with 95 % bands; one line a source.

    Raises:
        ValueError: the frame has no rollout rows.
    """
    rows = select(metrics, metric=Metric.SURVIVAL).drop_duplicates("stratum", keep="last")
    if rows.empty:
        raise ValueError("the frame has no rollout; expected rows with metric survival, as tapelens eval gives")
    parts = rows["stratum"].str.extract(r"^(?P<programs>.*): (?P<steps>\d+) steps$")
    rows = rows.assign(programs=parts["programs"], steps=parts["steps"].astype(int)).sort_values("steps", kind="stable")
    traces = []
    for place, (programs, own) in enumerate(rows.groupby("programs", sort=False)):
        color = _COLORS[place % len(_COLORS)]
        steps = own["steps"].tolist()
        traces.append(
            go.Scatter(
                x=[*steps, *reversed(steps)],
                y=[*own["ci_low"], *reversed(own["ci_high"].tolist())],
                fill="toself",
                mode="none",
                fillcolor=color,
                opacity=0.15,
                hoverinfo="skip",
                showlegend=False,
            )
        )
        traces.append(
            go.Scatter(
                x=steps,
                y=own["estimate"].tolist(),
                mode="lines+markers",
                line={"color": color},
                name=f"{programs} programs",
                hovertext=[f"<b>{row.steps} steps</b><br>{with_certainty(row)}" for row in named_rows(own)],
                hoverinfo="text",
            )
        )
    return figure(
        traces,
        title="Held-out programs followed without an error, on the model's own predictions",
        xaxis={"title": "steps"},
        yaxis={"range": [0, 1.02], "title": "share of programs, 95 % Wilson interval"},
        height=340,
        margin={"l": 10, "r": 20, "t": 40, "b": 50},
    )
