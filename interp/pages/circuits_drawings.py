"""The figures of docs/circuits.md, as small SVGs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp.circuits.scorers import SCORERS
from interp.figures.style import OP_COLORS, present
from interp.figures.svg import FAINT, QUIET, curve, dot, drawing, line, text
from interp.results import Control, Metric, records, select


def approximation_drawing(values: Mapping[str, Mapping[str, Mapping[str, float]]], names: Mapping[str, str]) -> str:
    """Dots of each method, an instruction a row and a measure a panel, from 0 to 1.

    Args:
        values: by measure, instruction and method.
        names: of the scorers that are drawn, in words.
    """
    ops = list(dict.fromkeys(op for by_op in values.values() for op in by_op))
    width, step, top = 250.0, 20.0, 66.0
    parts: list[str] = []
    for place, (method, words) in enumerate(names.items()):
        x = 12 + 150 * place
        parts += [dot(x + 4, 16, fill=SCORERS[method].colour, radius=4), text(x + 14, 20, words, size=11)]
    for panel, (measure, by_op) in enumerate(values.items()):
        left = 96 + (width + 30) * panel
        parts.append(text(left, 44, measure, size=12))
        for value in (0, 0.25, 0.5, 0.75, 1):
            x = left + width * value
            parts += [line(x, top - 8, x, top + step * len(ops) - 8),
                      text(x, top - 12, f"{value:g}", size=9, fill=QUIET, anchor="middle")]  # fmt: skip
        for row, op in enumerate(ops):
            y = top + step * row + 4
            if not panel:
                parts.append(text(84, y + 4, op, size=10, anchor="end"))
            for method, value in by_op.get(op, {}).items():
                if method in names and value == value:
                    x = left + width * min(1.0, max(0.0, value))
                    parts.append(dot(x, y, fill=SCORERS[method].colour, radius=4))
    right = 96 + (width + 30) * len(values)
    title = "Approximations held against exact edge patching, by instruction"
    return drawing(parts, width=right, height=top + step * len(ops) + 10, title=title)


def seeds_drawing(frame: pd.DataFrame) -> str:
    """Jaccard of every two runs' circuits, heads matched by role (dots), beside random pairings (grey bars).

    Raises:
        ValueError: the frame has no agreement across seeds.
    """
    rows = select(frame, metric=Metric.JACCARD, stratum="seeds")
    own, null = select(rows, control=None), select(rows, control=Control.RANDOM_MATCHING)
    ops = present(own, "op")
    if not ops:
        raise ValueError("no agreement across seeds was measured")
    left, width, step, top = 70.0, 420.0, 26.0, 56.0
    parts = [text(10, 18, "Jaccard across seeds: heads matched by role (dot), at random (grey)", size=13)]
    for value in (0, 0.25, 0.5, 0.75, 1):
        x = left + width * value
        parts += [line(x, top - 10, x, top + step * len(ops) - 10),
                  text(x, top - 16, f"{value:g}", size=9, fill=QUIET, anchor="middle")]  # fmt: skip
    runs = present(own, "run")
    for row, op in enumerate(ops):
        y = top + step * row
        parts.append(text(left - 8, y + 6, op, size=10, anchor="end"))
        for place, run in enumerate(runs):
            at = y - 4 + 14 * (place + 0.5) / len(runs)
            for control in records(select(null, op=op, run=run)):
                ends = (left + width * control[end] for end in ("ci_low", "ci_high"))
                parts.append(line(next(ends), at, next(ends), at, stroke="#B6BCC5", width=4))
            for found in records(select(own, op=op, run=run)):
                parts.append(dot(left + width * found["estimate"], at, fill=OP_COLORS.get(op, QUIET), radius=3.5))
    title = "Agreement of circuits across training seeds"
    return drawing(parts, width=left + width + 30, height=top + step * len(ops) + 4, title=title)


def along_drawing(frame: pd.DataFrame) -> str:
    """Jaccard of each checkpoint's circuit with the final one, a line an instruction, over a log axis of steps.

    Raises:
        ValueError: the frame has no circuits along a run.
    """
    rows = select(frame, metric=Metric.JACCARD, stratum="final")
    own, chance = select(rows, control=None), select(rows, control=Control.RANDOM_CIRCUIT)
    if own.empty:
        raise ValueError("no circuits along the run were measured")
    steps = sorted({int(step) for step in own["checkpoint_step"]})
    low = min((step for step in steps if step > 0), default=1) / 2  # step 0 stands before the first trained one
    span = math.log(max(steps[-1], 2) / low) or 1.0
    width, height, left, bottom = 560.0, 300.0, 48.0, 260.0

    def x(step: float) -> float:
        return left + (width - left - 110) * math.log(max(step, low) / low) / span

    def y(value: float) -> float:
        return bottom - (bottom - 30) * value

    parts = [text(10, 18, "Jaccard of each checkpoint's top edges with the final circuit's", size=13)]
    for value in (0, 0.25, 0.5, 0.75, 1):
        parts += [line(left, y(value), width - 110, y(value)), text(left - 6, y(value) + 4, f"{value:g}", size=10,
                                                                     fill=QUIET, anchor="end")]  # fmt: skip
    labelled = width  # from the right, so that the last step keeps its label
    for step in reversed(steps):
        if labelled - x(step) >= 38:
            labelled = x(step)
            parts.append(text(x(step), bottom + 16, f"{step:,}", size=9, fill=QUIET, anchor="middle"))
    parts.append(text((left + width - 110) / 2, bottom + 34, "optimizer step", size=11, fill=QUIET, anchor="middle"))
    lines = {op: select(own, op=op) for op in present(own, "op")}
    for place, (op, some) in enumerate(lines.items()):
        some = some.sort_values("checkpoint_step")
        points = [(x(int(s)), y(float(v))) for s, v in zip(some["checkpoint_step"], some["estimate"], strict=True)]
        colour, dash = OP_COLORS.get(op, QUIET), "4,3" if op == "ENDW" else ""
        parts.append(curve(points, stroke=colour, dash=dash))
        parts += [dot(*point, fill=colour, radius=2) for point in points]
        key = 40.0 + 18 * place
        parts.append(curve([(width - 100, key), (width - 84, key)], stroke=colour, width=3, dash=dash))
        parts.append(text(width - 78, key + 4, op, size=10))
    mean: Any = chance.groupby("checkpoint_step")["estimate"].agg("mean")
    mean = mean.sort_index()
    points = [(x(int(step)), y(float(value))) for step, value in mean.items()]
    parts.append(curve(points, stroke=FAINT, width=3))
    parts.append(text(width - 78, 48 + 18 * len(lines), "chance (grey)", size=10, fill=QUIET))
    return drawing(parts, width=width, height=height, title="Circuits over training, held against the final one")
