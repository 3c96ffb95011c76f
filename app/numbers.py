"""Whole numbers as an address or a field spells them, and texts as a sentence may hold them."""

from __future__ import annotations

import re

_MOST_DIGITS = 18  # what an int64 holds; Python itself refuses to read some thousand digits
_SHOWN = 60


def whole_number(text: str) -> int | None:
    """The number that decimal digits spell; None for anything else, and for more digits than any number here has."""
    return int(text) if text.isdecimal() and len(text) <= _MOST_DIGITS else None


def quoted(text: str) -> str:
    """What an address holds, in quotes for a sentence; the middle of what is too long to read is left out."""
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 4 :]}")


def literal(text: str) -> str:
    """A text that is shown as it is where Markdown is read."""
    return re.sub(r"([\\`*<>$~])", r"\\\1", text)


def small(value: float) -> str:
    """A number that is 0 or more with four digits; what they cannot show is no bare 0."""
    return "< 0.0001" if 0 <= value < 0.00005 else f"{value:.4f}"


def signed(value: float) -> str:
    """A difference with its sign and two digits; what they cannot show is 0 without a sign."""
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 0.005 else "0"
