"""Signed bars, largest on top, as an ECharts option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.numbers import signed
from app.theme import NEGATIVE, POSITIVE


def signed_bars(parts: Sequence[tuple[str, float]], *, name: str) -> dict[str, Any]:
    """Horizontal bars of (label, value) about 0 in the middle; positive blue, negative orange and hatched."""
    reach = max((abs(value) for _, value in parts), default=1.0) * 1.15 or 1.0
    hatch = {"decal": {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 4], "rotation": 0.8}}
    return {
        "animation": False,
        "grid": {"left": 4, "right": 40, "top": 4, "bottom": 26, "containLabel": True},
        "tooltip": {"valueFormatter": "%.3f", "confine": True},
        "xAxis": {"type": "value", "min": -reach, "max": reach, "name": name, "nameLocation": "middle", "nameGap": 10,
                  "axisLabel": {"show": False}},
        "yAxis": {"type": "category", "inverse": True, "axisTick": {"show": False},
                  "data": [label for label, _ in parts]},
        "series": [
            {
                "type": "bar",
                "barWidth": "62%",
                "data": [
                    {
                        "value": round(value, 3),
                        "itemStyle": {"color": POSITIVE} if value >= 0 else {"color": NEGATIVE, **hatch},
                        "label": {"show": True, "formatter": signed(value),
                                  "position": "right" if value >= 0 else "left"},
                    }
                    for _, value in parts
                ],
            }
        ],
    }  # fmt: skip
