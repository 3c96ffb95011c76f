"""State interchange over the delay from an edit to the answer that hangs on it."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from interp.figures.style import named_rows, present, with_certainty
from interp.figures.template import figure
from interp.results import Metric, select

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
WHOLE = "all"


def best_parts(rows: pd.DataFrame) -> dict[str, str]:
    """By variable the part of highest IIA in the stratum "changes", everything together left out."""
    pooled = select(rows, metric=Metric.IIA, stratum="changes", control=None, op=None, lag=None)
    pooled = pooled.loc[(pooled["part"] != WHOLE) & ~pooled["part"].str.startswith("readout")]
    return {
        name: select(pooled, variable=name).nlargest(1, "estimate")["part"].iloc[0]
        for name in present(pooled, "variable")
    }


def state_delay(rows: pd.DataFrame) -> go.Figure:
    """IIA of each variable's best part by delay, in executed steps, on a logarithmic axis.

    Raises:
        ValueError: the frame has no rows by delay.
    """
    by_lag = rows.loc[rows["lag"].notna() & rows["control"].isna() & (rows["metric"] == Metric.IIA)]
    if by_lag.empty:
        raise ValueError("the frame has no state interchange by delay; expected rows with a lag")
    traces = []
    for number, (name, part) in enumerate(best_parts(rows).items()):
        here = select(by_lag, variable=name, part=part).sort_values("lag")
        traces.append(
            go.Scatter(
                x=[1 + int(row.lag) for row in named_rows(here)],
                y=here["estimate"].tolist(),
                mode="lines+markers",
                name=f"{name}: {part}",
                line={
                    "color": _COLORS[number % len(_COLORS)],
                    "dash": ("solid", "dash", "dot")[number // len(_COLORS) % 3],
                },
                hovertext=[
                    f"<b>{name}</b>, {part}<br>from {int(row.lag)} steps on: {with_certainty(row)}"
                    for row in named_rows(here)
                ],
                hoverinfo="text",
            )
        )
    return figure(
        traces,
        title="Does what was put in last until it is asked for?",
        xaxis={"type": "log", "title": "executed instructions from the exchange to the answer, 1 = the next"},
        yaxis={"range": [-0.02, 1.02], "title": "IIA"},
        height=460,
    )
