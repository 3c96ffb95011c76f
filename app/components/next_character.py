"""A string as tiles, one a character, and at one place the next character's probabilities: the rule's and the model's.

Pure: plain sequences in, HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.components.board import probability
from app.components.clickable import pickable


@dataclass(frozen=True)
class Place:
    """A token of the string, and what is said of the character behind it."""

    token: str
    state: str  # what is due behind it, by the rule: "run 2"
    next: str  # the character that came; "" at the end
    exact: float  # the rule's probability of it
    said: float | None  # the model's; None while the model is not there
    forbidden: float | None  # the model's probability on all that the rule forbids there


def string_strip(places: Sequence[Place], now: int) -> str:
    """The tiles in reading order; each can be picked. A tile on whose forbidden characters the model puts over a
    hundredth is dashed and crossed."""
    return (
        f"<div class='strip string'>{''.join(_tile(place, at, now=at == now) for at, place in enumerate(places))}</div>"
    )


def _tile(place: Place, at: int, *, now: bool) -> str:
    missed = place.forbidden is not None and place.forbidden > 0.01
    classes = "tile" + (" now" if now else "") + (" missed" if missed else "")
    words = f"{place.token or 'start'}: {place.state}; next {place.next}, by the rule {place.exact:.3f}"
    if place.said is not None:
        words += f", by the model {place.said:.3f}"
    into_view = " data-into-view" if now else ""
    cross = " <span class='cross'>✗</span>" if missed else ""
    said = "…" if place.said is None else probability(place.said)
    return (
        f"<span class='{classes}' {pickable(str(at), words)}{into_view} title='{escape(words, quote=True)}'>"
        f"<small>{escape(place.state)}</small><b>{escape(place.token)}</b>"
        f"<span class='said'>→ {escape(place.next)}{cross}</span>"
        f"<span class='p'>{said} of {probability(place.exact)}</span></span>"
    )


def next_table(characters: Sequence[str], exact: Sequence[float], said: Sequence[float] | None, came: str) -> str:
    """One row a character: bars and numbers, the rule's beside the model's; what is forbidden is crossed."""
    rows = []
    for index, character in enumerate(characters):
        legal = exact[index] > 0
        mark = " <span class='check'>came</span>" if character == came else ""
        note = "" if legal else "<span class='cross' title='the rule forbids it'>✗</span>"
        rows.append(
            f"<tr><th scope='row'><b>{escape(character)}</b>{mark}</th>{_bar(exact[index], 'exact')}"
            f"{_bar(None if said is None else said[index], 'model')}<td>{note}</td></tr>"
        )
    head = "<tr><th></th><th scope='col'>the rule</th><th scope='col'>the model</th><th></th></tr>"
    return f"<table class='next'>{head}{''.join(rows)}</table>"


def _bar(p: float | None, kind: str) -> str:
    if p is None:
        return "<td class='bar'>…</td>"
    return f"<td class='bar'><i class='{kind}' style='width:{100 * p:.1f}px'></i> {p:.4f}</td>"


def likeliest_table(likeliest: Sequence[tuple[str, float]]) -> str:
    """One row a token: its bar and its probability."""
    rows = [f"<tr><th scope='row'><b>{escape(visible(name))}</b></th>{_bar(p, 'model')}</tr>" for name, p in likeliest]
    return f"<table class='next'>{''.join(rows)}</table>"


def visible(name: str) -> str:
    """A token as a label: what cannot be seen is drawn."""
    drawn = name.replace("\n", "⏎").replace("\t", "⇥").replace("\f", "↡").replace(" ", "␣").replace("\r", "↵")
    return drawn if drawn.isprintable() else repr(drawn)[1:-1]
