"""The Circuit page's panel about the state of the Step page: which parts of the model speak for the answer there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

from app import run_access, state_attribution
from app.components.bars import signed_bars
from app.numbers import signed
from interp.figures.style import node_words

if TYPE_CHECKING:
    from app.machine_view import MachineView

SHOWN = 10  # components that are drawn


def draw_state(view: MachineView) -> None:
    """The same question at the one state of the Step page: which parts speak for the answer there."""
    loaded = run_access.model_or_wait(view.run)
    prediction = view.prediction() if loaded is not None else None
    if loaded is None or prediction is None:
        return
    wrong = not bool(prediction.right[view.step])
    asked = state_attribution.contrasts(view.state, prediction, view.step)
    st.markdown(
        f"**At step {view.step + 1} of the program**, where {view.op} runs next and the model predicts "
        f"{'**wrong ✗**' if wrong else '**right ✓**'}"
    )
    if not asked:
        st.caption("Nothing changes in this step, so there is no answer to set against another.")
        return
    contrast = st.selectbox(
        "Ask about", asked, key=f"contrast_{view.step}_{hash(view.start)}",
        format_func=lambda c: state_attribution.question(c, view.spec, wrong=wrong),
    )  # fmt: skip
    found = state_attribution.attribute(loaded, view.state, contrast)
    answer, rival = state_attribution.words(contrast, view.spec)
    shown = found.parts[:SHOWN]
    st.echarts_chart(
        signed_bars([(node_words(node), value) for node, value in shown], name=f"← {rival}   logits   {answer} →"),
        key="state_bars", height=56 + 24 * len(shown),
        alt=f"Direct contributions of the model's parts to {answer} over {rival}: "
        + ", ".join(f"{node_words(node)} {value:+.2f}" for node, value in shown[:3]),
    )  # fmt: skip
    rest = found.lead - sum(value for _, value in shown)
    st.caption(
        f"{answer} leads {rival} by {found.lead:.2f} logits: the sum of what every part writes at this slot "
        f"(direct logit attribution, a forward pass made now); parts not drawn add {signed(rest)}. "
        + ("The right answer is " + rival + "." if wrong else "")
    )
