"""Where a picked probe errs: its confusion matrix, and its surest mistakes, each a click from the Step page."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from app import run_access, session
from app.components.heatmap import heatmap
from app.session import View
from app.theme import CIVIDIS
from interp import Run, RunError
from interp.runs import frame_command
from interp.runs.probe_errors import FILE, read_errors


def errors_of(opened: Run, cell: str, method: str) -> pd.DataFrame:
    """The rows of one probe. Raises RunError: not made yet, broken, or of other weights."""
    file = opened.path / FILE
    frame = _read(str(opened.path), run_access.fingerprint(file))
    run_access.require_current(opened, file, frame.attrs["provenance"], frame_command("probes", opened.path))
    rows = _of_cell(frame, cell)
    return rows.loc[rows["method"] == method]


def _of_cell(frame: pd.DataFrame, cell: str) -> pd.DataFrame:
    variable, site, position = cell.split("|")
    return frame.loc[(frame["variable"] == variable) & (frame["site"] == site) & (frame["position"] == position)]


@st.cache_data(show_spinner=False, max_entries=8)
def _read(folder: str, fingerprint: str) -> pd.DataFrame:
    import interp

    return read_errors(interp.load(folder))


def confusion(rows: pd.DataFrame) -> tuple[np.ndarray, list[int]]:
    """The share of each true value's examples (rows) that are read as each value, NaN for none; and the values."""
    counts = rows[rows["margin"].isna()]
    values = sorted({*counts["truth"], *counts["predicted"]})
    table = counts.pivot_table(index="truth", columns="predicted", values="count", aggfunc="sum")
    matrix = table.reindex(index=values, columns=values).to_numpy(dtype=np.float64)
    total = np.nansum(matrix, axis=1, keepdims=True)
    return np.where(np.isnan(matrix), np.nan, matrix / np.where(total > 0, total, 1)), [int(v) for v in values]


def draw_errors(view: View, cell: str, method: str) -> None:
    """The confusion matrix beside the surest mistakes."""
    if not run_access.analysis_or_wait():  # the task, which knows how examples are spelt, brings torch
        return
    try:
        rows = errors_of(view.run, cell, method)
    except RunError as error:
        st.caption(str(error))
        return
    if rows.empty:
        st.caption("Where this probe errs was not kept.")
        return
    variable = cell.split("|")[0]
    left, right = st.columns([2, 3])
    with left:
        draw_confusion(view, rows, variable)
    with right:
        draw_mistakes(view, rows, variable)


def named(view: View, variable: str, value: int) -> str:
    """A value as the world names it."""
    world = view.run.config.world
    return world.value_name(variable, value) if variable in world.variables() else str(value)


def draw_confusion(view: View, rows: pd.DataFrame, variable: str) -> None:
    """True values by values read, each row as shares of its examples."""
    matrix, values = confusion(rows)
    names = [named(view, variable, value) for value in values]
    tips = [
        ["" if np.isnan(p) else f"{variable} {t}: {p:.1%} read as {r}" for r, p in zip(names, line, strict=True)]
        for t, line in zip(names, matrix, strict=True)
    ]
    st.markdown(f"**True {variable}** (down) **by what is read** (across), share of each true value")
    st.echarts_chart(
        heatmap(matrix, rows=names, columns=names, limits=(0, 1), colors=CIVIDIS, tips=tips),
        key="confusion", height=120 + 22 * len(names), renderer="canvas",
        alt=f"Confusion matrix of the probe of {variable}.",
    )  # fmt: skip


def draw_mistakes(view: View, rows: pd.DataFrame, variable: str) -> None:
    """The surest mistakes, each with a way to its state."""
    worst = rows.loc[rows["margin"].notna()].sort_values("margin", ascending=False)
    if worst.empty:
        st.markdown("No mistake in the held-out examples." if rows[rows.truth != rows.predicted].empty else "")
        return
    st.markdown("**Its surest mistakes**")
    for place, row in enumerate(worst.to_dict("records")):
        words, button = st.columns([4, 1], vertical_alignment="center")
        start, step = np.asarray(row["start"], dtype=np.int64), int(row["step"])
        words.markdown(
            f"{variable} is **{named(view, variable, int(row['truth']))}**, read as "
            f"**{named(view, variable, int(row['predicted']))}** "
            f"(surer of it by {row['margin']:.1f} nats): {view.in_words(start, step)}"
        )
        if view.can_show and button.button("Show", key=f"mistake_{place}", help="This state on the Step page"):
            view.show(start, step)
            session.go_first(view)
