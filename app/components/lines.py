"""Faithfulness against circuit size, with the band of random circuits, as an ECharts option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from app.theme import POSITIVE
from interp.figures.style import PICKED

_NULL = "#8A8F98"


@dataclass(frozen=True)
class SizePoint:
    """Faithfulness of one circuit size, beside that of random circuits of the same size."""

    n_edges: int
    estimate: float
    low: float
    high: float
    null_mean: float | None
    null_low: float | None
    null_high: float | None


def faithfulness_curve(points: Sequence[SizePoint], *, chosen: int, threshold: float) -> dict[str, Any]:
    """The ECharts option; x is the number of edges on a log axis, dashed lines stand at 1 and at the threshold."""
    drawn = [point for point in points if point.null_mean is not None]
    return {
        "animation": False,
        "grid": {"left": 56, "right": 18, "top": 34, "bottom": 30},
        "legend": {"top": 0, "data": ["this circuit", "random circuits"]},
        "tooltip": {"trigger": "axis", "valueFormatter": "%.3f"},
        "xAxis": {"type": "log", "name": "edges kept", "nameLocation": "middle", "nameGap": 28,
                  "min": points[0].n_edges, "max": points[-1].n_edges},
        "yAxis": {"type": "value", "name": "faithfulness", "nameLocation": "middle", "nameGap": 34},
        "series": [
            *_band("circuit", [(p.n_edges, p.low, p.high) for p in points], POSITIVE),
            *_band("null", [(p.n_edges, p.null_low, p.null_high) for p in drawn], _NULL),
            {
                "type": "line", "name": "this circuit", "symbol": "circle", "symbolSize": 7,
                "data": [[p.n_edges, round(p.estimate, 4)] for p in points],
                "lineStyle": {"color": POSITIVE, "width": 2.5}, "itemStyle": {"color": POSITIVE},
                "markLine": {
                    "silent": True, "symbol": "none",
                    "label": {"formatter": "{b}", "position": "insideStartTop", "fontSize": 10},
                    "data": [
                        {"yAxis": 1, "name": "full model", "lineStyle": {"type": "solid", "color": _NULL}},
                        {"yAxis": threshold, "name": f"{threshold:g}", "lineStyle": {"type": "dashed", "color": _NULL}},
                        {"xAxis": chosen, "name": f"{chosen} edges", "lineStyle": {"type": "dashed", "color": PICKED}},
                    ],
                },
            },
            {
                "type": "line", "name": "random circuits", "symbol": "triangle", "symbolSize": 7,
                "data": [[p.n_edges, round(float(p.null_mean or 0.0), 4)] for p in drawn],
                "lineStyle": {"color": _NULL, "width": 2, "type": "dotted"}, "itemStyle": {"color": _NULL},
            },
        ],
    }  # fmt: skip


def _band(stack: str, ends: Sequence[tuple[int, float | None, float | None]], color: str) -> list[dict[str, Any]]:
    """Two stacked lines: an invisible lower one, and the difference filled above it."""
    common = {"type": "line", "stack": stack, "stackStrategy": "all", "symbol": "none", "silent": True,
              "lineStyle": {"opacity": 0}, "tooltip": {"show": False}}  # fmt: skip
    lower = [[x, round(low, 4)] for x, low, _ in ends if low is not None]
    height = [[x, round(high - low, 4)] for x, low, high in ends if low is not None and high is not None]
    return [common | {"data": lower}, common | {"data": height, "areaStyle": {"color": color, "opacity": 0.22}}]
