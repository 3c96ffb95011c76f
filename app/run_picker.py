"""Over all pages: which run is shown, how good it is, and every other run to choose, by world and task."""

from __future__ import annotations

from itertools import groupby

import streamlit as st

from app import examples_view, run_access, run_list, selection
from app.run_list import Listed
from interp import Run, RunError


def draw(run: Run | None) -> None:
    """The picker; `run` is None where the run that was asked for cannot be opened."""
    runs, unreadable = run_list.listed()
    here = None if run is None else run_access.whole_run().path.resolve()
    now = next((each for each in runs if run_access.is_at(each.address, here)), None)
    title = "Choose a run" if run is None else f"Run **{run.name}**"
    known = now is not None and now.headline is not None and not selection.weights()  # it is that of the final weights
    worth = f" · {now.words}" if known and now is not None else ""
    with st.popover(f"{title}{worth}", icon=":material/folder_open:", help="Choose another run"):
        st.caption(
            "Choose a run. Beside each: how much of what it is asked, on held-out examples, is right; for text, the "
            "bits that a character costs it, fewer is better. A box marks those that come with the project, a person "
            "your own."
        )
        for (world, task), group in groupby(runs, key=lambda each: (each.world, each.task)):
            st.caption(f"World **{world}**, task **{task}**")
            with st.container(horizontal=True, gap="small"):
                for each in group:
                    draw_run(each, current=each is now)
        if unreadable:
            folders = "folder is" if unreadable == 1 else "folders are"
            st.caption(f"{unreadable} more {folders} left out: no run that this version can open.")


def draw_run(each: Listed, *, current: bool) -> None:
    """One run, as a button."""
    st.button(
        f"{each.name} · {each.words.removesuffix(' right')}", key=f"run_{each.address}",
        icon=":material/check:" if current else ":material/inventory_2:" if each.bundled else ":material/person:",
        help="Bundled with the project" if each.bundled else "Your own", disabled=current,
        on_click=choose, args=(each.address,),
    )  # fmt: skip


def choose(address: str) -> None:
    """Show another run, on the same page if it has something to show there."""
    try:
        run_access.choose(address)
    except RunError as error:
        st.session_state["picker_problem"] = str(error)
        return
    for key in ("start", "search_result", "editor_error", "playing", "att_mode"):
        st.session_state.pop(key, None)
    examples_view.forget()
    st.session_state["run_chosen"] = True


def just_chosen() -> bool:
    """Whether this drawing of the page follows a choice; asked once."""
    return bool(st.session_state.pop("run_chosen", False))
