"""Thinking: an answer as it comes into being, by loop step, denoising pass or written entry, beside the world's."""

from __future__ import annotations

import numpy as np
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from app import examples_view, run_access, session, thinking_data, widgets
from app.components.clickable import clickable
from app.components.drafts import Draft, draft_table
from app.components.strip import Tile, strip
from app.example_controls import draw_neighbours, load
from app.examples_view import ExamplesView, Shown
from app.pages import PAGES
from app.run_access import LoadedModel
from app.theme import token_text
from app.thinking_data import Thoughts

LIMIT = 300  # examples that a search looks at
MOST_COLUMNS = 60  # tokens above which those that change, or are ever wrong, are shown


def sentence(found: Thoughts, word: str) -> str:
    """How the answer came about."""
    right, n = found.right, len(found.right)
    if not right.any():
        line = f"✗ The whole answer is right after none of {n} {word}{'es' if word.endswith('s') else 's'}."
    else:
        first = int(right.argmax())
        stays = right[first:].all()
        last = f"only after the last, {word} {n}" if first == n - 1 else f"from {word} {first + 1} on, of {n}"
        line = f"{'✓' if right[-1] else '✗'} The whole answer is right {last}" if stays else (
            f"✗ The whole answer is first right after {word} {first + 1}, of {n}, and does not stay so"
        )  # fmt: skip
        line += "."
    if found.stop is not None:
        how = "right" if right[found.stop] else "wrong"
        line += f" The model stops by itself after {word} **{found.stop + 1}**, where its answer is {how}."
    return line


def passes_told(n: int, usual: int | None, word: str) -> str | None:
    """Why there are more passes here than the model makes when it answers; None where there are as many."""
    if usual is None or usual == n:
        return None
    some = f"{usual} {word}" if usual == 1 else f"{usual} {word}{'es' if word.endswith('s') else 's'}"
    return (
        f"Shown are {n}, so that an answer can be watched as it comes into being. Asked for an answer the model makes "
        f"{some}: so are its scores taken, and so many does the Attention page show."
    )


def columns(found: Thoughts) -> np.ndarray:
    """Which tokens of the answer are drawn: all, or of many those that change from pass to pass or are ever wrong."""
    if len(found.positions) <= MOST_COLUMNS:
        return np.arange(len(found.positions))
    wrong = ((found.tokens >= 0) & (found.tokens != found.truth)).any(axis=0)
    when = (found.tokens >= 0).argmax(axis=0)  # the pass that decides it: the last first, they are the hardest
    order = np.lexsort((-when, ~wrong))
    return np.sort(order[:MOST_COLUMNS])


def draw(view: ExamplesView, shown: Shown, found: Thoughts, now: int, word: str) -> None:
    """The table of passes."""
    vocab, names = shown.task.vocab, shown.task.position_names
    kept = columns(found)

    def text(token: int) -> str:
        return token_text(vocab[token])

    drafts = [
        Draft(
            [None if token < 0 else text(int(token)) for token in row[kept]], p[kept].tolist(), stops=at == found.stop
        )
        for at, (row, p) in enumerate(zip(found.tokens, found.p, strict=True))
    ]
    start, end = _prompt_twin(shown, found)
    before = [text(int(shown.batch.tokens[0, at])) if at >= 0 else "" for at in np.arange(start, end)[kept]]
    if len(kept) < len(found.positions):
        st.caption(
            f"The answer has {len(found.positions)} tokens; shown are {len(kept)}: those that are wrong after some "
            f"{word}, and those that are decided last."
        )
    st.caption(
        f"{'A column' if len(kept) > len(drafts) else 'A row'} a {word}; ✓ right, ✗ wrong, with the probability that "
        "the model gives, · not decided yet, underlined what differs from the state before; at the end the world's "
        "answer. Pick one, or use the slider."
    )
    clickable(
        draft_table(
            [names[int(at)] for at in found.positions[kept]], [text(int(each)) for each in found.truth[kept]], drafts,
            now=now, word=word, before=before,
        ),
        key="drafts",
        on_pick=lambda value: session.selection.emit(step=int(value)),
    )  # fmt: skip


def _prompt_twin(shown: Shown, found: Thoughts) -> tuple[int, int]:
    """Where the prompt says what the answer changes, as a next state does; positions below 0 where it does not."""
    k = len(found.positions)
    start = int(found.positions[0]) - k
    names = shown.task.position_names
    twins = start >= 0 and shown.task.shows_answer and found.positions[-1] == found.positions[0] + k - 1
    if twins and names[start].rpartition("next.")[2] == names[int(found.positions[0])].rpartition("next.")[2]:
        return start, start + k
    return -k, 0


def draw_controls(view: ExamplesView, loaded: LoadedModel) -> None:
    """Previous and next example, and the next one that is not right at once."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        draw_neighbours(view)
        searching = st.button(
            "Next with a wrong draft", icon=":material/error:", key="next_mistake", type="primary",
            help=f"The next of up to {LIMIT} examples where some token is wrong when it first stands there.",
        )  # fmt: skip
    if searching:
        search(view, loaded)
    elif said := st.session_state.pop("draft_search", None):
        st.caption(said)


def search(view: ExamplesView, loaded: LoadedModel) -> None:
    """Go to the next example with a wrong draft."""
    bar = st.progress(0.0, "Searching …")
    st.session_state["draft_search"] = f"The {LIMIT} examples after this one are right in every draft."
    for tried in range(1, LIMIT + 1):
        bar.progress(tried / LIMIT, f"{tried} of {LIMIT} examples tried")
        if thinking_data.thoughts(loaded, loaded.key, view.number + tried).errs:
            st.session_state["draft_search"] = f"Found {tried} {'example' if tried == 1 else 'examples'} further on."
            examples_view.go(view.number + tried)
            break
    st.rerun()


def chain_page(view: ExamplesView, shown: Shown, loaded: LoadedModel, top: DeltaGenerator, where: str) -> None:
    """What the model writes before it answers: a tile an entry, right or wrong, and its answer."""
    found = thinking_data.chain(loaded, loaded.key, view.number)
    n = len(found.entries)
    now = min(view.step, n - 1)
    good = sum(right for _, _, right in found.entries)
    top.markdown(f"#### {where} · entry {now + 1} of {n} · {good} of {n} entries right")
    st.caption(f"{shown.task.words} The example comes from {session.unit(view)} kept out of training.")
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        draw_neighbours(view)
    widgets.time_slider("entry", n)
    right = found.said == found.truth
    with st.container(border=True):
        st.markdown(
            f"{'✓' if right else '✗'} Its answer is **{found.said or 'none'}**"
            + ("." if right else f"; the machine prints **{found.truth}**.")
        )
    st.caption(
        "A tile an entry of what the model wrote, in order: the machine's, and under it the model's own, ✓ or ✗ "
        "(another), with the probability of all its tokens. Pick one, or use the slider."
    )
    tiles = [
        Tile(f"entry {k + 1}", theirs, str(k), now=k == now, truth=theirs or "no entry", said=own or "no entry", p=p)
        for k, ((own, theirs, _), p) in enumerate(zip(found.entries, found.p, strict=True))
    ]
    clickable(
        strip(tiles, clickable=True), key="entries", on_pick=lambda value: session.selection.emit(step=int(value))
    )


def page() -> None:
    view = examples_view.view(run_access.current())
    word = getattr(view.run.config.model, "drafts_in", None)  # None: a chain is written before the answer
    top = st.empty()
    where = f"{session.describe_model(view.run)} · held-out example {view.number + 1}"
    top.markdown(f"#### {where}")
    shown, loaded, problem = load(view)
    if shown is None:
        return
    if problem is not None:
        run_access.show_problem(problem)
        return
    if loaded is None:
        run_access.model_or_wait(view.run)
        return
    if word is None:
        chain_page(view, shown, loaded, top, where)
        return
    found = thinking_data.thoughts(loaded, loaded.key, view.number)
    n = len(found.tokens)
    now = min(view.step, n - 1)
    right = int((found.tokens[now] == found.truth).sum())
    top.markdown(f"#### {where} · {word} {now + 1} of {n} · {right} of {len(found.truth)} tokens right")
    words = shown.task.words
    words = f"{words[:1].upper()}{words[1:].removesuffix('.')}. " if words else ""
    st.caption(f"{words}The example comes from {session.unit(view)} kept out of training.")
    draw_controls(view, loaded)
    widgets.time_slider(word, n)
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        st.markdown(sentence(found, word), width="stretch")
        inside = PAGES["attention"]
        if inside.refuses(view.run) is None and st.button("Attention", icon=inside.icon, key="why"):
            st.switch_page(inside.file)
    draw(view, shown, found, now, word)
    if (told := passes_told(n, view.run.config.model.answer_passes, word)) is not None:
        st.caption(told)
    with st.expander("The example in words", icon=":material/notes:"):
        st.markdown(shown.task.world.describe(shown.batch.examples))


page()
