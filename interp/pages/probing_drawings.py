"""The figures of docs/probing.md, as SVG made from rows."""

from __future__ import annotations

from typing import Any

import pandas as pd

from interp.figures.style import present, site_words
from interp.figures.svg import FAINT, INK, PALETTE, QUIET, curve, drawing, line, text
from interp.results import Control, Method, Metric, select, site_order

_PANELS: tuple[tuple[Control | None, str], ...] = (
    (None, "probe"),
    (Control.CONTROL_TASK, "control task"),
    (Control.ALTERED_SEMANTICS, "altered semantics"),
    (Control.UNTRAINED_MODEL, "untrained"),
    (Control.EMBEDDING_ONLY, "embedding"),
    (Control.SHUFFLED_LABELS, "shuffled"),
    (Control.MAJORITY_CLASS, "majority"),
)
_CELL, _TOP, _LEFT = 26, 52, 130
_LOW, _HIGH = (0xF7, 0xF7, 0xF7), (0x00, 0x5A, 0x9C)


def heatmap_drawing(frame: pd.DataFrame, *, position: str, method: str = Method.LOGISTIC) -> str:
    """Accuracy of every variable (rows) at every layer (columns), a panel a control; 0 light … 1 dark blue, always.

    Raises:
        ValueError: no probe was scored at this position.
    """
    rows: Any = select(frame, metric=Metric.ACCURACY, method=method, position=position)
    rows = rows[rows["stratum"].isna()]
    if select(rows, control=None).empty:
        raise ValueError(f"no {method} probe was scored at {position!r}")
    variables, sites = present(select(rows, control=None), "variable"), site_order(rows["site"])
    parts = [text(_LEFT - 8, _TOP + _CELL * i + 17, name, size=11, anchor="end") for i, name in enumerate(variables)]
    left = _LEFT
    for control, title in _PANELS:
        panel = select(rows, control=control)
        if panel.empty:
            continue
        constant = control in (Control.EMBEDDING_ONLY, Control.MAJORITY_CLASS)
        columns = sites[-1:] if constant else sites
        found = {(str(r.variable), str(r.site)): float(r.estimate) for r in panel.itertuples()}  # type: ignore[arg-type]
        parts.append(text(left, 18, title, size=11))
        for c, site in enumerate(columns):
            x = left + _CELL * c
            words = "" if constant else site_words(site).replace("input", "in")
            parts.append(text(x + _CELL / 2, _TOP - 8, words, size=9, fill=QUIET, anchor="middle"))
            parts += [
                _cell(x, _TOP + _CELL * i, found[name, site])
                for i, name in enumerate(variables)
                if (name, site) in found
            ]
        left += max(_CELL * len(columns), 7 * len(title)) + 16
    return drawing(parts, width=left, height=_TOP + _CELL * len(variables) + 10, title=f"Probe accuracy at {position}")


def along_drawing(frame: pd.DataFrame, *, method: str = Method.LOGISTIC) -> str:
    """Best accuracy over layers of each variable at each checkpoint, and exact match (black), over training steps."""
    rows = select(frame, metric=Metric.ACCURACY, method=method, control=None)
    rows = rows[rows["stratum"].isna()]
    steps = sorted(set(frame["checkpoint_step"].astype(int)))
    width, height, left, top = 420, 240, 44, 16

    def point(step: int, value: float) -> tuple[float, float]:
        return left + width * steps.index(step) / max(1, len(steps) - 1), top + height * (1 - value)

    parts = [line(left, point(steps[0], v)[1], left + width, point(steps[0], v)[1]) for v in (0, 0.5, 1)]
    parts += [
        text(left - 6, point(steps[0], v)[1] + 4, f"{v:g}", size=10, fill=QUIET, anchor="end") for v in (0, 0.5, 1)
    ]
    every = max(1, len(steps) // 6)
    parts += [
        text(point(s, 0)[0], top + height + 16, f"{s:,}", size=9, fill=QUIET, anchor="middle") for s in steps[::every]
    ]
    curves = {
        name: part.groupby("checkpoint_step")["estimate"].max() for name, part in rows.groupby("variable", sort=False)
    }
    exact = select(frame, metric=Metric.EXACT_MATCH, op=None)
    if len(exact):
        curves["exact match"] = exact.groupby("checkpoint_step")["estimate"].max()
    for i, (name, values) in enumerate(curves.items()):
        color = INK if name == "exact match" else PALETTE[i % len(PALETTE)]
        dash = "" if name == "exact match" or i < len(PALETTE) else "4 3"
        parts.append(curve([point(int(s), float(v)) for s, v in values.items()], stroke=color, dash=dash))  # type: ignore[arg-type]
        key = left + width + 12, top + 8 + 15 * i
        parts.append(curve([key, (key[0] + 18, key[1])], stroke=color, dash=dash))
        parts.append(text(key[0] + 24, key[1] + 4, str(name), size=10))
    parts.append(line(left, top + height, left + width, top + height, stroke=FAINT))
    height_all = max(top + height + 26, top + 20 + 15 * len(curves))
    return drawing(parts, width=left + width + 150, height=height_all, title="What forms when, by training step")


def _cell(x: float, y: float, value: float) -> str:
    share = min(1.0, max(0.0, value))
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_LOW, _HIGH, strict=True))
    number = f"{value:.2f}".replace("0.", ".", 1) if value < 0.995 else "1"
    box = f'<rect x="{x:g}" y="{y:g}" width="{_CELL - 2}" height="{_CELL - 2}" fill="rgb({red},{green},{blue})"/>'
    return box + text(
        x + _CELL / 2 - 1, y + 16, number, size=9, fill="#ffffff" if share > 0.5 else INK, anchor="middle"
    )
