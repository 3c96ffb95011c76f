"""Tokens that probes are fitted and scored on, with labels, control types and units.

Examples are drawn, labelled and handed on a batch at a time (`each`), so that only what is kept of the chosen tokens
stays in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from interp.probing.examples import Examples
from interp.probing.places import check_places, tokens_of
from interp.ranges import counted
from interp.tasks import Batch, Task
from interp.worlds import World
from interp.worlds.base import Split

Chosen = Mapping[str, tuple[np.ndarray, np.ndarray]]  # place -> row of the batch and position of each chosen token
_CHUNK = 256  # examples that are drawn and labelled at once


@counted(n=1)
def draw_examples(
    task: Task,
    n: int,
    *,
    variables: Sequence[str],
    places: Sequence[str],
    per_example: int = 16,
    seed: int,
    split: Split,
    each: Callable[[Batch, Chosen], None] | None = None,
    tell: Callable[[float], None] = lambda share: None,
) -> dict[str, Examples]:
    """About `n` tokens of each place.

    Args:
        task: draws the examples, evenly over its strata where it has any.
        variables: what they are labelled with.
        places: one position of each of `n` examples, or a set of tokens: then at most `per_example` of each example
            are drawn, without replacement.
        each: called with every batch and the tokens that were chosen in it, in order.
        tell: called with the share that is drawn.

    Raises:
        ValueError: an unknown variable or place, or a place that no example has.
    """
    pooled = task.token_places()
    found: dict[str, Examples] = {}
    # Positions share the examples of one draw, sets of tokens those of another.
    for some, most in (
        ([place for place in places if place not in pooled], 1),
        ([place for place in places if place in pooled], per_example),
    ):
        if some:
            found |= _draw(task, -(-n // most), variables, some, most, seed=seed, split=split, each=each, tell=tell)
    return {place: found[place] for place in places}


def _draw(
    task: Task,
    n: int,
    variables: Sequence[str],
    places: Sequence[str],
    most: int,
    *,
    seed: int,
    split: Split,
    each: Callable[[Batch, Chosen], None] | None,
    tell: Callable[[float], None],
) -> dict[str, Examples]:
    weights = task.strata_weights("op_outcome")
    # A stream of its own for each place: what is chosen at one does not depend on which others are asked for.
    rngs = {place: np.random.default_rng([seed, {"all": 0, "train": 1, "evaluation": 2}[split]]) for place in places}
    altered = task.world.altered()
    parts: dict[str, list[dict[str, Any]]] = {place: [] for place in places}
    starts = []
    for first in range(0, n, _CHUNK):
        tell(first / n)
        batch = task.sample(min(_CHUNK, n - first), seed=seed, start=first, split=split, weights=weights)
        if first == 0:
            check_places(task, places, batch)
        chosen = {place: _choose(tokens_of(task, batch, place), most, rngs[place]) for place in places}
        if each is not None:
            each(batch, chosen)
        starts.append(batch.examples)
        for place, part in _described(task, batch, variables, chosen, altered):
            parts[place].append(part | {"row": part["row"] + first})
    if empty := [place for place, some in parts.items() if not sum(len(part["row"]) for part in some)]:
        raise ValueError(f"none of {n} examples has a token at {empty[0]!r}")
    everything = type(starts[0]).concatenate(starts)
    return {place: _joined(some, everything, task.world.unit) for place, some in parts.items()}


def _choose(allowed: np.ndarray, most: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """At most so many tokens of each row of allowed [n, pos], at random: their rows, rising, and positions."""
    order = np.where(allowed, rng.random(allowed.shape), 2.0).argsort(axis=1)[:, :most]
    drawn = np.zeros(allowed.shape, dtype=bool)
    np.put_along_axis(drawn, order, True, axis=1)
    row, position = np.nonzero(drawn & allowed)
    return row, position


def _described(
    task: Task, batch: Batch, variables: Sequence[str], chosen: Chosen, altered: World | None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is kept of the chosen tokens of a batch, place by place, as `Examples` names it."""
    labels = [task.labels(batch, name) for name in variables]
    types = [task.control_types(batch, name) for name in variables]
    times, ages, groups = task.times(batch), task.ages(batch), task.groups(batch.examples).astype(np.int64)
    for place, (row, position) in chosen.items():
        time = times[row, position]
        other = None if altered is None else np.stack([_read(altered, batch, name, row, time) for name in variables])
        yield (
            place,
            {
                "labels": np.stack([_of_tokens(values, row, position) for values in labels]),
                "altered": other,
                "types": np.stack([_of_tokens(values, row, position) for values in types]),
                "groups": groups[row],
                "row": row,
                "position": position,
                "time": time,
                "ages": {family: values[row, position].T for family, values in ages.items()},
            },
        )


def _of_tokens(values: np.ndarray, row: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Values of examples [n], or of tokens [n, pos], at some tokens: [m]."""
    return values[row] if values.ndim == 1 else values[row, position]


def _read(world: World, batch: Batch, name: str, row: np.ndarray, time: np.ndarray) -> np.ndarray:
    """The variable of example row[i], which rise, at executed step time[i], int64 [m]."""
    # The k-th token of an example goes to column k of [n, most], so that each example is asked once.
    column = np.arange(len(row)) - np.searchsorted(row, row)
    at = np.full((len(batch), 1 + int(column.max(initial=0))), -1)
    at[row, column] = time
    return world.read(batch.examples, name, at)[row, column]


def _joined(parts: list[dict[str, Any]], starts: Any, unit: str) -> Examples:
    """Parts of one place, one after the other."""
    arrays = {
        name: np.concatenate([part[name] for part in parts], axis=-1)
        for name in ("labels", "types", "groups", "row", "position", "time")
    }
    altered = None if parts[0]["altered"] is None else np.concatenate([part["altered"] for part in parts], axis=-1)
    ages = {family: np.concatenate([part["ages"][family] for part in parts], axis=-1) for family in parts[0]["ages"]}
    return Examples(altered=altered, starts=starts, ages=ages, unit=unit, **arrays)
