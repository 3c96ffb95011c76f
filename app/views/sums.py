"""Sum: two numbers added digit by digit, with every carry, and what the model says of each digit."""

from __future__ import annotations

import streamlit as st

from app import example_search, examples_view, run_access, selection, session, sums_view, widgets
from app.answers import Answers
from app.components.clickable import clickable
from app.components.sum_board import sum_board
from app.pages import PAGES
from app.run_access import LoadedModel
from app.sums_view import Places, SumsView
from interp import RunError

PLACE = "sum_place"


def show_number(number: int) -> None:
    sums_view.show_own(run_access.current(), "")
    examples_view.go(number)


def typed() -> None:
    """Take the person's sum, or say what is wrong with it."""
    text = st.session_state["typed_sum"]
    try:
        if text.strip():
            sums_view.parse(run_access.current().config.world, text)  # type: ignore[arg-type]
    except ValueError as error:
        st.session_state["sum_error"] = str(error)
        return
    sums_view.show_own(run_access.current(), text)


def draw_controls(view: SumsView, loaded: LoadedModel | None) -> None:
    """Previous and next sum, next mistake, the next with a cascade, and a sum of one's own."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button(
            "Previous sum", icon=":material/first_page:", key="previous_sum", shortcut="Left",
            disabled=not view.own and view.number == 0, on_click=show_number, args=(max(0, view.number - 1),),
        )  # fmt: skip
        st.button(
            "Next sum", icon=":material/last_page:", key="next_sum", shortcut="Right", on_click=show_number,
            args=(view.number + (not view.own),),
        )  # fmt: skip
        searching = st.button(
            "Next mistake", icon=":material/error:", key="next_mistake", disabled=loaded is None, type="primary",
            help=f"The next of up to {example_search.LIMIT} held-out sums that the model gets wrong; some seconds.",
        )  # fmt: skip
        with st.container(width=190):
            widgets.selectbox(
                "Next with", view.ops, None, key="next_of", on_pick=lambda name: go_to_stratum(view, name)
            )
        with st.container(width=210):
            st.text_input("Or a sum of your own", key="typed_sum", placeholder="999 + 1", on_change=typed)
    if wrong := st.session_state.pop("sum_error", None):
        st.warning(wrong)
    if searching and loaded is not None:
        go_to_mistake(view, loaded)
    elif words := st.session_state.pop("example_search", None):
        st.caption(words)


def go_to_mistake(view: SumsView, loaded: LoadedModel) -> None:
    limit = example_search.LIMIT
    bar, words = st.progress(0.0, "Searching …"), f"No mistake in the {limit} held-out sums after this one."
    for tried, number in example_search.search_mistake(loaded, view.number + 1):
        bar.progress(min(1.0, tried / limit), f"{tried} of {limit} sums tried")
        if number is not None:
            words = f"Found {tried:,} {'sum' if tried == 1 else 'sums'} further on."
            show_number(number)
    st.session_state["example_search"] = words
    st.rerun()


def go_to_stratum(view: SumsView, name: str) -> None:
    task = run_access.task_or_wait(view.run)
    number = None if task is None else example_search.search_stratum(task, name, view.number + 1)
    if number is None:
        st.session_state["example_search"] = f"None of the held-out sums after this one has “{name}”."
    else:
        show_number(number)


def status(view: SumsView, places: Places, found: Answers | None) -> str:
    where = f"{view.status()} · **{places.shown.stratum(0)}**"
    if found is None:
        return f"{where} · the model is loading"
    asked = found.asked[0]
    return f"{where} · {session.verdict(bool(found.right[0][asked].all()), float(found.p[0][asked].prod()))}"


def draw_place(view: SumsView, places: Places, place: int) -> None:
    """What comes into the picked place, and the way to what carries it."""
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(places.in_words(place), width="stretch")
        name = f"carry into {place}"
        has_circuit = name in view.contrasts and PAGES["circuit"].refuses(view.run) is None
        if has_circuit and st.button(f"Circuit of “{name}”", icon=PAGES["circuit"].icon, key="to_circuit"):
            selection.emit(op=name, kind="", id="")
            st.switch_page(PAGES["circuit"].file)
        if PAGES["attention"].refuses(view.run) is None and st.button(
            "Where the heads look", icon=PAGES["attention"].icon, key="to_attention"
        ):
            st.switch_page(PAGES["attention"].file)


def page() -> None:
    view = sums_view.view(run_access.current())
    assert isinstance(view, SumsView)
    top, words = st.empty(), st.empty()
    top.markdown(f"#### {view.status()}")
    task = run_access.task_or_wait(view.run)
    if task is None:
        return
    shown, problem, loaded = view.shown(task), None, None
    try:
        loaded = run_access.model_if_there(view.run)
    except RunError as error:
        problem = error
    found = None if loaded is None else view.answered(loaded)
    places = Places(shown, found)
    line = status(view, places, found)
    top.markdown(f"#### {line.removesuffix(' · the model is loading') if problem else line}")
    origin = "" if view.own else " The sum comes from a pair of numbers that was kept out of training."
    words.caption(f"{task.words}{origin}")
    draw_controls(view, loaded)
    if problem is not None:
        run_access.show_problem(problem)
    elif found is None:
        run_access.model_or_wait(view.run)
    columns = places.columns()
    place = min(int(st.session_state.get(PLACE, 1)), len(columns) - 1)
    clickable(
        sum_board(columns, places.names(), picked=place), key="sum_board",
        on_pick=lambda value: st.session_state.__setitem__(PLACE, int(value)),
    )  # fmt: skip
    st.caption(
        "One column a place, the lowest on the right. A number above a column is the carry that comes into it, each "
        "arrow a place that it has come. Pick a place to follow its carry."
    )
    draw_place(view, places, place)
    with st.expander("What the model reads", icon=":material/notes:"):
        st.code("".join(shown.tokens), language=None)
        st.markdown(task.world.describe(shown.batch.examples))


page()
