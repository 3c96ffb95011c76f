"""The Circuit page on a mistake: which edges, restored from the nearest state that is answered right, mend it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd
import streamlit as st

from app import run_access, selection, widgets
from app.circuit_panels import edge_words
from app.run_access import LoadedModel
from app.session import View

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Mending

SHOWN = 12  # edges of the table


def applies(view: View) -> bool:
    """Whether the world knows states that are one edit away, and the answer is that of one step."""
    return "edit" in view.run.config.world.capabilities and view.executed() == 0


def find(loaded: LoadedModel, view: View) -> Mending:
    """What mends the model's answer to the example in view. Raises ValueError where it is right."""
    return _find(loaded, view, loaded.key, json.dumps(view.named()))


@st.cache_resource(show_spinner="Restoring every edge of the model, one after the other …", max_entries=64)
def _find(_loaded: LoadedModel, _view: View, key: str, example: str):
    from interp.circuits import mend

    with _loaded.lock:
        return mend(_loaded.run.model, _loaded.run.task, _view.example())


def draw(view: View) -> None:
    """The edges that mend the mistake in view, in a sentence and in a table."""
    if not applies(view):
        return
    loaded = run_access.model_or_wait(view.run)
    if loaded is None:
        return
    st.markdown("**Which edges mend it?**")
    try:
        found = find(loaded, view)
    except ValueError as error:  # read token by token, with the right ones before each, it may be right
        st.caption(f"{str(error)[0].upper()}{str(error)[1:]}.")
        return
    st.markdown(sentence(found, view.run.config.world.title))
    if not found.edges:
        return
    table, listed = _table(found), [each.edge for each in found.edges[:SHOWN]]
    st.dataframe(
        table, hide_index=True, width="stretch", key="mending_table",
        column_config={"gain": st.column_config.NumberColumn("lead gained, logits", format="%+.2f")},
    )  # fmt: skip
    listed = list(dict.fromkeys([*(each.edge for each in found.alone), *found.group, *listed]))
    chosen = selection.current()
    widgets.selectbox(
        "Look at one of them in the circuit", listed, chosen.id if chosen.kind == "edge" else None, key="pick_mending",
        on_pick=lambda id_: selection.emit(kind="edge", id=id_), format_func=edge_words,
    )  # fmt: skip
    st.caption(
        "Restored: the edge carries what it carries in the other state, the rest runs as it does here. Measured edge "
        f"by edge, not estimated, all {len(found.edges)} of them; one state, so it says what went wrong here alone."
    )


def sentence(found: Mending, title: str) -> str:
    """What was tried, and what mends."""
    near, places = found.neighbour, ", ".join(f"`{place}`" for place in found.places)
    if near is None or near.n_right == 0:
        tried = 0 if near is None else near.n_tried
        return (
            f"The mistake is at {places}. Of {tried} states one edit away none is answered right while {title} "
            "gives the same answer there, so there is nothing to restore from."
        )
    said = (
        f"The mistake is at {places}. The nearest state that is answered right has `{near.words}` ({near.n_right} of "
        f"{near.n_tried} states one edit away would do). "
    )
    alone, n = found.alone, len(found.edges)
    if alone:
        strongest = ", ".join(f"**{edge_words(each.edge)}** ({each.gain:+.2f})" for each in alone[:3])
        return (
            f"{said}**{len(alone)} of {n} edges** mend the whole answer, each restored from there by itself; the "
            f"strongest: {strongest}. The other {n - len(alone)} do not."
        )
    if found.group:
        named = ", ".join(f"**{edge_words(edge)}**" for edge in found.group)
        return (
            f"{said}No edge mends it by itself; **{len(found.group)} together** do, and none of them can be left out: "
            f"{named}. Of {found.n_random} random groups of {len(found.group)} edges {found.random_mended} mend it."
        )
    return f"{said}No edge mends it by itself, nor do the strongest together."


def _table(found: Mending) -> pd.DataFrame:
    """The edges that mend first, then those that bring the answer nearest."""
    shown = [*found.alone, *(each for each in found.edges if not each.mends)][:SHOWN]
    return pd.DataFrame(
        {
            "edge": [edge_words(each.edge) for each in shown],
            "gain": [each.gain for each in shown],
            "mends by itself": ["✓" if each.mends else "✗" for each in shown],
        }
        | ({"in the group": ["✓" if each.edge in found.group else "" for each in shown]} if found.group else {})
    )
