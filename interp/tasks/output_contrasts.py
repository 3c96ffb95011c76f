"""Contrasts of `output`: two programs that differ in one executed instruction, and the outputs in which they differ.

For NEXT, PREV, INC, DEC, PUT and GET the clean program executes the instruction somewhere on its run; in the corrupted
one another of these stands in that place, uniform over the rest. Brackets stay, since the other of their pair would be
left alone, and so does the STOP that ends every program: neither has a contrast. Compared are the slots of the output
that differ at the end of the two runs; pairs without one are drawn again. Clean programs are held out; what the
exchange makes of one is a program of its own, that may not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast, Pairs, pairs_of
from interp.worlds.base import half as half_of
from interp.worlds.machine import Op, States

if TYPE_CHECKING:
    from interp.tasks.output import Output

EXCHANGED = (Op.NEXT, Op.PREV, Op.INC, Op.DEC, Op.PUT, Op.GET)
_BLOCK = 512  # programs drawn at a time
_MAX_BLOCKS = 200


def output_contrasts(task: Output) -> dict[str, Contrast]:
    """Every opcode of the machine but brackets and STOP."""
    return {
        op.name: Contrast(op.name, op.name, "instruction", partial(_draw, task, op), partial(_examples, task, op))
        for op in task.spec.ops
        if op in EXCHANGED
    }


def _draw(task: Output, op: Op, n: int, *, seed: int, half: int | None = None) -> Pairs:
    """Pairs of programs, the clean ones held out. Raises ValueError where too few execute the op to an effect."""
    cleans, corrupteds, compared, tried, found = [], [], [], 0, 0
    for block, starts in enumerate(_blocks(task, seed)):
        if half is not None:
            starts = starts[np.flatnonzero(half_of(task.groups(starts)) == half)]
        clean, corrupted = exchanged(task, starts, op, np.random.default_rng([seed, block, int(op)]))
        differ = np.not_equal(*(task.expected(task.world.answer(each)) for each in (clean, corrupted)))
        differ[:, [fact is not None for fact in task.facts() or differ.shape[1] * (None,)]] = False  # scratch slots
        rows = np.flatnonzero(differ.any(axis=1))
        tried, found = tried + len(clean), found + len(rows)
        cleans.append(clean[rows])
        corrupteds.append(corrupted[rows])
        compared.append(differ[rows])
        if found >= n:
            break
    if found < n:
        raise ValueError(f"only {found} of the {n} pairs asked for {op.name} in {_MAX_BLOCKS * _BLOCK} programs")
    clean, corrupted = (States.concatenate(parts)[:n] for parts in (cleans, corrupteds))
    slots = np.concatenate(compared)[:n]
    return pairs_of(task, op.name, clean, corrupted, compared=slots, redraw_rate=1 - found / tried)


def _examples(task: Output, op: Op, n: int, seed: int) -> Batch:
    """The first `n` held-out programs that execute the op; fewer if it is rare."""
    parts: list[States] = []
    for starts in _blocks(task, seed):
        parts.append(starts[np.flatnonzero(_executed(task, starts, op).any(axis=1))])
        if sum(map(len, parts)) >= n:
            break
    return task.render(States.concatenate(parts)[:n])


def _blocks(task: Output, seed: int) -> Iterator[States]:
    for block in range(_MAX_BLOCKS):
        yield task.draw(_BLOCK, seed=seed, start=block * _BLOCK)


def exchanged(task: Output, starts: States, op: Op, rng: np.random.Generator) -> tuple[States, States]:
    """The starts whose run executes the op, and these with one executed place of it, uniform, holding another op."""
    places = _executed(task, starts, op)
    rows = np.flatnonzero(places.any(axis=1))
    starts, places = starts[rows], places[rows]
    others = [other for other in EXCHANGED if other != op and other in task.spec.ops]
    slot = np.where(places, rng.random(places.shape), -1.0).argmax(axis=1)
    program = starts.program.copy()
    program[np.arange(len(starts)), slot] = np.array(others)[rng.integers(len(others), size=len(starts))]
    return starts, starts.replace("program", program)


def _executed(task: Output, starts: States, op: Op) -> np.ndarray:
    """Which places of each program hold the op and are executed, its freezing included, bool [n, n_instructions]."""
    run = task.world.run(starts, task.n_steps - 1)  # the states in which the at most n_steps instructions start
    assert run.states is not None
    reached = np.zeros(starts.program.shape, dtype=bool)
    reached[run.row_index, run.states.instruction_ptr] = True
    return reached & (starts.program == op)
