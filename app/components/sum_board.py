"""A sum as it is written by hand: one column a place, the carries above, the model's digits below.

Pure: plain values in, HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.components.board import probability
from app.components.clickable import pickable

GENERATES, PROPAGATES = "makes a carry", "lets a carry through"


@dataclass(frozen=True)
class Column:
    """One place of a sum; the highest one holds a carry alone."""

    place: int
    digits: tuple[str, ...]  # of the summands; "" beyond their first digit
    carry: int  # that comes in
    cascade: int  # how many places it has come
    total: str  # what the digits add up to; "" at the highest place
    does: str  # GENERATES, PROPAGATES or ""
    truth: str  # the digit of the sum; "" beyond its first digit
    said: str | None  # the model's; None while it is not there
    p: float  # probability of what it says

    @property
    def right(self) -> bool:
        return self.said == self.truth


def sum_board(columns: Sequence[Column], names: Sequence[str], *, picked: int) -> str:
    """The columns from the highest place down; a click on one reports its place."""
    shown = sorted(columns, key=lambda each: -each.place)
    rows = [
        ("place", "".join(_head(each, picked) for each in shown)),
        ("comes in", "".join(f"<td class='carry'>{_carry(each)}</td>" for each in shown)),
        *(
            (
                ("+ " if at else "") + name,
                "".join(f"<td><b>{escape(each.digits[at]) or '&nbsp;'}</b></td>" for each in shown),
            )
            for at, name in enumerate(names)
        ),
        ("digits add up to", "".join(f"<td>{escape(each.total)}{_does(each)}</td>" for each in shown)),
        ("sum", "".join(f"<td class='line'><b>{escape(each.truth) or '&nbsp;'}</b></td>" for each in shown)),
        ("model says", "".join(_said(each) for each in shown)),
    ]
    body = "".join(f"<tr><th scope='row'>{title}</th>{cells}</tr>" for title, cells in rows)
    return f"<div class='scroll'><table class='sum'>{body}</table></div>"


def _head(column: Column, picked: int) -> str:
    label = f"Place {column.place}: {_carry_words(column)}"
    now = " now" if column.place == picked else ""
    return f"<td class='place{now}' {pickable(str(column.place), label)}>{column.place}</td>"


def _carry_words(column: Column) -> str:
    if not column.carry:
        return "no carry comes in"
    came = "place" if column.cascade == 1 else "places"
    return f"a carry of {column.carry} comes in, which has come {column.cascade} {came}"


def _carry(column: Column) -> str:
    if not column.carry:
        return "<span class='none'>·</span>"
    arrow = "←" * min(column.cascade, 9)
    return f"<span title='{_carry_words(column)}'><b>{column.carry}</b><small>{arrow}</small></span>"


def _does(column: Column) -> str:
    return f"<small>{column.does}</small>" if column.does else ""


def _said(column: Column) -> str:
    if column.said is None:
        return "<td class='mark'>…</td>"
    if not column.truth and not column.said:
        return "<td><span class='none'>·</span></td>"
    mark = "<span class='check'>✓</span>" if column.right else "<span class='cross'>✗</span>"
    missed = "" if column.right else " class='missed'"
    return f"<td{missed}><b>{escape(column.said) or 'nothing'}</b> {mark}<small>{probability(column.p)}</small></td>"
