"""Probes fitted here and now: what can be read from one activation at every token, on streams that are not shown.

1. Streams of the validation split are drawn, the model reads them, and the activation at one hook is kept at every
   token; of activations with many numbers their strongest principal directions.
2. A linear discriminant a variable is fitted on it: closed form, so that nobody waits long.
3. It is scored on other streams of the evaluation split, beside the commonest value of the fit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import streamlit as st

from app.run_access import LoadedModel

if TYPE_CHECKING:
    from torch import Tensor

N_FIT, N_SCORED = 320, 96  # examples
MOST_TOKENS = 12_000  # that are fitted on
MOST_FEATURES = 256  # beyond these, principal directions
SEED = 21  # of the examples; those that pages show have another
_BATCH = 16
_KEPT = 8  # fits in memory
Progress = Callable[[float, str], object]
Labels = dict[str, np.ndarray]  # by variable, int64 [n, pos]; -1 where it is undefined


@dataclass(frozen=True, eq=False)
class Scored:
    """How well one variable is read on the examples that were kept apart."""

    accuracy: float
    commonest: float  # accuracy of always saying the commonest value of the fit
    n: int  # tokens


@dataclass(frozen=True, eq=False)
class LiveProbes:
    """Probes of one hook."""

    hook: str
    names: tuple[str, ...]
    probe: Any  # fitted on [n, features], a stack over `names`
    directions: Tensor | None  # [numbers, features] that activations are projected to; None: as they are
    n_numbers: int  # of the activation at one token
    n_tokens: int  # fitted on
    commonest: dict[str, int]  # value of the fit
    scored: dict[str, Scored]
    held: tuple[Any, Labels, np.ndarray]  # the batch scored on, its labels, and what was read [variable, n, pos]

    def read(self, activation: Tensor, truth: Labels) -> Readings:
        """What is read at each of some tokens; activation [m, numbers], truth int64 [m] by variable."""
        p = self.probe.predict_proba(_projected(activation, self.directions))  # [variable, m, class]
        best, classes = p.argmax(-1), self.probe.classes_
        shares = np.take_along_axis(p, best[..., None], -1)[..., 0]
        of_truth = {
            name: (p[row] * (classes == truth[name][:, None])).sum(-1) for row, name in enumerate(self.names)
        }  # 0 where the fit never met the value
        return Readings(
            dict(zip(self.names, classes[best], strict=True)), dict(zip(self.names, shares, strict=True)), of_truth
        )


@dataclass(frozen=True, eq=False)
class Readings:
    """By variable, [m] each."""

    values: Labels
    p: dict[str, np.ndarray]  # of what is read
    p_truth: dict[str, np.ndarray]


def known(loaded: LoadedModel, hook: str) -> LiveProbes | None:
    """The probes of a hook, if they have been fitted since the server started."""
    return _kept().get((loaded.key, hook))


def fit(loaded: LoadedModel, hook: str, progress: Progress) -> LiveProbes:
    """Fit the probes of a hook, or give those that were fitted before.

    Raises ValueError where no variable can be read: none takes two values.
    """
    if found := known(loaded, hook):
        return found
    from probes import DiscriminantProbe

    task = loaded.run.task
    fitted = _collect(loaded, hook, N_FIT, "validation", lambda share: progress(0.5 * share, "reading streams"))
    activation, labels = fitted.tokens(MOST_TOKENS)
    progress(0.55, "fitting")
    directions = _principal(activation) if activation.shape[1] > MOST_FEATURES else None
    names = tuple(name for name, values in labels.items() if _two_values(values))
    if not names:
        raise ValueError("no variable takes two values here, so that there is nothing to read")
    y = np.stack([labels[name] for name in names])
    probe = DiscriminantProbe(alpha=1e-3).fit(_projected(activation, directions), y)
    held = _collect(
        loaded, hook, N_SCORED, "evaluation", lambda share: progress(0.7 + 0.3 * share, "scoring on other streams")
    )
    n, pos = held.defined.shape
    predicted = probe.predict(_projected(held.activation.flatten(0, 1), directions)).reshape(len(names), n, pos)
    commonest = {name: int(np.bincount(labels[name][labels[name] >= 0]).argmax()) for name in names}
    scored = {}
    for name, said in zip(names, predicted, strict=True):
        truth = held.labels[name]
        there = truth >= 0
        count = int(there.sum())
        scored[name] = Scored(
            float((said == truth)[there].mean()) if count else float("nan"),
            float((truth == commonest[name])[there].mean()) if count else float("nan"),
            count,
        )
    found = LiveProbes(
        hook, names, probe, directions, int(activation.shape[1]), len(activation), commonest, scored,
        (held.batch, held.labels, predicted),
    )  # fmt: skip
    kept = _kept()
    while len(kept) >= _KEPT:
        kept.pop(next(iter(kept)))
    kept[loaded.key, hook] = found
    progress(1.0, f"{task.name}: done")
    return found


def activation_of(loaded: LoadedModel, batch: Any, hook: str) -> Tensor:
    """The activation at a hook on some examples, float32 [n, pos, numbers]: its other axes as one."""
    import torch

    with loaded.lock, torch.no_grad():
        _, cache = loaded.run.model.run_with_cache(batch.tokens, names_filter=[hook])
    return cache[hook].float().flatten(2)


def labels_of(task: Any, batch: Any) -> Labels:
    """Every variable that the task labels token by token; of a stream the cells that the pointer has been on, by their
    place and by their distance to it: the others hold 0 for sure, and would be read right by saying so."""
    found = {name: np.asarray(task.labels(batch, name)) for name in task.variables()}
    found = {name: values for name, values in found.items() if values.ndim == 2}
    if not task.tells_stream or "array_ptr" not in found or not (cells := cells_of(found)):
        return found
    seen = visited(found["array_ptr"], len(cells))
    found |= {name: np.where(seen[..., cell], found[name], -1) for cell, name in enumerate(cells)}
    return found | relative_cells(found)


def cells_of(labels: Labels) -> list[str]:
    """The names of the cells, in order."""
    return [name for name in labels if name.startswith("cell[") and "@" not in name]


def relative_name(offset: int) -> str:
    """The cell that stands `offset` places right of the pointer."""
    return f"cell[@array_ptr{offset:+d}]" if offset else "cell[@array_ptr]"


def relative_cells(labels: Labels) -> Labels:
    """Each cell by its distance to the pointer; -1 where the tape has none there, or the cell has no label."""
    cells = cells_of(labels)
    tape, pointer = np.stack([labels[name] for name in cells], axis=-1), labels["array_ptr"]
    found = {}
    for offset in range(1 - len(cells), len(cells)):
        at = pointer + offset
        there = (pointer >= 0) & (at >= 0) & (at < len(cells))
        values = np.take_along_axis(tape, np.clip(at, 0, len(cells) - 1)[..., None], axis=-1)[..., 0]
        found[relative_name(offset)] = np.where(there, values, -1)
    return found


def visited(pointer: np.ndarray, n_cells: int) -> np.ndarray:
    """Which cells the pointer has stood on so far, bool [n, pos, n_cells], of where it stands [n, pos]: it moves by one
    cell at a time, so all between its extremes."""
    low = np.minimum.accumulate(np.where(pointer < 0, n_cells, pointer), axis=1)
    high = np.maximum.accumulate(pointer, axis=1)
    cells = np.arange(n_cells)
    return (low[..., None] <= cells) & (cells <= high[..., None])


@dataclass(frozen=True, eq=False)
class _Collected:
    batch: Any
    activation: Tensor  # [n, pos, numbers]
    labels: Labels
    defined: np.ndarray  # bool [n, pos]: the token tells something

    def tokens(self, most: int) -> tuple[Tensor, Labels]:
        """At most so many of the tokens, drawn at random: activation [m, numbers], labels [m]."""
        import torch

        rows = np.flatnonzero(self.defined)
        if len(rows) > most:
            rows = np.sort(np.random.default_rng(SEED).choice(rows, most, replace=False))
        chosen = self.activation.flatten(0, 1)[torch.from_numpy(rows)]
        return chosen, {name: values.reshape(-1)[rows] for name, values in self.labels.items()}


def _collect(loaded: LoadedModel, hook: str, n: int, split: str, progress: Callable[[float], object]) -> _Collected:
    import torch

    task = loaded.run.task
    batch = task.sample(n, seed=SEED, split=split)
    parts = []
    for start in range(0, n, _BATCH):
        parts.append(activation_of(loaded, batch[start : start + _BATCH], hook))
        progress((start + _BATCH) / n)
    labels = labels_of(task, batch)
    defined = np.asarray(task.times(batch)) >= 0
    return _Collected(batch, torch.cat(parts), labels, defined)


def _principal(activation: Tensor) -> Tensor:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)  # of the random start of the decomposition
        _, _, directions = torch.svd_lowrank(activation - activation.mean(0), q=MOST_FEATURES, niter=2)
    return directions


def _projected(activation: Tensor, directions: Tensor | None) -> Tensor:
    return activation if directions is None else activation @ directions


def _two_values(values: np.ndarray) -> bool:
    found, counts = np.unique(values[values >= 0], return_counts=True)
    return len(found) > 1 and counts.sum() >= 100


@st.cache_resource(show_spinner=False)
def _kept() -> dict[tuple[str, str], LiveProbes]:
    return {}
