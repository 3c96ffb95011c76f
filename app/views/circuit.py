"""Circuit: which parts of the model carry an instruction, how much of it, and on what evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from app import attention_data, circuit_data, run_access, selection, session, widgets
from app.components.clickable import clickable
from app.components.graph import DrawnEdge, layered_graph, node_words
from app.components.heads import head_grid
from app.components.lines import faithfulness_curve
from app.session import View
from app.theme import GLYPHS, OP_MEANINGS
from interp import RunError

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Circuit

ENOUGH = 20  # pairs below which numbers are written and nothing is drawn
DRAWN = 60  # edges drawn unless all are asked for: more cannot be told apart
NONE = "nothing"


def edge_words(edge_id: str) -> str:
    source, _, target = edge_id.partition("->")
    return f"{node_words(source)} → {node_words(target)}"


def two(value: float | None) -> str:
    """Two digits, without a minus sign before zero."""
    return "–" if value is None else f"{value:z.2f}"


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
    others = [op for op in session.op_names(view.spec) if op != circuit.op]
    with right:
        other = st.selectbox(
            "Compare with", [NONE, *others], key="compare",
            format_func=lambda op: op if op == NONE else f"{GLYPHS[op]} {op}",
        )  # fmt: skip
    return circuit_data.members(circuit, int(size)), other


def draw_summary(circuit: Circuit, kept: set[str], edges: list[DrawnEdge]) -> None:
    """The finding in sentences: how many edges do how much, and the strongest three."""
    point = next((p for p in circuit.faithfulness if p.n_edges == st.session_state[f"size_{circuit.op}"]), None)
    if point is not None:
        null = ""
        if point.null_mean is not None:
            spread = f"{two(point.null_mean)} [{two(point.null_low)}, {two(point.null_high)}]"
            null = f"; {point.n_null} random circuits of that size: {spread}"
        st.markdown(
            f"**{len(kept)} of {len(circuit.edges)} edges** keep **{point.estimate:.2f}** "
            f"[{point.ci_low:.2f}, {point.ci_high:.2f}] of what the model does for {circuit.op} "
            f"(1 = the full model, 0 = nothing{null}). n = {circuit.n:,} held-out pairs."
        )
    if edges:
        listed = [f"**{edge_words(edge.id)}** ({edge.contribution:+.2f})" for edge in edges[:3]]
        st.markdown(f"Strongest edges: {', '.join(listed)}.")


def draw_graph(circuit: Circuit, edges: list[DrawnEdge]) -> None:
    """The graph, and the same choice by keyboard."""
    listed, nodes = [edge.id for edge in edges], circuit_data.drawn_nodes(circuit, edges)
    if len(edges) > DRAWN and not st.toggle(
        f"Draw all {len(edges)} edges, not only the strongest {DRAWN}", key="draw_all"
    ):
        edges = edges[:DRAWN]
    chosen = selection.current()

    def pick(data_type: str, index: int) -> None:
        if data_type == "edge":
            selection.emit(kind="edge", id=edges[index].id)
        else:
            selection.emit(kind="node", id=nodes[index].id)

    widgets.pickable_chart(
        layered_graph(nodes, edges, n_layers=circuit.n_layers, n_heads=circuit.n_heads, picked=chosen.id),
        key=f"graph_{circuit.op}", on_pick=pick, height=150 + 84 * (circuit.n_heads + 1), renderer="svg",
        alt=f"Circuit of {circuit.op}: {len(edges)} edges among {sum(node.in_circuit for node in nodes)} nodes, "
        "from the input on the left to the logits on the right.",
    )  # fmt: skip
    st.caption(
        "Left to right: from the input to the logits. Width: how much of the answer an edge carries. "
        "Solid blue: the answer needs it. Dashed orange: it works against the answer. Grey: outside the circuit."
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


def draw_node(view: View, circuit: Circuit, node_id: str, edges: list[DrawnEdge]) -> None:
    """A node's measured effect, its strongest edges, and its attention if it is a head."""
    node = next(node for node in circuit.nodes if node.id == node_id)
    st.markdown(f"##### {node_words(node_id)}")
    if node.effect is None:
        st.markdown("The model's output: everything that reaches it is the answer.")
    else:
        low, high = -(node.effect_high or 0.0), -(node.effect_low or 0.0)
        st.markdown(
            f"Give it the output it has when another instruction runs, and the answer loses **{-node.effect:.2f}** "
            f"[{low:.2f}, {high:.2f}] of **{circuit.m_clean - circuit.m_corrupted:.2f}** logits "
            f"(measured, n = {circuit.n:,})."
        )
    for title, found in (
        ("Reads from", [e for e in edges if e.target.split("<")[0] == node_id]),
        ("Writes to", [e for e in edges if e.source == node_id]),
    ):
        if found:
            listed = [f"{edge_words(edge.id)} ({edge.contribution:+.2f})" for edge in found[:3]]
            st.markdown(f"{title}: {', '.join(listed)}{' …' if len(found) > 3 else '.'}")
    if node.kind == "head":
        draw_head(view, circuit.op, int(node.layer or 0), int(node.head or 0))
    elif node.kind == "mlp" and st.button("What can be read after it? Probes", icon=":material/sensors:"):
        st.switch_page("views/probe_results.py")


def draw_head(view: View, op: str, layer: int, head: int) -> None:
    """A head's mean pattern on this instruction, in words and as a picture."""
    try:
        patterns = attention_data.mean_of_op(view.run, op)
    except RunError as error:
        run_access.show_problem(error)
        return
    looks = attention_data.roles_of_op(view.run, op, layer, head)
    left, right = st.columns([2, 5])
    with left:
        clickable(head_grid(patterns.pattern[layer : layer + 1, head : head + 1], picked=None, first=(layer, head)),
                  key="node_head", on_pick=lambda _: None)  # fmt: skip
    with right:
        st.markdown(f"Where it looks, mean over {patterns.n} held-out states that run {op}:")
        st.markdown("\n".join(f"- from **{query}** mostly at **{key}** ({share:.2f})" for query, key, share in looks))
        if st.button("Its attention", icon=":material/visibility:", key="to_attention"):
            selection.emit(kind="head", id=f"{layer}.{head}", op=op)
            st.switch_page("views/attention.py")


def draw_edge(circuit: Circuit, edge_id: str) -> None:
    """An edge's score beside its measured effect."""
    edge = next(edge for edge in circuit.edges if f"{edge.source}->{edge.target}" == edge_id)
    st.markdown(f"##### {edge_words(edge_id)}")
    whole = circuit.m_clean - circuit.m_corrupted
    if edge.exact is None:
        st.markdown(f"Not patched exactly in this run; its score predicts a loss of **{-edge.score:+.3f}** logits.")
        return
    low, high = -(edge.exact_high or 0.0), -(edge.exact_low or 0.0)
    st.markdown(
        f"Let this edge alone carry what it carries when another instruction runs, and the answer loses "
        f"**{-edge.exact:.3f}** [{low:.3f}, {high:.3f}] of **{whole:.2f}** logits (measured, n = {circuit.n:,}). "
        f"The score by gradients ({circuit.method}) predicted {-edge.score:.3f}."
    )
    st.markdown("It is part of the circuit." if edge.in_circuit else "It is not part of the chosen circuit.")


def draw_evidence(circuit: Circuit) -> None:
    """Faithfulness against size with its null, and the scores of the whole ranking."""
    st.markdown("**Is it enough?** Faithfulness against the number of edges kept")
    if circuit.n < ENOUGH:
        st.info(f"Only {circuit.n} pairs: too few to draw a curve.")
        return
    st.echarts_chart(
        faithfulness_curve(circuit_data.curve(circuit), chosen=circuit.size, threshold=circuit.threshold),
        key=f"curve_{circuit.op}", height=300,
        alt=f"Faithfulness of the circuit of {circuit.op} by number of edges, with the range of random circuits.",
    )  # fmt: skip
    null = "" if circuit.cmd_null is None else f" (random: {circuit.cmd_null:.2f})"
    up = "" if circuit.cpr_null is None else f" (random: {circuit.cpr_null:.2f})"
    agreement = (
        ""
        if circuit.spearman is None
        else f" Scores and exact patches agree with rank correlation {circuit.spearman:.2f}."
    )
    st.caption(
        f"Bands: 95 % over programs, and of the random circuits. CMD {circuit.cmd:.2f}{null}, 0 is best; "
        f"CPR {circuit.cpr:.2f}{up}, higher is better.{agreement} Excluded edges carry the other run's values "
        f"({circuit.ablation}); the full model gets {circuit.exact_match:.1%} of these states wholly right."
    )


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
    exact = {f"{e.source}->{e.target}": e for e in circuit.edges}
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


def page() -> None:
    view = session.view()
    op = view.chosen_op
    title, control = st.columns([3, 1], vertical_alignment="bottom")
    title.markdown(f"#### The circuit of {GLYPHS[op]} {op}: {OP_MEANINGS[op]}")
    with control:
        widgets.selectbox(
            "Instruction", session.op_names(view.spec), op, key="circuit_op",
            on_pick=lambda name: selection.emit(op=name, kind="", id=""),
            format_func=lambda name: f"{GLYPHS[name]} {name}",
        )  # fmt: skip
    st.caption(
        "The same state is run twice: once where this instruction is next, once where another is. An edge, what one "
        "part of the model tells another, belongs to the circuit if the other run's message in its place moves the "
        "answer. Numbers are logits: the lead of the right answer over the other run's, and how much of it is lost."
    )
    if not run_access.analysis_or_wait():
        return
    circuit = circuit_data.read(view.run, op)
    chosen = selection.current()
    known = {"node": {node.id for node in circuit.nodes}, "edge": {f"{e.source}->{e.target}" for e in circuit.edges}}
    if chosen.kind in known and chosen.id not in known[chosen.kind]:
        selection.drop(f"The link picks {chosen.kind} {chosen.id!r}, which this model does not have.")
        st.rerun()
    kept, other_op = choose(view, circuit)
    theirs = set() if other_op == NONE else draw_comparison(view, circuit, kept, other_op)
    edges = circuit_data.drawn_edges(circuit, kept, theirs)
    draw_summary(circuit, kept, edges)
    left, right = st.columns([5, 3], gap="large")
    with left:
        draw_graph(circuit, edges)
    with right:
        if chosen.kind == "node":
            draw_node(view, circuit, chosen.id, edges)
        elif chosen.kind == "edge":
            draw_edge(circuit, chosen.id)
        else:
            st.info("Click a node or an edge, or pick one below the graph.", icon=":material/touch_app:")
        draw_evidence(circuit)
    with st.expander(f"All {len(edges)} edges", icon=":material/table_rows:"):
        draw_edges_table(circuit, edges, compared=other_op != NONE)


page()
