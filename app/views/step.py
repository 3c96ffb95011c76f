"""Step: a program runs, the model predicts each next state, and where it errs is one click away."""

from __future__ import annotations

import time

import numpy as np
import streamlit as st

from app import machine_view, predictions, program, run_access, selection, widgets
from app.components.board import Guess, program_board, ribbon, slots_board
from app.components.clickable import clickable
from app.machine_view import MachineView
from app.predictions import Prediction
from app.step_panels import draw_editor, draw_legend, draw_slots, search
from app.theme import GLYPHS
from cython_vm import Op
from interp import RunError

PLAY_SECONDS = 0.7  # between two steps of Run
OUTCOME_WORDS = {
    "RAN": "",
    "HALTED": "STOP: the program has ended",
    "ARRAY_OVERFLOW": "the pointer is at the last cell already, so the machine freezes",
    "ARRAY_UNDERFLOW": "the pointer is at the first cell already, so the machine freezes",
    "VALUE_OVERFLOW": "the cell holds the largest value already, so the machine freezes",
    "VALUE_UNDERFLOW": "the cell is 0 already, so the machine freezes",
    "OUTPUT_FULL": "the output is full, so the machine freezes",
    "INPUT_EMPTY": "the input is empty, so the machine freezes",
}


def guesses(view: MachineView, prediction: Prediction | None, block: str) -> list[Guess] | None:
    """What the model says of each slot of a block."""
    if prediction is None:
        return None
    part = view.spec.layout.slice(block)
    answered, real, p = (array[view.step, part] for array in (prediction.tokens, prediction.truth, prediction.p))
    return [
        Guess(program.slot_text(view.spec.vocab[int(t)]), float(q), bool(t == r))
        for t, r, q in zip(answered, real, p, strict=True)
    ]


def slots(view: MachineView, row: int, block: str) -> list[str]:
    """A block of the state `row` of the walk, slot by slot, as text."""
    states = view.walk.states
    if block == "cells":
        return [str(int(value)) for value in states.cells[row]]
    length = int(getattr(states, f"{block}_length")[row])
    values = getattr(states, block)[row]
    return [str(int(value)) if i < length else "·" for i, value in enumerate(values)]


def go(step: int) -> None:
    """Show another step; what was picked to explain follows it."""
    selection.emit(step=step, op="")


def draw_program(view: MachineView, prediction: Prediction | None) -> None:
    """The code strip, with the pointer now, in the machine's next state and in the model's."""
    states, step = view.walk.states, view.step
    html = program_board(
        [Op(int(code)).name for code in states.program[step]],
        pointer=int(states.instruction_ptr[step]),
        next_pointer=int(states.instruction_ptr[step + 1]),
        pointer_guess=guesses(view, prediction, "instruction_ptr"),
        op_guess=guesses(view, prediction, "instructions"),
        n_written=len(view.start.program) + 1,
    )
    runs_at = [int(i) for i in states.instruction_ptr[: view.walk.n_steps]]

    def pick(value: str) -> None:
        later = [t for t, i in enumerate(runs_at) if i == int(value)]
        if later:
            go(min((t for t in later if t > view.step), default=later[0]))
        else:
            selection.notify(f"Instruction {value} never runs in this program.")

    clickable(html, key="program_board", on_pick=pick)


def draw_tape(view: MachineView, prediction: Prediction | None) -> None:
    """Tape and buffers: now, the machine's next state, the model's."""
    states, step, layout = view.walk.states, view.step, view.spec.layout
    boards = []
    for block, title in (("cells", "Tape"), ("input", "Input"), ("output", "Output")):
        tape = block == "cells"
        boards.append(
            slots_board(
                title,
                names=layout.names[layout.slice(block)],
                now=slots(view, step, block),
                truth=slots(view, step + 1, block),
                guesses=guesses(view, prediction, block),
                pointer=int(states.array_ptr[step]) if tape else None,
                next_pointer=int(states.array_ptr[step + 1]) if tape else None,
                pointer_guess=guesses(view, prediction, "array_ptr") if tape else None,
                row_names=tape,
            )
        )
    clickable(f"<div class='scroll'><div class='row'>{''.join(boards)}</div></div>", key="tape_board")


def draw_controls(view: MachineView, prediction: Prediction | None) -> None:
    """The time slider; Run, next mistake."""
    widgets.time_slider("step", view.walk.n_steps)
    playing = st.session_state.get("playing", False)
    wrong = [] if prediction is None else [int(t) for t in np.flatnonzero(~prediction.right)]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            "Pause" if playing else "Run", icon=":material/pause:" if playing else ":material/play_arrow:", key="run",
            type="primary", on_click=toggle_play, args=(view,),
        )  # fmt: skip
        st.button(
            "Next mistake", icon=":material/error:", key="next_mistake", disabled=not wrong,
            help="Go to the next step that the model predicts wrong.",
            on_click=go, args=(min((t for t in wrong if t > view.step), default=wrong[0] if wrong else 0),),
        )  # fmt: skip
        searching = st.button(
            "Search for a mistake", icon=":material/search:", key="search", disabled=prediction is None,
            help=f"Try up to {predictions.SEARCH_LIMIT:,} random states from programs that were kept out of training, "
            "until the model errs on one; some seconds.",
        )  # fmt: skip
        if prediction is None:
            pass
        elif wrong:
            st.markdown(f"The model errs in **{len(wrong)} of {view.walk.n_steps}** steps of this program.")
        else:
            st.markdown(f"The model predicts all **{view.walk.n_steps}** steps right; elsewhere it may not.")
    if searching:
        search(view)
    elif words := st.session_state.get("search_result"):
        st.caption(words)


def toggle_play(view: MachineView) -> None:
    """Start or stop Run; from the last step it begins again."""
    st.session_state["playing"] = not st.session_state.get("playing", False)
    st.session_state["played_at"] = time.monotonic()
    if st.session_state["playing"] and view.step == view.walk.n_steps - 1:
        go(0)


@st.fragment(run_every=PLAY_SECONDS)
def play() -> None:
    """While Run is on, one step further on every tick of the clock."""
    if time.monotonic() - st.session_state["played_at"] < 0.9 * PLAY_SECONDS:
        return
    try:
        view = machine_view.view(run_access.current())
    except RunError:  # the page itself says what is wrong
        st.session_state["playing"] = False
        st.rerun()
    st.session_state["played_at"] = time.monotonic()
    st.session_state["playing"] = view.step + 2 < view.walk.n_steps
    go(min(view.step + 1, view.walk.n_steps - 1))
    st.rerun()


def draw_verdict(view: MachineView, prediction: Prediction) -> None:
    """What differs, in a sentence, and the way to the circuit behind it."""
    right = bool(prediction.right[view.step])
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        words = predictions.difference(prediction, view.step, view.spec)
        st.markdown(f"{'✓' if right else '✗'} {words}", width="stretch")
        if st.button(
            f"{'How' if right else 'Why'}? Circuit of {view.op}", key="why", icon=":material/account_tree:",
            type="secondary" if right else "primary",
        ):  # fmt: skip
            selection.emit(op=view.op, kind="", id="")
            st.switch_page("views/circuit.py")
        if st.button("Change something inside", key="to_intervene", icon=":material/tune:"):
            st.switch_page("views/intervene.py")


def draw_outcome(view: MachineView, prediction: Prediction | None, problem: RunError | None) -> None:
    """Why the machine stops here, if it does; how the model did, or why that is not known yet."""
    if outcome := OUTCOME_WORDS[view.walk.outcomes[view.step]]:
        st.caption(f"{GLYPHS[view.op]} {view.op}: {outcome}.")
    if prediction is not None:
        draw_verdict(view, prediction)
    elif problem is not None:
        run_access.show_problem(problem)
    else:
        run_access.model_or_wait(view.run)


def page() -> None:
    view = machine_view.view(run_access.current())
    top = st.empty()
    top.markdown(f"#### {view.status_with(None)}")
    trained = run_access.answer_key(view.run) is None
    st.caption(
        "A small tape machine runs this program. A transformer "
        + ("that has only seen examples of single steps" if trained else "whose weights were set by hand")
        + " says what the next state will be; here is what it says, slot by slot, and how sure it is."
    )
    program_slot, controls_slot = st.container(), st.container()
    tape_slot, verdict_slot, ribbon_slot = st.container(), st.container(), st.container()

    prediction, problem = None, None
    try:
        prediction = view.prediction()
    except RunError as error:
        problem = error
    if prediction is not None:
        top.markdown(f"#### {view.status_with(prediction)}")
    with program_slot:
        draw_program(view, prediction)
    with controls_slot:
        draw_controls(view, prediction)
    with tape_slot:
        draw_tape(view, prediction)
    with verdict_slot:
        draw_outcome(view, prediction, problem)
    with ribbon_slot:
        right = None if prediction is None else [bool(r) for r in prediction.right]
        st.caption("Every step of the run: ✓ the model is right, ✗ it is wrong. Click one to go there.")
        clickable(ribbon(view.walk.ops, right, now=view.step), key="ribbon", on_pick=lambda value: go(int(value)))
        if view.walk.ending == "cut":
            st.caption(
                f"The program does not end within {program.MAX_STEPS} steps; the first {program.MAX_STEPS} are shown."
            )
    st.divider()
    draw_editor(view)
    if prediction is not None:
        with st.expander("Every slot, with probabilities", icon=":material/table_rows:"):
            draw_slots(view, prediction)
    with st.expander("What the instructions do", icon=":material/menu_book:"):
        draw_legend(view)
    if st.session_state.get("playing"):
        play()


page()
