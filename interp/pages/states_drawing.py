"""What the best part of each variable moves and what stays: one row a variable, one panel a run, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interp.figures.svg import dot, drawing, line, text
from interp.studies.carried import Score, best

_MOVED, _STAYED, _NULL = "#0072B2", "#009E73", "#999999"
_ROW, _LEFT, _PANEL, _GAP, _TOP = 20, 150, 220, 30, 54


def addressing_drawing(scored: Mapping[str, Sequence[Score]]) -> str:
    """Dots for what moved, what stayed and the null, of the best part of each variable."""
    chosen = {name: best(found) for name, found in scored.items()}
    variables = list(dict.fromkeys(each for found in chosen.values() for each in found))
    height = _TOP + _ROW * len(variables) + 24
    parts = [
        text(_LEFT + x, 16, words, fill=fill)
        for x, words, fill in ((0, "● moved", _MOVED), (80, "● stayed", _STAYED), (160, "● null", _NULL))
    ]
    for row, name in enumerate(variables):
        parts.append(text(_LEFT - 12, _TOP + _ROW * row + 14, name, anchor="end"))
    for column, (run, found) in enumerate(chosen.items()):
        left = _LEFT + column * (_PANEL + _GAP)
        parts.append(text(left, _TOP - 14, run))
        for share in (0.0, 0.5, 1.0):
            x = left + share * _PANEL
            parts += [line(x, _TOP, x, height - 20), text(x, height - 6, f"{share:g}", size=10, anchor="middle")]
        for row, name in enumerate(variables):
            if (score := found.get(name)) is None:
                continue
            y = _TOP + _ROW * row + 10
            parts.append(line(left, y, left + _PANEL, y))
            for value, fill in ((score.null, _NULL), (score.stayed, _STAYED), (score.moved, _MOVED)):
                if value is not None:
                    parts.append(dot(left + value * _PANEL, y, fill=fill, radius=4))
    width = _LEFT + len(chosen) * (_PANEL + _GAP)
    return drawing(parts, width=width, height=height, title="What the best part of each variable moves, and what stays")
