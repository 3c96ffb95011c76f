"""The figure of length generalisation: exact match, scheme by scheme and machine by machine, as a small SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from interp.figures.svg import QUIET, drawing, text
from interp.pages.calibration_drawing import CELL, shaded

_LEFT, _TOP = 150, 96


def lengths_drawing(exact: Mapping[tuple[str, str], float], schemes: Sequence[str], tests: Sequence[str]) -> str:
    """A heat map, one row a scheme, one column a machine; SVG text.

    Args:
        exact: exact match, 0 to 1, by scheme and machine; what was not measured is left blank.
        schemes: the rows; "copy" is copying the input.
        tests: the columns.
    """
    shown = [scheme for scheme in schemes if any((scheme, test) in exact for test in tests)]
    width, height = _LEFT + CELL * len(tests) + 10, _TOP + CELL * len(shown) + 10
    parts = [text(10, 18, "Exact match on machines longer than that of training", size=13)]
    for column, test in enumerate(tests):
        x = _LEFT + CELL * column + CELL / 2
        turned = text(x, _TOP - 8, test, size=9, fill=QUIET)
        parts.append(f'<g transform="rotate(-50 {x} {_TOP - 8})">{turned}</g>')
    for place, scheme in enumerate(shown):
        y = _TOP + CELL * place
        parts.append(text(10, y + 21, "copying the input" if scheme == "copy" else scheme))
        for column, test in enumerate(tests):
            if (scheme, test) in exact:
                parts.append(shaded(_LEFT + CELL * column, y, exact[scheme, test]))
    title = "Exact match by positional scheme and machine, and of copying the input"
    return drawing(parts, width=width, height=height, title=title)
