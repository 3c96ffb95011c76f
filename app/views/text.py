"""Text: a prompt of one's own, what comes next by the model, where its heads look, which are induction heads."""

from __future__ import annotations

from typing import Any

import numpy as np
import streamlit as st

from app import run_access, session, text_view, widgets
from app.components.clickable import clickable
from app.components.heads import describe, head_grid
from app.components.heatmap import heatmap
from app.components.next_character import likeliest_table, visible
from app.run_access import LoadedModel
from app.theme import CIVIDIS
from interp import RunError

PROMPT, SHOWN = "text_prompt", 12


@st.cache_data(show_spinner=False, max_entries=32)
def read(_loaded: LoadedModel, key: str, prompt: str) -> Any:
    """One pass over a prompt, and what follows from it: reading, induction on it, the lens at its end."""
    from interp.studies.prompts import induction_on, logit_lens, read_prompt

    with _loaded.lock:
        reading = read_prompt(_loaded.run, prompt)
        lens = logit_lens(_loaded.run, prompt)[:, -1] if _loaded.run.model.residual_hooks() else None
    return reading, induction_on(reading), lens


@st.cache_data(show_spinner=False, max_entries=8)
def induction(_loaded: LoadedModel, key: str) -> np.ndarray:
    """Scores on random tokens said twice, [layer, head]."""
    from interp.studies.prompts import induction_scores

    with _loaded.lock:
        return induction_scores(_loaded.run.model)


@st.cache_data(show_spinner=False, max_entries=32)
def patched(_loaded: LoadedModel, key: str, clean: str, corrupted: str) -> Any:
    """Effects of patching two prompts, and their answers."""
    from interp.studies.prompts import patch_prompts

    with _loaded.lock:
        return patch_prompts(_loaded.run, clean, corrupted)


def prompt_field(prompt: str) -> str:
    """The prompt that a person writes."""
    if PROMPT not in st.session_state:
        st.session_state[PROMPT] = prompt
    return st.text_area(
        "Prompt", key=PROMPT, max_chars=text_view.MOST, height=110,
        on_change=lambda: text_view.keep(st.session_state[PROMPT]),
        help="The model reads it from the left; what it says of the next piece is shown behind its end.",
    )  # fmt: skip


def draw_next(reading: Any, lens: np.ndarray | None, vocab: tuple[str, ...]) -> None:
    """The likeliest next pieces, and how they come about from layer to layer."""
    st.markdown("**What comes next**, by the model")
    clickable(likeliest_table(reading.likeliest(SHOWN)), key="likeliest")
    if lens is None:
        return
    chosen = [vocab.index(name) for name, _ in reading.likeliest(6)]
    values = np.exp(lens[:, chosen])
    st.markdown("**From layer to layer** (logit lens)")
    rows = ["embedding", *(f"after layer {layer}" for layer in range(len(lens) - 1))]
    names = [visible(vocab[each]) for each in chosen]
    st.echarts_chart(
        heatmap(values, rows=rows, columns=names, limits=(0, 1), colors=CIVIDIS, root_scale=True),
        height=90 + 26 * len(rows), key="lens",
        alt="Probability of the likeliest next pieces when the stream is read out after each layer; the last row is "
        "the model's own.",
    )  # fmt: skip
    st.caption("The stream read out early, with the final norm and the unembedding; square-root scale.")


def draw_attention(reading: Any) -> None:
    """All heads small, one large."""
    n_layers, n_heads = reading.patterns.shape[:2]
    picked = st.session_state.get("text_head", (0, 0))
    if picked[0] >= n_layers or picked[1] >= n_heads:
        picked = (0, 0)
    st.markdown("**Where the heads look** in this prompt: rows are layers. Pick one.")
    clickable(
        head_grid(reading.patterns, picked=picked), key="heads",
        on_pick=lambda value: st.session_state.update(text_head=tuple(int(part) for part in value.split("."))),
    )  # fmt: skip
    pattern = reading.patterns[picked]
    labels = [f"{at} {visible(name)}" for at, name in enumerate(reading.names)]
    if len(labels) > 64:
        st.caption("The large picture shows the last 64 tokens.")
        pattern, labels = pattern[-64:, -64:], labels[-64:]
    st.markdown(f"**Layer {picked[0]}, head {picked[1]}**: {describe(pattern)}")
    widgets.pickable_chart(
        heatmap(pattern, rows=labels, columns=labels, limits=(0, 1), colors=CIVIDIS, root_scale=True),
        key="text_pattern", on_pick=lambda _, index: None, height=max(300, min(90 + 14 * len(labels), 760)),
        alt=f"Attention of layer {picked[0]} head {picked[1]}: {describe(pattern)}.",
    )  # fmt: skip


def draw_induction(loaded: LoadedModel, on_prompt: Any) -> None:
    """Which heads look at what followed the last time."""
    scores = induction(loaded, loaded.key)
    n_layers, n_heads = scores.shape
    layer, head = np.unravel_index(int(scores.argmax()), scores.shape)
    rows, columns = [f"layer {n}" for n in range(n_layers)], [f"head {n}" for n in range(n_heads)]
    st.markdown("**Induction heads**: who looks at what followed the last time?")
    st.echarts_chart(
        heatmap(scores, rows=rows, columns=columns, limits=(0, 1), colors=CIVIDIS, show_values=False),
        height=90 + 26 * n_layers, key="induction",
        alt=f"Induction score of every head; the highest is layer {layer} head {head} with {scores.max():.2f}.",
    )  # fmt: skip
    even = 1 / (1.5 * (loaded.run.model.cfg.n_ctx // 2))
    st.caption(
        f"On random tokens said twice: the share of attention on the token behind the earlier use of the one at hand. "
        f"Layer {layer} head {head} has {scores.max():.2f}; attention spread evenly would give {even:.3f}."
        + (" No head stands out: this model has no induction heads." if scores.max() < 5 * even else "")
    )
    if on_prompt is not None:
        shares, spread = on_prompt
        layer, head = np.unravel_index(int(shares.argmax()), shares.shape)
        st.caption(
            f"In this prompt, where a token has occurred before, layer {layer} head {head} gives most to what "
            f"followed: {shares.max():.2f}, beside {spread.max():.2f} spread evenly."
        )


def draw_patching(loaded: LoadedModel, prompt: str, reading: Any) -> None:
    """Two prompts that differ: which vector of the first brings its answer back in the second."""
    with st.expander("Patch with another prompt"):
        st.caption(
            "No one knows what a text should say if one thing in it were different, so you write it: another prompt of "
            "the same number of tokens. At each layer and place the vector of your prompt is put into the run on the "
            "other one; 1 brings the answer of your prompt back, 0 changes nothing."
        )
        other = st.text_input("The other prompt", key="other_prompt", max_chars=text_view.MOST)
        if not other:
            return
        try:
            effects, (right, wrong) = patched(loaded, loaded.key, prompt, other)
        except ValueError as error:
            st.warning(f"{error}.")
            return
        rows = ["embedding", *(f"after layer {layer}" for layer in range(len(effects) - 1))]
        labels = [f"{at} {visible(name)}" for at, name in enumerate(reading.names)]
        st.markdown(f"{visible(right)} against {visible(wrong)}")
        st.echarts_chart(
            heatmap(np.clip(effects, 0, 1), rows=rows, columns=labels, limits=(0, 1), colors=CIVIDIS),
            height=110 + 26 * len(rows), key="patching",
            alt=f"How much of the answer {visible(right)} comes back, by layer and place.",
        )  # fmt: skip
        st.caption("Shown between 0 and 1; single vectors can do more or less.")


def page() -> None:
    view = text_view.view(run_access.current())
    world = view.run.config.world
    top = st.empty()
    top.markdown(f"#### {session.describe_model(view.run)}")
    st.caption(f"{world.in_words().capitalize()}. Write a prompt; nothing you write leaves this machine.")
    prompt = prompt_field(view.prompt)
    try:
        loaded = run_access.model_or_wait(view.run)
    except RunError as error:
        run_access.show_problem(error)
        return
    if loaded is None:
        return
    try:
        reading, on_prompt, lens = read(loaded, loaded.key, prompt)
    except ValueError as error:
        st.warning(f"{str(error)[0].upper()}{str(error)[1:]}.")
        return
    name, p = reading.likeliest(1)[0]
    top.markdown(f"#### {session.describe_model(view.run)} · next {visible(name)}, p = {p:.2f}")
    if reading.cut:
        st.caption(
            f"The model looks back on {len(reading.tokens)} tokens; the first {reading.cut} of the prompt are left out."
        )
    left, right = st.columns([2, 3], gap="large")
    with left:
        draw_next(reading, lens, reading.vocab)
        if reading.patterns is not None:
            draw_induction(loaded, on_prompt)
    with right:
        if reading.patterns is None:
            st.markdown(
                f"A model of the kind {view.run.config.model.architecture} has no attention to look at; what it "
                "carries from token to token is on the State page."
            )
        else:
            draw_attention(reading)
    if lens is not None:
        draw_patching(loaded, prompt, reading)


page()
