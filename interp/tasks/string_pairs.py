"""Pairs of strings: for interchange, and contrasts for circuits.

A contrast is a stratum of the rule, what is due: clean strings are there at some place, corrupted ones have the same
last character at the same place, and another likeliest character. Both are whole strings of the rule.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp.ranges import counted
from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast, Pairs
from interp.tasks.counterfactual import Counterfactual, PairDesign, check_design
from interp.worlds.base import Split
from interp.worlds.base import half as half_of

if TYPE_CHECKING:
    from interp.tasks.strings import Strings

_MAX_DRAWS_PER_PAIR = 200
_BLOCK, _MAX_BLOCKS = 512, 24


@counted(n=1)
def draw_string_pairs(
    task: Strings, n: int, name: str, *, seed: int, design: PairDesign, split: Split
) -> Counterfactual:
    """See `Strings.counterfactual`."""
    world = task.world
    world.settable(name)
    check_design(task, name, design)
    rng = np.random.default_rng([seed, 2])
    bases, sources, columns, found, drawn = [], [], [], 0, 0
    while found < n:
        size = max(64, 2 * (n - found))
        both = task.draw(2 * size, seed=seed, start=2 * drawn, split=split)
        drawn += size
        base, source = both[0::2], both[1::2]
        edit, take = task.edit_times(base, source, name, rng)
        values = world.read(source, name, take)
        expected = task.answered(world.answer(base, do={name: values}, at=edit), edit)[:, 0]
        unedited = task.expected(world.answer(base, at=edit))[:, 0]
        rows = np.flatnonzero((values >= 0) & (world.read(base, name, edit) >= 0) & (expected >= 0))
        found += len(rows)
        bases.append(base[rows])
        sources.append(source[rows])
        columns.append(np.stack([values, edit, take, expected, unedited])[:, rows])
        if found < n and drawn > _MAX_DRAWS_PER_PAIR * max(n, 10):
            raise ValueError(f"variable {name!r}: only {found} of {drawn} drawn pairs have a counterfactual value")
    base, source = (type(parts[0]).concatenate(parts)[:n] for parts in (bases, sources))
    values, edit, take, expected, unedited = np.concatenate(columns, axis=1)[:, :n]
    one = torch.ones(n, 1, dtype=torch.bool)
    return Counterfactual(
        variable=name,
        base=task.render(base),
        source=task.render(source),
        values=values,
        positions=torch.from_numpy(edit)[:, None],
        expected=torch.from_numpy(expected)[:, None],
        unedited=torch.from_numpy(unedited)[:, None],
        valid=one,
        content=one,
        edit_time=edit,
        source_time=take,
        judged_time=edit,
        redraw_rate=1 - found / drawn,
    )


def string_contrasts(task: Strings) -> dict[str, Contrast]:
    """The strata of which there are pairs: after the same last character another one can be the likeliest."""
    world, steps = task.world, np.tile(np.arange(1, task.n_ctx), (_BLOCK, 1))
    examples = task.draw(_BLOCK, seed=0)
    number, answer = _places(task, examples, steps)
    row, place = np.nonzero((number >= 0) & (answer >= 0))
    answers: dict[tuple[int, int], set[int]] = {}
    seen = list(zip(place.tolist(), examples.values[row, place].tolist(), strict=True))
    for (at, last), character in zip(seen, answer[row, place].tolist(), strict=True):
        answers.setdefault((at, last), set()).add(character)
    pairs = [len(answers[each]) > 1 for each in seen]
    names = [world.stratum_names[each] for each in np.unique(number[row, place][np.array(pairs, dtype=bool)])]
    return {
        name: Contrast(name, _slug(name), world.stratum_title, partial(_draw, task, name), partial(_first, task, name))
        for name in names
    }


def _slug(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name)


def _places(task: Strings, examples: Any, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is due at each place, and the likeliest character there: int64 [n, places]; −1 for none."""
    exact = task.world.conditionals(examples)
    top = exact.max(axis=2, keepdims=True)
    alone = np.isclose(exact, top, rtol=1e-9, atol=0).sum(axis=2) == 1
    inside = steps < task.world.lengths(examples)[:, None]
    answer = np.where(alone, exact.argmax(axis=2), -1)
    number = task.world.strata(examples, steps).number
    return np.where(inside, number, -1), np.where(inside, np.take_along_axis(answer, steps, axis=1), -1)


def _draw(task: Strings, name: str, n: int, *, seed: int, half: int | None = None) -> Pairs:
    """Pairs of held-out strings. Raises ValueError where too few are found."""
    stratum, rng = task.world.stratum_names.index(name), np.random.default_rng([seed, 3])
    found: list[tuple[Any, Any, int, int, int]] = []
    tried = 0
    for block in range(_MAX_BLOCKS):
        examples = task.draw(_BLOCK, seed=seed, start=block * _BLOCK)
        if half is not None:
            examples = examples[np.flatnonzero(half_of(task.groups(examples)) == half)]
        steps = np.tile(np.arange(1, task.n_ctx), (len(examples), 1))
        number, answer = _places(task, examples, steps)
        for row in rng.permutation(len(examples)):
            places = np.flatnonzero((number[row] == stratum) & (answer[row] >= 0))
            if not len(places) or len(found) == n:
                continue
            tried += 1
            place = int(rng.choice(places))
            last = examples.values[:, place]  # the character that the token of this place shows
            others = np.flatnonzero((answer[:, place] >= 0) & (answer[:, place] != answer[row, place]))
            others = others[last[others] == last[row]]
            if len(others):
                other = int(rng.choice(others))
                characters = int(answer[row, place]), int(answer[other, place])
                found.append((examples[row : row + 1], examples[other : other + 1], place + 1, *characters))
        if len(found) == n:
            break
    if len(found) < n:
        raise ValueError(f"only {len(found)} of the {n} pairs asked for {name!r} in {_MAX_BLOCKS * _BLOCK} strings")
    kind: Any = type(found[0][0])
    clean, corrupted = (kind.concatenate([pair[side] for pair in found]) for side in (0, 1))
    return Pairs(
        task=task,
        contrast=name,
        clean=task.render(clean),
        corrupted=task.render(corrupted),
        positions=torch.tensor([[pair[2]] for pair in found]),
        clean_answer=torch.tensor([[pair[3]] for pair in found]),
        corrupted_answer=torch.tensor([[pair[4]] for pair in found]),
        weights=torch.ones(n, 1),
        groups=task.groups(clean).astype(np.int64),
        redraw_rate=1 - n / max(tried, n),
    )


def _first(task: Strings, name: str, n: int, seed: int) -> Batch:
    """The first held-out strings in which the stratum occurs, at most `n`."""
    stratum, examples = task.world.stratum_names.index(name), task.draw(8 * n, seed=seed)
    steps = np.tile(np.arange(1, task.n_ctx), (len(examples), 1))
    has = (_places(task, examples, steps)[0] == stratum).any(axis=1)
    return task.render(examples[np.flatnonzero(has)[:n]])
