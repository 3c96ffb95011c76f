"""Pairs of streams for interchange: what the next answer would be, were a variable something else at one step.

Later tokens of the base stream contradict the counterfactual, so only the first answer (what PUT emits, or a branch)
that depends on the edited variable is judged. Until there the edited run takes the same instructions, so the machine
runs it from the edited state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cython_vm import Op, States, run, step, variable
from cython_vm.reachable import advance
from interp.tasks.base import PairDesign, Split

if TYPE_CHECKING:
    from interp.tasks.trace import Trace, TraceBatch

_JUDGED = (Op.PUT, Op.WHILE, Op.ENDW)
_MAX_DRAWS_PER_PAIR = 200


@dataclass(frozen=True)
class TraceCounterfactual:
    """Pairs for interchange on one variable in streams. Every array is [n]; positions are token positions."""

    base: TraceBatch
    source: TraceBatch
    values: np.ndarray  # what the variable is set to: its value in source at source_step
    edit_step: np.ndarray  # the executed instruction of base at which the variable is set
    edit_position: np.ndarray  # the position of its op in base; the position before it has seen all of S_k as well
    source_step: np.ndarray
    source_position: np.ndarray
    judged_step: np.ndarray  # the first answered instruction from edit_step on that depends on the variable
    judged_position: np.ndarray  # where base is asked for that answer
    expected: np.ndarray  # the token that is right there after the edit
    base_answer: np.ndarray  # the token that is right there without it
    redraw_rate: float  # share of drawn pairs rejected because no counterfactual value exists

    @property
    def changes(self) -> np.ndarray:
        """bool [n]: the edit changes the answer."""
        return self.expected != self.base_answer

    def __len__(self) -> int:
        return len(self.values)


def draw_pairs(task: Trace, n: int, name: str, *, seed: int, design: PairDesign, split: Split) -> TraceCounterfactual:
    """See `Trace.counterfactual`."""
    chosen = variable(task.spec, name)
    family = name.partition("[")[0]
    if family not in ("operand", "array_ptr", "cell"):
        raise ValueError(f"in streams operand, array_ptr and cell[i] can be swapped; got {name!r}")
    if design not in ("independent", "minimal"):
        raise ValueError(f"design must be 'independent' or 'minimal', got {design!r}")
    if design == "minimal" and not task.has_minimal_pairs(name):
        raise ValueError(f"variable {name!r} has no minimal pairs: no single value that is read decides it")
    rng = np.random.default_rng([seed, 1])
    cell = chosen.index if family == "cell" else None
    bases, sources, columns = [], [], []
    found = drawn = 0
    while found < n:
        size = max(64, 2 * (n - found))
        each = 1 if design == "minimal" else 2
        states = task.draw(each * size, seed=seed, start=each * drawn, split=split)
        drawn += size
        base, other = states[0::each], states[each - 1 :: each]
        edits = _edits(base, task.n_steps, family, cell, rng)  # [size, 2]: edit and judged step, -1 for none
        if design == "minimal":
            other = _other_input(base, edits[:, 0], task.n_steps, cell, rng)
        there, source_step = _source_steps(base, other, edits[:, 0], task.n_steps, rng, same=design == "minimal")
        keep = (edits[:, 0] >= 0) & there
        rows = np.flatnonzero(keep)
        at_edit, at_source = advance(base[rows], edits[rows, 0]), advance(other[rows], source_step[rows])
        values = chosen.read(at_source)
        answer, valid = _edited_answer(task, at_edit, name, values, edits[rows, 1] - edits[rows, 0])
        if design == "minimal":
            valid &= values != chosen.read(at_edit)
        good = rows[valid]
        found += len(good)
        bases.append(base[good])
        sources.append(other[good])
        columns.append(np.stack([values[valid], edits[good, 0], source_step[good], edits[good, 1], answer[valid]]))
        if found < n and drawn > _MAX_DRAWS_PER_PAIR * max(n, 10):
            raise ValueError(f"variable {name!r}: only {found} of {drawn} drawn pairs have a counterfactual value")
    base, source = (task.batch(States.concatenate(each)[:n]) for each in (bases, sources))
    values, edit_step, source_step, judged_step, expected = np.concatenate(columns, axis=1)[:, :n]
    judged_position = base.op_position(judged_step)
    return TraceCounterfactual(
        base,
        source,
        values,
        edit_step,
        base.op_position(edit_step),
        source_step,
        source.op_position(source_step),
        judged_step,
        judged_position,
        expected,
        base.targets.numpy()[np.arange(n), judged_position],
        redraw_rate=1 - found / drawn,
    )


def _edits(starts: States, n_steps: int, family: str, cell: int | None, rng: np.random.Generator) -> np.ndarray:
    """For each run a step to edit and the first answered step that depends on it, int64 [n, 2]; -1 where none is.

    The answered step is uniform among those that can be judged, the edited one uniform among those that it is the first
    answer of.
    """
    edits = np.full((len(starts), 2), -1)
    for row, (op, array_ptr) in enumerate(_executed(starts, n_steps)):
        answered = np.isin(op, _JUDGED)
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
        if family == "operand":  # only what reads the cell and passes it on
            steps = steps[(steps == judged) | (at_cell[steps] & np.isin(op[steps], (Op.INC, Op.DEC)))]
        edits[row] = rng.choice(steps), judged
    return edits


def _executed(starts: States, n_steps: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each run, op and array_ptr of the instructions that ran."""
    told = run(starts, n_steps)
    assert told.states is not None and told.offsets is not None
    op, array_ptr = step(told.states).latents["op"], told.states.array_ptr
    for begin, count in zip(told.offsets[:-1], told.n_steps, strict=True):
        yield op[begin : begin + count], array_ptr[begin : begin + count]


def _other_input(
    base: States, edit_step: np.ndarray, n_steps: int, cell: int | None, rng: np.random.Generator
) -> States:
    """The same programs with another value in the slot of the input that was last read into the cell in question (the
    one under the pointer, unless `cell` says which) before edit_step; unchanged where there is none."""
    inputs, n_values = base.input.copy(), base.spec.max_value + 1
    for row, ((op, array_ptr), edit) in enumerate(zip(_executed(base, n_steps), edit_step, strict=True)):
        reads = np.flatnonzero(op[: max(edit, 0)] == Op.GET)
        into = (
            np.flatnonzero(array_ptr[reads] == (array_ptr[edit] if cell is None else cell)) if edit >= 0 else reads[:0]
        )
        if len(into):  # the k-th GET reads slot k
            inputs[row, into[-1]] = (inputs[row, into[-1]] + rng.integers(1, n_values)) % n_values
    return base.replace("input", inputs)


def _source_steps(
    base: States, other: States, edit_step: np.ndarray, n_steps: int, rng: np.random.Generator, *, same: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Whether source has a step to take the value from, bool [n], and which: any, or base's own after the same ops."""
    there, steps = np.zeros(len(base), dtype=bool), np.zeros(len(base), dtype=np.int64)
    runs = zip(_executed(base, n_steps), _executed(other, n_steps), edit_step, strict=True)
    for row, ((base_op, _), (op, _), edit) in enumerate(runs):
        if not same:
            there[row], steps[row] = len(op) > 0, rng.integers(max(1, len(op)))
        elif edit >= 0:
            there[row] = len(op) > edit and np.array_equal(op[: edit + 1], base_op[: edit + 1])
            steps[row] = edit
    return there, steps


def _edited_answer(
    task: Trace, states: States, name: str, values: np.ndarray, distance: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The token that answers `distance` steps after the edited one, and whether the edited run gets there."""
    edited = step(states, do={name: values})
    tokens = np.where(edited.valid, task.answer_tokens(edited.latents), -1)
    later = np.flatnonzero(edited.valid & (edited.outcome == 0) & (distance > 0))
    valid = edited.valid & (edited.outcome == 0) & (distance == 0)
    steps = distance[later] - 1
    judged = advance(edited.next[later], steps)
    transition = step(judged)
    # A run that froze on the way has not taken all steps: its instruction is not one that answers there.
    arrived = _ran_all(edited.next[later], steps) & (transition.outcome == 0)
    tokens[later] = task.answer_tokens(transition.latents)
    valid[later] = arrived
    return tokens, valid


def _ran_all(states: States, steps: np.ndarray) -> np.ndarray:
    """Whether each run makes so many steps without stopping."""
    return run(states, int(steps.max(initial=0)), keep="last").n_steps >= steps
