"""Several models side by side as one picture: a row a model, a panel a question, as SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.figures.svg import FAINT, PALETTE, QUIET, dot, drawing, line, text

if TYPE_CHECKING:
    from interp.pages.across import Across

_ROW, _LEFT, _PANEL, _GAP, _TOP = 22, 150, 250, 50, 72


def across_drawing(found: Across) -> str:
    """Right answers by length of runs; cells kept by place and by distance, each with its null."""
    rows = [each for each in found.kept if each.longer or each.relative]
    height = _TOP + _ROW * len(rows) + 30
    bottom = height - 24
    lengths = found.lengths
    values = [each.longer[name] for each in rows for name in lengths if each.longer]
    least = min(0.95, int(20 * min(values, default=0.95)) / 20)
    parts = [text(_LEFT, 18, "answers right, by length of runs", fill=QUIET)]
    parts += _words(_LEFT, [(name.removesuffix(" steps"), PALETTE[at]) for at, name in enumerate(lengths)])
    parts += _frame(_LEFT, least, bottom)
    second = _LEFT + _PANEL + _GAP
    kinds = (("by distance", PALETTE[0]), ("by place", PALETTE[1]), ("its null", FAINT))
    parts += [text(second, 18, "cells moved by a part of what is carried", fill=QUIET), *_words(second, kinds)]
    parts += _frame(second, 0.0, bottom)
    for row, each in enumerate(rows):
        y = _TOP + _ROW * row + 12
        parts.append(text(_LEFT - 10, y + 4, each.run, anchor="end"))
        for left in (_LEFT, second):
            parts.append(line(left, y, left + _PANEL, y))
        for at in reversed(range(len(lengths))):
            if each.longer:
                share = (each.longer[lengths[at]] - least) / (1 - least)
                parts.append(dot(_LEFT + share * _PANEL, y, fill=PALETTE[at], radius=4.5))
        for pair, fill in ((each.absolute, PALETTE[1]), (each.relative, PALETTE[0])):
            if pair is not None:
                parts += [
                    dot(second + pair[1] * _PANEL, y, fill="#ffffff", radius=4, stroke=fill),
                    dot(second + pair[0] * _PANEL, y, fill=fill, radius=4.5),
                ]
    width = second + _PANEL + 24
    return drawing(parts, width=width, height=height, title="Several models, asked the same questions")


def _words(left: float, kinds: Sequence[tuple[str, str]]) -> list[str]:
    parts, x = [], left
    for words, fill in kinds:
        hollow = fill == FAINT
        parts += [
            dot(x + 4, 36, fill="#ffffff" if hollow else fill, radius=4, stroke=QUIET if hollow else "none"),
            text(x + 12, 40, words, size=11),
        ]
        x += 26 + 7 * len(words)
    return parts


def _frame(left: float, least: float, bottom: float) -> list[str]:
    parts = []
    for share in (0.0, 0.5, 1.0):
        x, value = left + share * _PANEL, least + share * (1 - least)
        parts += [
            line(x, _TOP - 8, x, bottom),
            text(x, bottom + 16, f"{value:.3g}", size=10, anchor="middle", fill=QUIET),
        ]
    return parts
