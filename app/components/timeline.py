"""Curves over a training on one axis of steps, which other charts share, as an ECharts option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from interp.figures.style import PICKED

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6A6A6A", "#8C564B")
_SYMBOLS = ("circle", "rect", "triangle", "diamond", "pin", "arrow")


def timeline(
    curves: Sequence[tuple[str, Sequence[tuple[int, float]]]], *, last: int, log: bool, marked: int, what: str
) -> dict[str, Any]:
    """The ECharts option: `curves` as (name, points); a line stands at the step `marked`; values lie in 0 … 1.

    Steps are drawn from 1 on where the axis is logarithmic. Curves differ in colour and in the sign of their points.
    """
    first = 1 if log else 0
    series = []
    for index, (name, points) in enumerate(curves):
        color = _COLORS[index % len(_COLORS)]
        series.append(
            {
                "type": "line", "name": name, "symbol": _SYMBOLS[index % len(_SYMBOLS)], "symbolSize": 7,
                "data": [[max(step, first), round(value, 4)] for step, value in points],
                "lineStyle": {"color": color, "width": 3 if index == 0 else 1.5}, "itemStyle": {"color": color},
            }
        )  # fmt: skip
    if series:
        series[0]["selectedMode"] = "single"
        series[0]["markLine"] = {
            "silent": True, "symbol": "none", "label": {"formatter": f"step {marked:,}", "position": "insideEndTop"},
            "lineStyle": {"color": PICKED, "type": "dashed"}, "data": [{"xAxis": max(marked, first)}],
        }  # fmt: skip
    return {
        "animation": False,
        "grid": {"left": 52, "right": 20, "top": 54, "bottom": 42},
        "legend": {"top": 0, "type": "scroll"},
        "tooltip": {"trigger": "item"},
        "xAxis": {"type": "log" if log else "value", "min": first, "max": last, "name": "optimizer steps",
                  "nameLocation": "middle", "nameGap": 26},
        "yAxis": {"type": "value", "min": 0, "max": 1, "name": what, "nameLocation": "middle", "nameGap": 36},
        "series": series,
    }  # fmt: skip
