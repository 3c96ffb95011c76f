"""The Circuit page's right-hand side: a node, an edge, the evidence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st

from app import attention_data, circuit_data, edit_places, recipes, run_access, selection, session
from app.circuit_data import DrawnEdge
from app.components.clickable import clickable
from app.components.heads import head_grid
from app.components.lines import faithfulness_curve
from app.edge_examples import draw_examples
from app.session import View
from interp import RunError
from interp.figures.style import node_words
from interp.models.graph import Edge

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Circuit

ENOUGH = 20  # pairs below which numbers are written and nothing is drawn


def edge_words(edge_id: str) -> str:
    """An edge in words, without what it carries."""
    edge = Edge.named(edge_id)
    return f"{node_words(edge.source.name)} → {node_words(edge.target.name)}"


def two(value: float | None) -> str:
    """Two digits, without a minus sign before zero."""
    return "–" if value is None else f"{value:z.2f}"


def measured_on(circuit: Circuit) -> str:
    """On how many held-out pairs the effects of single nodes and edges were measured."""
    return f"measured, n = {circuit.n_effects:,} held-out pairs"


def draw_node(view: View, circuit: Circuit, node_id: str, edges: list[DrawnEdge]) -> None:
    """A node's measured effect, its strongest edges, and its attention if it is a head."""
    node = next(node for node in circuit.nodes if node.id == node_id)
    st.markdown(f"##### {node_words(node_id)}")
    if node.effect is None:
        st.markdown("The model's output: everything that reaches it is the answer.")
    else:
        low, high = -(node.effect_high or 0.0), -(node.effect_low or 0.0)
        st.markdown(
            f"Give it the output it has where {session.otherwise(view, circuit.op)}, and the answer loses "
            f"**{-node.effect:.2f}** [{low:.2f}, {high:.2f}] of **{circuit.m_clean - circuit.m_corrupted:.2f}** logits "
            f"({measured_on(circuit)})."
        )
    if known := run_access.key_of(view.run, node_id):
        st.markdown(f":material/key: {known}")
    for title, found in (
        ("Reads from", [e for e in edges if e.node == node_id]),
        ("Writes to", [e for e in edges if e.source == node_id]),
    ):
        if found:
            listed = [f"{edge_words(edge.id)} ({edge.contribution:+.2f})" for edge in found[:3]]
            st.markdown(f"{title}: {', '.join(listed)}{' …' if len(found) > 3 else '.'}")
    loaded = run_access.model_or_wait(view.run)
    place = None if loaded is None else edit_places.node_place(loaded.run.model, node_id)
    if place and st.button("Ablate it here", icon=":material/tune:", key="to_intervene"):
        recipes.propose(kind="ablate", positions="all", **place)
    if node.kind in ("head", "cross"):
        draw_head(view, circuit.op, node_id.partition(".")[0], int(node.head or 0))
    elif node.kind == "mlp" and st.button("What can be read after it? Probes", icon=":material/sensors:"):
        st.switch_page("views/probe_results.py")


def draw_head(view: View, op: str, stem: str, head: int) -> None:
    """A head's mean pattern on this instruction, in words and as a picture; `stem` is "a1" of a node "a1.h3"."""
    part = next(part for part in view.run.config.model.attention_parts if stem in part.nodes)
    index = part.nodes.index(stem)
    row, layer = part.rows[index], part.layers[index]
    try:
        looks = attention_data.roles_of_op(view.run, op, row, head)
    except RunError as error:
        run_access.show_problem(error)
        return
    right: Any = st.container()
    if attention_data.has_picture(view.run, op):
        left, right = st.columns([2, 5])
        with left:
            whole = attention_data.mean_of_op(view.run, op).of(part)
            pattern = whole.pattern[index : index + 1, head : head + 1]
            picture = head_grid(pattern, picked=None, rows=[row], layers=[layer], first_head=head)
            clickable(picture, key="node_head", on_pick=lambda _: None)
    with right:
        st.markdown(f"Where it looks, mean over {view.held_out(attention_data.averaged(view.run, op), op)}:")
        st.markdown("\n".join(f"- from **{query}** mostly at **{key}** ({share:.2f})" for query, key, share in looks))
        if st.button("Its attention", icon=":material/visibility:", key="to_attention"):
            selection.emit(kind="head", id=f"{row}.{head}", op=op)
            st.switch_page("views/attention.py")


def draw_edge(view: View, circuit: Circuit, edge_id: str) -> None:
    """An edge's score beside its measured effect, and the states where it does most."""
    edge = next(edge for edge in circuit.edges if edge.name == edge_id)
    st.markdown(f"##### {edge_words(edge_id)}")
    whole = circuit.m_clean - circuit.m_corrupted
    if edge.exact is None:
        st.markdown(f"Not patched exactly in this run; its score predicts a loss of **{-edge.score:+.3f}** logits.")
        return
    low, high = -(edge.exact_high or 0.0), -(edge.exact_low or 0.0)
    st.markdown(
        f"Let this edge alone carry what it carries where {session.otherwise(view, circuit.op)}, and the answer loses "
        f"**{-edge.exact:.3f}** [{low:.3f}, {high:.3f}] of **{whole:.2f}** logits ({measured_on(circuit)}). "
        f"The score by gradients ({circuit.method}) predicted {-edge.score:.3f}."
    )
    st.markdown("It is part of the circuit." if edge.in_circuit else "It is not part of the chosen circuit.")
    draw_examples(view, circuit.op, edge_id)


def draw_evidence(view: View, circuit: Circuit) -> None:
    """Faithfulness against size with its null, and the scores of the whole ranking."""
    st.markdown("**Is it enough?** Faithfulness against the number of edges kept")
    if circuit.n < ENOUGH:
        st.info(f"Only {circuit.n} pairs: too few to draw a curve.")
        return
    st.echarts_chart(
        faithfulness_curve(circuit_data.curve(circuit), chosen=circuit.size, threshold=circuit.threshold),
        key=f"curve_{circuit.op}", height=270,
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
        f"Bands: 95 %, resampled by {view.run.config.world.unit}, and of the random circuits. "
        f"CMD {circuit.cmd:.2f}{null}, 0 is best; "
        f"CPR {circuit.cpr:.2f}{up}, higher is better.{agreement} Excluded edges carry the other run's values "
        f"({circuit.ablation}); the full model gets {circuit.exact_match:.1%} of these examples wholly right."
    )
    session.show_calibration([circuit.method])
