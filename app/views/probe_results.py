"""Probes: which variable can be read where, beyond what a control reads, and whether the model uses it there."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from app import probe_errors, run_access, selection, session, widgets
from app.components.heatmap import filled, heatmap
from app.results_view import (
    CONTROL_WORDS,
    DESIGN_WORDS,
    INTERVAL_WORDS,
    KIND_WORDS,
    STRATUM_WORDS,
    SWAP_WORDS,
    cell_id,
    clearest,
    controlled_gap,
    in_order,
    in_words,
    kind_of,
    measured,
    of_cell,
    overview,
    site_label,
    site_order,
    site_words,
    where,
)
from app.theme import CIVIDIS, SIGNED
from interp import RunError
from interp.results import Metric
from interp.worlds import World

ENOUGH = 20  # examples below which a number is written and nothing is drawn
ALL = "all"


def choose(world: World, frame: pd.DataFrame) -> tuple[pd.DataFrame, str, str]:
    """The rows of one probe kind; the control to subtract; the family of variables."""
    left, middle, right = st.columns(3)
    kinds = [kind for kind in KIND_WORDS if kind in {kind_of(world, name) for name in frame.variable.unique()}]
    methods = sorted(measured(frame, Metric.ACCURACY).method.dropna().unique())
    with left:
        family = st.selectbox("Variables", [ALL, *kinds], format_func=lambda k: KIND_WORDS.get(k, str(k)), key="family")
    with middle:
        method = st.selectbox("Probe", methods, key="probe_method")
    with right:
        control = st.selectbox(
            "Minus", [c for c in CONTROL_WORDS if c in set(frame.control.dropna())], key="probe_control",
            format_func=lambda c: CONTROL_WORDS[c],
        )  # fmt: skip
    return where(frame, (frame.method == method) & frame.stratum.isna()), control, family


def of_family(world: World, rows: pd.DataFrame, family: str) -> pd.DataFrame:
    """The rows of one family of variables."""
    return rows if family == ALL else where(rows, [kind_of(world, name) == family for name in rows.variable])


def draw_map(
    rows: pd.DataFrame, column: str, *, limits: tuple[float, float], colors: list[str], key: str, alt: str
) -> None:
    """A heatmap of variables by positions and layers; a click picks the cell."""
    enough = where(rows, rows.n.isna() | (rows.n >= ENOUGH))
    if len(enough) < len(rows):
        st.caption(f"{len(rows) - len(enough)} cells rest on fewer than {ENOUGH} examples and are not drawn.")
    if enough.empty:
        st.info("Nothing to draw here.")
        return
    values, variables, columns = overview(enough, column)
    cells = filled(values)
    ids = []
    for row, col in cells:
        position, site = columns[col] or ("", "")
        ids.append(cell_id(variables[row], site, position))
    picked = selection.current().id
    tips = [
        ["" if c is None else f"{v} at {c[0]}, {site_words(c[1])}: {values[r, k]:.3f}" for k, c in enumerate(columns)]
        for r, v in enumerate(variables)
    ]
    positions = list(dict.fromkeys(c[0] for c in columns if c is not None))
    widgets.pickable_chart(
        heatmap(
            values, rows=variables, columns=["" if c is None else site_label(c[1]) for c in columns],
            groups=[position.replace("[@", "\n[@") for position in positions], limits=limits, colors=colors, tips=tips,
            picked=cells[ids.index(picked)] if picked in ids else None,
        ),
        key=key, on_pick=lambda _, index: selection.emit(kind="probe", id=ids[index]),
        height=130 + 22 * len(variables), alt=alt,
    )  # fmt: skip


def draw_reading(gap: pd.DataFrame, control: str) -> None:
    """The map of what can be read."""
    st.markdown(f"**Can it be read?** Accuracy minus that of {CONTROL_WORDS[control]}, from −1 to 1")
    draw_map(
        gap, "gap", limits=(-1, 1), colors=SIGNED, key="probe_map",
        alt="Heatmap of probe accuracy minus the control: variables by positions and layers.",
    )  # fmt: skip


def draw_use(world: World, interventions: pd.DataFrame, family: str) -> None:
    """IIA on the same axes: a variable that can be read need not be used."""
    st.markdown("**Does the model use it there?** Interchange accuracy (IIA), from 0 to 1")
    st.caption(
        "The activation at a place is replaced by that of another example. IIA is how often the model then answers as "
        "is right when only this variable has the other example's value."
    )
    pooled = interventions.loc[interventions["op"].isna()]  # those by stratum are the report's
    rows = of_family(world, measured(pooled, Metric.IIA), family)
    session.show_calibration(sorted(set(rows.method.dropna())))
    for box, (label, column, words) in zip(
        st.columns(3),
        (
            ("What is swapped", "method", SWAP_WORDS),
            ("Pairs of", "pair_design", DESIGN_WORDS),
            ("Count", "stratum", STRATUM_WORDS),
        ),
        strict=True,
    ):
        options = in_order(rows[column], words)
        if options:
            with box:
                chosen = st.selectbox(
                    label, options, key=f"iia_{column}", format_func=lambda value, words=words: words.get(value, value)
                )
            rows = where(rows, rows[column] == chosen)
    inside = ~rows.site.astype(str).str.contains("resid")  # heads and MLPs: with them too many to be read at once
    if inside.any() and not inside.all() and not st.toggle("Inside the layers, too: heads and MLPs", key="iia_inside"):
        rows = where(rows, ~inside)
    draw_map(
        rows, "estimate", limits=(0, 1), colors=CIVIDIS, key="iia_map",
        alt="Heatmap of interchange accuracy: variables by positions and layers.",
    )  # fmt: skip


def draw_kept(interventions: pd.DataFrame, probes: pd.DataFrame) -> None:
    """Use and readability of every variable, position set and layer, one above the other."""
    with st.expander("Where is each variable kept, and until when is it used?", icon=":material/map:"):
        from interp.figures import where_kept

        try:
            drawing = where_kept(interventions, probes)
        except ValueError as error:
            st.caption(f"Not drawn: {error}.")
            return
        st.plotly_chart(drawing, key="where_kept")
        st.caption(
            "Whole vectors swapped, independent pairs whose answer should change. Before the first layer a swap edits "
            "the input, after the last it exchanges the output, and all positions together give the source's answer."
        )


def pick_by_keyboard(frames: list[pd.DataFrame]) -> None:
    """Three selectboxes that make the same choice as a click on a cell."""
    chosen = selection.current()
    parts = chosen.id.split("|") if chosen.kind == "probe" else ["", "", ""]
    options = [list(dict.fromkeys(name for frame in frames for name in frame[key].dropna().unique()))
               for key in ("variable", "site", "position")]  # fmt: skip
    options[1] = site_order(options[1])
    filled_in = [part if part in names else names[0] for part, names in zip(parts, options, strict=True)]

    def emit(place: int, value: str) -> None:
        selection.emit(kind="probe", id=cell_id(*[value if i == place else part for i, part in enumerate(filled_in)]))

    boxes = st.columns(3)
    for place, label in ((0, "Variable"), (2, "Position"), (1, "Layer")):
        with boxes[{0: 0, 2: 1, 1: 2}[place]]:
            widgets.selectbox(
                label, options[place], parts[place] or None, key=f"cell_{label.lower()}",
                on_pick=lambda value, place=place: emit(place, value), format_func=site_words if place == 1 else str,
            )  # fmt: skip


def draw_cell(view: session.View, probes: pd.DataFrame, interventions: pd.DataFrame | None, cell: str) -> None:
    """What was measured at the picked cell: the probe, each control, where it errs, the causal test; with intervals
    and n."""
    variable, site, position = cell.split("|")
    st.markdown(f"##### {variable} at {position}, {site_words(site)}")
    rows = of_cell(probes, cell)
    whole = where(rows, rows.stratum.isna())
    for _, row in measured(whole, Metric.ACCURACY).iterrows():
        controls = where(
            whole, (whole.metric == Metric.ACCURACY) & whole.control.notna() & (whole.method == row.method)
        )
        listed = "; ".join(
            f"{CONTROL_WORDS.get(c['control'], c['control'])} {c['estimate']:.3f}" for c in controls.to_dict("records")
        )
        kind = f" ({INTERVAL_WORDS.get(row.interval_kind, row.interval_kind)})" if pd.notna(row.interval_kind) else ""
        st.markdown(
            f"A **{row.method}** probe reads it right in **{in_words(row)}** held-out examples{kind}. "
            f"Beside it: {listed}."
        )
        probe_errors.draw_errors(view, cell, row.method)
    if rows.empty:
        st.markdown("No probe was fitted here.")
    parts = [rows.assign(source="probe")]
    if interventions is not None:
        parts.append(of_cell(interventions, cell).assign(source="interchange"))
    table = pd.concat(parts)
    table["measured or control"] = table.control.fillna("measured")
    columns = ["source", "metric", "method", "measured or control", "pair_design", "stratum", "estimate", "ci_low",
               "ci_high", "n"]  # fmt: skip
    st.dataframe(
        table[columns].dropna(axis="columns", how="all"), hide_index=True, width="stretch",
        column_config={c: st.column_config.NumberColumn(format="%.3f") for c in ("estimate", "ci_low", "ci_high")},
    )  # fmt: skip


def page() -> None:
    view = session.view()
    world = view.run.config.world
    session.show_status(view)
    st.markdown("#### What can be read from the activations")
    st.caption(
        f"A probe learns to read one variable of the {world.name} from the activations at one place, and is scored on "
        f"examples that were kept out, each {world.unit} whole. "
        "Each number is its accuracy minus that of a control: 0 is no better than that; below 0 (orange) the "
        "control does better, so nothing is shown to be there."
    )
    probes = run_access.frame(view.run, "probes")
    probes = where(probes, probes.site.notna())
    interventions, problem = None, None
    try:
        interventions = run_access.frame(view.run, "interventions")
    except RunError as error:
        problem = error
    frames = [probes] if interventions is None else [probes, interventions]
    chosen = selection.current()
    if chosen.kind == "probe" and all(of_cell(frame, chosen.id).empty for frame in frames):
        selection.drop(f"The link picks {chosen.id!r}, which this run did not measure.")
        st.rerun()
    rows, control, family = choose(world, probes)
    draw_reading(of_family(world, controlled_gap(rows, control), family), control)
    session.show_calibration(sorted(set(rows.method.dropna())))
    best = [
        f"**{v}** at {p}, {site_words(s)} ({gap:+.2f})" for v, p, s, gap in clearest(of_family(world, rows, family))
    ]
    if best:
        tried = len(measured(rows, Metric.ACCURACY)[["variable", "site", "position"]].drop_duplicates())
        st.markdown(
            f"Furthest above the best of all controls: {'; '.join(best)}. These are the best of {tried:,} probes, "
            "chosen on the data they are scored on."
        )
    pick_by_keyboard(frames)
    if chosen.kind == "probe":
        draw_cell(view, probes, interventions, chosen.id)
    else:
        st.caption("Pick a cell, by a click or here, to see its probe, every control and the causal test.")
    st.divider()
    if interventions is not None:
        draw_use(world, interventions, family)
        draw_kept(interventions, probes)
    elif problem is not None:
        run_access.show_problem(problem)


page()
