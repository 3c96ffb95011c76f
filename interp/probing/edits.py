"""What edits along probes are judged on: pairs whose answer a variable changes, and what to write at which tokens.

An edit of an example of one step is made at the place that the probe reads. In tasks whose tokens are pooled it is made
at the token that is judged alone ("judged"), or at every token from the edited step to it ("window"); the value written
at each token is the world's in the edited run, so it follows what the run does to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.tasks import Counterfactual, Task
from interp.tasks.answers import read_answers

SCOPES = ("judged", "window")
_BATCH = 64


@dataclass(frozen=True, eq=False)
class TokenEdits:
    """What to write where: token `position[i]` of pair `row[i]` holds `present[i]` and shall hold `target[i]`."""

    row: np.ndarray  # int64 [m], rising
    position: np.ndarray
    present: np.ndarray
    target: np.ndarray

    def __len__(self) -> int:
        return len(self.row)

    def of_rows(self, rows: np.ndarray) -> np.ndarray:
        """Whether each edit is one of the pairs `rows`, bool [m]."""
        return np.isin(self.row, rows)


@dataclass(frozen=True, eq=False)
class EditPairs:
    """Pairs whose answer the edit changes, and whether the unedited model gives the changed one."""

    pairs: Counterfactual
    unpatched: np.ndarray  # bool [n]


def place_edits(task: Task, pairs: Counterfactual, name: str, place: str) -> TokenEdits:
    """The variable's value, and what it shall be, at one position of each base."""
    position = task.resolve(place, pairs.base, pairs.edit_time)[:, 0].numpy()
    return _edits(task, pairs, name, np.arange(len(pairs)), position)


def scope_edits(task: Task, pairs: Counterfactual, name: str, scope: str) -> TokenEdits:
    """The same at the token that is judged first, or at all from the edited step to it, but the opening one.

    Raises:
        ValueError: no such scope.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    places = torch.where(pairs.valid, pairs.positions, pairs.base.tokens.shape[1])
    judged = places.min(dim=1).values.numpy()
    positions = np.arange(pairs.base.tokens.shape[1])
    inside = positions == judged[:, None]
    if scope == "window":
        after = task.times(pairs.base) >= pairs.edit_time[:, None]
        inside = after & (positions <= judged[:, None]) & (positions > 0)
    return _edits(task, pairs, name, *np.nonzero(inside))


def _edits(task: Task, pairs: Counterfactual, name: str, row: np.ndarray, position: np.ndarray) -> TokenEdits:
    """At these tokens, those left out where either value is undefined, or that are about steps before the edit."""
    base, times = pairs.base, task.times(pairs.base)
    since = times[row, position] - pairs.edit_time[row]
    target = pairs.values[row]
    if (since > 0).any():
        edited = task.world.answer(base.examples, do={name: pairs.values}, at=pairs.edit_time)
        target = np.where(since > 0, edited.later(name, times)[row, position], target)
    labels = task.labels(base, name)
    present = labels[row] if labels.ndim == 1 else labels[row, position]
    known = (present >= 0) & (target >= 0) & (since >= 0)
    return TokenEdits(row[known], position[known], present[known], target[known])


def changing_pairs(model: Any, task: Task, name: str, n: int, *, spare: int, seed: int) -> EditPairs:
    """At most `n` independent pairs of held-out units whose answer the edit changes, of `spare` times as many drawn."""
    drawn = task.counterfactual(spare * n, name, seed=seed)
    rows = np.flatnonzero(drawn.changes)[:n]
    arrays = {each.name: getattr(drawn, each.name) for each in fields(drawn)}
    taken = {name: values[rows] for name, values in arrays.items() if isinstance(values, np.ndarray | Tensor)}
    pairs = replace(drawn, base=drawn.base[rows], source=drawn.source[rows], **taken)
    return EditPairs(pairs, right_answers(model, pairs, np.arange(len(pairs))))


@torch.no_grad()
def right_answers(
    model: Any, pairs: Counterfactual, rows: np.ndarray, hooks: Sequence[tuple[str, Any]] = ()
) -> np.ndarray:
    """Whether the model gives the world's counterfactual answer to each of these pairs, bool [len(rows)].

    hooks: what is written, each made for these pairs alone. A task that shows the answer shows the expected one before
    the token that is judged, as when it is decoded greedily.
    """
    found = [np.empty(0, dtype=bool)]
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        positions, expected, valid = pairs.positions[some], pairs.expected[some], pairs.valid[some]
        tokens = pairs.base.tokens[some]
        if model.is_causal:  # nothing behind the last judged token is looked at
            tokens = tokens[:, : int(positions[valid].max()) + 1]
            positions = torch.where(valid, positions, 0)
        with model.hooks(fwd_hooks=list(hooks)):
            said = read_answers(model(tokens), positions).argmax(-1)
        found.append(((said == expected) | ~valid).all(-1).numpy())
    return np.concatenate(found)
