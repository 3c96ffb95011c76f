"""The template of all plotly figures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import plotly.graph_objects as go

from interp.figures.style import GRID, INK, MUTED

AXIS = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "ticks": "", "automargin": True}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": INK},
        "title": {
            "font": {"size": 14}, "x": 0, "xref": "container", "xanchor": "left",
            "y": 1, "yref": "container", "yanchor": "top", "pad": {"l": 4, "t": 6},
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"align": "left", "font": {"family": "system-ui, sans-serif", "size": 12}},
        "xaxis": {**AXIS, "title": {"font": {"size": 12}, "standoff": 8}},
        "yaxis": {**AXIS, "title": {"font": {"size": 12}, "standoff": 8}},
        "legend": {"bgcolor": "rgba(0,0,0,0)"},
    }
)  # fmt: skip


def figure(traces: Iterable[Any] = (), **layout: Any) -> go.Figure:
    """A figure in the shared template."""
    return go.Figure(data=list(traces), layout={"template": TEMPLATE, **layout})
