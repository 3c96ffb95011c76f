"""Examples: what a model is shown and asked, on held-out examples of its world, and where it is wrong."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import streamlit as st

from app import example_search, examples_view, run_access, session, widgets
from app.answers import Answers, asked_tokens
from app.components.clickable import clickable
from app.components.strip import Tile, legend, strip
from app.examples_view import ExamplesView, Shown
from app.pages import PAGES
from app.run_access import LoadedModel
from app.theme import token_text
from interp import RunError

MOST_TILES = 280  # tokens above which those of the step in view alone are drawn


def here(shown: Shown, step: int) -> np.ndarray:
    """Which tokens are about the step in view, bool [pos]; all where there is one step."""
    if shown.n_steps == 1:
        return np.ones(len(shown.tokens), dtype=bool)
    return shown.times == shown.steps[step]


def status(view: ExamplesView, shown: Shown | None, found: Answers | None, step: int) -> str:
    """Where we are, and whether the model is right there."""
    where = f"{session.describe_model(view.run)} · held-out example {view.number + 1}"
    if shown is None:
        return where
    stratum = shown.stratum(step)
    if shown.n_steps > 1:
        where += f" · step {step + 1} of {shown.n_steps}" + (f" · **{stratum}**" if stratum else "")
    elif stratum:
        where += f" · **{stratum}**"
    if found is None:
        return f"{where} · the model is loading"
    part = here(shown, step) & found.asked[0]
    if not part.any():
        return f"{where} · nothing is asked here"
    return f"{where} · {session.verdict(bool(found.right[0][part].all()), float(found.p[0][part].prod()))}"


def introduction(view: ExamplesView, shown: Shown | None) -> str:
    """What the model does, for a newcomer."""
    world = view.run.config.world
    if shown is None:
        return f"A model of {world.in_words()}."
    n_asked = int((shown.batch.targets >= 0).sum())
    words = shown.task.words or (
        f"The model reads {len(shown.tokens)} tokens that show one example of the world “{world.name}” and is asked "
        f"for {n_asked} of them." if n_asked != 1 else
        f"The model reads {len(shown.tokens)} tokens that show one example of the world “{world.name}”; one token is "
        "asked for."
    )  # fmt: skip
    return f"{words} The example comes from a {world.unit} that was kept out of training."


def draw_controls(view: ExamplesView, shown: Shown | None, loaded: LoadedModel | None, found: Answers | None) -> None:
    """Previous and next example, next mistake, the next of a stratum."""
    keys = shown is not None and shown.n_steps == 1  # else the arrow keys move in time
    searching = False
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button(
            "Previous example", icon=":material/first_page:", key="previous_example", disabled=view.number == 0,
            shortcut="Left" if keys else None, on_click=examples_view.go, args=(view.number - 1,),
        )  # fmt: skip
        st.button(
            "Next example", icon=":material/last_page:", key="next_example", shortcut="Right" if keys else None,
            on_click=examples_view.go, args=(view.number + 1,),
        )  # fmt: skip
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
    elif told := st.session_state.pop("example_search", None):
        st.caption(told)


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
    told = f"No mistake in the {limit} held-out examples after this one."
    for tried, number in example_search.search_mistake(loaded, view.number + 1):
        bar.progress(min(1.0, tried / limit), f"{tried} of {limit} examples tried")
        if number is not None:
            told = f"Found {tried:,} {'example' if tried == 1 else 'examples'} further on."
            there = examples_view.shown_example(loaded.run.task, view.run, number)
            steps = wrong_steps(there, examples_view.answered(loaded, number))
            examples_view.go(number, step=steps[0] if there.n_steps > 1 and steps else 0)
    st.session_state["example_search"] = told
    st.rerun()


def go_to_stratum(view: ExamplesView, shown: Shown, name: str) -> None:
    number = example_search.search_stratum(shown.task, name, view.number + 1)
    if number is None:
        told = f"None of the {example_search.MOST:,} held-out examples after this one is of {name}."
        st.session_state["example_search"] = told
    else:
        examples_view.go(number)


def draw_strip(shown: Shown, found: Answers | None, step: int) -> None:
    """The tokens, and what is asked and answered at each."""
    names, vocab = shown.task.position_names, shown.task.vocab
    truth = asked_tokens(shown.task, shown.batch)[0]
    now = here(shown, step)
    drawn = np.ones(len(names), dtype=bool)
    past = np.flatnonzero(shown.times < 0)  # filling after the end: the first says that it ends
    drawn[past[1:]] = False
    cut = drawn.sum() > MOST_TILES
    if cut:
        drawn &= now
    tiles = []
    for at in np.flatnonzero(drawn):
        asked = truth[at] >= 0
        tiles.append(
            Tile(
                name=names[at], token=token_text(shown.tokens[at]), now=bool(now[at]) and shown.n_steps > 1 and not cut,
                pick=str(int(np.searchsorted(shown.steps, max(int(shown.times[at]), 0)))),
                truth=token_text(vocab[int(truth[at])]) if asked else "",
                said=None if found is None or not asked else token_text(vocab[int(found.said[0, at])]),
                p=0.0 if found is None else float(found.p[0, at]),
            )
        )  # fmt: skip
    st.caption(legend(asked_elsewhere=shown.task.shows_answer))
    if cut:
        st.caption(f"The example has {len(names):,} tokens; those of step {step + 1} are shown.")
    clickable(
        strip(tiles, clickable=shown.n_steps > 1 and not cut), key="strip",
        on_pick=lambda value: examples_view.go(st.session_state[examples_view.NUMBER], step=int(value)),
    )  # fmt: skip


def draw_summary(view: ExamplesView, shown: Shown, found: Answers, step: int) -> None:
    """What is asked at this step and answered, and how the whole example goes, in sentences."""
    asked, right, vocab = found.asked[0], found.right[0], shown.task.vocab
    part = np.flatnonzero(asked & here(shown, step))
    wrong = [at for at in part if not right[at]]
    listed = [
        f"at **{shown.task.position_names[at]}** it says **{token_text(vocab[int(found.said[0, at])])}**, where "
        f"**{token_text(vocab[int(found.truth[0, at])])}** is right (it gives that "
        f"{session.certainty(float(found.p_truth[0, at]))})"
        for at in wrong[:3]
    ]
    where = "At this step" if shown.n_steps > 1 else "Here"
    if wrong:
        more = f"; and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        line = f"✗ {where} the model is wrong: {'; '.join(listed)}{more}."
    elif len(part) == 1:
        said = token_text(vocab[int(found.said[0, part[0]])])
        line = f"✓ {where} the model says **{said}**, which is right."
    elif len(part):
        line = f"✓ {where} all {len(part)} tokens that are asked for are right."
    else:
        line = "Nothing is asked at this step."
    if shown.n_steps > 1:
        n, n_right = int(asked.sum()), int((asked & right).sum())
        line += f" Of the whole example **{n_right} of {n}** answers are right."
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(line, width="stretch")
        inside = PAGES["attention"] if PAGES["attention"].refuses(view.run) is None else PAGES["probes"]
        if st.button(f"{'Why' if wrong else 'How'}? {inside.title}", icon=inside.icon, key="why"):
            st.switch_page(inside.file)
        change = PAGES["intervene"]
        if change.refuses(view.run) is None and st.button(
            "Change something inside", key="to_intervene", icon=change.icon
        ):
            st.switch_page(change.file)


def draw_variables(view: ExamplesView, shown: Shown, step: int) -> None:
    """What is true: the world's main variables with their values here; all of them on request."""
    world = shown.task.world
    when = f"before step {step + 1}" if shown.n_steps > 1 else "in this example"
    st.markdown(f"**What is true** {when}")
    known = world.variables()
    rows = []
    for name in world.main_variables():
        value = shown.value(name, step)
        means = escape(known[name].equation)
        rows.append(
            f"<tr><th scope='row'>{escape(name)}<small>{means}</small></th><td>{'–' if value < 0 else value}</td></tr>"
        )
    clickable(f"<table class='values'>{''.join(rows)}</table>", key="values")
    st.caption("Each is a variable of the world, with what it is; – where it has no value. Probes look for these.")
    if len(known) > len(rows):
        with st.expander(f"All {len(known)} variables", icon=":material/table_rows:"):
            values = {name: shown.value(name, step) for name in known}
            table = pd.DataFrame(
                {
                    "variable": list(values),
                    "value": [None if value < 0 else value for value in values.values()],
                    "kind": [known[name].kind for name in values],
                }
            )
            st.dataframe(table, hide_index=True, width="stretch")


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


def page() -> None:
    view = examples_view.view(run_access.current())
    top, words = st.empty(), st.empty()
    top.markdown(f"#### {status(view, None, None, 0)}")
    words.caption(introduction(view, None))
    shown, loaded, problem = load(view)
    if shown is None:
        return
    step = min(view.step, shown.n_steps - 1)
    if step != view.step:
        session.selection.notify(f"Step {view.step + 1} does not exist: this example ends at step {shown.n_steps}.")
        session.selection.emit(step=step)
        st.rerun()
    found = None if loaded is None else examples_view.answered(loaded, view.number)
    line = status(view, shown, found, step)
    top.markdown(f"#### {line.removesuffix(' · the model is loading') if problem else line}")
    words.caption(introduction(view, shown))
    draw_controls(view, shown, loaded, found)
    if shown.n_steps > 1:
        widgets.time_slider("step", shown.n_steps)
    if found is not None:
        draw_summary(view, shown, found, step)
    elif problem is not None:
        run_access.show_problem(problem)
    else:
        run_access.model_or_wait(view.run)
    left, right = st.columns([5, 2], gap="large")
    with left:
        draw_strip(shown, found, step)
        with st.expander("The example in words", icon=":material/notes:"):
            st.markdown(shown.task.world.describe(shown.batch.examples))
    with right:
        draw_variables(view, shown, step)


page()
