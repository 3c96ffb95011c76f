"""Intervene: set a variable inside the model, swap or ablate a part, and see its answer beside the world's."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import edit_places, edited, recipes, run_access, run_list, session
from app.components.clickable import clickable
from app.edit_places import Place
from app.run_access import LoadedModel
from app.session import View
from interp import RunError

KINDS = {"set": "Set a variable", "swap": "Swap from another example", "ablate": "Ablate a part"}
ABLATIONS = {"mean": "its mean", "zero": "zero", "resample": "a random example's"}
NOTHING = "nothing"
MANY = 64  # values that a list still shows


def fill(proposal: dict[str, Any], options: dict[str, list[Any]]) -> None:
    """Put what another page proposes into the widgets, as far as this run has it."""
    if "hook" in proposal:
        place = Place(proposal["hook"], proposal.get("head"), "")
        proposal = proposal | {"place": place.id}
    for name in ("kind", "place", "positions", "variable"):
        if proposal.get(name) in options[name]:
            st.session_state[f"edit_{name}"] = proposal[name]
            if name in ("place", "positions"):
                st.session_state["edit_placed"] = st.session_state.get("edit_variable")
    if "value" in proposal:
        st.session_state["edit_value"] = proposal["value"]


def suggest(view: View, variable: str, options: dict[str, list[Any]]) -> str:
    """Go to where the run's own swaps moved the variable most, when it has just been chosen; says where that is."""
    best = edit_places.best_site(view.run, variable)
    if best is None:
        return ""
    hook, positions, iia = best
    if st.session_state.get("edit_placed") != variable and hook in options["place"]:
        st.session_state["edit_place"], st.session_state["edit_positions"] = hook, positions
    st.session_state["edit_placed"] = variable
    return f"Over many pairs, {variable} moved most with {hook} at {positions}: IIA {iia:.2f} (1 = always)."


def draw_value(view: View, loaded: LoadedModel, variable: str) -> int:
    """Which value to set."""
    world = loaded.run.task.world
    n = world.variable(variable).n_values
    now = int(world.read(view.example(), variable, view.executed())[0])
    current = "it has none here" if now < 0 else f"now {view.value_words(variable, now)}"
    kept = st.session_state.get("edit_value")
    if not isinstance(kept, int) or not 0 <= kept < n or st.session_state.get("edit_value_of") != variable:
        st.session_state["edit_value"] = (now + 1) % n
    st.session_state["edit_value_of"] = variable
    label = f"Value ({current})"
    if n > MANY:
        return int(st.number_input(label, 0, n - 1, key="edit_value"))
    return int(
        st.selectbox(label, range(n), key="edit_value", format_func=lambda value: view.value_words(variable, value))
    )


def draw_controls(view: View, loaded: LoadedModel) -> dict[str, Any]:
    """What the next edit is; returns it as a dict."""
    task, model = loaded.run.task, loaded.run.model
    known = edit_places.places(model)
    options: dict[str, list[Any]] = {
        "kind": list(KINDS), "place": list(known), "variable": task.swappable(),
        "positions": list(dict.fromkeys([*task.position_sets(), *task.pointed_places(), *task.position_names])),
    }  # fmt: skip
    if "edit_variable" not in st.session_state:
        st.session_state["edit_variable"] = edit_places.first_variable(view.run, options["variable"])
    fill(recipes.proposed(), options)
    st.session_state.setdefault("edit_kind", "set")
    kind = st.segmented_control(
        "What to do", list(KINDS), key="edit_kind", format_func=KINDS.__getitem__, label_visibility="collapsed"
    )
    edit: dict[str, Any] = {"kind": kind or "set"}
    first, second, third, fourth = st.columns([2, 2, 3, 2], vertical_alignment="bottom")
    said = ""
    if edit["kind"] == "set":
        with first:
            edit["variable"] = str(st.selectbox("Variable", options["variable"], key="edit_variable"))
        said = suggest(view, edit["variable"], options)
        with second:
            edit["value"] = draw_value(view, loaded, edit["variable"])
    elif edit["kind"] == "swap":
        with first:
            edit["source"] = int(st.number_input("Held-out example", 1, 1_000_000, key="edit_source", step=1))
        with second:
            names = [NOTHING, *options["variable"]]
            judged = st.selectbox(
                "It should move", names, key="edit_judged",
                help="The variable that the world is asked with: what it is in the other example.",
            )  # fmt: skip
            if judged != NOTHING:
                edit["variable"] = judged
    else:
        with first:
            edit["ablation"] = st.selectbox(
                "Put there", list(ABLATIONS), key="edit_ablation", format_func=ABLATIONS.__getitem__
            )
    with third:
        where = st.selectbox("Place", options["place"], key="edit_place", format_func=lambda each: known[each].words)
        place = known[str(where)]
    with fourth:
        edit["positions"] = st.selectbox("Positions", options["positions"], key="edit_positions")
    edit["hook"] = place.hook
    if place.head is not None:
        edit["head"] = place.head
    if said:
        st.caption(said)
    return edit


def draw_made(edits: list[dict[str, Any]], found: Any) -> None:
    """The edits in force, in words."""
    from interp.interventions import Edit

    lines = []
    for edit, source in zip(edits, found.sources, strict=True):
        origin = "" if source is None else f" (taken from {source.words})"
        lines.append(f"1. {Edit.from_dict(edit).in_words()}{origin}")
    st.markdown("\n".join(lines).replace("<", "&lt;"))


def draw_result(view: View, loaded: LoadedModel, edits: list[dict[str, Any]], found: Any) -> None:
    """What came out, in a sentence and place by place."""
    world, vocab = view.run.config.world, loaded.run.task.vocab
    with st.container(border=True):
        st.markdown(edited.sentence(found.answer, found.do, world.title, edited=bool(edits)))
    if edits:
        clickable(edited.table(found.answer, vocab, world.title), key="edited_table")
        st.caption(
            "Places where something differs or should. Underlined: changed by the edit. p is what the model gives to "
            f"the token of {world.title} with the edit. "
            + ("Where the answer follows the example, each token is read with the right ones before it. "
               if loaded.run.task.shows_answer else "")
            + "One example shows that it can happen, not how often: that is what interchange over many pairs measures."
        )  # fmt: skip
    with st.expander("Every place", icon=":material/table_rows:"):
        clickable(edited.table(found.answer, vocab, world.title, whole=True), key="edited_whole")


def draw_recipe(view: View, edits: list[dict[str, Any]]) -> None:
    """The recipe to take along."""
    folder = run_list.address_of(view.run.path)
    left, right = st.columns([2, 3])
    with left:
        st.markdown("**The recipe**, as JSON")
        st.code(edited.as_json(view, edits, folder), language="json")
    with right:
        st.markdown("**The same in Python**")
        st.code(edited.python(view, edits, folder), language="python")
    st.caption("The address of this page holds the recipe, too: whoever opens it sees what you see.")


def page() -> None:
    view = session.view()
    session.show_status(view)
    st.markdown("#### Change something inside the model, and see what it says")
    st.caption(
        f"The model reads the example of the first page as it is. An edit changes one activation on the way; "
        f"{view.run.config.world.title} says what the answer should then be. " + view.place()
    )
    loaded = run_access.model_or_wait(view.run)
    if loaded is None:
        return
    if not loaded.run.task.swappable():
        st.info(f"The task {loaded.run.task.name} has no variable that can be set.", icon=":material/block:")
        return
    edit = draw_controls(view, loaded)
    edits = recipes.edits()
    with st.container(horizontal=True, gap="small"):
        st.button("Make the edit", key="make_edit", type="primary", icon=":material/edit:", on_click=recipes.add,
                  args=(edit,), disabled=len(edits) >= recipes.MOST)  # fmt: skip
        st.button("Undo", key="undo_edit", icon=":material/undo:", on_click=recipes.undo, disabled=not edits,
                  help="Take the last edit back.")  # fmt: skip
        st.button("Start over", key="clear_edits", icon=":material/restart_alt:", on_click=recipes.write, args=([],),
                  disabled=not edits)  # fmt: skip
    try:
        found = edited.carry_out(loaded, view, edits)
    except (ValueError, RunError) as error:
        st.error(f"This edit cannot be made: {error}", icon=":material/edit_off:")
        return
    if edits:
        draw_made(edits, found)
    draw_result(view, loaded, edits, found)
    if edits:
        draw_recipe(view, edits)


page()
