"""Pairs of streams for state interchange: a variable set at one executed step, and the first answer that hangs on it.

Pairs are aligned: source, too, is about to take an instruction at the position where the carrier is exchanged. Cells
are taken from sources that have visited them, since before that every stream holds 0 there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from interp.ranges import counted
from interp.tasks.state_pairs import RETRIEVED, Kind, StatePairs
from interp.tasks.trace_pairs import bystanders_of, edits_of
from interp.worlds.base import Split
from interp.worlds.machine import Op, States
from interp.worlds.machine.relative import offset_of
from interp.worlds.machine.streams import StreamLabels

if TYPE_CHECKING:
    from interp.tasks.trace import Trace
    from interp.tasks.trace_batch import TraceBatch

_POOL = 384  # streams that are paired among themselves
_MAX_POOLS = 60


@counted(n=1)
def draw_state_pairs(
    task: Trace, n: int, name: str, *, seed: int, split: Split = "evaluation", kind: Kind = "stored"
) -> StatePairs:
    """`n` pairs whose edit changes the answer, with the others that were met on the way, at most as many.

    Args:
        task: shows the streams.
        n: pairs that change the answer.
        name: a variable that can be set: array_ptr, operand, cell[i] or cell[@array_ptr+k].
        seed: of streams and choices.
        split: whose streams.
        kind: "stored"; "retrieved": edited at the judged instruction itself, with a source that is asked there, too; or
            "bystander": the first answer behind the edit reads another cell, and must stay as it is. Of these, `n` in
            all.

    Raises:
        ValueError: another variable, or pairs that are found too rarely.
    """
    if not task.can_swap(name):
        raise ValueError(f"in streams operand, array_ptr, cell[i] and cell[@array_ptr+k] can be set; got {name!r}")
    if kind == "bystander" and name in (RETRIEVED, "array_ptr"):
        raise ValueError(f"every answer hangs on {name}: it has no bystanders")
    rng = np.random.default_rng([seed, 7])
    found: list[dict[str, np.ndarray]] = []
    kept = drawn = 0
    for pool in range(_MAX_POOLS):
        states = task.draw(_POOL, seed=seed, start=pool * _POOL, split=split)
        rows = _paired(task, states, name, rng, kind=kind)
        found.append(rows)
        drawn += _POOL
        kept += len(rows["expected"]) if kind == "bystander" else int((rows["expected"] != rows["unedited"]).sum())
        if kept >= n:
            break
    else:
        raise ValueError(f"variable {name!r}: only {kept} of {drawn} streams have a pair that changes an answer")
    columns = {key: np.concatenate([each[key] for each in found]) for key in found[0]}
    changes = columns["expected"] != columns["unedited"]
    chosen = np.concatenate([np.flatnonzero(changes)[:n], np.flatnonzero(~changes)[:n]])
    tensors: dict[str, Any] = {key: torch.from_numpy(values[chosen]) for key, values in columns.items()}
    return StatePairs(variable=name, **tensors, redraw_rate=1 - len(changes) / drawn)


def _paired(task: Trace, states: States, name: str, rng: np.random.Generator, *, kind: Kind) -> dict[str, np.ndarray]:
    """The pairs among some streams: each is base once where it can be."""
    batch, world = task.render(states), task.world
    tokens, asked = batch.tokens.numpy(), batch.loss_mask.numpy()
    takes = (batch.step_of >= 0) & ~batch.is_answer & (np.arange(tokens.shape[1]) > 0)  # an instruction stands there
    values = world.read(states, name, np.where(takes, batch.step_of, -1))  # [stream, pos]
    known = np.where(_visited(task, batch, name), values, -1)
    pointer = world.read(states, "array_ptr", np.where(takes, batch.step_of, -1))
    edits = (bystanders_of if kind == "bystander" else edits_of)(task, states, name, rng)
    if kind == "retrieved":
        edits[:, 0] = edits[:, 1]
    usable = np.flatnonzero(edits[:, 0] >= 0)
    op_at = np.zeros((2, len(states)), dtype=np.int64)  # of the edited and of the judged instruction
    for place in range(2):
        op_at[place, usable] = batch[usable].op_position(edits[usable, place])
    source = _sources(values, known, asked if kind == "retrieved" else takes, op_at[0], usable, rng)
    rows = usable[source[0, usable] >= 0]
    at, judged = op_at[0, rows], op_at[1, rows]
    taken = known[source[0, rows], at]
    answers = task.answered(world.answer(states[rows], do={name: taken}, at=edits[rows, 0]), edits[rows, 1])[:, 0]
    keep = answers >= 0
    rows, at, judged, taken, answers = rows[keep], at[keep], judged[keep], taken[keep], answers[keep]
    ops = np.array([Op[each] if each in Op.__members__ else -1 for each in task.vocab])
    same = np.where(source[1, rows, None] >= 0, tokens[source[1, rows]], -1)
    return {
        "base": tokens[rows],
        "source": tokens[source[0, rows]],
        "same": same,
        "at": at - 1,
        "other_at": source[2, rows] - 1,
        "positions": judged,
        "expected": answers,
        "unedited": batch.targets.numpy()[rows, judged],
        "values": taken,
        "own": known[rows, at],
        "lag": edits[rows, 1] - edits[rows, 0],
        "op": ops[tokens[rows, judged]],
        "apart": pointer[rows, at] != pointer[source[0, rows], at],
        "groups": task.groups(states[rows]).astype(np.int64),
    }


def _sources(
    values: np.ndarray,
    known: np.ndarray,
    fits: np.ndarray,
    places: np.ndarray,
    usable: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """For each usable stream a source, one of the same value, and another position of the source: [3, stream], or -1.

    A source `fits` and is `known` at the stream's own place; all [stream, pos]. The other position has another value
    where there is such a one.
    """
    source = np.full((3, len(values)), -1)
    for row in usable:
        place = places[row]
        there = fits[:, place] & (known[:, place] >= 0)
        there[row] = False
        others = np.flatnonzero(there)
        if not len(others):
            continue
        source[0, row] = chosen = rng.choice(others)
        alike = others[values[others, place] == values[row, place]]
        if len(alike):
            source[1, row] = rng.choice(alike)
        elsewhere = np.flatnonzero((known[chosen] >= 0) & (np.arange(values.shape[1]) != place))
        different = elsewhere[values[chosen, elsewhere] != values[chosen, place]]
        source[2, row] = rng.choice(different) if len(different) else rng.choice(elsewhere) if len(elsewhere) else place
    return source


def _visited(task: Trace, batch: TraceBatch, name: str) -> np.ndarray:
    """Where a cell has been visited, bool [stream, pos]: before, it holds 0 in every stream. Others: everywhere."""
    if name == "array_ptr" or name == RETRIEVED:
        return np.ones(batch.tokens.shape, dtype=bool)
    known, offset = StreamLabels(task.spec, batch.run), offset_of(name)
    if offset is not None:
        return known.read(name, seen="op")[batch.state_of] >= 0
    return known.visited[:, int(name[len("cell[") : -1])][batch.state_of]
