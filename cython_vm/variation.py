"""Variation of programs: mutation and crossover that always leave a valid program, for whole batches at once.

Each operator edits opcodes freely; `repair` then makes the result a program of the machine: a bracket without a partner
becomes a random plain instruction, and the last slot holds STOP.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cython_vm._isa import Op
from cython_vm.spec import MachineSpec

Programs = NDArray[np.uint8]


def vary(spec: MachineSpec, parents: Programs, mates: Programs, rng: np.random.Generator) -> Programs:
    """One child of every parent, by one operator drawn uniformly; uint8 [n, n_instructions], every row valid.

    Operators: substitute (each slot with a chance of about 1.5 / n), insert one instruction, delete one, wrap a stretch
    in a loop, copy a stretch elsewhere, splice (the parent's beginning, then the mate's end).
    parents, mates: uint8 [n, n_instructions], valid programs; only splice uses the mate.
    """
    operators = [_substitute, _insert, _delete, _copy, _splice] + ([_wrap] if spec.loops else [])
    children = parents.copy()
    chosen = rng.integers(len(operators), size=len(parents))
    for number, operator in enumerate(operators):
        rows = np.flatnonzero(chosen == number)
        children[rows] = operator(spec, parents[rows], mates[rows], rng)
    return repair(spec, children, rng)


def repair(spec: MachineSpec, programs: Programs, rng: np.random.Generator) -> Programs:
    """Valid programs, changed only where they must be; a valid row stays as it is. Opcodes must be the machine's."""
    slots = programs.T.copy()  # [n_instructions, n]: a slot of all programs lies together
    slots[-1] = Op.STOP
    wrong = np.zeros(slots.shape, dtype=bool)
    if not spec.stops:
        wrong[:-1] = slots[:-1] == Op.STOP
    wrong |= _unmatched(slots, Op.WHILE, Op.ENDW)
    wrong[::-1] |= _unmatched(slots[::-1], Op.ENDW, Op.WHILE)
    slots[wrong] = rng.choice(_plain_ops(spec), size=int(wrong.sum()))
    return np.ascontiguousarray(slots.T)


def _unmatched(slots: Programs, opening: Op, closing: Op) -> NDArray[np.bool_]:
    """Which closing brackets have no opening one before them, bool [n_instructions, n]."""
    unmatched = np.zeros(slots.shape, dtype=bool)
    depth = np.zeros(slots.shape[1], dtype=np.int16)
    for at, ops in enumerate(slots):
        closes = ops == closing
        unmatched[at] = closes & (depth == 0)
        depth += ops == opening
        depth -= closes & ~unmatched[at]
    return unmatched


def _plain_ops(spec: MachineSpec) -> Programs:
    return np.array([op for op in spec.ops if op not in (Op.WHILE, Op.ENDW, Op.STOP)], dtype=np.uint8)


def _random_ops(spec: MachineSpec, size: int | tuple[int, int], rng: np.random.Generator) -> Programs:
    return rng.choice(np.array([op for op in spec.ops if op != Op.STOP or spec.stops], dtype=np.uint8), size=size)


def _cuts(programs: Programs, rng: np.random.Generator) -> NDArray[np.int64]:
    """One slot of every program, [n, 1]."""
    return rng.integers(programs.shape[1], size=(len(programs), 1))


def _take(programs: Programs, slots: NDArray[np.int64]) -> Programs:
    """programs[row, slots[row, k]], STOP beyond the end."""
    last = programs.shape[1] - 1
    return np.where(slots <= last, np.take_along_axis(programs, np.minimum(slots, last), axis=1), np.uint8(Op.STOP))


def _substitute(spec: MachineSpec, programs: Programs, mates: Programs, rng: np.random.Generator) -> Programs:
    drawn = rng.random(programs.shape) < 1.5 / programs.shape[1]
    return np.where(drawn, _random_ops(spec, programs.shape, rng), programs)


def _insert(spec: MachineSpec, programs: Programs, mates: Programs, rng: np.random.Generator) -> Programs:
    slot, at = np.arange(programs.shape[1]), _cuts(programs, rng)
    return np.where(slot == at, _random_ops(spec, (len(programs), 1), rng), _take(programs, slot - (slot > at)))


def _delete(spec: MachineSpec, programs: Programs, mates: Programs, rng: np.random.Generator) -> Programs:
    slot = np.arange(programs.shape[1])
    return _take(programs, slot + (slot >= _cuts(programs, rng)))


def _wrap(spec: MachineSpec, programs: Programs, mates: Programs, rng: np.random.Generator) -> Programs:
    slot = np.arange(programs.shape[1])
    one, other = _cuts(programs, rng), _cuts(programs, rng)
    opening, closing = np.minimum(one, other), np.maximum(one, other) + 1
    wrapped = _take(programs, slot - (slot > opening) - (slot > closing))
    return np.where(slot == opening, np.uint8(Op.WHILE), np.where(slot == closing, np.uint8(Op.ENDW), wrapped))


def _copy(spec: MachineSpec, programs: Programs, mates: Programs, rng: np.random.Generator) -> Programs:
    slot = np.arange(programs.shape[1])
    source, target, length = _cuts(programs, rng), _cuts(programs, rng), 1 + _cuts(programs, rng) // 2
    inside = (slot >= target) & (slot < target + length)
    return np.where(inside, _take(programs, np.maximum(slot - target + source, 0)), programs)


def _splice(spec: MachineSpec, programs: Programs, mates: Programs, rng: np.random.Generator) -> Programs:
    slot, at, from_mate = np.arange(programs.shape[1]), _cuts(programs, rng), _cuts(programs, rng)
    return np.where(slot < at, programs, _take(mates, np.maximum(slot - at + from_mate, 0)))
