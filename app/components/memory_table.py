"""A memory of slots at one step: a row a slot, the counter, and where the model holds something else.

Pure: plain sequences in, HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.components.board import probability
from app.components.clickable import pickable

HEADS = ("kind", "next", "left", "right", "content")


@dataclass(frozen=True)
class Slot:
    """A slot as it stands."""

    name: str
    fields: tuple[str, ...]  # the world's kind, next, left, right and content, in words
    held: tuple[str, ...]  # the model's
    p: float  # of what the model holds
    changed: tuple[bool, ...]  # against the step before
    counter: bool = False  # whether the world executes it now
    model_counter: bool = False  # whether the model does


def memory_table(slots: Sequence[Slot], *, picked: int | None) -> str:
    """A row a slot, each to be picked. A field that the model holds otherwise shows both, crossed; one that the last
    step wrote is underlined; ▶ is what is executed next, ▷ what the model executes where that is another."""
    head = "".join(f"<th scope='col'>{each}</th>" for each in HEADS)
    rows = [_row(slot, at, picked=at == picked) for at, slot in enumerate(slots)]
    return (
        "<div class='scroll'><table class='memory'><thead><tr><th></th><th scope='col'>slot</th>"
        f"{head}<th scope='col'>p</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(slot: Slot, at: int, *, picked: bool) -> str:
    wrong = sum(a != b for a, b in zip(slot.fields, slot.held, strict=True))
    words = f"slot {at}, {slot.name}: {', '.join(filter(None, slot.fields))}"
    words += "; executed next" if slot.counter else ""
    words += f"; the model holds {wrong} of its fields otherwise" if wrong else ""
    mark = "▶" if slot.counter else "▷" if slot.model_counter else ""
    cells = "".join(map(_cell, slot.fields, slot.held, slot.changed))
    into_view = " data-into-view" if slot.counter else ""
    classes = " ".join(filter(None, ("now" if slot.counter else "", "picked" if picked else "")))
    return (
        f"<tr class='{classes}'{into_view}><td class='counter'>{mark}</td>"
        f"<th scope='row'><span {pickable(str(at), words)} title='{escape(words, quote=True)}'>{at} "
        f"<b>{escape(slot.name)}</b></span></th>{cells}<td class='p'>{probability(slot.p)}</td></tr>"
    )


def _cell(true: str, held: str, changed: bool) -> str:
    text = f"<u>{escape(true)}</u>" if changed and true else escape(true)
    if true == held:
        return f"<td>{text}</td>"
    return f"<td class='missed'>{text or '·'} <span class='cross'>✗ {escape(held) or '·'}</span></td>"
