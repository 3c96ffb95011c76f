"""The machine as a person reads it: the program above, the tape and the buffers below, each row beside the next.

Every board is a table with up to three rows: now, the machine's next state, the model's prediction of it.
All functions are pure: plain sequences in, HTML out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.components.clickable import pickable
from app.theme import GLYPHS, HATCHED, OP_COLORS, OP_MEANINGS, text_on


@dataclass(frozen=True)
class Guess:
    """What the model says of one slot."""

    token: str  # as shown: "3", "INC", "·"
    p: float  # probability of that token, 0 to 1
    right: bool


def probability(p: float) -> str:
    """ ".98"; "1" from .995 up, "<.01" below .005: never a rounded certainty."""
    if p >= 0.995:
        return ">.99"
    return "<.01" if p < 0.005 else f"{p:.2f}".lstrip("0")


def program_board(
    ops: Sequence[str],
    *,
    pointer: int,
    next_pointer: int,
    pointer_guess: Sequence[Guess] | None,
    op_guess: Sequence[Guess] | None,
    n_written: int,
) -> str:
    """The code strip. `pointer_guess[i]` is the model's token for slot i of the pointer's one-hot, `op_guess[i]`
    for instruction i; None while the model is not there. Instructions from `n_written` on are padding."""
    columns = range(len(ops))
    marks = "".join(f'<td class="mark">{"▼" if i == pointer else ""}</td>' for i in columns)
    tiles = "".join(f"<td>{_tile(ops[i], i, now=i == pointer, padding=i >= n_written)}</td>" for i in columns)
    truth = "".join(f'<td class="mark">{"▲" if i == next_pointer else ""}</td>' for i in columns)
    rows = [
        f"<tr><th scope='row'></th>{marks}</tr>",
        f"<tr><th scope='row'>program</th>{tiles}</tr>",
        f"<tr><th scope='row'>machine goes to</th>{truth}</tr>",
    ]
    if pointer_guess is None or op_guess is None:
        rows.append(f"<tr><th scope='row'>model says</th><td colspan='{len(ops)}' class='mark'>…</td></tr>")
    else:
        cells = "".join(_pointer_guess(pointer_guess[i], op_guess[i], i == next_pointer) for i in columns)
        rows.append(f"<tr><th scope='row'>model says</th>{cells}</tr>")
    return f"<div class='scroll'><table>{''.join(rows)}</table></div>"


def slots_board(
    title: str,
    *,
    names: Sequence[str],
    now: Sequence[str],
    truth: Sequence[str],
    guesses: Sequence[Guess] | None,
    pointer: int | None = None,
    next_pointer: int | None = None,
    pointer_guess: Sequence[Guess] | None = None,
    row_names: bool = True,
) -> str:
    """The tape (with a pointer) or a buffer (without): now, machine next, model next. "·" is an empty slot.

    `row_names=False` hides the row headings from sight (they stay for screen readers)."""
    if not names:
        return f"<table><caption>{escape(title)} <small>(none on this machine)</small></caption></table>"

    def heading(text: str) -> str:
        hidden = "" if row_names else " style='font-size:0;padding:0'"
        return f"<th scope='row'{hidden}>{text}</th>"

    def slot(text: str, i: int, here: int | None, before: Sequence[str] | None, guess: Guess | None) -> str:
        classes = ["slot"]
        classes += ["empty"] if text == "·" else []
        classes += ["here"] if here == i else []
        classes += ["changed"] if before is not None and before[i] != text else []
        classes += ["wrong"] if guess is not None and not guess.right else []
        flag = "" if guess is None or guess.right else "<span class='cross'>✗</span>"
        p = "" if guess is None else f"<span class='p'>{probability(guess.p)}</span>"
        label = "" if guess is None else f" title='{escape(names[i])}: p = {guess.p:.4f}'"
        return f"<td{label}><span class='{' '.join(classes)}'>{escape(text)}{flag}</span>{p}</td>"

    columns = range(len(names))
    indices = "".join(f"<th scope='col' class='mark' style='text-align:center'>{i}</th>" for i in columns)
    rows = [f"<tr>{heading('')}{indices}</tr>"]
    rows.append(f"<tr>{heading('now')}{''.join(slot(now[i], i, pointer, None, None) for i in columns)}</tr>")
    rows.append(f"<tr>{heading('')}{_pointer_row(len(names), pointer)}</tr>")
    rows.append(
        f"<tr>{heading('machine next')}{''.join(slot(truth[i], i, next_pointer, now, None) for i in columns)}</tr>"
    )
    rows.append(f"<tr>{heading('')}{_pointer_row(len(names), next_pointer)}</tr>")
    if guesses is None:
        waiting = "".join("<td><span class='slot waiting'>…</span></td>" for _ in columns)
        rows.append(f"<tr>{heading('model says')}{waiting}</tr>")
    else:
        marked = [i for i in columns if pointer_guess is not None and pointer_guess[i].token == "1"]
        cells = "".join(slot(guesses[i].token, i, i if i in marked else None, now, guesses[i]) for i in columns)
        rows.append(f"<tr>{heading('model says')}{cells}</tr>")
        if pointer_guess is not None:
            cells = "".join(_pointer_guess(pointer_guess[i], None, i == next_pointer) for i in columns)
            rows.append(f"<tr>{heading('')}{cells}</tr>")
    return f"<table><caption>{escape(title)}</caption>{''.join(rows)}</table>"


def ribbon(ops: Sequence[str], right: Sequence[bool] | None, *, now: int) -> str:
    """One small tile a step: the instruction that runs, and ✓ or ✗ for the model's prediction of it."""
    tiles = []
    for i, op in enumerate(ops):
        verdict = (
            "…" if right is None else "<span class='check'>✓</span>" if right[i] else "<span class='cross'>✗</span>"
        )
        words = "" if right is None else ", predicted right" if right[i] else ", predicted wrong"
        classes = "step" + (" now" if i == now else "") + (" missed" if right is not None and not right[i] else "")
        color = OP_COLORS[op]
        glyph = f"<i style='background:{color};color:{text_on(color)}'>{escape(GLYPHS[op])}</i>"
        tiles.append(
            f"<span class='{classes}' {pickable(str(i), f'step {i + 1}, {op}{words}')}>{glyph}{verdict}</span>"
        )
    return f"<div class='ribbon'>{''.join(tiles)}</div>"


def _tile(op: str, index: int, *, now: bool, padding: bool) -> str:
    classes = "op" + (" now" if now else "") + (" padding" if padding else "") + (" hatched" if op in HATCHED else "")
    color = OP_COLORS[op]
    into_view = " data-into-view" if now else ""
    return (
        f"<span class='{classes}' style='background-color:{color};color:{text_on(color)}'{into_view} "
        f"title='instruction {index}: {op}, {OP_MEANINGS[op]}' {pickable(str(index), f'instruction {index}: {op}')}>"
        f"<b>{escape(GLYPHS[op])}</b><span>{op}</span></span>"
    )


def _pointer_row(n: int, here: int | None) -> str:
    """Under the slots: ▲ at the pointer; an empty row for a buffer, so that its rows stand beside the tape's."""
    return "".join(f"<td class='mark'>{'▲' if i == here else ''}</td>" for i in range(n))


def _pointer_guess(guess: Guess, op: Guess | None, truth: bool) -> str:
    """A column under the model's prediction: its pointer mark, and an instruction that it would change."""
    text = ""
    if guess.token == "1" or truth or not guess.right:
        sign = "▲" if guess.token == "1" else "–" if guess.token == "0" else escape(guess.token)
        verdict = "<span class='check'>✓</span>" if guess.right else "<span class='cross'>✗</span>"
        text = f"{sign}{verdict}<span class='p'>{probability(guess.p)}</span>"
    if op is not None and not op.right:
        text += f"<span class='cross'>✗ {escape(op.token)}</span>"
    return f"<td class='mark' title='p = {guess.p:.4f}'>{text}</td>"
