"""A recipe carried out on the example in view, from forward passes made here and now, and told in sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from app.numbers import signed
from app.run_access import LoadedModel
from app.session import View
from app.theme import token_text

if TYPE_CHECKING:
    from interp.interventions import Done, EditedAnswer

SHOWN = 40  # rows of the table


def carry_out(loaded: LoadedModel, view: View, edits: list[dict[str, Any]]) -> Done:
    """The edits on the example in view. Raises ValueError where one cannot be made."""
    return _carry_out(loaded, view, loaded.key, json.dumps(view.named()), json.dumps(edits), view.executed())


@st.cache_resource(show_spinner=False, max_entries=64)
def _carry_out(_loaded: LoadedModel, _view: View, key: str, example: str, edits: str, at: int) -> Done:
    from interp.interventions import Edit, carry_out

    made = [Edit.from_dict(each) for each in json.loads(edits)]
    run = _loaded.run
    with _loaded.lock:
        return carry_out(run.model, run.task, _view.example(), made, at=at)


def python(view: View, edits: list[dict[str, Any]], folder: str) -> str:
    """The Python that does the same."""
    from interp.interventions import Edit, python

    return python(folder, view.code(), [Edit.from_dict(each) for each in edits], at=view.executed())


def as_json(view: View, edits: list[dict[str, Any]], folder: str) -> str:
    """The recipe, with what it was made on."""
    config = view.run.config
    recipe = {"run": folder, "config": config.digest, "task": config.task, "example": view.named(),
            "executed_step": view.executed(), "edits": edits}  # fmt: skip
    return json.dumps(recipe, indent=2)


def sentence(answer: EditedAnswer, do: Mapping[str, int], title: str, *, edited: bool) -> str:
    """What the edit did, held against the world."""
    right_before, right_after = (_share(said == answer.truth, answer.truth >= 0)
                                 for said in (answer.before, answer.after))  # fmt: skip
    if not edited:
        return f"Nothing is edited: the model is right at **{right_before}** places."
    moved = int((answer.before != answer.after).sum())
    if not do:
        return (
            f"The edit changes the model's answer at **{moved} of {len(answer.names)}** places. Held against {title}, "
            f"which nothing was done to, it was right at {right_before} and is right at **{right_after}**."
        )
    named = " and ".join(f"{name} = {value}" for name, value in do.items())
    if not answer.valid.any():
        return f"With {named} {title} has no answer here, so there is nothing to hold the edited model against."
    change, stay = answer.should_change, answer.valid & ~answer.should_change
    hit = answer.after == answer.expected
    words = [f"✓ The edited model answers as {title} would with {named}." if answer.right
             else f"✗ The edited model does not answer as {title} would with {named}."]  # fmt: skip
    if change.any():
        words.append(f"What should change, changed at **{_share(hit, change)}** places;")
        words.append(f"what should stay, stayed at **{_share(hit, stay)}**.")
    else:
        words.append(f"The answer should not change at all; it stayed at **{_share(hit, stay)}** places.")
    return " ".join(words)


def _share(hit: np.ndarray, among: np.ndarray) -> str:
    return f"{int((hit & among).sum())} of {int(among.sum())}"


def table(answer: EditedAnswer, vocab: tuple[str, ...], title: str, *, whole: bool = False) -> str:
    """Place by place, as HTML: the model left alone and edited, beside the world; those where something differs."""
    differs = (
        (answer.before != answer.after) | answer.should_change | ((answer.after != answer.expected) & answer.valid)
    )
    rows = np.flatnonzero(np.ones_like(differs) if whole else differs)
    body = []
    for row in rows if whole else rows[:SHOWN]:
        expected = int(answer.expected[row])
        hit = int(answer.after[row]) == expected
        changed = " changed" if answer.before[row] != answer.after[row] else ""
        verdict = "" if expected < 0 else "<span class='check'>✓</span>" if hit else "<span class='cross'>✗</span>"
        change = float(answer.p_after[row] - answer.p_before[row])
        body.append(
            f"<tr><th scope='row'>{escape(answer.names[row])}</th>{_slot(answer.before[row], vocab)}"
            f"{_slot(answer.after[row], vocab, changed)}{_slot(expected, vocab)}<td>{verdict}</td>"
            f"<td>{answer.p_before[row]:.2f} → {answer.p_after[row]:.2f}</td><td>{signed(change)}</td></tr>"
        )
    head = ("", "model, left alone", "model, edited", f"{title}, edited", "", "p of that, before → after", "difference")
    cells = "".join(f"<th scope='col'>{escape(word)}</th>" for word in head)
    more = f"<caption>{len(rows) - SHOWN} more places differ</caption>" if len(rows) > SHOWN and not whole else ""
    return f"<div class='scroll'><table class='edited'>{more}<tr>{cells}</tr>{''.join(body)}</table></div>"


def _slot(token: int, vocab: tuple[str, ...], changed: str = "") -> str:
    text = "–" if token < 0 else token_text(vocab[int(token)])
    return f"<td><span class='slot{changed}'>{escape(text)}</span></td>"
