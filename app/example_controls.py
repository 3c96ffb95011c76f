"""What the pages share that walk through examples of any world: the example in view, and the ways to another one."""

from __future__ import annotations

import numpy as np
import streamlit as st

from app import example_search, examples_view, run_access, session, widgets
from app.answers import Answers
from app.examples_view import ExamplesView, Shown
from app.run_access import LoadedModel
from interp import RunError


def load(view: ExamplesView) -> tuple[Shown | None, LoadedModel | None, RunError | None]:
    """The example, and the model as soon as it is there; or what is wrong with it."""
    task = run_access.task_or_wait(view.run)
    if task is None:
        return None, None, None
    shown = examples_view.shown_example(task, view.run, view.number)
    try:
        return shown, run_access.model_if_there(view.run), None
    except RunError as error:
        return shown, None, error


def step_in_view(view: ExamplesView, shown: Shown) -> int:
    """The step of the slider, which an example must have: else its last, and the page is drawn again with a notice."""
    step = min(view.step, shown.n_steps - 1)
    if step != view.step:
        session.selection.notify(f"Step {view.step + 1} does not exist: this example ends at step {shown.n_steps}.")
        session.selection.emit(step=step)
        st.rerun()
    return step


def here(shown: Shown, step: int) -> np.ndarray:
    """Which tokens are about the step in view, bool [pos]; all where there is one step."""
    if shown.n_steps == 1:
        return np.ones(len(shown.tokens), dtype=bool)
    return shown.times == shown.steps[step]


def draw_neighbours(view: ExamplesView, *, what: str = "example", keys: bool = False) -> None:
    """Previous and next example, with `keys` by the arrow keys too; call inside a row of controls."""
    st.button(
        f"Previous {what}", icon=":material/first_page:", key="previous_example", disabled=view.number == 0,
        shortcut="Left" if keys else None, on_click=examples_view.go, args=(view.number - 1,),
    )  # fmt: skip
    st.button(
        f"Next {what}", icon=":material/last_page:", key="next_example", shortcut="Right" if keys else None,
        on_click=examples_view.go, args=(view.number + 1,),
    )  # fmt: skip


def draw_controls(view: ExamplesView, shown: Shown | None, loaded: LoadedModel | None, found: Answers | None) -> None:
    """Previous and next example, next mistake, the next of a stratum."""
    keys = shown is not None and shown.n_steps == 1  # else the arrow keys move in time
    searching = False
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        draw_neighbours(view, keys=keys)
        searching = st.button(
            "Next mistake", icon=":material/error:", key="next_mistake", disabled=loaded is None, type="primary",
            help=f"The next place where the model is wrong: in this example, else in up to {example_search.LIMIT} "
            "further held-out ones; some seconds.",
        )  # fmt: skip
        if shown is not None and shown.task.has_strata and view.ops:
            with st.container(width=260):
                widgets.selectbox(
                    f"Next of this {view.run.config.world.stratum_title}", view.ops, None, key="next_of",
                    on_pick=lambda name: go_to_stratum(view, shown, name), format_func=session.op_label,
                )  # fmt: skip
    if searching and loaded is not None and shown is not None and found is not None:
        go_to_mistake(view, shown, loaded, found)
    elif words := st.session_state.pop("example_search", None):
        st.caption(words)


def wrong_steps(shown: Shown, found: Answers) -> list[int]:
    """The steps of the slider at which something is said wrong, rising."""
    wrong = ~found.right[0]
    return [step for step in range(shown.n_steps) if (wrong & here(shown, step)).any()]


def go_to_mistake(view: ExamplesView, shown: Shown, loaded: LoadedModel, found: Answers) -> None:
    """The next step of this example that is wrong, else the next example that has one."""
    later = [step for step in wrong_steps(shown, found) if step > view.step] if shown.n_steps > 1 else []
    if later:
        examples_view.go(view.number, step=later[0])
        st.rerun()
    limit = example_search.LIMIT
    bar = st.progress(0.0, "Searching …")
    words = f"No mistake in the {limit} held-out examples after this one."
    for tried, number in example_search.search_mistake(loaded, view.number + 1):
        bar.progress(min(1.0, tried / limit), f"{tried} of {limit} examples tried")
        if number is not None:
            words = f"Found {tried:,} {'example' if tried == 1 else 'examples'} further on."
            there = examples_view.shown_example(loaded.run.task, view.run, number)
            steps = wrong_steps(there, examples_view.answered(loaded, number))
            examples_view.go(number, step=steps[0] if there.n_steps > 1 and steps else 0)
    st.session_state["example_search"] = words
    st.rerun()


def go_to_stratum(view: ExamplesView, shown: Shown, name: str) -> None:
    number = example_search.search_stratum(shown.task, name, view.number + 1)
    if number is None:
        words = f"None of the {example_search.MOST:,} held-out examples after this one is of {name}."
        st.session_state["example_search"] = words
    else:
        examples_view.go(number)
