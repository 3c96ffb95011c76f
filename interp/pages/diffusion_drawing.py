"""The pictures of docs/diffusion.md, as SVG made from rows."""

from __future__ import annotations

import pandas as pd

from interp.figures.svg import FAINT, INK, PALETTE, QUIET, curve, dot, drawing, line, text
from interp.pages.diffusion_runs import is_of_runs
from interp.results import Metric, records, select

_WIDTH, _ROW, _LEFT = 260, 17, 150
_APART = _LEFT + _WIDTH + 40
_SPAN = _WIDTH - 20


def diffusion_drawing(frames: dict[str, pd.DataFrame]) -> str:
    """Up to three panels side by side: when blocks are decided, where `op` is fetched, what swaps between passes do."""
    panels, height = [], 0.0
    for name, frame in frames.items():
        if is_of_runs(frame):  # they have a picture of their own
            continue
        for draw in (_decided, _fetched, _carried):
            if drawn := draw(name, frame, len(panels) * _APART):
                panels.append(drawn[0])
                height = max(height, drawn[1])
    parts = [part for panel in panels for part in panel]
    title = "When slots are decided, where the instruction is fetched, what is carried between passes"
    return drawing(parts, width=max(1, len(panels)) * _APART, height=height + 20, title=title)


def _axis(left: float, bottom: float, ends: tuple[str, str]) -> list[str]:
    parts = [line(left + _LEFT, bottom, left + _LEFT + _SPAN, bottom, stroke=FAINT)]
    for x, words, anchor in ((0, ends[0], "start"), (_SPAN, ends[1], "end")):
        parts.append(text(left + _LEFT + x, bottom + 15, words, anchor=anchor, size=11, fill=QUIET))
    return parts


def _decided(name: str, frame: pd.DataFrame, left: float) -> tuple[list[str], float] | None:
    found = records(select(frame, metric=Metric.DECIDED_AT))
    own = {row["position"]: row["estimate"] for row in found if not row["part"]}
    null = {row["position"]: row["estimate"] for row in found if row["part"]}
    if not own:
        return None
    parts = [text(left + 8, 20, f"{name}: when blocks are decided", fill=QUIET)]
    for k, block in enumerate(sorted(own, key=lambda each: own[each])):
        y = 46 + _ROW * k
        parts.append(text(left + _LEFT - 10, y + 4, block, anchor="end", size=11))
        parts.append(line(left + _LEFT, y, left + _LEFT + _SPAN, y))
        parts.append(dot(left + _LEFT + _SPAN * null[block], y, fill="none", stroke=QUIET, radius=4))
        parts.append(dot(left + _LEFT + _SPAN * own[block], y, fill=PALETTE[0], radius=3))
    bottom = 46 + _ROW * len(own)
    parts += _axis(left, bottom, ("first pass", "last"))
    parts.append(dot(left + _LEFT + 4, bottom + 28, fill=PALETTE[0], radius=3))
    parts.append(text(left + _LEFT + 14, bottom + 32, "by confidence as it goes", size=11))
    parts.append(dot(left + _LEFT + 4, bottom + 44, fill="none", stroke=QUIET, radius=4))
    parts.append(text(left + _LEFT + 14, bottom + 48, "by the first pass alone", size=11, fill=QUIET))
    return parts, bottom + 52


def _fetched(name: str, frame: pd.DataFrame, left: float) -> tuple[list[str], float] | None:
    rows = records(select(frame, pair_design="minimal", stratum="changes", metric=Metric.EFFECT_ACCURACY))
    rows = [row for row in rows if row["control"] is None]
    if not rows:
        return None
    parts = [text(left + 8, 20, f"{name}: another op, swapped at", fill=QUIET)]
    for k, row in enumerate(rows):
        y = 46 + 30 * k
        parts.append(text(left + 8, y - 3, str(row["part"]), size=11))
        parts.append(line(left + 8, y + 6, left + _LEFT + _SPAN, y + 6, width=6))
        if row["estimate"] > 0:
            end = left + 8 + (_LEFT + _SPAN - 8) * float(row["estimate"])
            parts.append(line(left + 8, y + 6, end, y + 6, stroke=PALETTE[1], width=6))
        parts.append(
            text(left + _LEFT + _SPAN, y - 3, f"{100 * row['estimate']:.0f} %", anchor="end", size=11, fill=INK)
        )
    bottom = 46 + 30 * len(rows)
    parts.append(text(left + 8, bottom + 4, "of what should change, changed", size=11, fill=QUIET))
    return parts, bottom + 10


def _carried(name: str, frame: pd.DataFrame, left: float) -> tuple[list[str], float] | None:
    found = {
        metric: select(frame, metric=metric, part="both").sort_values("time") for metric in (Metric.RETURN, Metric.IIA)
    }
    if not len(found[Metric.RETURN]):
        return None
    top, bottom = 40, 190
    parts = [text(left + 8, 20, f"{name}: another's sample and prediction, put in", fill=QUIET)]
    words = {Metric.RETURN: "base's own answer again", Metric.IIA: "the other's answer"}
    times = [int(t) for t in found[Metric.RETURN]["time"]]
    for k, (metric, rows) in enumerate(found.items()):
        step = _SPAN / max(1, len(rows) - 1)
        points = [
            (left + _LEFT + step * at, bottom - (bottom - top) * float(value))
            for at, value in enumerate(rows["estimate"])
        ]
        parts.append(curve(points, stroke=PALETTE[k]))
        parts += [dot(x, y, fill=PALETTE[k]) for x, y in points]
        parts.append(text(left + 8, top + 40 + 16 * k, words[metric], size=11, fill=PALETTE[k]))
    for share in (0, 1):
        y = bottom - (bottom - top) * share
        parts.append(line(left + _LEFT, y, left + _LEFT + _SPAN, y, stroke=FAINT))
        parts.append(text(left + _LEFT - 6, y + 4, f"{100 * share} %", anchor="end", size=11, fill=QUIET))
    parts += _axis(left, bottom, (f"before pass {times[0]}", f"before pass {times[-1]}"))
    return parts, bottom + 20


def embeddings_drawing(frames: dict[str, pd.DataFrame]) -> str:
    """The cosine of every two embeddings, a square each: the darker the nearer; red where they point apart."""
    found = next(rows for rows in (select(each, metric=Metric.COSINE) for each in frames.values()) if len(rows))
    names = list(dict.fromkeys([*found["part"], *found["position"]]))
    place, size, left, top = {name: k for k, name in enumerate(names)}, 12, 74, 74
    parts = []
    for a, b, value in zip(found["position"], found["part"], found["estimate"], strict=True):
        for x, y in ((place[a], place[b]), (place[b], place[a])):
            parts.append(_square(left + size * x, top + size * y, size, float(value)))
    for name, k in place.items():
        parts.append(text(left - 5, top + size * k + 10, str(name), anchor="end", size=9))
        parts.append(_square(left + size * k, top + size * k, size, 1.0))
    end = left + size * len(names)
    parts.append(text(left, top - 20, "cosine of every two embeddings, tokens in the order of the rows", size=11))
    parts.append(text(left, top - 6, "blue 1, white 0, red −1", size=11, fill=QUIET))
    return drawing(
        parts, width=end + 20, height=top + size * len(names) + 20, title="The cosine of every two embeddings"
    )


def _square(x: float, y: float, size: float, value: float) -> str:
    fade = round(255 * (1 - min(1.0, abs(value))))
    color = f"#{fade:02x}{fade:02x}ff" if value >= 0 else f"#ff{fade:02x}{fade:02x}"
    return f'<rect x="{x:.6g}" y="{y:.6g}" width="{size:g}" height="{size:g}" fill="{color}"/>'
