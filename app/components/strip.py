"""An example as a strip of tiles, one a token: its name, the token, and under it what the model says where it is asked.

Pure: plain sequences in, HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.components.board import probability
from app.components.clickable import pickable
from app.theme import GLYPHS, HATCHED, OP_COLORS, text_on


@dataclass(frozen=True)
class Tile:
    """One token."""

    name: str  # of its position
    token: str
    pick: str  # what a click reports
    now: bool = False  # of the step in view
    truth: str = ""  # the world's answer; "" where nothing is asked
    said: str | None = None  # the model's answer; None while the model is not there
    p: float = 0.0  # probability that the model gives to what it says

    @property
    def right(self) -> bool:
        return self.said == self.truth


def strip(tiles: Sequence[Tile], *, clickable: bool) -> str:
    """The tiles in reading order. A wrong answer shows the true one beside it."""
    return f"<div class='strip'>{''.join(_tile(tile, clickable=clickable) for tile in tiles)}</div>"


def legend(*, asked_elsewhere: bool) -> str:
    """How to read a tile, in a sentence."""
    asked = "what the model says is there" if asked_elsewhere else "what the model answers there"
    return (
        f"Each tile is one token that the model reads, in order. Under it, where something is asked: {asked}, ✓ right "
        "or ✗ wrong (with the true answer), and the probability it gives. A dot: nothing is asked."
    )


def _tile(tile: Tile, *, clickable: bool) -> str:
    classes = "tile" + (" now" if tile.now else "") + (" missed" if tile.said is not None and not tile.right else "")
    words = f"{tile.name}: {tile.token}"
    if not tile.truth:
        answer = "<span class='none'>·</span>"
    elif tile.said is None:
        answer = f"<span class='said'>{escape(tile.truth)}</span>"
        words += f", the answer is {tile.truth}"
    elif tile.right:
        answer = f"<span class='said'>{escape(tile.said)} <span class='check'>✓</span></span>{_p(tile.p)}"
        words += f", the model says {tile.said}, right"
    else:
        answer = (
            f"<span class='said'>{escape(tile.said)} <span class='cross'>✗</span></span>{_p(tile.p)}"
            f"<span class='is'>is {escape(tile.truth)}</span>"
        )
        words += f", the model says {tile.said}, wrong: it is {tile.truth}"
    target = pickable(tile.pick, words) if clickable else ""
    into_view = " data-into-view" if tile.now else ""
    return (
        f"<span class='{classes}' {target}{into_view} title='{escape(words, quote=True)}'>"
        f"<small>{escape(tile.name)}</small>{_token(tile.token)}{answer}</span>"
    )


def _token(token: str) -> str:
    if token not in OP_COLORS:
        return f"<b>{escape(token)}</b>"
    color = OP_COLORS[token]
    hatched = " class='hatched'" if token in HATCHED else ""
    return f"<b{hatched} style='background-color:{color};color:{text_on(color)}'>{escape(GLYPHS[token])} {token}</b>"


def _p(p: float) -> str:
    return f"<span class='p'>{probability(p)}</span>"
