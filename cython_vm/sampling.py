"""Random states: programs uniform over all valid ones, pointers uniform, values and buffer lengths from mixtures.

Distributions. A program is exactly uniform over the valid programs of the machine, instruction_ptr uniform over its
slots, array_ptr uniform over the cells. The cells of a row, its input and its output each take one of four shapes with
probability 1/4: uniform, low-heavy (the smaller of two uniform draws), high-heavy (the larger of two), bell-shaped (the
mean of two). Each buffer's length takes one of four with probability 1/4: uniform over 0 … n, geometric
(P(k) = 2^-(k+1), cut at n), empty, full.

Row i of `sample(spec, n, seed=…, start=…)` depends only on (spec, seed, start + i, split, weights).
"""

from __future__ import annotations

import operator
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm._isa import Op, Outcome
from cython_vm._sampler import sample_rows
from cython_vm.spec import MachineSpec
from cython_vm.states import States

SPLITS = ("all", "train", "evaluation")
_ATTEMPTS = 1_000_000  # no stratum that exists needs more but with a chance below 1e-20
_ONE = 2**63  # thresholds are fractions of this


def sample(
    spec: MachineSpec,
    n: int,
    *,
    seed: int,
    start: int = 0,
    split: str = "all",
    weights: ArrayLike | None = None,
) -> States:
    """Rows start … start + n − 1 of the stream of `seed`: the same rows whatever the batch size or thread count.

    split: "all", "evaluation" (programs with `program_hash % 20 == 0`) or "train" (the others).
    weights: None for the natural distribution, or the shares of (op, outcome) strata, [9, 8], or of (op, outcome,
    branch_taken), [9, 8, 2] with 0 on the last axis for ops that are no loops. Inside a stratum rows keep the natural
    distribution. Raises ValueError on bad arguments, strata that cannot occur, and a split or stratum without programs.
    """
    n, seed, start = _integer("n", n), _integer("seed", seed), _integer("start", start)
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    strata, strata_thresholds = _strata(spec, weights)
    rows = np.empty((n, spec.row_bytes), dtype=np.uint8)
    failed, stratum = sample_rows(
        spec, seed, start, SPLITS.index(split), _ATTEMPTS, *_programs_table(spec), strata_thresholds, strata, rows
    )
    if failed >= 0:
        what = f" with {_stratum_name(*strata[stratum])}" if len(strata) else ""
        raise ValueError(f"found no program{what} in the {split!r} split of this small machine; use a larger one")
    return States(spec, rows)


def strata_weights(spec: MachineSpec, *, branches: bool = False) -> NDArray[np.float64]:
    """Equal weights on every stratum that can occur: [9, 8] over (op, outcome), or [9, 8, 2] over branch_taken too."""
    feasible = _feasible(spec)
    weights = feasible if branches else feasible.any(axis=2)
    return weights / weights.sum()


def count_programs(spec: MachineSpec) -> int:
    """How many valid programs the machine has."""
    return _completions(spec)[spec.n_instructions - 1][0]


def _completions(spec: MachineSpec) -> list[list[int]]:
    """completions[slots left][loops open]: how many ways to fill the slots so that all loops close."""
    plain = sum(op not in (Op.WHILE, Op.ENDW) for op in spec.ops) - (not spec.stops)
    free = spec.n_instructions - 1
    deepest = free // 2 + 1
    table = [[1] + [0] * deepest]
    for _ in range(free):
        last = [*table[-1], 0]
        table.append(
            [
                plain * last[depth] + (last[depth + 1] + (last[depth - 1] if depth else 0) if spec.loops else 0)
                for depth in range(deepest + 1)
            ]
        )
    return table


@lru_cache(maxsize=32)
def _programs_table(spec: MachineSpec) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.uint8]]:
    """How to choose one slot of a program, given the slots left (itself included) and the loops open.

    thresholds [n_instructions, depths, 2]: 2^63 × the share of completions that begin with WHILE, then with WHILE or
    ENDW; per_op [n_instructions, depths]: the other ops for each unit above the second; choices: their opcodes.
    The probability of every program is exact to within 2^-40 of itself.
    """
    completions = _completions(spec)
    plain = [op for op in spec.ops if op not in (Op.WHILE, Op.ENDW) and (spec.stops or op != Op.STOP)]
    deepest = len(completions[0]) - 1
    thresholds = np.zeros((spec.n_instructions, deepest + 1, 2), dtype=np.uint64)
    per_op = np.zeros((spec.n_instructions, deepest + 1), dtype=np.float64)
    for left in range(1, spec.n_instructions):
        after = [*completions[left - 1], 0]
        for depth in range(min(deepest, left) + 1):
            total = completions[left][depth]
            opens = after[depth + 1] if spec.loops else 0
            brackets = opens + (after[depth - 1] if spec.loops and depth else 0)
            if total:
                thresholds[left, depth] = opens * _ONE // total, brackets * _ONE // total
            if brackets < total:
                per_op[left, depth] = len(plain) / (_ONE - brackets * _ONE // total)
    choices = np.array([Op.WHILE, Op.ENDW, *plain], dtype=np.uint8)
    for table in (thresholds, per_op, choices):
        table.flags.writeable = False
    return thresholds, per_op, choices


@lru_cache(maxsize=32)
def _feasible(spec: MachineSpec) -> NDArray[np.bool_]:
    """Which (op, outcome, branch_taken) strata can occur at all, bool [9, 8, 2]."""
    feasible = np.zeros((len(Op), len(Outcome), 2), dtype=bool)
    free = spec.n_instructions - 1
    moves, loops = spec.n_cells > 1, spec.loops and free >= 2
    for op, ran, freeze in (
        (Op.NEXT, moves, Outcome.ARRAY_OVERFLOW),
        (Op.PREV, moves, Outcome.ARRAY_UNDERFLOW),
        (Op.INC, True, Outcome.VALUE_OVERFLOW),
        (Op.DEC, True, Outcome.VALUE_UNDERFLOW),
        (Op.PUT, spec.n_output > 0, Outcome.OUTPUT_FULL),
        (Op.GET, spec.n_input > 0, Outcome.INPUT_EMPTY),
    ):
        if op in spec.ops and free >= 1:
            feasible[op, Outcome.RAN, 0], feasible[op, freeze, 0] = ran, True
    feasible[[Op.WHILE, Op.ENDW], Outcome.RAN, :] = loops
    feasible[Op.STOP, Outcome.HALTED, 0] = True
    feasible.flags.writeable = False
    return feasible


def _strata(spec: MachineSpec, weights: ArrayLike | None) -> tuple[NDArray[np.int8], NDArray[np.uint64]]:
    """The strata with weight as (op, outcome, branch or −1) [k, 3], and their cumulative thresholds [k]."""
    if weights is None:
        return np.zeros((0, 3), dtype=np.int8), np.zeros(0, dtype=np.uint64)
    table = np.asarray(weights, dtype=np.float64)
    feasible = _feasible(spec)
    if table.shape == feasible.shape[:2]:
        feasible = feasible.any(axis=2)
    elif table.shape != feasible.shape:
        raise ValueError(f"weights must be [9, 8] or [9, 8, 2], got {list(table.shape)}")
    if not np.isfinite(table).all() or (table < 0).any() or not table.sum() > 0:
        raise ValueError("weights must be finite, not negative, and not all 0")
    strata = np.argwhere(table > 0)
    impossible = np.argwhere((table > 0) & ~np.asarray(feasible))
    if len(impossible):
        op, outcome, *branch = impossible[0].tolist()
        raise ValueError(f"weights ask for {_stratum_name(op, outcome, *branch)}, which cannot occur on this machine")
    shares = table[table > 0]
    if table.ndim == 2:
        strata = np.column_stack([strata, np.full(len(strata), -1)])
    else:
        strata[~np.isin(strata[:, 0], (Op.WHILE, Op.ENDW)), 2] = -1
    cumulative = np.cumsum(shares) / shares.sum()
    thresholds = np.minimum(cumulative * _ONE, _ONE).astype(np.uint64)
    return np.ascontiguousarray(strata, dtype=np.int8), thresholds


def _stratum_name(op: int, outcome: int, branch: int = -1) -> str:
    loop = op in (Op.WHILE, Op.ENDW)
    taken = {0: ", branch not taken" if loop else "", 1: ", branch taken"}.get(int(branch), "")
    return f"{Op(op).name} × {Outcome(outcome).name}{taken}"


def _integer(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if not 0 <= number < 2**64:
        raise ValueError(f"{name} must be from 0 to 2^64 − 1, got {number}")
    return number
