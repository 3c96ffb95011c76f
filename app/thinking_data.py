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


@dataclass(frozen=True)
class Chain:
    """What a model wrote before it answered one example, entry by entry."""

    entries: list[tuple[str, str, bool]]  # the model's, the world's, whether they agree
    p: list[float]  # the probability that the model gave to each entry of its own; 0 where it wrote none
    said: str
    truth: str


@st.cache_data(show_spinner=False, max_entries=64)
def chain(_loaded: LoadedModel, key: str, number: int) -> Chain:
    """What the model writes of example `number`, greedily."""
    import torch

    run = _loaded.run
    batch = examples_view.shown_example(run.task, run, number).batch
    with _loaded.lock, torch.inference_mode():
        written = run.task.answer(run.model, batch)
        entries, said, truth = run.task.told_steps(written, batch)
        prompt = batch.tokens[:, run.task.prompt_positions]
        own = written[:, : int((written >= 0).sum())]
        logits = run.model(torch.cat([prompt, own], dim=1))[:, prompt.shape[1] - 1 : -1]
        each = logits.softmax(-1).gather(-1, own[..., None])[0, :, 0]
    width = run.task.entry_width
    p = [float(each[width * k : width * (k + 1)].prod()) if mine else 0.0 for k, (mine, _, _) in enumerate(entries)]
    return Chain(entries, p, said, truth)


@st.cache_data(show_spinner=False, max_entries=64)
def thoughts(_loaded: LoadedModel, key: str, number: int) -> Thoughts:
    """The model's drafts of example `number`."""
    run = _loaded.run
    batch = examples_view.shown_example(run.task, run, number).batch
    with _loaded.lock:
        found = run.model.drafts(run.task, batch)
    return Thoughts(*(part.numpy() for part in (found.positions, found.tokens, found.p, found.truth)), stop=found.stop)
