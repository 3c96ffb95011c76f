"""Contrasts of `addition`: two sums that differ in the digits of one place, and in one digit of the answer for it.

    carry into 2     the digits of place 1 make a carry (clean), or add up to exactly one base less (corrupted): the
                     digit that is written for place 1 is the same, what comes into place 2 is not
    cascade 3        a carry comes three places to a place, of which the last lets it through (clean), or does not
                     (corrupted: the digits there add up to less); where it starts varies from pair to pair

Compared is the digit of the place that the carry comes into, whose own digits are the same in both. The clean sums are
held out; what the exchange makes of one is a sum of its own, that may not be. Where a model sees its own answer, the
clean one stands in both: for a cascade it does not fit the corrupted sum, and what is read off it is left alone.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast, Pairs, pairs_of
from interp.worlds.addition_digits import sum_of_places
from interp.worlds.addition_draws import units
from interp.worlds.base import half as half_of
from interp.worlds.rows import Rows

if TYPE_CHECKING:
    from interp.tasks.addition import AdditionTask

_BLOCK = 512
_MAX_BLOCKS = 100


def addition_contrasts(task: AdditionTask) -> dict[str, Contrast]:
    """`carry into i` for every place from 1 up, `cascade c` from 2 places on; for two summands alone."""
    found = {}
    for name in task.world.contrast_names:
        kind, _, number = name.replace("carry into", "carry").partition(" ")
        draw = partial(_draw, task, kind, int(number), name)
        found[name] = Contrast(name, name, kind, draw, partial(_examples, task, kind, int(number)))
    return found


def _target(task: AdditionTask, kind: str, number: int, examples: Rows) -> np.ndarray:
    """The place that the contrast's carry comes into in each sum, [n]; -1 where it has none."""
    found = sum_of_places(task.world.digits(examples), task.world.base, {}, "ripple")
    if kind == "carry":
        return np.where(found["generate"][:, number - 1] > 0, number, -1)
    return np.where(found["cascade"] == number, np.arange(found["cascade"].shape[1]), -1).max(axis=1)


def exchanged(task: AdditionTask, kind: str, clean: Rows, target: np.ndarray, *, seed: int, start: int) -> Rows:
    """The sums with other digits in the place below the target, so that no carry comes into it."""
    world, rows = task.world, np.arange(len(clean))
    digits = world.digits(clean).copy()
    total = digits[rows, :, target - 1].sum(axis=1)
    random = np.stack([units(rows + start, seed=seed, stream=each) for each in (0, 1)])
    # A carry: the same digit is written without it. A cascade: any sum that lets no carry through.
    wanted = total - world.base if kind == "carry" else (random[0] * (world.base - 1)).astype(np.int64)
    low, high = np.maximum(0, wanted - world.base + 1), np.minimum(wanted, world.base - 1)
    first = low + (random[1] * (high - low + 1)).astype(np.int64)
    digits[rows, 0, target - 1], digits[rows, 1, target - 1] = first, wanted - first
    return Rows(digits.reshape(clean.values.shape))


def _draw(
    task: AdditionTask, kind: str, number: int, name: str, n: int, *, seed: int, half: int | None = None
) -> Pairs:
    """Pairs of sums, the clean ones held out. Raises ValueError where too few sums are of the kind."""
    world, k = task.world, len(task.answer_positions)
    cleans, corrupteds, places, tried, found = [], [], [], 0, 0
    for block in range(_MAX_BLOCKS):
        examples = task.draw(_BLOCK, seed=seed, start=block * _BLOCK, weights=world.strata_weights("branches"))
        if half is not None:
            examples = examples[np.flatnonzero(half_of(task.groups(examples)) == half)]
        target = _target(task, kind, number, examples)
        chosen = np.flatnonzero(target >= 0)
        clean, target = examples[chosen], target[chosen]
        corrupted = exchanged(task, kind, clean, target, seed=seed + 1, start=block * _BLOCK)
        answers = [task.expected(world.answer(each)) for each in (clean, corrupted)]
        # Written from the highest place down, or ended by a plus, a digit's slot depends on how long the answer is.
        slot = target if task.reverse else world.n_digits - target
        rows = np.arange(len(clean))
        fits = (
            (answers[0][rows, slot] >= 0)
            & (answers[1][rows, slot] >= 0)
            & (answers[0][rows, slot] != answers[1][rows, slot])
        )
        fits &= task.reverse | task.leading_zeros
        cleans.append(clean[fits])
        corrupteds.append(corrupted[fits])
        places.append(slot[fits])
        tried, found = tried + len(examples), found + int(fits.sum())
        if found >= n:
            break
    if found < n:
        raise ValueError(f"only {found} of the {n} pairs asked for {name!r} in {tried} sums")
    compared = np.concatenate(places)[:n, None] == np.arange(k)
    clean, corrupted = (Rows.concatenate(parts)[:n] for parts in (cleans, corrupteds))
    return pairs_of(task, name, clean, corrupted, compared=compared, redraw_rate=1 - found / tried)


def _examples(task: AdditionTask, kind: str, number: int, n: int, seed: int) -> Batch:
    """The first `n` held-out sums of the kind; fewer if it is rare."""
    parts: list[Rows] = []
    for block in range(_MAX_BLOCKS):
        weights = task.world.strata_weights("branches")
        drawn = task.draw(_BLOCK, seed=seed, start=block * _BLOCK, weights=weights)
        parts.append(drawn[np.flatnonzero(_target(task, kind, number, drawn) >= 0)])
        if sum(map(len, parts)) >= n:
            break
    return task.render(Rows.concatenate(parts)[:n])
