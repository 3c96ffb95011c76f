"""Stream: executed instructions one by one, what the model answers, and the tape that probes read meanwhile."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app import examples_view, live_probes, run_access, session, widgets
from app.answers import Answers, asked_tokens
from app.components.board import Guess
from app.components.clickable import clickable
from app.components.heatmap import filled, heatmap
from app.components.stream import Executed, stream_strip, tape_board
from app.example_controls import draw_controls, load, step_in_view
from app.examples_view import ExamplesView, Shown
from app.live_probes import LiveProbes
from app.pages import PAGES
from app.probe_fitting import choose_hook, fitted_or_offer
from app.run_access import LoadedModel
from app.stream_reading import DISTANCE, PLACE, ReadTape, Tape, elsewhere, read_tape, true_tape
from app.theme import CIVIDIS, GLYPHS, OP_MEANINGS, token_text


def op_positions(shown: Shown) -> np.ndarray:
    """Where the instruction of each step stands, int64 [step]."""
    is_op = np.array([token in GLYPHS for token in shown.tokens])
    return np.array([int(np.flatnonzero((shown.times == step) & is_op)[0]) for step in shown.steps])


def executed(shown: Shown, found: Answers | None) -> list[Executed]:
    """The steps, with what is told behind each and what the model says where it is asked."""
    vocab, truth = shown.task.vocab, asked_tokens(shown.task, shown.batch)[0]
    steps = []
    for at in op_positions(shown):
        op = shown.tokens[at]
        asked, behind = truth[at] >= 0, at + 1 < len(shown.tokens) and shown.times[at + 1] == shown.times[at]
        steps.append(
            Executed(
                op=op,
                given="" if asked or not behind else token_text(shown.tokens[at + 1]),
                truth=answer_words(op, vocab[int(truth[at])]) if asked else "",
                said=None if found is None or not asked else answer_words(op, vocab[int(found.said[0, at])]),
                p=0.0 if found is None else float(found.p[0, at]),
            )
        )  # fmt: skip
    return steps


def answer_words(op: str, token: str) -> str:
    """What PUT prints, or which way a bracket goes."""
    if op in ("WHILE", "ENDW"):
        return {"1": "jumps", "0": "goes on"}.get(token, token_text(token))
    return token_text(token)


def status(view: ExamplesView, steps: list[Executed], step: int, *, loading: bool) -> str:
    """Where we are, and whether the model is right there."""
    here = steps[step]
    where = f"{session.describe_model(view.run)} · held-out stream {view.number + 1} · step {step + 1} of {len(steps)}"
    where += f" · **{here.op}**"
    if not here.truth:
        return f"{where} · nothing is asked here"
    if here.said is None:
        return f"{where} · the model is loading" if loading else where
    return f"{where} · {session.verdict(here.right, here.p)}"


def draw_answer(view: ExamplesView, steps: list[Executed], step: int) -> None:
    """What is asked at this step and answered, how the whole stream goes, and the ways from here."""
    here = steps[step]
    asked = [each for each in steps if each.truth]
    what = "what it prints" if here.op == "PUT" else "which way it goes"
    if not here.truth:
        line = f"`{GLYPHS[here.op]}` **{here.op}**: {OP_MEANINGS[here.op]}. Nothing is asked here."
    elif here.right:
        line = f"✓ Asked {what}, the model says **{here.said}**, which is right."
    else:
        line = f"✗ Asked {what}, the model says **{here.said}**; right is **{here.truth}**."
    n_right = sum(each.right for each in asked)
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(f"{line} Of the whole stream **{n_right} of {len(asked)}** answers are right.", width="stretch")
        for name in ("attention", "state", "examples"):
            page = PAGES[name]
            if page.refuses(view.run) is None and st.button(page.title, icon=page.icon, key=f"to_{name}"):
                st.switch_page(page.file)


def draw_tape(view: ExamplesView, shown: Shown, loaded: LoadedModel, position: int) -> None:
    """The true tape, and the one that probes read at this token."""
    st.markdown("##### The tape, which the model is never shown")
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        hook = choose_hook(loaded)
    with right:
        addressing = st.segmented_control(
            "Cells are read", [PLACE, DISTANCE], default=DISTANCE, required=True, key="addressing",
            help="Is cell 3 kept as cell 3, or as the cell two right of the pointer? Each way has its own probes.",
        )  # fmt: skip
    truth = true_tape(shown.task, shown.batch)
    slots = [str(int(value)) for value in truth.cells[position]]
    here = {"pointer": int(truth.pointer[position]), "seen": [bool(each) for each in truth.seen[position]]}
    probes = live_probes.known(loaded, hook)
    if probes is None:
        clickable(tape_board(slots, **here), key="tape")
        fitted_or_offer(loaded, hook)
        return
    tape = read_tape(loaded, probes, shown.batch, truth, addressing=addressing or DISTANCE)
    guesses = [
        Guess("?", 0.0, False) if not seen or value < 0 else Guess(str(int(value)), float(p), bool(value == true))
        for value, p, true, seen in zip(
            tape.cells[position], tape.p[position], truth.cells[position], truth.seen[position], strict=True
        )
    ]
    read_pointer = (int(tape.pointer[position]), float(tape.p_pointer[position]))
    clickable(tape_board(slots, **here, read=guesses, read_pointer=read_pointer), key="tape")
    draw_worth(probes, addressing or DISTANCE)
    draw_course(shown, truth, tape, position)


def draw_worth(probes: LiveProbes, addressing: str) -> None:
    """How good such readings are on other streams, each beside saying the commonest value."""
    worth = elsewhere(probes, addressing)
    st.caption(
        f"Dashed: cells that the pointer has not been on yet; they hold 0 for sure and are not read. "
        f"Linear probes, fitted now on {probes.n_tokens:,} tokens of validation streams. On {worth.n:,} tokens of "
        f"{worth.n_streams} other held-out streams they read the pointer right in **{worth.pointer:.0%}** (the "
        f"commonest value: {worth.pointer_commonest:.0%}), the cells that it has been on in **{worth.cells:.0%}** "
        f"({worth.cells_commonest:.0%}), and all of these cells at once in **{worth.whole:.0%}** "
        f"({worth.whole_commonest:.0%})."
        + (
            " Read by distance, a cell is looked up from where the true pointer stands."
            if addressing == DISTANCE
            else ""
        )
    )


def draw_course(shown: Shown, truth: Tape, tape: ReadTape, position: int) -> None:
    """What is read along the whole stream: cells by steps, with the one in view marked."""
    at = op_positions(shown)
    shares = np.where(truth.seen[at], tape.p_truth[at], np.nan).T  # [cell, step]
    n_cells, n_steps = shares.shape
    drawn = filled(shares)
    tips = [
        [
            f"step {step + 1}, cell {cell} holds {truth.cells[at[step], cell]}, read as {tape.cells[at[step], cell]}: "
            f"p {tape.p_truth[at[step], cell]:.2f} for what it holds"
            for step in range(n_steps)
        ]
        for cell in range(n_cells)
    ]
    right = (tape.cells == truth.cells)[at].T[~np.isnan(shares)]
    st.markdown("**Along the whole stream**: the probability that probes give to what each cell holds")
    widgets.pickable_chart(
        heatmap(
            shares, rows=[f"cell {cell}" for cell in range(n_cells)],
            columns=[str(step + 1) for step in range(n_steps)], limits=(0, 1), colors=CIVIDIS, tips=tips,
            marked_column=int(np.flatnonzero(at == position)[0]),
        ),
        key="course",
        on_pick=lambda _, index: examples_view.go(st.session_state[examples_view.NUMBER], step=drawn[index][1]),
        height=110 + 22 * n_cells, alt=f"Heatmap of cells by steps: {right.mean():.0%} of them are read right.",
    )  # fmt: skip
    st.caption(
        f"Of these {right.size} readings **{right.mean():.0%}** are right. Empty: the pointer has not been there yet. "
        "A click goes to the step, as the slider does."
    )


def page() -> None:
    view = examples_view.view(run_access.current())
    top, words = st.empty(), st.empty()
    top.markdown(f"#### {session.describe_model(view.run)} · held-out stream {view.number + 1}")
    shown, loaded, problem = load(view)
    if shown is None:
        return
    step = step_in_view(view, shown)
    found = None if loaded is None else examples_view.answered(loaded, view.number)
    steps = executed(shown, found)
    top.markdown(f"#### {status(view, steps, step, loading=problem is None)}")
    words.caption(f"{shown.task.words} The stream comes from {session.unit(view)} that was kept out of training.")
    draw_controls(view, shown, loaded, found)
    widgets.time_slider("step", shown.n_steps)
    clickable(
        stream_strip(steps, now=step), key="stream",
        on_pick=lambda value: examples_view.go(st.session_state[examples_view.NUMBER], step=int(value)),
    )  # fmt: skip
    if problem is not None:
        run_access.show_problem(problem)
    elif loaded is None:
        run_access.model_or_wait(view.run)
    else:
        draw_answer(view, steps, step)
        draw_tape(view, shown, loaded, int(op_positions(shown)[step]))


page()
