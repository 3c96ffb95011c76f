"""The Circuit page's comparison of instructions: what all share, what is one's own, and what breaks without it."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app import run_access
from app.components.heatmap import heatmap
from app.session import View
from interp import RunError
from interp.figures.dissociation import RANDOM, loss_matrix
from interp.figures.style import present
from interp.results import Control, Metric, select
from interp.runs import frame_command

_LEVELS = {"node": "heads and MLPs", "neuron": "neurons", "subspace": "directions"}
_ABLATIONS = {"resample": "another instruction's values", "mean": "their mean", "zero": "zero"}
_COLORS = ["#F7F7F7", "#9CC7E6", "#005A9C"]


def sentence(view: View, op: str) -> str:
    """What was put together from measurements about this instruction; empty where nothing current is there."""
    from interp.studies.circuit_study import summary_of

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
            format_func=lambda name: str(_LEVELS.get(name, name)),
        )  # fmt: skip
    with right:
        ablation = st.selectbox(
            "Replaced by", present(select(rows, granularity=level), "ablation"), key="part_ablation",
            format_func=lambda name: str(_ABLATIONS.get(name, name)),
        )  # fmt: skip
    ops, cells = loss_matrix(frame, level=str(level), ablation=str(ablation))
    owners = [*ops, "shared", RANDOM]
    found = [[cells.get((owner, name)) for name in ops] for owner in owners]
    values = np.array([[getattr(cell, "estimate", np.nan) for cell in line] for line in found])
    names = [{RANDOM: RANDOM, "shared": "shared by all"}.get(owner, f"own of {owner}") for owner in owners]
    st.echarts_chart(
        heatmap(
            values, rows=names, columns=ops, limits=(0.0, 1.0), colors=_COLORS,
            marked_row=ops.index(op) if op in ops else None,
        ),
        key=f"parts_{level}_{ablation}_{op}", height=90 + 30 * len(names),
        alt=f"Share of the logit difference that each instruction loses without an instruction's own {level}s.",
    )  # fmt: skip
    size = int(select(rows, granularity=level)["circuit_size"].iloc[0])
    words = ""
    if op in ops:
        column = ops.index(op)
        others = [name for name in ops if name != op]
        mine = values[column, column]
        spared = max(others, key=lambda name: values[column, ops.index(name)])
        pairs = select(frame, metric=Metric.DISSOCIATION, granularity=level, ablation=ablation)
        mine_pairs = pairs.loc[(pairs["op"] == op) | (pairs["stratum"] == f"against:{op}")]
        own, null = select(mine_pairs, control=None), select(mine_pairs, control=Control.RANDOM_PART)
        apart = int((own["estimate"].to_numpy() > null["ci_high"].to_numpy()).sum())
        words = (
            f"Without its own part {op} loses **{mine:.2f}**; of the others {spared} loses most, "
            f"**{values[column, ops.index(spared)]:.2f}**. It comes apart from **{apart}** of {len(own)} instructions "
            "by more than random parts do. "
        )
    st.caption(
        f"{words}Rows: the {size} {_LEVELS.get(str(level), str(level))} that are ablated; columns: the instruction "
        "that is measured, on programs that the parts were not chosen on. 0 is spared, 1 is gone."
    )
