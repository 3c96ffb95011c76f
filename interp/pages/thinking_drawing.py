"""The picture of docs/thinking.md, as SVG made from rows."""

from __future__ import annotations

import pandas as pd

from interp.figures.svg import FAINT, PALETTE, QUIET, curve, drawing, line, text
from interp.results import Aggregation, Metric, select

_LEFT, _BOTTOM, _WIDTH, _HEIGHT, _APART = 52, 250, 270, 190, 350
_SHOWN = (1, 2, 4, 8)  # loop steps whose curve is drawn


def thinking_drawing(rows: pd.DataFrame) -> str:
    """Two panels: right by the steps that a program runs, a curve a number of loop steps; what the answer is after the
    carry was swapped, by loop step."""
    each = select(rows, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MEAN, part=None)
    each = each.dropna(subset=["stratum", "time"])
    table = each.pivot_table(index="time", columns="stratum", values="estimate")
    least = 0.1 * int(10 * float(table.min().min()))
    parts = _frame(0, "right, by steps that the program runs", least, 1.0, [1, table.shape[1]])
    shown = [t for t in (*_SHOWN, len(table)) if t in table.index]
    for k, t in enumerate(dict.fromkeys(shown)):
        values = table.loc[t].tolist()
        parts.append(_curve(0, values, least, 1.0, PALETTE[k]))
        parts.append(text(_LEFT + 8, _BOTTOM - 12 - 15 * k, f"after loop step {t}", fill=PALETTE[k], size=11))
    parts += _frame(1, "answer after source's carry was put in, by loop step", 0.0, 1.0, [1, 1])
    for k, (metric, words) in enumerate(((Metric.IIA, "is source's"), (Metric.RETURN, "is base's again"))):
        found = select(rows, metric=metric, part="whole carry").sort_values("time")
        if found.empty:
            continue
        parts.append(_curve(1, found["estimate"].tolist(), 0.0, 1.0, PALETTE[k]))
        left, last = _LEFT + _APART, str(len(found))
        parts.append(text(left + _WIDTH, _BOTTOM + 16, last, anchor="middle", size=11, fill=QUIET))
        parts.append(text(left + 110, _BOTTOM - 92 - 15 * k, words, fill=PALETTE[k], size=11))
    return drawing(parts, width=_LEFT + _APART + _WIDTH + 30, height=290, title="How a looped model thinks")


def _frame(panel: int, title: str, least: float, most: float, ends: list[int]) -> list[str]:
    left = _LEFT + panel * _APART
    parts = [text(left, 24, title, fill=QUIET)]
    for share in (0.0, 0.5, 1.0):
        y, value = _BOTTOM - _HEIGHT * share, least + (most - least) * share
        parts += [
            line(left, y, left + _WIDTH, y, stroke=FAINT),
            text(left - 6, y + 4, f"{value:.2g}", anchor="end", size=11, fill=QUIET),
        ]
    parts.append(text(left, _BOTTOM + 16, str(ends[0]), anchor="middle", size=11, fill=QUIET))
    if ends[1] > ends[0]:
        parts.append(text(left + _WIDTH, _BOTTOM + 16, str(ends[1]), anchor="middle", size=11, fill=QUIET))
    return parts


def _curve(panel: int, values: list[float], least: float, most: float, color: str) -> str:
    left, span = _LEFT + panel * _APART, max(1, len(values) - 1)
    points = [
        (left + _WIDTH * at / span, _BOTTOM - _HEIGHT * (value - least) / (most - least))
        for at, value in enumerate(values)
    ]
    return curve(points, stroke=color)
