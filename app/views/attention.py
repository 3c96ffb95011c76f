"""Attention: where every head looks, on average over an opcode's states or in the state of the Step page."""

from __future__ import annotations

import streamlit as st

from app import attention_data, edit_places, recipes, run_access, selection, session, widgets
from app.attention_data import Patterns
from app.components.clickable import clickable
from app.components.heads import describe, head_grid
from app.components.heatmap import heatmap
from app.numbers import quoted, whole_number
from app.pages import PAGES
from app.session import View
from app.theme import CIVIDIS

THIS, MEAN = "this state", "mean over an instruction"


def parse_id(id_: str, patterns: Patterns) -> tuple[int, int, int] | None:
    """Layer, head and query of a selection id "layer.head" or "layer.head:position"; None if it is stale."""
    head_id, _, name = id_.partition(":")
    layer_text, _, head_text = head_id.partition(".")
    layer, head = whole_number(layer_text), whole_number(head_text)
    n_layers, n_heads = patterns.pattern.shape[:2]
    if layer is None or head is None or layer >= n_layers or head >= n_heads or (name and name not in patterns.names):
        return None
    return layer, head, patterns.names.index(name) if name else -1


def names_of(view: View, row: int, head: int) -> tuple[str, str, str]:
    """A head's node in circuits, its name on buttons and its name in full; `row` counts attention patterns."""
    stem = view.run.config.model.attention_nodes[row]
    layer, crosses = stem[1:], stem.startswith("c")
    return (
        f"{stem}.h{head}",
        f"L{layer}H{head}" + (" (cross)" if crosses else ""),
        f"Layer {layer}, head {head}" + (" of cross-attention" if crosses else ""),
    )


def emit(layer: int, head: int, query: str) -> None:
    selection.emit(kind="head", id=f"{layer}.{head}:{query}")


def choose_source(view: View) -> Patterns | None:
    """The patterns to show; None while the model loads."""
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    with left:
        mode = st.segmented_control(
            "Patterns of", [THIS, MEAN] if view.contrasts else [THIS], default=THIS, required=True, key="att_mode"
        )
    loaded = run_access.model_or_wait(view.run)
    if mode == THIS:
        right.caption(view.place())
        return None if loaded is None else attention_data.of_example(loaded, view.example())
    with right:
        widgets.selectbox(
            session.contrast_title(view), view.contrasts, view.chosen_op, key="att_op",
            on_pick=lambda op: selection.emit(op=op), format_func=session.op_label,
        )  # fmt: skip
    return None if loaded is None else attention_data.mean_of_op(view.run, view.chosen_op)


def draw_pattern(patterns: Patterns, layer: int, head: int, query: int) -> None:
    """One head's pattern, large; a click picks its query."""
    names, values = patterns.names, patterns.pattern[layer, head]
    widgets.pickable_chart(
        heatmap(
            values, rows=names, columns=names, limits=(0, 1), colors=CIVIDIS, marked_row=query, root_scale=True,
            tips=[[f"{q} looks at {k}: {values[i, j]:.3f}" for j, k in enumerate(names)] for i, q in enumerate(names)],
        ),
        key="pattern", on_pick=lambda _, index: emit(layer, head, names[index // len(names)]),
        height=max(420, 175 + min(12 * len(names), 820)),
        alt=f"Attention pattern of layer {layer} head {head}: {describe(values)}.",
    )  # fmt: skip


def page() -> None:
    view = session.view()
    session.show_status(view)
    top = st.empty()
    patterns = choose_source(view)
    top.markdown("#### Where the heads look")
    if patterns is None:
        return
    what = "this state" if patterns.n == 1 else view.held_out(patterns.n, view.chosen_op)
    chosen, picked = selection.current(), None
    if chosen.kind == "head":
        picked = parse_id(chosen.id, patterns)
        if picked is None:
            selection.drop(f"The link picks head {quoted(chosen.id)}, which this model does not have.")
            st.rerun()
    query = picked[2] if picked and picked[2] >= 0 else view.query(patterns.names)
    layer, head = picked[:2] if picked else patterns.sharpest(query)
    node, short, full = names_of(view, layer, head)
    left, right = st.columns([4, 7], gap="large")
    with left:
        st.markdown(f"**Every head**, rows are layers; {what}. Pick one.")
        clickable(
            head_grid(patterns.pattern, picked=(layer, head)), key="heads",
            on_pick=lambda value: selection.emit(kind="head", id=f"{value}:{patterns.names[query]}"),
        )  # fmt: skip
        st.caption("Rows are queries, columns keys, from { to }. Dark blue is 0, yellow is 1, on a square-root scale.")
        if (
            view.chosen_op
            and not PAGES["circuit"].refuses(view.run)
            and st.button(f"{short} in the circuit of {view.chosen_op}", icon=":material/account_tree:")
        ):
            selection.emit(kind="node", id=node, op=view.chosen_op)
            st.switch_page("views/circuit.py")
        if not PAGES["intervene"].refuses(view.run) and st.button(
            f"Ablate {short} here", icon=":material/tune:", key="to_intervene"
        ):
            loaded = run_access.model_or_wait(view.run)
            place = {} if loaded is None else edit_places.node_place(loaded.run.model, node)
            recipes.propose(kind="ablate", positions="all", **place)
    with right:
        st.markdown(f"**{full}**; {what}")
        if known := run_access.key_of(view.run, node):
            st.markdown(f":material/key: {known}")
        widgets.selectbox(
            "Query position", patterns.names, patterns.names[query], key="query",
            on_pick=lambda name: emit(layer, head, name), help="The same choice as a click on a row, by keyboard.",
        )  # fmt: skip
        most, *others = patterns.top_keys(layer, head, query)
        top_keys = [most, *(each for each in others if each[1] >= 0.005)]
        listed = ", ".join(f"**{name}** ({share:.2f})" for name, share in top_keys)
        rest = 1 - sum(share for _, share in top_keys)
        st.markdown(
            f"From **{patterns.names[query]}** it looks most at {listed}; "
            f"the other {len(patterns.names) - len(top_keys)} positions share {max(rest, 0):.2f}."
        )
        draw_pattern(patterns, layer, head, query)


page()
