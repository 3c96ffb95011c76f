"""Two runs' numbers on one scale, and their difference beside it, as an ECharts option."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.numbers import signed
from app.theme import NEGATIVE, POSITIVE

_FIRST, _SECOND = "#0072B2", "#E69F00"
_HATCH = {"symbol": "rect", "dashArrayX": [1, 0], "dashArrayY": [2, 4], "rotation": 0.8}


def pairs(
    items: Sequence[str],
    values: tuple[Sequence[float], Sequence[float]],
    controls: tuple[Sequence[float | None], Sequence[float | None]],
    *,
    names: tuple[str, str],
) -> dict[str, Any]:
    """Left, bars of both runs from 0 to 1, each with a mark where its control stands; right, second − first, −1 to 1.

    Args:
        items: what each row is about, the first on top.
        values: of the first run and of the second, a number an item.
        controls: the same of what they are held against; None where there is nothing.
        names: of the runs.
    """
    series: list[dict[str, Any]] = []
    for index, (name, own) in enumerate(zip(names, values, strict=True)):
        style = {"color": _FIRST} if index == 0 else {"color": _SECOND, "decal": _HATCH}
        data = [round(value, 4) for value in own]
        series.append({"type": "bar", "name": name, "itemStyle": style, "data": data, "barGap": "10%"})
    for index, (name, against) in enumerate(zip(names, controls, strict=True)):
        data = [[round(value, 4), item] for value, item in zip(against, items, strict=True) if value is not None]
        if not data:
            continue
        mark = {"symbol": "rect", "symbolSize": [3, 9], "symbolOffset": [0, "-55%" if index == 0 else "55%"]}
        style = {"color": "#333333" if index == 0 else "#8C564B", "borderColor": "#FFFFFF", "borderWidth": 0.5}
        series.append({"type": "scatter", "name": f"control of {name}", "data": data, "itemStyle": style, **mark})
    difference = [second - first for first, second in zip(*values, strict=True)]
    series.append(
        {
            "type": "bar", "name": "difference", "xAxisIndex": 1, "yAxisIndex": 1,
            "data": [
                {"value": round(each, 4),
                 "itemStyle": {"color": POSITIVE} if each >= 0 else {"color": NEGATIVE, "decal": _HATCH},
                 "label": {"show": True, "formatter": signed(each),
                           "position": "right" if each >= 0 else "left"}}
                for each in difference
            ],
        }
    )  # fmt: skip
    rows: dict[str, Any] = {"type": "category", "inverse": True, "axisTick": {"show": False}, "data": list(items)}
    return {
        "animation": False,
        "legend": {"top": 0, "type": "scroll", "data": [each["name"] for each in series[:-1]]},
        "tooltip": {"confine": True},
        "grid": [{"left": 4, "width": "56%", "top": 44, "bottom": 40, "containLabel": True},
                 {"left": "66%", "right": 40, "top": 44, "bottom": 40}],
        "xAxis": [{"type": "value", "min": 0, "max": 1, "gridIndex": 0},
                  {"type": "value", "min": -1, "max": 1, "gridIndex": 1, "name": f"{names[1]} − {names[0]}",
                   "nameLocation": "middle", "nameGap": 26}],
        "yAxis": [{**rows, "gridIndex": 0}, {**rows, "gridIndex": 1, "axisLabel": {"show": False}}],
        "series": series,
    }  # fmt: skip
