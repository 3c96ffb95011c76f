"""A table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence


def table(headings: Sequence[str], lines: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """One line a row; columns named in `right` stand to the right. Bars in cells are escaped."""
    rule = ["---:" if name in right else "---" for name in headings]
    rows = [headings, rule, *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
