"""Below the board of the Step page: the program's editor, the search for a mistake, every slot, the legend."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app import machine_view, predictions, program, run_access
from app.machine_view import MachineView
from app.predictions import Prediction
from app.program import ProgramError
from app.theme import GLYPHS, OP_MEANINGS
from cython_vm import encode


def search(view: MachineView) -> None:
    """Look for a state that the model gets wrong, among states it was never trained on, and show it."""
    loaded, limit = run_access.model_if_there(view.run), predictions.SEARCH_LIMIT
    if loaded is None:
        return
    seed = st.session_state["search_seed"] = st.session_state.get("search_seed", 0) + 1
    bar = st.progress(0.0, "Searching …")
    words = f"No mistake in {limit:,} held-out states (seed {seed})."
    for tried, state in predictions.search_mistake(loaded, seed=seed):
        bar.progress(min(1.0, tried / limit), f"{tried:,} of {limit:,} states tried")
        if state is not None:
            words = (
                f"Mistake found at held-out state {tried:,} of the search (seed {seed}); the machine now stands there."
            )
            machine_view.set_start(program.of_state(state))
    st.session_state["search_result"] = words
    st.rerun()


def draw_editor(view: MachineView) -> None:
    """The program and its input, checked before they run."""
    spec = view.spec
    samples = program.examples(spec)

    def use_example() -> None:
        st.session_state.pop("search_result", None)
        if title := st.session_state.get("example"):
            machine_view.set_start(
                program.Start(program=program.parse(samples[title], spec), input=program.example_input(spec))
            )
            st.session_state["editor_nonce"] = st.session_state.get("editor_nonce", 0) + 1
            st.session_state.pop("editor_error", None)

    def submit() -> None:
        try:
            typed = program.parse(st.session_state[program_key], spec)
            values = program.parse_numbers(st.session_state[input_key], what="input", limit=spec.n_input, spec=spec)
        except ProgramError as error:
            st.session_state["editor_error"] = str(error)
            return
        st.session_state.pop("editor_error", None)
        st.session_state.pop("search_result", None)
        machine_view.set_start(program.Start(program=typed, input=values))

    st.pills(
        "Examples", list(samples), key="example", on_change=use_example, default=None,
        help="Each begins with an empty tape and the input " + " ".join(map(str, program.example_input(spec))) + ".",
    )  # fmt: skip
    # a new key whenever the program in view changes, so that the fields show what runs
    nonce = hash((view.start, st.session_state.get("editor_nonce", 0)))
    program_key, input_key = f"program_text_{nonce}", f"input_text_{nonce}"
    with st.form("editor", border=False):
        left, middle, right = st.columns([5, 2, 1.4], vertical_alignment="bottom")
        left.text_input(
            "Program", value=program.spell(view.start.program), key=program_key,
            help="Words (INC WHILE DEC ENDW) or the classic spelling (+[-]).",
        )  # fmt: skip
        middle.text_input(
            "Input", value=" ".join(map(str, view.start.input)), key=input_key,
            help=f"Up to {spec.n_input} values from 0 to {spec.max_value}.",
        )  # fmt: skip
        right.form_submit_button("Run it", icon=":material/play_arrow:", on_click=submit, width="stretch")
    if error := st.session_state.get("editor_error"):
        st.error(error, icon=":material/edit_off:")


def draw_legend(view: MachineView) -> None:
    """What each instruction does."""
    lines = [f"| `{GLYPHS[name]}` | {name} | {OP_MEANINGS[name]} |" for name in machine_view.op_names(view.spec)]
    st.markdown("\n".join(["| sign | word | what it does |", "| --- | --- | --- |", *lines]))


def draw_slots(view: MachineView, prediction: Prediction) -> None:
    """Every slot of the state: now, true, predicted, with probabilities."""
    import pandas as pd  # there is a prediction, so the model has loaded, and pandas with it

    spec, t = view.spec, view.step
    now = encode(view.state)[0]
    answered, real = prediction.tokens[t], prediction.truth[t]
    table = pd.DataFrame(
        {
            "slot": spec.layout.names,
            "now": [spec.vocab[int(k)] for k in now],
            "machine next": [spec.vocab[int(k)] for k in real],
            "model says": [spec.vocab[int(k)] for k in answered],
            "": np.where(answered == real, "✓", "✗"),
            "p of what it says": prediction.p[t],
            "p of the truth": prediction.p_truth[t],
        }
    )
    only = st.toggle("Only slots that change, or where the model errs or hesitates", value=True, key="only_changes")
    if only:
        table = table[(now != real) | (answered != real) | (prediction.p[t] < 0.99)]
    st.dataframe(
        table, hide_index=True, width="stretch",
        column_config={
            name: st.column_config.NumberColumn(format="%.4f") for name in ("p of what it says", "p of the truth")
        },
    )  # fmt: skip
