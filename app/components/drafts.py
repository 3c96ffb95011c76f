"""An answer pass by pass: a row a pass, a column a token of the answer.

Pure: plain sequences in, HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.components.board import probability
from app.components.clickable import pickable


@dataclass(frozen=True)
class Draft:
    """The answer after one pass."""

    said: Sequence[str | None]  # each token; None where it is not decided yet
    p: Sequence[float]  # the probability that the model gave each
    stops: bool = False  # whether the model's own rule stops here

    def right(self, truth: Sequence[str]) -> list[bool]:
        """Which tokens are decided and right."""
        return [said == is_ for said, is_ in zip(self.said, truth, strict=True)]


def draft_table(
    names: Sequence[str], truth: Sequence[str], drafts: Sequence[Draft], *, now: int, word: str, before: Sequence[str]
) -> str:
    """A row a pass, each to be picked; ✓ and ✗ beside what is said, · where nothing is decided.

    Where an answer has more tokens than there are passes, a column a pass and a row a token.

    Args:
        names: of the tokens of the answer.
        truth: the world's answer, under all passes.
        drafts: the passes.
        now: the pass in view, from 0.
        word: what a pass is called.
        before: what stood there before, "" where nothing did; a token that differs from it is underlined.
    """
    if len(names) > len(drafts):
        return _across(names, truth, drafts, now=now, word=word, before=before)
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in names)
    rows = [_row(draft, truth, at, now=at == now, word=word, before=before) for at, draft in enumerate(drafts)]
    last = "".join(f"<td><b>{escape(each)}</b></td>" for each in truth)
    return (
        f"<div class='scroll'><table class='drafts'><thead><tr><th></th>{head}<th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody>"
        f"<tfoot><tr><th scope='row'>the world</th>{last}<td></td></tr></tfoot></table></div>"
    )


def _across(
    names: Sequence[str], truth: Sequence[str], drafts: Sequence[Draft], *, now: int, word: str, before: Sequence[str]
) -> str:
    """The table with a column a pass."""
    heads = []
    for at, draft in enumerate(drafts):
        words = _words(draft, truth, at, word)
        into_view = " data-into-view" if at == now else ""
        heads.append(
            f"<th scope='col' class='{'now' if at == now else ''}'{into_view}>"
            f"<span {pickable(str(at), words)} title='{escape(words, quote=True)}'>{at + 1}</span></th>"
        )
    rows = []
    for k, (name, is_, was) in enumerate(zip(names, truth, before, strict=True)):
        cells = "".join(
            _cell(
                draft.said[k], draft.p[k], draft.said[k] == is_, changed=bool(was) and draft.said[k] not in (None, was)
            )
            for draft in drafts
        )
        rows.append(f"<tr><th scope='row'>{escape(name)}</th>{cells}<td><b>{escape(is_)}</b></td></tr>")
    return (
        f"<div class='scroll'><table class='drafts across'><thead><tr><th>{word}</th>{''.join(heads)}"
        f"<th scope='col'>the world</th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _words(draft: Draft, truth: Sequence[str], at: int, word: str) -> str:
    """A pass in words."""
    decided = sum(each is not None for each in draft.said)
    words = f"{word} {at + 1}: {sum(draft.right(truth))} of {len(truth)} tokens right"
    if decided < len(truth):
        words += f", {decided} decided"
    return words + ("; the model stops here" if draft.stops else "")


def _row(draft: Draft, truth: Sequence[str], at: int, *, now: bool, word: str, before: Sequence[str]) -> str:
    right, words = draft.right(truth), _words(draft, truth, at, word)
    cells = [
        _cell(said, p, ok, changed=said is not None and bool(was) and said != was)
        for said, p, ok, was in zip(draft.said, draft.p, right, before, strict=True)
    ]
    mark = "<td class='stops'>◀ stops here</td>" if draft.stops else "<td></td>"
    into_view = " data-into-view" if now else ""
    return (
        f"<tr class='{'now' if now else ''}'{into_view}><th scope='row'>"
        f"<span {pickable(str(at), words)} title='{escape(words, quote=True)}'>{word} {at + 1}</span></th>"
        f"{''.join(cells)}{mark}</tr>"
    )


def _cell(said: str | None, p: float, ok: bool, *, changed: bool) -> str:
    if said is None:
        return "<td class='open'>·</td>"
    mark = "<span class='check'>✓</span>" if ok else "<span class='cross'>✗</span>"
    text = f"<u>{escape(said)}</u>" if changed else escape(said)
    return f"<td class='{'' if ok else 'missed'}'>{text} {mark}<small>{probability(p)}</small></td>"
