"""Examples: what a model is shown and asked, on held-out examples of its world, and where it is wrong."""

from __future__ import annotations

from html import escape

import numpy as np
import pandas as pd
import streamlit as st

from app import examples_view, run_access, session, widgets
from app.answers import Answers, asked_tokens
from app.components.clickable import clickable
from app.components.strip import Tile, legend, strip
from app.example_controls import draw_controls, here, load, step_in_view
from app.examples_view import ExamplesView, Shown
from app.pages import PAGES
from app.theme import token_text

MOST_TILES = 280  # tokens above which those of the step in view alone are drawn


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
    return f"{words} The example comes from {session.unit(view)} that was kept out of training."


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
            f"<tr><th scope='row'>{escape(name)}<small>{means}</small></th>"
            f"<td>{'–' if value < 0 else escape(world.value_name(name, value))}</td></tr>"
        )
    clickable(f"<table class='values'>{''.join(rows)}</table>", key="values")
    st.caption("Each is a variable of the world, with what it is; – where it has no value. Probes look for these.")
    if len(known) > len(rows):
        with st.expander(f"All {len(known)} variables", icon=":material/table_rows:"):
            values = {name: shown.value(name, step) for name in known}
            table = pd.DataFrame(
                {
                    "variable": list(values),
                    "value": [None if value < 0 else world.value_name(name, value) for name, value in values.items()],
                    "kind": [known[name].kind for name in values],
                }
            )
            st.dataframe(table, hide_index=True, width="stretch")


def page() -> None:
    view = examples_view.view(run_access.current())
    top, words = st.empty(), st.empty()
    top.markdown(f"#### {status(view, None, None, 0)}")
    words.caption(introduction(view, None))
    shown, loaded, problem = load(view)
    if shown is None:
        return
    step = step_in_view(view, shown)
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
