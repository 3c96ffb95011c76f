"""A stream of executed instructions as a strip, and the tape beside what probes read of it. Pure: HTML out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from app.components.board import Guess, probability
from app.components.clickable import pickable
from app.theme import GLYPHS, HATCHED, OP_COLORS, text_on


@dataclass(frozen=True)
class Executed:
    """One executed instruction."""

    op: str
    given: str = ""  # what stands behind it where that is given: the value that GET read
    truth: str = ""  # the right answer, where one is asked
    said: str | None = None  # the model's; None while it is not there
    p: float = 0.0  # probability of what it says

    @property
    def right(self) -> bool:
        return self.said == self.truth


def stream_strip(steps: Sequence[Executed], *, now: int) -> str:
    """The instructions in the order of execution; under each what it read, or what the model answers."""
    return f"<div class='strip stream'>{''.join(_tile(i, step, i == now) for i, step in enumerate(steps))}</div>"


def _tile(index: int, step: Executed, now: bool) -> str:
    missed = bool(step.truth) and step.said is not None and not step.right
    words = f"step {index + 1}, {step.op}"
    if step.given:
        below = f"<span class='said'>reads {escape(step.given)}</span>"
        words += f", reads {step.given}"
    elif not step.truth:
        below = "<span class='none'>·</span>"
    elif step.said is None:
        below = "<span class='none'>asked</span>"
    elif step.right:
        below = f"<span class='said'>{escape(step.said)} <span class='check'>✓</span></span>{_p(step.p)}"
        words += f", the model says {step.said}, right"
    else:
        below = (
            f"<span class='said'>{escape(step.said)} <span class='cross'>✗</span></span>{_p(step.p)}"
            f"<span class='is'>is {escape(step.truth)}</span>"
        )
        words += f", the model says {step.said}, wrong: it is {step.truth}"
    color = OP_COLORS[step.op]
    hatched = " class='hatched'" if step.op in HATCHED else ""
    classes = "tile" + (" now" if now else "") + (" missed" if missed else "")
    return (
        f"<span class='{classes}' title='{escape(words, quote=True)}' {pickable(str(index), words)}>"
        f"<small>{index + 1}</small><b{hatched} style='background-color:{color};color:{text_on(color)}'>"
        f"{escape(GLYPHS[step.op])} {step.op}</b>{below}</span>"
    )


def tape_board(
    cells: Sequence[str],
    *,
    pointer: int,
    seen: Sequence[bool],
    read: Sequence[Guess] | None = None,
    read_pointer: tuple[int, float] | None = None,
) -> str:
    """The true tape, and under it the tape that probes read, each with its pointer. `seen`: cells the pointer has been
    on; the others hold 0 for sure and are drawn faint."""
    columns = range(len(cells))
    head = "".join(f"<th scope='col' class='mark' style='text-align:center'>{i}</th>" for i in columns)
    rows = [
        f"<tr><th scope='row'>cell</th>{head}</tr>",
        f"<tr><th scope='row'>the machine</th>{''.join(_slot(cells[i], i == pointer, seen[i], None) for i in columns)}"
        "</tr>",
        f"<tr><th scope='row'></th>{_marks(len(cells), pointer)}</tr>",
    ]
    if read is not None:
        reading = "".join(
            _slot(read[i].token, read_pointer is not None and read_pointer[0] == i, seen[i], read[i]) for i in columns
        )
        rows.append(f"<tr><th scope='row'>probes read</th>{reading}</tr>")
    if read_pointer is not None:
        at, p = read_pointer
        verdict = "<span class='check'>✓</span>" if at == pointer else "<span class='cross'>✗</span>"
        marks = "".join(f"<td class='mark'>{f'▲{verdict}{_p(p)}' if i == at else ''}</td>" for i in columns)
        rows.append(f"<tr><th scope='row'></th>{marks}</tr>")
    return f"<div class='scroll'><table><caption>The tape, before this step</caption>{''.join(rows)}</table></div>"


@dataclass(frozen=True)
class Reading:
    """One variable, as it is and as it is read."""

    name: str
    truth: str  # "–": not determined
    guess: Guess
    elsewhere: str  # how good such readings are on other examples


def readings(rows: Sequence[Reading]) -> str:
    """A table of variables: the true value, what is read here, how good such readings are elsewhere."""
    lines = []
    for row in rows:
        mark = "<span class='check'>✓</span>" if row.guess.right else "<span class='cross'>✗</span>"
        lines.append(
            f"<tr><th scope='row'>{escape(row.name)}</th><td>{escape(row.truth)}</td>"
            f"<td>{escape(row.guess.token)} {'' if row.truth == '–' else mark}{_p(row.guess.p)}</td>"
            f"<td class='known'>{escape(row.elsewhere)}</td></tr>"
        )
    head = "".join(f"<th scope='col'>{each}</th>" for each in ("true", "read here", "right elsewhere"))
    return (
        f"<table class='values readings'><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    )


def _slot(text: str, here: bool, seen: bool, guess: Guess | None) -> str:
    classes = "slot" + (" here" if here else "") + ("" if seen else " empty")
    if guess is None or not seen:
        return f"<td><span class='{classes}'>{escape(text if guess is None else '·')}</span></td>"
    classes += "" if guess.right else " wrong"
    flag = "" if guess.right else "<span class='cross'>✗</span>"
    return f"<td><span class='{classes}'>{escape(text)}{flag}</span>{_p(guess.p)}</td>"


def _marks(n: int, here: int) -> str:
    return "".join(f"<td class='mark'>{'▲' if i == here else ''}</td>" for i in range(n))


def _p(p: float) -> str:
    return f"<span class='p'>{escape(probability(p))}</span>"
