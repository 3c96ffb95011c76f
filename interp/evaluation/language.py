"""A model of strings held against the rule's exact distribution: KL and illegal mass a character.

Where the prefixes of all strings can be listed, both are sums over every one of them with its exact probability, so
that no sampling enters; else they are means over held-out strings, with the exact distribution at each character.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from interp.worlds import Rows

MOST = 5_000_000  # prefixes that are listed
_CHUNK = 8192


@dataclass(frozen=True)
class Divergence:
    """How far a model is from the rule, averaged over characters."""

    kl: float  # KL(exact || model), nats a character
    illegal: float  # probability on characters that the rule forbids, and on the start token
    by_position: NDArray[np.float64]  # [length, 2]: both at each character; NaN where none is asked
    n: int  # prefixes, or strings
    exact: bool  # whether every prefix was summed


def divergence(
    model: Callable[[Tensor], Tensor],
    task: Any,
    *,
    most: int = MOST,
    n_sampled: int = 4096,
    seed: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Divergence:
    """The model's KL and illegal mass.

    Args:
        model: logits [batch, pos, d_vocab] of tokens [batch, pos].
        task: `strings`, or another task of a world with "language".
        most: prefixes up to which all are summed.
        n_sampled, seed: of the held-out strings otherwise.
        progress: called with (done, of how many).
    """
    world = task.world
    length = world.rule.length
    listed = world.every_string(most, length=length - 1)
    if listed is None:
        rows, mass = task.draw(n_sampled, seed=seed), np.full(n_sampled, 1 / n_sampled)
    else:
        prefixes, mass = listed
        rows = Rows(np.concatenate([prefixes.values, np.zeros((len(mass), 1), dtype=np.int64)], axis=1))
    total = np.zeros((length, 3))
    with torch.inference_mode():
        for first in range(0, len(mass), _CHUNK):
            part = rows[first : first + _CHUNK]
            kl, illegal, asked = _against(model, task, part)
            weight = mass[first : first + _CHUNK, None] * asked
            for column, values in enumerate((kl, illegal, np.ones_like(kl))):
                total[:, column] += (weight * values).sum(axis=0)
            progress(min(first + _CHUNK, len(mass)), len(mass))
    kl, illegal, weight = total.T
    by_position = np.full((length, 2), np.nan)
    np.divide(total[:, :2], weight[:, None], out=by_position, where=weight[:, None] > 0)
    return Divergence(
        float(kl.sum() / weight.sum()), float(illegal.sum() / weight.sum()), by_position, len(mass), listed is not None
    )


def _against(model: Callable[[Tensor], Tensor], task: Any, rows: Rows) -> tuple[NDArray, NDArray, NDArray]:
    """KL, illegal mass, and whether a character is asked for, each [n, length]. The last character of a row is not
    read: only those before it count."""
    world = task.world
    batch = task.render(rows)
    logits = model(batch.tokens).double().log_softmax(dim=-1).numpy()
    exact = world.conditionals(rows)
    said = logits[..., : exact.shape[-1]]
    legal = exact > 0
    log_exact = np.log(np.where(legal, exact, 1.0))
    kl = np.where(legal, exact * (log_exact - said), 0.0).sum(axis=-1)
    illegal = np.where(legal, 0.0, np.exp(said)).sum(axis=-1) + np.exp(logits[..., exact.shape[-1] :]).sum(axis=-1)
    asked = np.ones(rows.values.shape, dtype=bool)
    if world.rule.ends:  # behind the first END nothing is asked
        end = rows.values[:, :-1] == len(world.rule.alphabet) - 1
        asked[:, 1:] = ~np.logical_or.accumulate(end, axis=1)
    return kl, illegal, asked
