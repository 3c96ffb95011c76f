"""String: a held-out string with its rule state, and at each place the next character's probabilities beside the exact
ones."""

from __future__ import annotations

from html import escape

import numpy as np
import streamlit as st

from app import examples_view, run_access, session, widgets
from app.components.clickable import clickable
from app.components.next_character import Place, next_table, string_strip
from app.example_controls import draw_neighbours, load
from app.examples_view import ExamplesView, Shown
from app.numbers import small
from app.pages import PAGES
from app.run_access import LoadedModel


@st.cache_data(show_spinner=False, max_entries=64)
def said(_loaded: LoadedModel, key: str, number: int) -> np.ndarray:
    """The model's probabilities at every token of example `number`, [pos, d_vocab]."""
    import torch

    batch = examples_view.shown_example(_loaded.run.task, _loaded.run, number).batch
    with _loaded.lock, torch.no_grad():
        return _loaded.run.model(batch.tokens)[0].double().softmax(dim=-1).numpy()


def places(shown: Shown, exact: np.ndarray, model: np.ndarray | None) -> list[Place]:
    """The tiles of the string, the start first."""
    task, found = shown.task, []
    for step in shown.steps:
        at, target = int(step), int(shown.batch.targets[0, step])
        found.append(
            Place(
                token=shown.tokens[at],
                state=shown.stratum(at),
                next=task.vocab[target],
                exact=float(exact[at, target]),
                said=None if model is None else float(model[at, target]),
                forbidden=None if model is None else forbidden(exact[at], model[at]),
            )
        )
    return found


def forbidden(exact: np.ndarray, model: np.ndarray) -> float:
    """The model's probability on characters that the rule forbids, and on the start."""
    return float(model[: len(exact)][exact == 0].sum() + model[len(exact) :].sum())


def status(view: ExamplesView, exact: np.ndarray, model: np.ndarray | None, step: int) -> str:
    """Where we are, and how near the model is there."""
    where = f"{session.describe_model(view.run)} · held-out string {view.number + 1} · after {step} characters"
    if model is None:
        return f"{where} · the model is loading"
    legal = exact > 0
    kl = float((exact[legal] * np.log(exact[legal] / model[: len(exact)][legal])).sum())
    return f"{where} · KL to the rule {small(kl)} nats · {small(forbidden(exact, model))} on what it forbids"


def draw_variables(shown: Shown, step: int) -> None:
    """The rule's variables with their values here."""
    st.markdown("**The rule's state** here")
    rows = []
    for name, variable in shown.task.world.variables().items():
        value = shown.value(name, step)
        rows.append(
            f"<tr><th scope='row'>{escape(name)}<small>{escape(variable.equation)}</small></th>"
            f"<td>{'–' if value < 0 else value}</td></tr>"
        )
    clickable(f"<table class='values'>{''.join(rows)}</table>", key="values")
    st.caption("– where a variable has no value. Probes look for these, and interchange sets them.")


def draw_own_string(shown: Shown) -> None:
    """Any text held against the rule."""
    text = st.text_input("Hold a text of your own against the rule", key="own_text", max_chars=400)
    if not text:
        return
    fault = shown.task.world.fault(text)
    if fault is None:
        st.markdown(f"✓ The rule allows all {len(text)} characters.")
    else:
        st.markdown(f"✗ Character {fault.position + 1} is the first fault: {fault.reason}.")


def page() -> None:
    view = examples_view.view(run_access.current())
    top = st.empty()
    top.markdown(f"#### {session.describe_model(view.run)} · held-out string {view.number + 1}")
    shown, loaded, problem = load(view)
    if shown is None:
        return
    world, step = shown.task.world, min(view.step, shown.n_steps - 1)
    exact = world.conditionals(shown.batch.examples)[0]
    model = None if loaded is None else said(loaded, loaded.key, view.number)
    top.markdown(f"#### {status(view, exact[step], None if model is None else model[step], step)}")
    st.caption(f"{shown.task.words} The rule: {world.in_words()}. The string was kept out of training.")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        draw_neighbours(view, what="string")
    widgets.time_slider("character", shown.n_steps)
    if problem is not None:
        run_access.show_problem(problem)
    elif loaded is None:
        run_access.model_or_wait(view.run)
    st.caption(
        "One tile a token: what the rule says is due behind it, the token, the character that came, and how probable "
        "the model held it of how probable it was. ✗: over 1 % on characters that the rule forbids. Pick a tile. "
        "KL: how far the model's probabilities are from the rule's, 0 at best."
    )
    clickable(
        string_strip(places(shown, exact, model), step), key="string",
        on_pick=lambda value: examples_view.go(st.session_state[examples_view.NUMBER], step=int(value)),
    )  # fmt: skip
    left, right = st.columns([3, 2], gap="large")
    with left:
        came = shown.task.vocab[int(shown.batch.targets[0, step])]
        st.markdown(f"**The next character** after `{''.join(shown.tokens[: step + 1])}`")
        characters = world.rule.alphabet
        table = next_table(characters, exact[step], None if model is None else model[step], came)
        clickable(table, key="next_character")
        inside = PAGES["probes"]
        if st.button(f"How? {inside.title}", icon=inside.icon, key="why"):
            st.switch_page(inside.file)
    with right:
        draw_variables(shown, step)
        draw_own_string(shown)


page()
