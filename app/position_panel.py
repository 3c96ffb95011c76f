"""The Circuit page's second graph: at which places of the stream its edges read and write, as `circuit` measured it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import streamlit as st

from app import run_access, selection, widgets
from app.components.position_graph import DrawnRoute, place_words, position_graph
from app.run_access import fingerprint, require_current
from app.session import View
from interp import Run, RunError
from interp.commands import command
from interp.figures import node_words
from interp.reading import BrokenFileError, reading

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Circuit, Route

DRAWN = 12  # routes drawn unless all are asked for: a newcomer can follow as many


def read(run: Run, op: str) -> tuple[dict[str, Any], list[Route]]:
    """What a file says of a contrast's routes, and the routes. Raises RunError: not made yet, broken, or of another
    run."""
    from interp.runs.findings import finding_path

    slug = run.task.contrast(op).slug
    file = finding_path(run.path, "routes", slug)
    mend = command("circuit", run.path, "--measure", "routes")
    if not file.exists():
        raise RunError(f"{file} does not exist yet; make it with: {mend}")
    try:
        provenance, detail, routes = _read(str(run.path), slug, fingerprint(file))
    except BrokenFileError as error:
        raise RunError(f"{error}; make it anew with: {mend} --fresh") from None
    require_current(run, file, provenance, mend)
    return detail, routes


@st.cache_resource(show_spinner=False, max_entries=32)
def _read(folder: str, slug: str, fingerprint: str):
    from pathlib import Path

    from interp.circuits import read_routes
    from interp.runs.findings import finding_path, read_finding

    found = read_finding(Path(folder), "routes", slug)
    assert found is not None
    with reading(finding_path(Path(folder), "routes", slug), "a whole finding"):
        detail = {"places": [str(each) for each in found.detail["places"]], "n": int(found.detail["n"]),
                  "m_clean": float(found.detail["m_clean"])}  # fmt: skip
        return found.provenance, detail, read_routes(found.detail)


def sentence(op: str, detail: dict[str, Any], routes: list[Route]) -> str:
    """Where the answer is said, and from where what decides it is brought there, in words."""
    from interp.circuits import traced

    answer, moves = traced(routes)
    if not answer:
        return f"No message of the strongest edges reaches the answer of {op} at one place alone."
    places = detail["places"]
    said = f"**{op}**: the answer is said at *{place_words(answer, places)}*."
    if not moves:
        return f"{said} No head brings it there from elsewhere by one of the strongest edges."
    heads = []
    for number, move in enumerate(moves):
        start, end = (place_words(place, places) for place in (move.start, move.end))
        loses = f"without this the answer loses {-move.effect:.1f}"
        loses += f" of {detail['m_clean']:.1f} logits" if number == 0 else ""
        head = f"**{node_words(move.node)}**"
        first = f"What decides it is read from *{start}* by {head}"
        heads.append(f"{first} ({loses})" if number == 0 else f"{head} brought it to *{end}* from *{start}* ({loses})")
    return f"{said} {heads[0]}; before that, {', and '.join(heads[1:])}." if heads[1:] else f"{said} {heads[0]}."


def draw(view: View, circuit: Circuit) -> None:
    """The graph of places, with a sentence in plain words above it."""
    st.markdown(f"##### Where it happens: {circuit.op} from place to place")
    if view.run.task.positions != "block":
        st.caption(
            "In this task a position means something else in every example, so no edge can be told by its place."
        )
        return
    try:
        detail, routes = read(view.run, circuit.op)
    except RunError as error:
        run_access.show_problem(error)
        return
    st.markdown(sentence(circuit.op, detail, routes))
    drawn = [DrawnRoute(r.source, r.target, r.start, r.end, -r.effect) for r in routes]
    if len(drawn) > DRAWN and not st.toggle(
        f"Draw all {len(drawn)} routes, not only the strongest {DRAWN}", key="draw_all_routes"
    ):
        drawn = drawn[:DRAWN]
    places, parts = detail["places"], [node.id for node in circuit.nodes]
    option, nodes = position_graph(drawn, places=places, parts=parts, picked=selection.current().id)

    def pick(data_type: str, index: int) -> None:
        if data_type == "edge":
            selection.emit(kind="edge", id=drawn[index].edge)
        else:
            selection.emit(kind="node", id=nodes[index])

    strongest = [f"{node_words(r.source)} to {node_words(r.target)} from {place_words(r.start, places)} to "
                 f"{place_words(r.end, places)}" for r in drawn[:3]]  # fmt: skip
    widgets.pickable_chart(
        option, key=f"routes_{circuit.op}", on_pick=pick, height=90 + 42 * len(option["yAxis"]["data"]),
        renderer="svg", alt=f"Where edges of {circuit.op} read and write; strongest: {'; '.join(strongest)}.",
    )  # fmt: skip
    st.caption(
        "Across: the parts of the model, from the input to the logits. Down: the places of the stream. A line along a "
        "row: a message read where it was written. A line from row to row: a head brings it there. Each line is one "
        "edge, exchanged for the other run's message where it starts, and felt where it ends alone: measured on "
        f"{detail['n']} held-out pairs. Width and style as above; effects of places need not add up."
    )
    with st.expander(f"All {len(routes)} routes", icon=":material/table_rows:"):
        draw_table(routes, places)


def draw_table(routes: list[Route], places: list[str]) -> None:
    """Every route with its measured effect."""
    table = pd.DataFrame(
        {
            "edge": [f"{node_words(r.source)} → {node_words(r.target)}" for r in routes],
            "read at": [place_words(r.start, places) for r in routes],
            "written at": [place_words(r.end, places) for r in routes],
            "measured loss": [-r.effect for r in routes],
            "from": [-r.ci_high for r in routes],
            "to": [-r.ci_low for r in routes],
        }
    )
    number = st.column_config.NumberColumn(format="%.2f")
    st.dataframe(
        table, hide_index=True, width="stretch",
        column_config=dict.fromkeys(("measured loss", "from", "to"), number),
    )  # fmt: skip
