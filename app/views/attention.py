"""Attention: where every head looks, on average over an opcode's states or in the state of the Step page."""

from __future__ import annotations

from dataclasses import dataclass, replace

import streamlit as st

from app import attention_data, edit_places, recipes, run_access, selection, session, widgets
from app.attention_data import Patterns
from app.components.clickable import clickable
from app.components.heads import describe, head_grid
from app.components.heatmap import heatmap
from app.numbers import literal, quoted, whole_number
from app.pages import PAGES
from app.session import View
from app.theme import CIVIDIS
from interp.models.model_config import AttentionPart

MOST_BUTTONS = 4  # kinds of attention that stand side by side
THIS, MEAN = "this state", "mean over an instruction"


@dataclass(frozen=True)
class Picked:
    """The head to show and the position it is asked from, with the kind of attention that it belongs to."""

    part: AttentionPart
    patterns: Patterns  # of that kind alone
    index: int  # of the head's layer among those of its part
    head: int
    query: int

    @property
    def row(self) -> int:
        """The layer's attention pattern, as ids in the address count them."""
        return self.part.rows[self.index]

    @property
    def short(self) -> str:
        """ "L1H3", as it is called on buttons."""
        return f"L{self.part.layers[self.index]}H{self.head}"

    @property
    def node(self) -> str:
        """Its node in circuits; "" where there is none."""
        return f"{self.part.nodes[self.index]}.h{self.head}" if self.part.nodes else ""


def parse_id(id_: str, patterns: Patterns) -> tuple[int, int, str] | None:
    """Row, head and query of a selection id "row.head" or "row.head:position"; None if it is stale."""
    head_id, _, name = id_.partition(":")
    row_text, _, head_text = head_id.partition(".")
    row, head = whole_number(row_text), whole_number(head_text)
    n_rows, n_heads = patterns.pattern.shape[:2]
    if row is None or head is None or row >= n_rows or head >= n_heads or (name and name not in patterns.names):
        return None
    return row, head, name


def pick(view: View, patterns: Patterns) -> Picked:
    """What the selection names; a newcomer sees the last kind of attention, from the position that interests most."""
    parts, chosen, asked = view.run.config.model.attention_parts, selection.current(), None
    if chosen.kind == "head":
        asked = parse_id(chosen.id, patterns)
        if asked is None:
            selection.drop(f"The link picks head {quoted(chosen.id)}, which this model does not have.")
            st.rerun()
    if asked is None:
        return in_part(view, patterns, parts[-1])
    row, head, name = asked
    part = next(part for part in parts if row in part.rows)
    found = in_part(view, patterns, part, name)
    return replace(found, index=part.rows.index(row), head=head)


def in_part(view: View, patterns: Patterns, part: AttentionPart, name: str = "") -> Picked:
    """One kind of attention, from the position `name` where it has it, at the head that looks most sharply."""
    own = patterns.of(part)
    query = own.names.index(name) if name in own.names else view.query(own.names)
    return Picked(part, own, *own.sharpest(query), query)


def choose_part(view: View, patterns: Patterns, picked: Picked) -> None:
    """Which kind of attention: a few as buttons, the many steps of a loop as a list."""
    parts = {part.name: part for part in view.run.config.model.attention_parts}
    if len(parts) == 1:
        return

    def choose(name: str | None) -> None:
        if name is not None:
            chosen = in_part(view, patterns, parts[name], picked.patterns.names[picked.query])
            emit(chosen.row, chosen.head, chosen.patterns.names[chosen.query])

    if len(parts) > MOST_BUTTONS:
        widgets.selectbox("Kind of attention", list(parts), picked.part.name, key="att_part", on_pick=choose)
        return
    st.session_state["att_part"] = picked.part.name
    st.segmented_control(
        "Kind of attention", list(parts), key="att_part", on_change=lambda: choose(st.session_state["att_part"]),
        required=True,
    )  # fmt: skip


def emit(row: int, head: int, query: str) -> None:
    selection.emit(kind="head", id=f"{row}.{head}:{query}")


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


def draw_heads(view: View, picked: Picked, what: str) -> None:
    """Every head small; where the one that is picked can be looked into further."""
    patterns, query = picked.patterns, picked.patterns.names[picked.query]
    st.markdown(f"**Every head**, rows are layers; {what}. Pick one.")
    clickable(
        head_grid(
            patterns.pattern, picked=(picked.row, picked.head), rows=picked.part.rows, layers=picked.part.layers
        ),
        key="heads", on_pick=lambda value: selection.emit(kind="head", id=f"{value}:{query}"),
    )  # fmt: skip
    looking, looked_at = (f"from {names[0]} to {names[-1]}" for names in (patterns.names, patterns.keys))
    ends = f"both {looking}" if looking == looked_at else f"those {looking}, these {looked_at}"
    st.caption(
        f"Rows are queries (what looks), columns keys (what is looked at), {ends}. Dark blue is 0, yellow is 1, on a "
        "square-root scale."
    )
    op, node = view.chosen_op, picked.node
    if node and op and not PAGES["circuit"].refuses(view.run) and st.button(
        f"{picked.short} in the circuit of {op}", icon=":material/account_tree:"
    ):  # fmt: skip
        selection.emit(kind="node", id=node, op=op)
        st.switch_page("views/circuit.py")
    if node and not PAGES["intervene"].refuses(view.run) and st.button(
        f"Ablate {picked.short} here", icon=":material/tune:", key="to_intervene"
    ):  # fmt: skip
        loaded = run_access.model_or_wait(view.run)
        place = {} if loaded is None else edit_places.node_place(loaded.run.model, node)
        recipes.propose(kind="ablate", positions="all", **place)


def draw_head(view: View, picked: Picked, what: str) -> None:
    """One head: where it looks from the query, in words, and its whole pattern."""
    patterns, query = picked.patterns, picked.query
    kind = f" of {picked.part.name}" if len(view.run.config.model.attention_parts) > 1 else ""
    st.markdown(f"**Layer {picked.part.layers[picked.index]}, head {picked.head}{kind}**; {what}")
    if picked.node and (known := run_access.key_of(view.run, picked.node)):
        st.markdown(f":material/key: {known}")
    labels = dict(zip(patterns.names, patterns.labels, strict=True))
    widgets.selectbox(
        "Query position", patterns.names, patterns.names[query], key="query", format_func=lambda name: labels[name],
        on_pick=lambda name: emit(picked.row, picked.head, name),
        help="The same choice as a click on a row, by keyboard.",
    )  # fmt: skip
    most, *others = patterns.top_keys(picked.index, picked.head, query)
    top_keys = [most, *(each for each in others if each[1] >= 0.005)]
    listed = ", ".join(f"**{literal(name)}** ({share:.2f})" for name, share in top_keys)
    rest = 1 - sum(share for _, share in top_keys)
    st.markdown(
        f"From **{literal(patterns.labels[query])}** it looks most at {listed}; "
        f"the other {len(patterns.keys) - len(top_keys)} positions share {max(rest, 0):.2f}."
    )
    draw_pattern(picked)


def draw_pattern(picked: Picked) -> None:
    """One head's pattern, large; a click picks its query."""
    patterns = picked.patterns
    values, rows, columns = patterns.pattern[picked.index, picked.head], patterns.labels, patterns.key_labels
    widgets.pickable_chart(
        heatmap(
            values, rows=rows, columns=columns, limits=(0, 1), colors=CIVIDIS, marked_row=picked.query, root_scale=True,
            tips=[[f"{q} looks at {k}: {values[i, j]:.3f}" for j, k in enumerate(columns)] for i, q in enumerate(rows)],
        ),
        key="pattern",
        on_pick=lambda _, index: emit(picked.row, picked.head, patterns.names[index // len(columns)]),
        height=max(420, 175 + min(12 * len(rows), 820)),
        alt=f"Attention pattern of layer {picked.part.layers[picked.index]} head {picked.head}, {picked.part.name}: "
        f"{describe(values)}.",
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
    picked = pick(view, patterns)
    choose_part(view, patterns, picked)
    left, right = st.columns([4, 7], gap="large")
    with left:
        draw_heads(view, picked, what)
    with right:
        draw_head(view, picked, what)


page()
