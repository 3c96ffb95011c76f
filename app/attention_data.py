"""Attention patterns for the page: the mean by opcode from the run's file, or of one state from a live forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from app.answers import shown_tokens
from app.components.next_character import visible
from app.run_access import LoadedModel, fingerprint, require_current
from app.theme import token_text
from interp import Run, RunError
from interp.models.model_config import AttentionPart
from interp.reading import BrokenFileError
from interp.runs import frame_command

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import AttentionSummary


@dataclass(frozen=True)
class Patterns:
    """Attention of heads."""

    pattern: np.ndarray  # float32 [row, head, query, key], a row for each layer of heads; each query's shares sum to 1
    names: tuple[str, ...]  # of the positions that look
    n: int  # examples averaged
    tokens: tuple[str, ...] = ()  # what stands at them; () where the examples differ
    key_names: tuple[str, ...] | None = None  # of the positions that are looked at; None: the same
    key_tokens: tuple[str, ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the positions that are looked at."""
        return self.names if self.key_names is None else self.key_names

    @property
    def labels(self) -> tuple[str, ...]:
        """The positions that look, as they are written at the rows: "cells[3] = 4" where one example is shown."""
        return _labels(self.names, self.tokens)

    @property
    def key_labels(self) -> tuple[str, ...]:
        """The same of the positions that are looked at, at the columns."""
        return self.labels if self.key_names is None else _labels(self.key_names, self.key_tokens)

    def of(self, part: AttentionPart) -> Patterns:
        """One kind of attention alone: its rows, the positions that look and those that are looked at."""
        queries, keys = slice(*part.queries), slice(*part.keys)
        return Patterns(
            self.pattern[list(part.rows)][:, :, queries, keys], self.names[queries], self.n, self.tokens[queries],
            self.names[keys], self.tokens[keys],
        )  # fmt: skip

    def sharpest(self, query: int) -> tuple[int, int]:
        """The row and head that give one key the largest share of what `query` attends to."""
        largest = self.pattern[:, :, query].max(axis=-1)
        row, head = np.unravel_index(int(largest.argmax()), largest.shape)
        return int(row), int(head)

    def top_keys(self, row: int, head: int, query: int, *, k: int = 3) -> list[tuple[str, float]]:
        """The `k` positions that a query attends to most, with their shares."""
        shares = self.pattern[row, head, query]
        return [(self.key_labels[int(key)], float(shares[key])) for key in np.argsort(-shares, kind="stable")[:k]]


def _labels(names: tuple[str, ...], tokens: tuple[str, ...]) -> tuple[str, ...]:
    """A position and its token; brackets and other tokens that are their own names are not written twice."""
    if not tokens:
        return names
    own = [name.rpartition(".")[2] == token for name, token in zip(names, tokens, strict=True)]
    return tuple(
        name if alike else f"{name} = {visible(token_text(token))}"
        for name, token, alike in zip(names, tokens, own, strict=True)
    )


def mean_of_op(run: Run, op: str) -> Patterns:
    """The mean pattern over held-out examples of a stratum. Raises RunError: no file, broken, of other weights, or of
    too many positions to be kept one by one."""
    summary = _summary(run, op)
    if summary.pattern is None:
        raise RunError(
            f"mean attention of {len(summary.position_names)} positions is kept by sets of positions or tokens alone; "
            f"look at one example, or at a head on the Circuit page"
        )
    index = summary.ops.index(op)
    return Patterns(summary.pattern[index].astype(np.float32), summary.position_names, summary.n[index])


def averaged(run: Run, op: str) -> int:
    """Held-out examples of a stratum that the mean is over. Raises RunError."""
    summary = _summary(run, op)
    return summary.n[summary.ops.index(op)]


def roles_of_op(run: Run, op: str, layer: int, head: int, *, k: int = 3) -> list[tuple[str, str, float]]:
    """The `k` most concentrated (query role, key role, share) of a head on examples of `op`. Raises RunError."""
    found = _summary(run, op).top_roles(op, layer, head)
    ranked = sorted(((query, key, share) for query, (key, share) in found.items()), key=lambda row: -row[2])
    return ranked[:k]


def _summary(run: Run, op: str) -> AttentionSummary:
    file = run.path / "attention.safetensors"
    mend = frame_command("circuits", run.path)
    if not file.exists():
        raise RunError(f"{file} does not exist yet; make it with: {mend}")
    try:
        summary, provenance = _read(str(file), fingerprint(file))
    except BrokenFileError as error:
        raise RunError(f"{error}; delete it and make it anew: {mend}") from None
    require_current(run, file, provenance, mend)
    if op not in summary.ops:
        raise RunError(
            f"{file} has no attention for {op}, only for {', '.join(summary.ops)}; make it anew with: {mend}"
        )
    return summary


def of_example(loaded: LoadedModel, example: Any) -> Patterns:
    """The patterns on one example (a batch of one), from a forward pass made now; with the model's own answer where
    the answer stands in the tokens.

    Raises RunError when the model has no attention.
    """
    task, tokens = loaded.run.task, shown_tokens(loaded, example)
    shown = tuple(task.vocab[int(token)] for token in tokens[0])
    return Patterns(_live(loaded, loaded.key, tokens), tuple(task.position_names), 1, shown)


@st.cache_resource(show_spinner=False, max_entries=4)
def _read(file: str, fingerprint: str):
    from interp.circuits.attention import read_attention

    return read_attention(Path(file))


@st.cache_data(show_spinner=False, max_entries=64)
def _live(_loaded: LoadedModel, key: str, tokens: np.ndarray) -> np.ndarray:
    import torch

    run = _loaded.run
    hooks = list(run.model.attention_hooks())
    if not hooks:
        raise RunError(
            f"{run.path} holds a {run.config.model.architecture}, which has no attention; see the Probes page"
        )
    x = torch.from_numpy(tokens.astype(np.int64))
    with _loaded.lock, torch.no_grad():
        _, cache = run.model.run_with_cache(x, names_filter=hooks)
    return torch.stack([run.model.on_record(name, cache[name])[0] for name in hooks]).float().numpy()
