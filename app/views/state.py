"""State: what a model without attention carries from token to token, what probes read there, whose values it reads."""

from __future__ import annotations

import numpy as np
import pandas as pd
import streamlit as st

from app import examples_view, live_probes, run_access, selection, session, state_data, widgets
from app.components.board import Guess
from app.components.clickable import clickable
from app.components.heatmap import heatmap
from app.components.stream import Reading, readings
from app.example_controls import draw_controls, load, step_in_view
from app.examples_view import ExamplesView, Shown
from app.numbers import quoted
from app.probe_fitting import fitted_or_offer, hook_words
from app.results_view import measured, site_words, where
from app.run_access import LoadedModel
from app.theme import SIGNED, token_text
from interp import RunError
from interp.results import Control, Metric

MOST_NUMBERS = 48  # of a state that are drawn


def last_position(shown: Shown) -> int:
    """The last token that tells something."""
    reached = np.flatnonzero(shown.times >= 0)
    return int(reached[-1]) if len(reached) else len(shown.tokens) - 1


def position_in_view(shown: Shown, step: int) -> int:
    """The token picked, if it belongs to the step in view; else the step's last, where all that it tells is known."""
    chosen, names = selection.current(), shown.task.position_names
    if chosen.kind == "position":
        if chosen.id not in names:
            selection.drop(f"The link picks the position {quoted(chosen.id)}, which this example does not have.")
            st.rerun()
        at = names.index(chosen.id)
        if shown.n_steps == 1 or shown.times[at] == shown.steps[step]:
            return at
    if shown.n_steps == 1:
        return last_position(shown)
    return int(np.flatnonzero(shown.times == shown.steps[step])[-1])


def go_to(shown: Shown, position: int) -> None:
    """Look at another token, and so at its step."""
    step = int(np.searchsorted(shown.steps, max(int(shown.times[position]), 0))) if shown.n_steps > 1 else 0
    selection.emit(kind="position", id=shown.task.position_names[position], step=step)


def labels(shown: Shown) -> list[str]:
    """What stands under each column: its place and its token, as far as the example goes."""
    return [f"{i} {token_text(token)}" for i, token in enumerate(shown.tokens[: last_position(shown) + 1])]


def choose(loaded: LoadedModel) -> tuple[int, str]:
    """The layer, and one of its carriers."""
    model = loaded.run.model
    by_layer: dict[int, list[str]] = {}
    for hook in model.carrier_hooks():
        by_layer.setdefault(model.layer_of(hook), []).append(hook)
    left, right = st.columns([1, 2])
    with left:
        layer = st.selectbox("Layer", list(by_layer), index=len(by_layer) - 1, key="state_layer")
    hooks = by_layer[layer]
    with right:
        # a window of the last inputs stands before the state that it feeds
        hook = st.selectbox(
            "What is carried", hooks, index=len(hooks) - 1, format_func=hook_words, key=f"state_hook_{layer}"
        )
    return layer, hook or hooks[-1]


def draw_state(loaded: LoadedModel, view: ExamplesView, shown: Shown, hook: str, position: int) -> None:
    """Numbers of the state by positions."""
    carried = state_data.carried(loaded, shown.batch, view.number, hook)
    columns = labels(shown)
    values = carried.values[: len(columns)]
    drawn = carried.liveliest(MOST_NUMBERS)
    table = values[:, drawn].T
    limit = float(np.quantile(np.abs(table), 0.995)) or 1.0
    n = values.shape[1]
    st.markdown(
        f"**{hook_words(hook).capitalize()}**: {n:,} numbers a token"
        + (f"; the {len(drawn)} that vary most along this example, the liveliest on top" if n > len(drawn) else "")
    )
    names = [carried.names[number] for number in drawn]
    widgets.pickable_chart(
        heatmap(
            np.clip(table, -limit, limit), rows=names, columns=columns, limits=(-limit, limit), colors=SIGNED,
            marked_column=position,
            tips=[
                [f"{name} after {column}: {table[r, c]:.3f}" for c, column in enumerate(columns)]
                for r, name in enumerate(names)
            ],
        ),
        key="state_map", on_pick=lambda _, index: go_to(shown, index % len(columns)),
        height=150 + 11 * len(names),
        alt=f"Heatmap of a state: {len(names)} numbers by {len(columns)} tokens.",
    )  # fmt: skip
    length = np.linalg.norm(values, axis=1)
    move = np.linalg.norm(np.diff(values, axis=0, prepend=np.zeros((1, n))), axis=1)
    st.caption(
        f"After **{columns[position]}** the state has length {length[position]:.1f} and has moved by "
        f"{move[position]:.1f}; the largest move of this example is {move.max():.1f}, at "
        f"**{columns[int(move.argmax())]}**. Blue is above 0, orange below; beyond ±{limit:.2g} colours stay the same."
    )
    names_of = shown.task.position_names[: len(columns)]
    widgets.selectbox(
        "Token", names_of, names_of[position], key="state_position",
        on_pick=lambda name: go_to(shown, names_of.index(name)),
        format_func=lambda name: columns[names_of.index(name)],
        help="The same choice as a click on a column, by keyboard.",
    )  # fmt: skip


def draw_readings(loaded: LoadedModel, shown: Shown, hook: str, position: int) -> None:
    """What probes read from this carrier after this token."""
    st.markdown("**What probes read there**, at this token")
    truth = {name: values[0] for name, values in live_probes.labels_of(shown.task, shown.batch).items()}
    if not truth:
        st.caption(
            "This task labels whole examples and not their tokens; `tapelens probe` measures what can be read of them "
            "where, on the Probes page."
        )
        return
    probes = fitted_or_offer(loaded, hook)
    if probes is None:
        return
    activation = live_probes.activation_of(loaded, shown.batch, hook)[0, [position]]
    here = {name: values[[position]] for name, values in truth.items()}
    found = probes.read(activation, here)
    world = shown.task.world
    known = world.variables()

    def row(name: str) -> Reading:
        true, said, p = int(here[name][0]), int(found.values[name][0]), float(found.p[name][0])
        like = name if name in known else "cell[0]"  # whose values have the same names
        scored = probes.scored[name]
        return Reading(
            name=name,
            truth="–" if true < 0 else world.value_name(like, true),
            guess=Guess(world.value_name(like, said), p, said == true),
            elsewhere=f"{scored.accuracy:.0%} ({scored.commonest:.0%})",
        )

    clickable(readings([row(name) for name in probes.names if name in known]), key="readings")
    further = [name for name in probes.names if name not in known]
    if further:
        with st.expander("Cells by their distance to the pointer", icon=":material/table_rows:"):
            clickable(readings([row(name) for name in further]), key="further_readings")
    size = f", on the {live_probes.MOST_FEATURES} principal directions of {probes.n_numbers:,} numbers"
    st.caption(
        f"Linear probes, fitted now on {probes.n_tokens:,} tokens of validation examples"
        + (size if probes.directions is not None else "")
        + ". Right elsewhere: on other held-out examples, and in brackets the commonest value. –: what was told so far "
        "does not determine it, or the pointer has not been on the cell."
    )


def draw_stored(view: ExamplesView, layer: int) -> None:
    """What `tapelens probe` has measured in this layer, if it has."""
    st.markdown(f"**Measured before**, in layer {layer}")
    try:
        frame = run_access.frame(view.run, "probes")
    except RunError as error:
        run_access.show_problem(error)
        return
    found = measured(frame, Metric.ACCURACY)
    found = where(found, found.site.str.startswith(f"blocks.{layer}.") & found.stratum.isna())
    if found.empty:
        st.caption("The run's probes are of other layers; see the Probes page.")
        return
    keys = ["variable", "site", "position", "method"]
    control = where(frame, (frame.metric == Metric.ACCURACY) & (frame.control == Control.EMBEDDING_ONLY))
    joined = found.merge(control[[*keys, "estimate"]], how="left", on=keys, suffixes=("", "_embedding"))
    table = pd.DataFrame(
        {
            "variable": joined["variable"],
            "place": [site_words(site) for site in joined["site"]],
            "accuracy": joined["estimate"],
            "on the embedding": joined["estimate_embedding"],
            "n": joined["n"],
        }
    )
    st.dataframe(table, hide_index=True, height=240)


def draw_effective(loaded: LoadedModel, view: ExamplesView, shown: Shown, layer: int, position: int) -> None:
    """Whose values a read holds, where reads are weighted sums of values."""
    weights = state_data.effective_attention(loaded, shown.batch, view.number, layer)
    if weights is None:
        return
    st.divider()
    st.markdown("##### Effective attention, a heuristic")
    st.caption(
        "With queries, keys and gates held as they were, what a head reads is exactly this weighted sum of the values "
        "written so far, each after all that has overwritten it since. It is a heuristic all the same: weights have "
        "either sign and no common sum, and queries, keys and gates depend on the tokens as much as values do."
    )
    columns = labels(shown)
    head = st.segmented_control("Head", list(range(len(weights))), default=0, required=True, key="effective_head") or 0
    table = weights[head][: len(columns), : len(columns)]
    limit = float(np.abs(table).max()) or 1.0
    widgets.pickable_chart(
        heatmap(
            np.where(np.tri(len(columns), dtype=bool), table, np.nan), rows=columns, columns=columns,
            limits=(-limit, limit), colors=SIGNED, marked_row=position,
            tips=[
                [f"after {query}, of {key}: {table[q, k]:+.3f}" for k, key in enumerate(columns)]
                for q, query in enumerate(columns)
            ],
        ),
        key="effective", on_pick=lambda _, index: go_to(shown, int((np.sqrt(8 * index + 1) - 1) // 2)),
        height=max(420, 175 + min(12 * len(columns), 820)),
        alt=f"Effective attention of layer {layer} head {head}: tokens that read by tokens that were written.",
    )  # fmt: skip
    row = table[position]
    top = [f"**{columns[int(key)]}** ({row[int(key)]:+.2f})" for key in np.argsort(-np.abs(row))[:3]]
    st.markdown(f"After **{columns[position]}** head {head} reads most of {', '.join(top)}.")


def page() -> None:
    view = examples_view.view(run_access.current())
    top = st.empty()
    top.markdown(f"#### {session.describe_model(view.run)} · held-out example {view.number + 1}")
    st.caption(
        "A model without attention meets later tokens with what it carries alone. Here is what that is, token by "
        "token, in a forward pass made now."
    )
    shown, loaded, problem = load(view)
    if shown is None:
        return
    step = step_in_view(view, shown)
    found = None if loaded is None else examples_view.answered(loaded, view.number)
    draw_controls(view, shown, loaded, found)
    if shown.n_steps > 1:
        widgets.time_slider("step", shown.n_steps)
    if problem is not None:
        run_access.show_problem(problem)
    elif loaded is None:
        run_access.model_or_wait(view.run)
    else:
        position = min(position_in_view(shown, step), last_position(shown))
        where_ = f" · step {step + 1} of {shown.n_steps}" if shown.n_steps > 1 else ""
        token = token_text(shown.tokens[position])
        top.markdown(
            f"#### {session.describe_model(view.run)} · held-out example {view.number + 1}{where_} · after token "
            f"{position}, **{token}**"
        )
        layer, hook = choose(loaded)
        left, right = st.columns([3, 2], gap="large")
        with left:
            draw_state(loaded, view, shown, hook, position)
        with right:
            draw_readings(loaded, shown, hook, position)
            draw_stored(view, layer)
        draw_effective(loaded, view, shown, layer, position)


page()
