"""Pairs for interchange on one variable, with the world's exact answer: one form for every task.

Which token should come out where, after the edit and without it, is `[n, k]` with `valid` (ragged: a next state has
k = state_length, a stream the answers that depend on the edit). The edit acts at an executed step of base, and takes
its value from one of source; both are 0 where an example is one step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from interp.ranges import counted
from interp.stage_options import PairDesign
from interp.worlds.base import Split, World

if TYPE_CHECKING:
    from interp.tasks.base import Task
    from interp.tasks.batch import Batch

_MAX_DRAWS_PER_PAIR = 200  # before `counterfactual` gives up on a variable


@dataclass(frozen=True)
class Counterfactual:
    """Pairs for interchange on one variable."""

    variable: str
    base: Batch
    source: Batch
    values: np.ndarray  # what the variable is set to, int64 [n]: its value in source at source_time
    positions: Tensor  # long [n, k]: the token positions whose logits are judged
    expected: Tensor  # long [n, k]: the tokens that are right there with the edit; -1 where not valid
    unedited: Tensor  # long [n, k]: the tokens that are right there without it
    valid: Tensor  # bool [n, k]: whether the place is judged at all
    content: Tensor  # bool [n, k]: no punctuation
    edit_time: np.ndarray  # int64 [n]: the executed step of base at which the variable is set
    source_time: np.ndarray  # int64 [n]: the executed step of source that the value is taken from
    judged_time: np.ndarray  # int64 [n]: the executed step whose answer is judged
    redraw_rate: float  # share of drawn pairs rejected because no counterfactual value exists

    def __len__(self) -> int:
        return len(self.values)

    @property
    def changes(self) -> np.ndarray:
        """bool [n]: the edit changes the world's answer."""
        return ((self.expected != self.unedited) & self.valid).any(dim=1).numpy()


def check_design(task: Task, name: str, design: PairDesign) -> None:
    """Raise ValueError unless pairs of this design can be drawn for the variable."""
    if design not in ("independent", "minimal"):
        raise ValueError(f"design must be 'independent' or 'minimal', got {design!r}")
    if design == "minimal" and not task.has_minimal_pairs(name):
        raise ValueError(f"variable {name!r} has no minimal pairs: no single stored value decides it")


@counted(n=1)
def draw_counterfactual(
    task: Task,
    n: int,
    name: str,
    *,
    seed: int,
    design: PairDesign,
    split: Split,
    weights: np.ndarray | None,
) -> Counterfactual:
    """See `Task.counterfactual`."""
    task.world.settable(name)
    check_design(task, name, design)
    kept: list[_Drawn] = []
    found, drawn = 0, 0
    while found < n:
        size = max(64, 2 * (n - found))
        both = task.draw(2 * size, seed=seed, start=2 * drawn, split=split, weights=weights)
        drawn += size
        kept.append(_with_answers(task, both[0::2], both[1::2], name, design, np.random.default_rng([seed, drawn])))
        found += len(kept[-1].values)
        if found < n and drawn > _MAX_DRAWS_PER_PAIR * max(n, 10):
            raise ValueError(f"variable {name!r}: only {found} of {drawn} drawn pairs have a counterfactual value")
    bases, sources = (
        type(parts[0]).concatenate(parts)[:n] for parts in zip(*((k.base, k.source) for k in kept), strict=True)
    )
    values, expected, unedited, edit_time, source_time = (
        np.concatenate([getattr(each, field) for each in kept])[:n] for field in _Drawn._fields[2:]
    )
    right = torch.from_numpy(expected.astype(np.int64))
    return Counterfactual(
        variable=name,
        base=task.render(bases, expected),
        source=task.render(sources),
        values=values,
        positions=torch.from_numpy(np.tile(task.answer_positions, (n, 1))),
        expected=right,
        unedited=torch.from_numpy(unedited.astype(np.int64)),
        valid=right >= 0,
        content=torch.from_numpy(np.tile(task.content, (n, 1))),
        edit_time=edit_time.astype(np.int64),
        source_time=source_time.astype(np.int64),
        judged_time=edit_time.astype(np.int64),
        redraw_rate=1 - found / drawn,
    )


class _Drawn(NamedTuple):
    """Pairs that have a counterfactual value."""

    base: Any  # examples
    source: Any
    values: np.ndarray  # [n]
    expected: np.ndarray  # tokens [n, k]
    unedited: np.ndarray
    edit_time: np.ndarray  # [n]
    source_time: np.ndarray


def _with_answers(
    task: Task, base: Any, source: Any, name: str, design: PairDesign, rng: np.random.Generator
) -> _Drawn:
    """Those among drawn bases and sources in which setting the variable has an answer; minimal: where it changes."""
    world = task.world
    edit_time, source_time = task.edit_times(base, source, name, rng)
    if design == "minimal":
        source = minimal_source(world, base, source, task.edited_ancestors(name), rng=rng)
        source_time = edit_time
    values = world.read(source, name, source_time)
    edited = world.answer(base, do={name: values}, at=edit_time)
    keep = edited.valid & (values >= 0)
    if design == "minimal":
        keep &= values != world.read(base, name, edit_time)
    expected, unedited = task.expected(edited), task.expected(world.answer(base))
    rows = np.flatnonzero(keep)
    times = (np.broadcast_to(np.asarray(time), len(base))[rows] for time in (edit_time, source_time))
    return _Drawn(base[rows], source[rows], values[rows], expected[rows], unedited[rows], *times)


def minimal_source(world: World, base: Any, donor: Any, ancestors: Sequence[str], *, rng: np.random.Generator) -> Any:
    """Base with one of these stored variables (chosen per row) replaced by the donor's value."""
    roots = sorted(ancestors)
    choice = rng.integers(len(roots), size=len(base))
    parts, order = [base], [np.arange(len(base))]
    for index, root in enumerate(roots):
        values = world.read(donor, root)
        rows = np.flatnonzero((choice == index) & (values >= 0) & (world.read(base, root) >= 0))  # full slots alone
        parts.append(world.edit(base[rows], root, values[rows]))
        order.append(rows)
    # The last row written for an example is its edited one, where it has one.
    latest = np.zeros(len(base), dtype=np.int64)
    latest[np.concatenate(order)] = np.arange(sum(len(rows) for rows in order))
    return type(base).concatenate(parts)[latest]
