"""What a model with a state carries along one example, from a forward pass made now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from app.run_access import LoadedModel


@dataclass(frozen=True, eq=False)
class Carried:
    """A carrier of one layer along one example."""

    values: np.ndarray  # float32 [pos, numbers]
    names: tuple[str, ...]  # of the numbers, by their indices: "head 1, key 3, value 7"

    def liveliest(self, most: int) -> np.ndarray:
        """Which numbers vary most along the example, at most so many, the liveliest first."""
        order = np.argsort(-self.values.std(axis=0), kind="stable")
        return order[:most]


def carried(loaded: LoadedModel, batch: Any, number: int, hook: str) -> Carried:
    """The activation at a carrier hook on example `number`, whose batch of one this is."""
    return _carried(loaded, batch, loaded.key, number, hook)


def effective_attention(loaded: LoadedModel, batch: Any, number: int, layer: int) -> np.ndarray | None:
    """float32 [head, query_pos, key_pos]; None where what a layer reads is no weighted sum of values."""
    return _effective(loaded, batch, loaded.key, number, layer)


_WORDS = {"d_key": "key", "d_value": "value", "d_inner": "channel", "d_conv": "channel", "d_carry": "unit"}


def number_names(axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names of the numbers of an activation at one position, in memory order, by its axes there."""
    words = [_WORDS.get(axis, axis.removeprefix("d_")) for axis in axes]
    return tuple(
        ", ".join(f"{word} {index}" for word, index in zip(words, indices, strict=True))
        for indices in np.ndindex(shape)
    )


@st.cache_data(show_spinner=False, max_entries=16)
def _carried(_loaded: LoadedModel, _batch: Any, key: str, number: int, hook: str) -> Carried:
    import torch

    model = _loaded.run.model
    with _loaded.lock, torch.no_grad():
        _, cache = model.run_with_cache(_batch.tokens, names_filter=[hook])
    axes = model.axes(hook)
    rest = cache[hook][0].movedim(axes.index("pos") - 1, 0)  # [pos, …]
    names = number_names(tuple(axis for axis in axes if axis not in ("batch", "pos")), tuple(rest.shape[1:]))
    return Carried(rest.flatten(1).float().numpy(), names)


@st.cache_data(show_spinner=False, max_entries=16)
def _effective(_loaded: LoadedModel, _batch: Any, key: str, number: int, layer: int) -> np.ndarray | None:
    import torch

    model = _loaded.run.model
    hooks = model.effective_attention_hooks(layer)
    if not hooks:
        return None
    with _loaded.lock, torch.no_grad():
        _, cache = model.run_with_cache(_batch.tokens, names_filter=list(hooks))
        return model.effective_attention(layer, cache)[0].float().numpy()
