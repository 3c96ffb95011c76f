"""Probes: which variable can be read where, beyond what a control reads, and whether the model uses it there."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import run_access, selection, session, widgets
from app.components.heatmap import filled, heatmap
from app.results_view import (
    CONTROL_WORDS,
    INTERVAL_WORDS,
    KIND_WORDS,
    cell_id,
    controlled_gap,
    in_words,
    kind_of,
    measured,
    of_cell,
    pivot,
    site_words,
    where,
)
from app.session import View
from app.theme import CIVIDIS, SIGNED
from interp import RunError
from interp.results import Metric

ENOUGH = 20  # examples below which a number is written and nothing is drawn
ALL = "all variables"


def choose(frame: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The rows of one probe kind and one family of variables, and the control to subtract."""
    left, middle, right = st.columns(3)
    kinds = [kind for kind in KIND_WORDS if kind in {kind_of(name) for name in frame.variable.unique()}]
    methods = sorted(measured(frame, Metric.ACCURACY).method.dropna().unique())
    controls = [control for control in CONTROL_WORDS if control in set(frame.control.dropna())]
    with left:
        family = st.selectbox("Variables", [ALL, *kinds], format_func=lambda k: KIND_WORDS.get(k, str(k)), key="family")
    with middle:
        method = st.selectbox("Probe", methods, key="probe_method")
    with right:
        control = st.selectbox("Minus", controls, format_func=lambda c: CONTROL_WORDS[c], key="probe_control")
    rows = where(frame, frame.method == method)
    if family != ALL:
        rows = where(rows, [kind_of(name) == family for name in rows.variable])
    return rows, control


def draw_map(
    rows: pd.DataFrame, column: str, *, limits: tuple[float, float], colors: list[str], key: str, alt: str
) -> list[str]:
    """A heatmap, variable @ position by site; a click picks the cell. Returns the ids of all its cells."""
    enough = where(rows, rows.n.isna() | (rows.n >= ENOUGH))
    if len(enough) < len(rows):
        st.caption(f"{len(rows) - len(enough)} cells rest on fewer than {ENOUGH} examples and are not drawn.")
    if enough.empty:
        st.info("Nothing to draw here.")
        return []
    table = pivot(enough, column)
    values = table.to_numpy(dtype=float)
    cells = filled(values)
    ids = [cell_id(table.index[row][0], table.columns[col], table.index[row][1]) for row, col in cells]
    picked = selection.current().id
    widgets.pickable_chart(
        heatmap(
            values,
            rows=[f"{variable} @ {position}" for variable, position in table.index],
            columns=[site_words(site) for site in table.columns],
            limits=limits,
            colors=colors,
            picked=cells[ids.index(picked)] if picked in ids else None,
            show_values=len(table.columns) <= 8,
        ),
        key=key,
        on_pick=lambda _, index: selection.emit(kind="probe", id=ids[index]),
        height=120 + 25 * len(table),
        alt=alt,
    )
    return ids


def draw_cell(probes: pd.DataFrame, interventions: pd.DataFrame | None, cell: str) -> None:
    """What was measured at the picked cell: the probe, each control, the causal test; with intervals and n."""
    variable, site, position = cell.split("|")
    st.markdown(f"##### {variable} at {position}, {site_words(site)}")
    rows = of_cell(probes, cell)
    for _, row in measured(rows, Metric.ACCURACY).iterrows():
        kind = f" ({INTERVAL_WORDS.get(row.interval_kind, row.interval_kind)})" if pd.notna(row.interval_kind) else ""
        st.markdown(f"A **{row.method}** probe reads it right in {in_words(row)} of held-out states{kind}.")
    parts = [rows.assign(source="probe")]
    if interventions is not None:
        parts.append(of_cell(interventions, cell).assign(source="interchange"))
    table = pd.concat(parts)
    table["measured or control"] = table.control.fillna("measured")
    columns = ["source", "metric", "method", "measured or control", "stratum", "estimate", "ci_low", "ci_high", "n"]
    st.dataframe(
        table[columns].dropna(axis="columns", how="all"), hide_index=True, width="stretch",
        column_config={c: st.column_config.NumberColumn(format="%.3f") for c in ("estimate", "ci_low", "ci_high")},
    )  # fmt: skip


def draw_causal(view: View, interventions: pd.DataFrame | RunError) -> None:
    """IIA on the same axes: a variable that can be read need not be used."""
    st.markdown("**Does the model use it there?** Interchange accuracy (IIA), 0 to 1")
    if isinstance(interventions, RunError):
        run_access.show_problem(interventions)
        return
    rows = measured(interventions, Metric.IIA)
    strata = sorted(rows.stratum.dropna().unique())
    methods = sorted(rows.method.dropna().unique())
    left, right = st.columns(2)
    with left:
        method = st.selectbox("What is swapped", methods, key="iia_method")
    with right:
        stratum = st.selectbox("Pairs", strata, key="iia_stratum") if strata else None
    same = rows.stratum.isna() if stratum is None else rows.stratum == stratum
    rows = where(rows, (rows.method == method) & same)
    draw_map(
        rows, "estimate", limits=(0, 1), colors=CIVIDIS, key="iia_map",
        alt="Heatmap of interchange accuracy: variables and positions by sites.",
    )  # fmt: skip


def page() -> None:
    view = session.view()
    st.markdown(f"#### What can be read from the activations of {session.describe_model(view.run)}")
    st.caption(
        "A probe is trained on activations at one place to read one variable of the machine, on programs kept apart "
        "from those it is scored on. Each number is its accuracy minus that of a control, so 0 means: no better than "
        "the control. Being readable is not being used; the second picture tests use."
    )
    probes = run_access.frame(view.run, "probes")
    rows, control = choose(probes)
    gap = controlled_gap(rows, control)
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown(f"**Can it be read?** Accuracy minus {CONTROL_WORDS[control]}, −1 to 1")
        ids = draw_map(
            gap, "gap", limits=(-1, 1), colors=SIGNED, key="probe_map",
            alt="Heatmap of probe accuracy minus the control: variables and positions by sites.",
        )  # fmt: skip
    try:
        interventions = run_access.frame(view.run, "interventions")
    except RunError as error:
        interventions = error
    with right:
        draw_causal(view, interventions)
    known = interventions if isinstance(interventions, pd.DataFrame) else None
    chosen = selection.current()
    every: list[str] = list(dict.fromkeys([*ids, *([chosen.id] if chosen.kind == "probe" else [])]))
    if (
        chosen.kind == "probe"
        and of_cell(probes, chosen.id).empty
        and (known is None or of_cell(known, chosen.id).empty)
    ):
        selection.drop(f"The link picks {chosen.id!r}, which this run did not measure.")
        st.rerun()
    widgets.selectbox(
        "Cell", every, chosen.id if chosen.kind == "probe" else None, key="probe_cell",
        on_pick=lambda cell: selection.emit(kind="probe", id=cell),
        format_func=lambda cell: "{0} at {2}, {1}".format(*(site_words(part) for part in cell.split("|"))),
        help="The same choice as a click on a cell, by keyboard.",
    )  # fmt: skip
    if chosen.kind == "probe":
        draw_cell(probes, known, chosen.id)
    else:
        st.caption("Pick a cell to see its probe, every control and the causal test, with intervals and n.")


page()
