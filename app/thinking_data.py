"""The drafts of an example that a model goes over more than once, from passes made here and now."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st

from app import examples_view
from app.run_access import LoadedModel


@dataclass(frozen=True, eq=False)
class Thoughts:
    """The drafts of one example, as arrays."""

    positions: np.ndarray  # int64 [k]
    tokens: np.ndarray  # int64 [pass, k], -1 where undecided
    p: np.ndarray  # float [pass, k]
    truth: np.ndarray  # int64 [k]
    stop: int | None

    @property
    def errs(self) -> bool:
        """Whether a token was wrong when it stood there, after any pass."""
        return bool(((self.tokens >= 0) & (self.tokens != self.truth)).any())

    @property
    def right(self) -> np.ndarray:
        """Whether the whole answer is right after each pass, bool [pass]."""
        return (self.tokens == self.truth).all(axis=1)


@st.cache_data(show_spinner=False, max_entries=64)
def thoughts(_loaded: LoadedModel, key: str, number: int) -> Thoughts:
    """The model's drafts of example `number`."""
    run = _loaded.run
    batch = examples_view.shown_example(run.task, run, number).batch
    with _loaded.lock:
        found = run.model.drafts(run.task, batch)
    return Thoughts(*(part.numpy() for part in (found.positions, found.tokens, found.p, found.truth)), stop=found.stop)
