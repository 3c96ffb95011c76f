"""Attention patterns for the page: the mean by opcode from the run's file, or of one state from a live forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from app.answers import shown_tokens
from app.run_access import LoadedModel, fingerprint, require_current
from interp import Run, RunError
from interp.reading import BrokenFileError
from interp.runs import frame_command

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import AttentionSummary


@dataclass(frozen=True)
class Patterns:
    """Attention of every head."""

    pattern: np.ndarray  # float32 [n_layers, n_heads, query_pos, key_pos]; rows sum to 1
    names: tuple[str, ...]  # of positions
    n: int  # states averaged

    def sharpest(self, query: int) -> tuple[int, int]:
        """The layer and head that give one key the largest share of what `query` attends to."""
        largest = self.pattern[:, :, query].max(axis=-1)
        layer, head = np.unravel_index(int(largest.argmax()), largest.shape)
        return int(layer), int(head)

    def top_keys(self, layer: int, head: int, query: int, *, k: int = 3) -> list[tuple[str, float]]:
        """The `k` positions that a query attends to most, with their shares."""
        row = self.pattern[layer, head, query]
        return [(self.names[int(key)], float(row[key])) for key in np.argsort(-row, kind="stable")[:k]]


def mean_of_op(run: Run, op: str) -> Patterns:
    """The mean pattern over held-out examples of a stratum. Raises RunError: no file, broken, of other weights, or of
    too many positions to be kept one by one."""
    summary = _summary(run, op)
    if summary.pattern is None:
        raise RunError(
            f"mean attention of {len(summary.position_names)} positions is kept by sets of positions alone; "
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
    pattern = _live(loaded, loaded.key, shown_tokens(loaded, example))
    return Patterns(pattern, tuple(loaded.run.task.position_names), 1)


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
