"""Training: what a model could do, and what could be found in it, along its training; any kept step can be opened."""

from __future__ import annotations

from typing import Any

import streamlit as st

from app import run_access, selection, session, training_data, widgets
from app.components.timeline import timeline
from app.training_data import Curve
from interp import RunError
from interp.commands import command

LAST = "the last"
SHOWN = 8  # curves drawn unless others are picked


def pick_step(view: session.View, steps: tuple[int, ...]) -> None:
    """Whose weights all pages look at."""
    now = selection.weights() or LAST
    widgets.selectbox(
        "Look at the weights of step", [LAST, *map(str, steps)], now, key="weights_step",
        on_pick=lambda step: selection.set_weights("" if step == LAST else step),
        format_func=lambda step: f"{step} ({run_access.whole_run().step:,})" if step == LAST else f"{int(step):,}",
        help="Every page then shows the model as it was there. The same choice as a click on a point.",
    )  # fmt: skip


def draw(
    title: str, note: str, curves: list[Curve], *, key: str, last: int, log: bool, marked: int, steps: tuple[int, ...]
) -> None:
    """One chart with its choice of curves; the points of the first can be clicked."""
    st.markdown(f"**{title}**")
    names = [curve.name for curve in curves]
    chosen = st.multiselect("Curves", names, names[:SHOWN], key=f"curves_{key}", label_visibility="collapsed")
    shown = [curve for curve in curves if curve.name in chosen]
    if not shown:
        st.caption("No curve is picked.")
        return

    def pick(kind: str, index: int) -> None:
        """A point stands at a step: the nearest kept one is opened."""
        step = shown[0].points[index][0]
        nearest = min(steps, key=lambda kept: abs(kept - step))
        selection.set_weights(str(nearest))

    spec = timeline([(curve.name, curve.points) for curve in shown], last=last, log=log, marked=marked, what=title)
    widgets.pickable_chart(
        spec, key=f"timeline_{key}", on_pick=pick if steps else lambda *_: None, height=320,
        alt=f"{title} over {last:,} steps: " + ", ".join(f"{c.name} ends at {c.points[-1][1]:.2f}" for c in shown[:3]),
    )  # fmt: skip
    least = min((curve.n for curve in shown if curve.n), default=0)
    least_words = f" Each point stands on {least:,} examples or more." if least else ""
    click = " A click on a point of the thick line opens the kept step nearest to it." if steps else ""
    st.caption(f"{note}{least_words}{click}")


def page() -> None:
    view = session.view()
    session.show_status(view)
    run = run_access.whole_run()
    st.markdown("#### How it was learned")
    steps = run.steps
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    with left:
        if steps:
            pick_step(view, steps)
        else:
            st.caption("This run kept no weights on the way (`--training.steps-along N` keeps some): its curves only.")
    log = right.toggle("Steps on a log axis", value=bool(steps), key="training_log")
    try:
        last = run.step
        accuracy = training_data.accuracy(run)
    except RunError as error:
        run_access.show_problem(error)
        return
    marked = int(selection.weights() or last)
    common: dict[str, Any] = {
        "last": max([last, *(p[0] for c in accuracy for p in c.points)]),
        "log": log,
        "marked": marked,
    }
    if accuracy:
        draw(
            "Exact match",
            "On examples that were kept out of training.",
            accuracy,
            key="accuracy",
            steps=steps,
            **common,
        )
    probes = training_data.probes(run)
    if probes:
        note = (
            "The best place of each variable for a linear probe, at each kept step that was probed; its controls are "
            "on the Probes page of that step."
        )
        draw("Probe accuracy", note, probes, key="probes", steps=steps, **common)
    circuits = training_data.circuits(run)
    if circuits:
        note = "How much of the final circuit's edges the circuit of a step shares (Jaccard; 1 = the same edges)."
        draw("Circuit formed", note, circuits, key="circuits", steps=steps, **common)
    if steps and not probes:
        st.caption("This command probes the kept steps:")
        st.code(command("probe", run.path, "--along"), language="bash")


page()
