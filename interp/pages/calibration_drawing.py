"""The calibration's figure: precision at true size, instruction by instruction, as a small SVG."""

from __future__ import annotations

import pandas as pd

from interp.figures.style import GLYPHS
from interp.figures.svg import INK, QUIET, drawing, text
from interp.results import Metric, select

CELL, _LEFT, _TOP = 34, 190, 54
_LOW, _HIGH = (0xF2, 0xB8, 0x72), (0x00, 0x5A, 0x9C)  # orange 0 … blue 1, light in the middle
_MIDDLE = (0xF7, 0xF7, 0xF7)


def precision_drawing(frame: pd.DataFrame, rows: list[tuple[str, str, str]]) -> str:
    """A heat map, one row a (label, model, method), one column an instruction; SVG text.

    Args:
        frame: the calibration's rows.
        rows: what to draw; rows that were not measured are left out.
    """
    found = select(frame, metric=Metric.PRECISION_AT_SIZE, granularity="edge", ablation="resample", control=None)
    lines = [(label, select(found, run=model, method=method)) for label, model, method in rows]
    lines = [(label, dict(zip(some.op, some.estimate, strict=True))) for label, some in lines if len(some)]
    ops = [op for op in GLYPHS if any(op in values for _, values in lines)]
    width, height = _LEFT + CELL * len(ops) + 10, _TOP + CELL * len(lines) + 10
    parts = [text(10, 18, "Edges found at true size (resample ablation)", size=13)]
    for column, op in enumerate(ops):
        x = _LEFT + CELL * column + CELL / 2
        parts.append(text(x, _TOP - 8, op, size=9, fill=QUIET, anchor="middle"))
    for place, (label, values) in enumerate(lines):
        y = _TOP + CELL * place
        parts.append(text(10, y + 21, label))
        for column, op in enumerate(ops):
            if op in values:
                parts.append(shaded(_LEFT + CELL * column, y, float(values[op])))
    title = "Share of true edges among the top edges at true size, by method and instruction"
    return drawing(parts, width=width, height=height, title=title)


def shaded(x: int, y: int, value: float) -> str:
    """A cell of a heat map: its share from 0 to 1 as a colour and as a number; SVG text."""
    ends, share = ((_LOW, _MIDDLE), 2 * value) if value < 0.5 else ((_MIDDLE, _HIGH), 2 * value - 1)
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(*ends, strict=True))
    ink = "#ffffff" if value > 0.8 else INK
    number = "1" if value == 1 else f"{value:.2f}".lstrip("0") if value else "0"
    return (
        f'<rect x="{x}" y="{y}" width="{CELL - 2}" height="{CELL - 2}" fill="rgb({red},{green},{blue})"/>'
        f'<text x="{x + CELL / 2 - 1}" y="{y + 20}" text-anchor="middle" fill="{ink}" font-size="11">{number}</text>'
    )
