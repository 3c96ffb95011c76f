"""What the best part of each variable moves and what stays: one row a variable, one panel a run, as SVG text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interp.figures.svg import dot, drawing, line, text
from interp.studies.carried import Score, best

_MOVED, _STAYED, _NULL = "#0072B2", "#009E73", "#999999"
_ROW, _LEFT, _PANEL, _GAP, _TOP = 20, 150, 220, 30, 54
_ACROSS = 3  # panels beside each other


def addressing_drawing(scored: Mapping[str, Sequence[Score]]) -> str:
    """Dots for what moved, what stayed and the null, of the best part of each variable."""
    chosen = {name: best(found) for name, found in scored.items()}
    variables = list(dict.fromkeys(each for found in chosen.values() for each in found))
    tall = _TOP + _ROW * len(variables) + 24  # of a line of panels
    parts = [
        text(_LEFT + x, 16, words, fill=fill)
        for x, words, fill in ((0, "● moved", _MOVED), (80, "● stayed", _STAYED), (160, "● null", _NULL))
    ]
    for number, (run, found) in enumerate(chosen.items()):
        down, column = divmod(number, _ACROSS)
        left, top = _LEFT + column * (_PANEL + _GAP), _TOP + down * tall
        if column == 0:
            parts += [text(_LEFT - 12, top + _ROW * row + 14, name, anchor="end") for row, name in enumerate(variables)]
        parts.append(text(left, top - 14, run))
        bottom = top + _ROW * len(variables)
        for share in (0.0, 0.5, 1.0):
            x = left + share * _PANEL
            parts += [line(x, top, x, bottom + 4), text(x, bottom + 18, f"{share:g}", size=10, anchor="middle")]
        for row, name in enumerate(variables):
            if (score := found.get(name)) is None:
                continue
            y = top + _ROW * row + 10
            parts.append(line(left, y, left + _PANEL, y))
            for value, fill in ((score.null, _NULL), (score.stayed, _STAYED), (score.moved, _MOVED)):
                if value is not None:
                    parts.append(dot(left + value * _PANEL, y, fill=fill, radius=4))
    width = _LEFT + min(len(chosen), _ACROSS) * (_PANEL + _GAP)
    height = tall * (1 + (len(chosen) - 1) // _ACROSS)
    return drawing(parts, width=width, height=height, title="What the best part of each variable moves, and what stays")
