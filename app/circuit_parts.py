"""The Circuit page's comparison of instructions: what all share, what is one's own, and what breaks without it."""

from __future__ import annotations

import streamlit as st

from app import run_access
from app.components.clickable import clickable
from app.session import View
from interp import RunError
from interp.figures.dissociation import LEVEL_WORDS, dissociation_matrices, loss_matrix
from interp.figures.style import present
from interp.results import Control, Metric, select
from interp.runs import frame_command

_ABLATIONS = {"resample": "another instruction's values", "mean": "their mean", "zero": "zero"}


def sentence(view: View, op: str) -> str:
    """What was put together from measurements about this instruction; empty where nothing current is there."""
    from interp.studies.circuit_summary import summary_of

    summary = summary_of(view.run)
    made = summary.get("provenance", {})
    current = made.get("digest") == view.run.config.digest
    return summary["sentences"].get(op, "") if current else ""


def draw_parts(view: View, op: str) -> None:
    """The matrix of losses, one level and one ablation at a time, with the row and column of `op` said in words."""
    try:
        frame = run_access.frame(view.run, "circuits")
    except RunError as error:
        st.caption(str(error))
        return
    rows = select(frame, metric=Metric.ABLATION_LOSS)
    if rows.empty:
        st.caption(f"Not measured yet; make it with: {frame_command('circuits', view.run.path)}")
        return
    left, right = st.columns(2)
    with left:
        level = st.selectbox(
            "Parts of",
            present(rows, "granularity"),
            key="part_level",
            format_func=lambda name: str(LEVEL_WORDS.get(name, name)),
        )  # fmt: skip
    with right:
        ablation = st.selectbox(
            "Replaced by", present(select(rows, granularity=level), "ablation"), key="part_ablation",
            format_func=lambda name: str(_ABLATIONS.get(name, name)),
        )  # fmt: skip
    ops, cells = loss_matrix(frame, level=str(level), ablation=str(ablation))
    drawn = dissociation_matrices(frame, level=str(level), ablation=str(ablation), marked=op)
    clickable(f"<div class='matrix'>{drawn}</div>", key="parts")
    size = int(select(rows, granularity=level)["circuit_size"].iloc[0])
    words = ""
    if op in ops:
        losses = {name: float(cells[op, name].estimate) for name in ops}
        spared = max((name for name in ops if name != op), key=losses.__getitem__)
        pairs = select(frame, metric=Metric.DISSOCIATION, granularity=level, ablation=ablation)
        mine_pairs = pairs.loc[(pairs["op"] == op) | (pairs["stratum"] == f"against:{op}")]
        own, null = select(mine_pairs, control=None), select(mine_pairs, control=Control.RANDOM_PART)
        apart = int((own["estimate"].to_numpy() > null["ci_high"].to_numpy()).sum())
        words = (
            f"Without its own part {op} loses **{losses[op]:.2f}**; of the others {spared} loses most, "
            f"**{losses[spared]:.2f}**. It comes apart from **{apart}** of {len(own)} instructions "
            "by more than random parts do. "
        )
    st.caption(
        f"{words}Rows: the {size} {LEVEL_WORDS.get(str(level), str(level))} that are ablated; columns: the instruction "
        "that is measured, on programs that the parts were not chosen on. 0 is spared, 1 is gone."
    )
