"""Heatmaps whose cells can be picked, as ECharts options. Limits are given, never taken from the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from interp.figures.style import PICKED

_ABOVE = {
    "position": "top",
    "axisLine": {"show": False},
    "axisLabel": {"interval": 0, "fontSize": 10, "lineHeight": 12, "hideOverlap": False},
}


def heatmap(
    values: np.ndarray,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    limits: tuple[float, float],
    colors: Sequence[str],
    groups: Sequence[str] = (),
    tips: Sequence[Sequence[str]] | None = None,
    picked: tuple[int, int] | None = None,
    marked_row: int | None = None,
    marked_column: int | None = None,
    root_scale: bool = False,
    show_values: bool = False,
) -> dict[str, Any]:
    """An ECharts option for `values` [row, column], row 0 on top; NaN is left empty.

    A picked cell arrives in the selection as its index into `filled(values)`. `tips[row][column]` is the text shown
    when the mouse is over a cell (trusted text without markup).
    """
    data = []
    for row, column in filled(values):
        value = float(values[row, column])
        tip = tips[row][column] if tips else f"{rows[row]}, {columns[column]}: {value:.3f}"
        # ECharts selects by name, and would take the category's: one click would pick the column
        item: dict[str, Any] = {"name": f"{row},{column}", "value": [column, row, _scaled(value, root_scale), tip]}
        marked = row == marked_row or column == marked_column
        if (row, column) == picked or marked:
            item["itemStyle"] = {"borderColor": PICKED, "borderWidth": 1 if marked else 3}
        data.append(item)
    return {
        "animation": False,
        "grid": {"left": 4, "right": 12, "top": 8, "bottom": 44, "containLabel": True},
        "tooltip": {"formatter": "{@[3]}", "confine": True},
        "xAxis": [_axis(columns, rotate=_rotation(columns)), *([_axis(groups, rotate=0) | _ABOVE] if groups else [])],
        "yAxis": _axis(rows, rotate=0) | {"inverse": True},
        "visualMap": _color_bar(limits, colors, root_scale),
        "series": [
            {
                "type": "heatmap",
                "data": data,
                "selectedMode": "single",
                "label": {"show": show_values, "formatter": "{@[2]}"},
                "emphasis": {"itemStyle": {"borderColor": PICKED, "borderWidth": 2}},
                "select": {"itemStyle": {"borderColor": PICKED, "borderWidth": 3}},
                "progressive": 0,
            }
        ],
    }


def _color_bar(limits: tuple[float, float], colors: Sequence[str], root_scale: bool) -> dict[str, Any]:
    return {
        "min": _scaled(limits[0], root_scale),
        "max": _scaled(limits[1], root_scale),
        "dimension": 2,
        "calculable": False,
        "orient": "horizontal",
        "right": 10,
        "bottom": 0,
        "itemHeight": 160,
        "itemWidth": 12,
        "text": [f"{limits[1]:.3g}", f"{limits[0]:.3g}".replace("-", "−")],
        "inRange": {"color": list(colors)},
    }


def filled(values: np.ndarray) -> list[tuple[int, int]]:
    """(row, column) of every cell that holds a number, in the order of the chart's data."""
    return [(int(row), int(column)) for row, column in zip(*np.nonzero(~np.isnan(values)), strict=True)]


def _rotation(names: Sequence[str]) -> int:
    """Degrees by which column labels are turned: upright when they are many, slanted when they are long."""
    longest = max(map(len, names), default=0)
    return 0 if longest <= 3 else 90 if len(names) > 16 else 35 if longest * len(names) > 90 else 0


def _scaled(value: float, root_scale: bool) -> float:
    return round(value**0.5 if root_scale else value, 4)


def _axis(names: Sequence[str], *, rotate: int) -> dict[str, Any]:
    return {
        "type": "category",
        "data": list(names),
        "axisLabel": {
            "rotate": rotate,
            "interval": 0 if len(names) <= 80 else "auto",
            "fontSize": 9 if len(names) > 40 else 11,
        },
        "axisTick": {"show": False},
        "splitArea": {"show": False},
    }
