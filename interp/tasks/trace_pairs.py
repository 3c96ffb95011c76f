"""Pairs of streams for interchange: what the next answer would be, were a variable something else at one step.

Later tokens of the base stream contradict the counterfactual, so only the first answer (what PUT emits, or a branch)
that depends on the edited variable is judged. Until there the edited run takes the same instructions, so the machine
runs it from the edited state.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from interp.ranges import counted
from interp.tasks.counterfactual import Counterfactual, PairDesign, check_design
from interp.worlds.base import Split
from interp.worlds.machine import MachineWorld, Op, States
from interp.worlds.machine.relative import offset_of

if TYPE_CHECKING:
    from interp.tasks.trace import Trace

JUDGED = (Op.PUT, Op.WHILE, Op.ENDW)  # ops whose answer a model is asked for
_MAX_DRAWS_PER_PAIR = 200


@counted(n=1)
def draw_stream_pairs(task: Trace, n: int, name: str, *, seed: int, design: PairDesign, split: Split) -> Counterfactual:
    """See `Trace.counterfactual`."""
    world = task.world
    world.settable(name)
    family = name.partition("[")[0]
    if family not in ("operand", "array_ptr", "cell"):
        raise ValueError(f"in streams operand, array_ptr, cell[i] and cell[@array_ptr+k] can be swapped; got {name!r}")
    check_design(task, name, design)
    rng = np.random.default_rng([seed, 1])
    offset = offset_of(name)
    cell = int(name[len("cell[") : -1]) if family == "cell" and offset is None else None
    bases, sources, columns = [], [], []
    found = drawn = 0
    while found < n:
        size = max(64, 2 * (n - found))
        each = 1 if design == "minimal" else 2
        states = task.draw(each * size, seed=seed, start=each * drawn, split=split)
        drawn += size
        base, other = states[0::each], states[each - 1 :: each]
        edits = edits_of(task, base, name, rng)
        if design == "minimal":
            other = _other_input(world, base, edits[:, 0], task.n_steps, cell, rng)
        good, some = _with_answers(task, base, other, name, edits, rng, minimal=design == "minimal")
        found += len(good)
        bases.append(base[good])
        sources.append(other[good])
        columns.append(some)
        if found < n and drawn > _MAX_DRAWS_PER_PAIR * max(n, 10):
            raise ValueError(f"variable {name!r}: only {found} of {drawn} drawn pairs have a counterfactual value")
    base, source = (task.render(States.concatenate(each)[:n]) for each in (bases, sources))
    values, edit_step, source_step, judged_step, expected = np.concatenate(columns, axis=1)[:, :n]
    judged = torch.from_numpy(base.op_position(judged_step))[:, None]
    return Counterfactual(
        variable=name,
        base=base,
        source=source,
        values=values,
        positions=judged,
        expected=torch.from_numpy(expected)[:, None],
        unedited=base.targets.gather(1, judged),
        valid=torch.ones(n, 1, dtype=torch.bool),
        content=torch.ones(n, 1, dtype=torch.bool),
        edit_time=edit_step,
        source_time=source_step,
        judged_time=judged_step,
        redraw_rate=1 - found / drawn,
    )


def _with_answers(
    task: Trace, base: States, other: States, name: str, edits: np.ndarray, rng: np.random.Generator, *, minimal: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The rows in which other's value, put into base, has an answer (minimal: and is another one than base's).

    Beside them, int64 [5, rows]: the value, the step of base that is edited, the step of other that it is taken from,
    the step that is judged, and its answer.
    """
    world = task.world
    there, source_step = _source_steps(world, base, other, edits[:, 0], task.n_steps, rng, same=minimal)
    rows = np.flatnonzero((edits[:, 0] >= 0) & there)
    values = world.read(other[rows], name, source_step[rows])
    answer, valid = _edited_answer(task, base[rows], name, values, edits[rows, 0], edits[rows, 1])
    if minimal:
        valid &= values != world.read(base[rows], name, edits[rows, 0])
    good = rows[valid]
    return good, np.stack([values[valid], edits[good, 0], source_step[good], edits[good, 1], answer[valid]])


def edits_of(task: Trace, starts: States, name: str, rng: np.random.Generator) -> np.ndarray:
    """For each run a step to edit and the first answered step that depends on it, int64 [n, 2]; -1 where none is.

    The answered step is uniform among those that can be judged, the edited one uniform among those that it is the first
    answer of.
    """
    family, offset = name.partition("[")[0], offset_of(name)
    cell = int(name[len("cell[") : -1]) if family == "cell" and offset is None else None
    edits = np.full((len(starts), 2), -1)
    for row, (op, array_ptr) in enumerate(_executed(task.world, starts, task.n_steps)):
        answered = np.isin(op, JUDGED)
        candidates = answered if cell is None else answered & (array_ptr == cell)
        if not candidates.any():
            continue
        judged = int(rng.choice(np.flatnonzero(candidates)))
        before = np.arange(len(op)) < judged
        at_cell = array_ptr == array_ptr[judged]
        # What ends the window: an earlier answer that depends on the edit too, or a GET that overwrites it.
        ends = before & (answered if family == "array_ptr" else at_cell & (answered | (op == Op.GET)))
        first = int(np.flatnonzero(ends).max(initial=-1)) + 1
        steps = np.arange(first, judged + 1)
        if offset is not None:  # where the cell lies that far from the pointer
            steps = steps[array_ptr[steps].astype(np.int64) + offset == array_ptr[judged]]
            if not len(steps):
                continue
        if family == "operand":  # only what reads the cell and passes it on
            steps = steps[(steps == judged) | (at_cell[steps] & np.isin(op[steps], (Op.INC, Op.DEC)))]
        edits[row] = rng.choice(steps), judged
    return edits


def bystanders_of(task: Trace, starts: States, name: str, rng: np.random.Generator) -> np.ndarray:
    """For each run a step at which a cell is set and the first answered step behind it, which reads another cell.

    As `edits_of`; the answer does not hang on the edit.
    """
    offset, edits = offset_of(name), np.full((len(starts), 2), -1)
    cell = int(name[len("cell[") : -1]) if offset is None else None
    for row, (op, array_ptr) in enumerate(_executed(task.world, starts, task.n_steps)):
        pointer = array_ptr.astype(np.int64)
        answered = np.flatnonzero(np.isin(op, JUDGED))
        if not len(answered):
            continue
        place = int(rng.integers(len(answered)))
        judged = int(answered[place])
        steps = np.arange(int(answered[place - 1]) + 1 if place else 0, judged + 1)
        places = np.full(len(steps), cell) if offset is None else pointer[steps] + offset
        steps = steps[places != pointer[judged]]
        if len(steps):
            edits[row] = rng.choice(steps), judged
    return edits


def _executed(world: MachineWorld, starts: States, n_steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each run, op and array_ptr of the instructions that ran."""
    runs = world.run(starts, n_steps)
    assert runs.states is not None and runs.offsets is not None
    op, array_ptr = world.step(runs.states).latents["op"], runs.states.array_ptr
    for begin, count in zip(runs.offsets[:-1], runs.n_steps, strict=True):
        yield op[begin : begin + count], array_ptr[begin : begin + count]


def _other_input(
    world: MachineWorld, base: States, edit_step: np.ndarray, n_steps: int, cell: int | None, rng: np.random.Generator
) -> States:
    """The same programs with another value in the slot of the input that was last read into the cell in question (the
    one under the pointer, unless `cell` says which) before edit_step; unchanged where there is none."""
    inputs, n_values = base.input.copy(), base.spec.max_value + 1
    for row, ((op, array_ptr), edit) in enumerate(zip(_executed(world, base, n_steps), edit_step, strict=True)):
        reads = np.flatnonzero(op[: max(edit, 0)] == Op.GET)
        into = (
            np.flatnonzero(array_ptr[reads] == (array_ptr[edit] if cell is None else cell)) if edit >= 0 else reads[:0]
        )
        if len(into):  # the k-th GET reads slot k
            inputs[row, into[-1]] = (inputs[row, into[-1]] + rng.integers(1, n_values)) % n_values
    return base.replace("input", inputs)


def _source_steps(
    world: MachineWorld,
    base: States,
    other: States,
    edit_step: np.ndarray,
    n_steps: int,
    rng: np.random.Generator,
    *,
    same: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Whether source has a step to take the value from, bool [n], and which: any, or base's own after the same ops."""
    there, steps = np.zeros(len(base), dtype=bool), np.zeros(len(base), dtype=np.int64)
    runs = zip(_executed(world, base, n_steps), _executed(world, other, n_steps), edit_step, strict=True)
    for row, ((base_op, _), (op, _), edit) in enumerate(runs):
        if not same:
            there[row], steps[row] = len(op) > 0, rng.integers(max(1, len(op)))
        elif edit >= 0:
            there[row] = len(op) > edit and np.array_equal(op[: edit + 1], base_op[: edit + 1])
            steps[row] = edit
    return there, steps


def _edited_answer(
    task: Trace, starts: States, name: str, values: np.ndarray, edit_step: np.ndarray, judged_step: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The token that answers at `judged_step` if the variable was set at `edit_step`, and whether there is one."""
    tokens = task.answered(task.world.answer(starts, do={name: values}, at=edit_step), judged_step)[:, 0]
    # A run that froze on the way has not taken all steps: its instruction is not one that answers there.
    return tokens, tokens >= 0
