"""What the Text page shows, as all pages look at it: a prompt, kept in the address; other pages take held-out text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import streamlit as st

from app import selection
from app.examples_view import ExamplesView
from interp import Run

MOST = 2000  # characters of a prompt
PROMPT = "prompt_kept"
FIRST = "The "


@dataclass(frozen=True)
class TextView(ExamplesView):
    """The prompt, and the held-out stretch that other pages look at."""

    prompt: str = FIRST

    def query(self, names: Sequence[str]) -> int:
        """The last: before it stands the whole text."""
        return len(names) - 1

    def place(self) -> str:
        return f"Held-out stretch {self.number + 1} of the text: a forward pass made now."


def view(run: Run) -> TextView:
    """What to show now. The prompt is that of the address, else a word of the text."""
    if PROMPT not in st.session_state:
        asked = st.query_params.get("prompt", "")[:MOST]
        keep(asked or _first(run), to_address=bool(asked))
    return TextView(run=run, step=selection.current().step, prompt=st.session_state[PROMPT])


def keep(prompt: str, *, to_address: bool = True) -> None:
    """Look at another prompt."""
    st.session_state[PROMPT] = prompt
    if to_address:
        selection.set_extra({"prompt": prompt})


def _first(run: Run) -> str:
    """A word to begin with, of characters that the text has."""
    world = run.config.world
    try:
        world.encode(FIRST)  # type: ignore[attr-defined]
    except ValueError:
        return world.vocabulary.spelled(0).decode("utf-8", "replace")  # type: ignore[attr-defined]
    return FIRST
