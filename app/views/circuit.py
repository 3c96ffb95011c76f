"""Circuit: which parts of the model carry an instruction, how much of it, and on what evidence."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from app import circuit_data, circuit_parts, mending_panel, position_panel, run_access, selection, session, widgets
from app.circuit_data import DrawnEdge
from app.circuit_panels import draw_edge, draw_evidence, draw_node, edge_words, two
from app.components.clickable import clickable, pickable
from app.numbers import quoted
from app.selection import Selection
from app.session import View
from interp import RunError
from interp.figures import circuit_graph, node_words

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Circuit

DRAWN = 12  # edges drawn unless all are asked for: a newcomer can follow as many
NONE = "nothing"


def choose(view: View, circuit: Circuit) -> tuple[set[str], str]:
    """How many edges to draw, and another instruction to compare with."""
    sizes = [point.n_edges for point in circuit.faithfulness]
    default = min(sizes, key=lambda size: abs(size - circuit.size))
    left, right = st.columns(2)
    with left:
        st.session_state.setdefault(f"size_{circuit.op}", default)
        size = st.select_slider(
            "Edges kept, by score", sizes, key=f"size_{circuit.op}",
            help=f"{circuit.size} edges are the fewest that stay at {circuit.threshold:g} of the full model or above.",
        )  # fmt: skip
    others = [op for op in view.contrasts if op != circuit.op]
    with right:
        other = st.selectbox(
            "Compare with", [NONE, *others], key="compare",
            format_func=session.op_label,
        )  # fmt: skip
    return circuit_data.members(circuit, int(size)), other


def draw_summary(circuit: Circuit, kept: set[str], edges: list[DrawnEdge]) -> None:
    """The finding in sentences: how many edges do how much, and the strongest three."""
    point = next((p for p in circuit.faithfulness if p.n_edges == st.session_state[f"size_{circuit.op}"]), None)
    if point is not None:
        null = ""
        if point.null_mean is not None:
            spread = f"{two(point.null_mean)} [{two(point.null_low)}, {two(point.null_high)}]"
            null = f"; {point.n_null} random circuits of that size, on {circuit.n_null_pairs} pairs: {spread}"
        idle = point.n_edges - len(kept)
        best = f" (the {point.n_edges} of the highest score, less {idle} on no path to the answer)" if idle else ""
        st.markdown(
            f"**{len(kept)} of {len(circuit.edges)} edges**{best} keep **{point.estimate:.2f}** "
            f"[{point.ci_low:.2f}, {point.ci_high:.2f}] of what the model does for {circuit.op} "
            f"(1 = the full model, 0 = nothing{null}). n = {circuit.n:,} held-out pairs."
        )
    if edges:
        listed = [f"**{edge_words(edge.id)}** ({edge.contribution:+.2f})" for edge in edges[:3]]
        st.markdown(f"Strongest edges: {', '.join(listed)}.")


def draw_graph(circuit: Circuit, edges: list[DrawnEdge]) -> None:
    """The graph, and the same choice by keyboard."""
    listed, kept, limit = [edge.id for edge in edges], {edge.id for edge in edges}, len(edges)
    if len(edges) > DRAWN and not st.toggle(
        f"Draw all {len(edges)} edges, not only the strongest {DRAWN}", key="draw_all"
    ):
        limit = DRAWN
    chosen = selection.current()

    def target(kind: str, id_: str, words: str) -> str:
        """Nodes are reached by keyboard; hundreds of edges would be in the way, and have the list below."""
        return pickable(f"{kind} {id_}", words) if kind == "node" else f'class="edge" data-pick="{kind} {escape(id_)}"'

    def pick(value: str) -> None:
        kind, _, id_ = value.partition(" ")
        selection.emit(kind=kind, id=id_)

    graph = circuit_graph(circuit, kept=kept, max_edges=limit, picked=chosen.id, pick=target) if kept else ""
    clickable(graph, key=f"graph_{circuit.op}", on_pick=pick)
    st.caption(
        "Left to right: from the input to the logits. Width: how much of the answer an edge carries. "
        "Solid blue: the answer needs it. Dashed orange: it works against the answer. Dotted: outside the circuit."
    )
    left, right = st.columns(2)
    with left:
        widgets.selectbox(
            "Node", [node.id for node in circuit.nodes], chosen.id if chosen.kind == "node" else None, key="pick_node",
            on_pick=lambda id_: selection.emit(kind="node", id=id_), format_func=node_words,
        )  # fmt: skip
    with right:
        if chosen.kind == "edge" and chosen.id not in listed:
            listed.append(chosen.id)
        widgets.selectbox(
            "Edge, strongest first", listed, chosen.id if chosen.kind == "edge" else None, key="pick_edge",
            on_pick=lambda id_: selection.emit(kind="edge", id=id_), format_func=edge_words,
        )  # fmt: skip


def draw_comparison(view: View, circuit: Circuit, kept: set[str], other_op: str) -> set[str]:
    """How much of the circuit another instruction shares, beside chance. Returns the other's edges."""
    try:
        other = circuit_data.read(view.run, other_op)
    except RunError as error:
        run_access.show_problem(error)
        return set()
    theirs = circuit_data.members(other, other.size)
    share, null = circuit_data.overlap(kept, theirs, len(circuit.edges))
    st.markdown(
        f"{circuit.op} and {other_op} share **{len(kept & theirs)}** edges of {len(kept)} and {len(theirs)}: "
        f"Jaccard **{share:.2f}**, two random circuits of these sizes {null:.2f}."
    )
    return theirs


def draw_edges_table(circuit: Circuit, edges: list[DrawnEdge], *, compared: bool) -> None:
    """Every edge that is drawn, with score and measured effect."""
    exact = {e.name: e for e in circuit.edges}
    table = pd.DataFrame(
        {
            "edge": [edge_words(edge.id) for edge in edges],
            "predicted loss": [edge.contribution for edge in edges],
            "measured loss": [None if (e := exact[edge.id]).exact is None else -e.exact for edge in edges],
        }
    )
    if compared:
        table["shared"] = ["✓" if edge.shared else "" for edge in edges]
    st.dataframe(
        table, hide_index=True, width="stretch",
        column_config={c: st.column_config.NumberColumn(format="%.3f") for c in ("predicted loss", "measured loss")},
    )  # fmt: skip


def selected(circuit: Circuit) -> Selection:
    """What is picked; a link to a node or an edge that this circuit does not have is dropped with a notice."""
    chosen = selection.current()
    known = {"node": {node.id for node in circuit.nodes}, "edge": {e.name for e in circuit.edges}}
    if chosen.kind in known and chosen.id not in known[chosen.kind]:
        selection.drop(f"The link picks {chosen.kind} {quoted(chosen.id)}, which this model does not have.")
        st.rerun()
    return chosen


def draw_title(view: View, op: str) -> None:
    """Which circuit, and what an edge of it is."""
    title, control = st.columns([3, 1], vertical_alignment="bottom")
    title.markdown(f"#### The circuit of {op}{session.op_words(op)}")
    with control:
        widgets.selectbox(
            session.contrast_title(view), view.contrasts, op, key="circuit_op",
            on_pick=lambda name: selection.emit(op=name, kind="", id=""),
            format_func=session.op_label,
        )  # fmt: skip
    other = session.otherwise(view, op)
    st.caption(
        f"Two examples are run, alike but for one thing: beside one of {op} one where {other}. An edge, what one part "
        "of the model tells another, belongs to the circuit if the other run's message in its place moves the "
        "answer. Numbers are logits: the lead of the right answer over the other run's, and how much of it is lost."
    )


def draw_explanation(view: View, circuit: Circuit, edges: list[DrawnEdge], chosen: Selection) -> None:
    """The graph, and beside it what is picked and the evidence."""
    left, right = st.columns([5, 3], gap="large")
    with left:
        draw_graph(circuit, edges)
    with right:
        if chosen.kind == "node":
            draw_node(view, circuit, chosen.id, edges)
        elif chosen.kind == "edge":
            draw_edge(view, circuit, chosen.id)
        else:
            st.info("Click a node or an edge, or pick one below the graph.", icon=":material/touch_app:")
        draw_evidence(view, circuit)


def page() -> None:
    view = session.view()
    session.show_status(view)
    op = view.chosen_op
    draw_title(view, op)
    if not run_access.analysis_or_wait():
        return
    circuit = circuit_data.read(view.run, op)
    chosen = selected(circuit)
    missed = view.can_explain(op) and view.is_missed()
    if missed:  # a person who asks why comes for this
        with st.container(border=True):
            view.draw_state()
            mending_panel.draw(view)
    kept, other_op = choose(view, circuit)
    theirs = set() if other_op == NONE else draw_comparison(view, circuit, kept, other_op)
    edges = circuit_data.drawn_edges(circuit, kept, theirs)
    draw_summary(circuit, kept, edges)
    if sentence := circuit_parts.sentence(view, op):
        with st.expander("In words", icon=":material/notes:"):
            st.markdown(sentence.replace("<", "&lt;").replace("@", "&#64;"))
    draw_explanation(view, circuit, edges, chosen)
    position_panel.draw(view, circuit)
    if view.can_explain(op) and not missed:
        st.divider()
        view.draw_state()
    with st.expander("What is its own, and what do all share?", icon=":material/call_split:"):
        circuit_parts.draw_parts(view, op)
    with st.expander(f"All {len(edges)} edges", icon=":material/table_rows:"):
        draw_edges_table(circuit, edges, compared=other_op != NONE)


page()
