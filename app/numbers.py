"""Whole numbers as an address or a field spells them."""

from __future__ import annotations

_MOST_DIGITS = 18  # what an int64 holds; Python itself refuses to read some thousand digits
_SHOWN = 60


def whole_number(text: str) -> int | None:
    """The number that decimal digits spell; None for anything else, and for more digits than any number here has."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


def quoted(text: str) -> str:
    """What an address holds, in quotes for a sentence; the middle of what is too long to read is left out."""
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 4 :]}")
