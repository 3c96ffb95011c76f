"""Random states: programs uniform over all valid ones, pointers uniform, values and buffer lengths from mixtures.

Distributions. A program is exactly uniform over the valid programs of the machine, instruction_ptr uniform over its
slots, array_ptr uniform over the cells. The cells of a row, its input and its output each take one of four shapes with
probability 1/4: uniform, low-heavy (the smaller of two uniform draws), high-heavy (the larger of two), bell-shaped (the
mean of two). Each buffer's length takes one of four with probability 1/4: uniform over 0 … n, geometric
(P(k) = 2^-(k+1), cut at n), empty, full.

A padded machine's rows first draw sizes of their own, each uniform over its range.

Row i of `sample(spec, n, seed=…, start=…)` depends only on (spec, seed, start + i, and the options).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm._isa import Op, Outcome
from cython_vm._sampler import Stream
from cython_vm.arguments import check_choice, check_kind, check_mapping, integers, numbers
from cython_vm.spec import SIZES, MachineSpec
from cython_vm.splits import SPLITS
from cython_vm.states import States

STRATA = ("outcome", "loop_depth", "jump_distance")  # what `weights` may be shares of
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
    by: str = "outcome",
    sizes: Mapping[str, tuple[int, int]] | None = None,
    rows: ArrayLike | None = None,
) -> States:
    """Rows start … start + n − 1 of the stream of `seed`: the same rows whatever the batch size or thread count.

    split: by `program_hash % 20`: "evaluation" (0), "validation" (1), "fit" (the others), "train" (all but evaluation)
    or "all".
    weights: None for the natural distribution, or the shares of strata, inside which rows keep the natural one.
    by: what the strata are. "outcome": (op, outcome), [9, 8], or (op, outcome, branch_taken), [9, 8, 2] with 0 on the
    last axis for ops that are no loops. "loop_depth": how many loops are open at instruction_ptr, [depths].
    "jump_distance": slots from the bracket at instruction_ptr to its partner, 0 for no bracket, [n_instructions − 1].
    `strata_weights` gives arrays of the right shape.
    sizes: for a padded machine, the (smallest, largest) of a row's own "n_instructions", "n_cells", "n_input",
    "n_output"; what is left out goes from 1 (buffers: 0) to the machine's size.
    rows: integers [n], the numbers of the rows to draw in place of start … start + n − 1, in any order.
    Raises ValueError on bad arguments, strata that cannot occur, and a split or stratum without programs.
    """
    n, start = row_range(n, start)
    numbered = row_numbers(rows, n, start)
    drawn = stream(spec, seed=seed, split=split, weights=weights, by=by, sizes=sizes)
    try:
        packed = np.empty((n, spec.row_bytes), dtype=np.uint8)
    except (MemoryError, ValueError):
        raise MemoryError(f"n = {n} states of {spec.row_bytes} bytes each do not fit into memory") from None
    check_drawn(drawn, *drawn.rows(start, packed, numbered))
    return States.wrap(spec, packed)


def row_range(n: int, start: int) -> tuple[int, int]:
    """How many rows of a stream from which on, checked."""
    n, start = _integer("n", n), _integer("start", start)
    if start + n > 2**64:
        raise ValueError(f"start + n must not pass 2^64, the rows of a stream; got {start} + {n}")
    return n, start


def row_numbers(rows: ArrayLike | None, n: int, start: int) -> NDArray[np.uint64] | None:
    """The numbers of n rows, checked; None where they are start, start + 1, …"""
    if rows is None:
        return None
    given = integers("rows", rows)
    if given.shape != (n,) or (n and given.dtype.kind not in "iu"):
        raise ValueError(f"rows must be n = {n} integers, got {given.dtype} {list(given.shape)}")
    if start:
        raise ValueError(f"rows are drawn in place of start … start + n − 1; got rows and start = {start}")
    if n and given.dtype.kind == "i" and given.min() < 0:
        raise ValueError(f"rows must not be negative, got {given.min()}")
    return np.ascontiguousarray(given, dtype=np.uint64)


def stream(
    spec: MachineSpec,
    *,
    seed: int,
    split: str,
    weights: ArrayLike | None,
    by: str,
    sizes: Mapping[str, tuple[int, int]] | None,
) -> Stream:
    """What `sample` draws rows of, for the kernels. The arguments are those of `sample`, and checked."""
    check_kind("spec", spec, MachineSpec)
    seed = _integer("seed", seed)
    check_choice("split", split, SPLITS)
    check_choice("by", by, STRATA)
    ranges = _size_ranges(spec, sizes)
    strata, strata_thresholds = _strata(spec, weights, by)
    depths = _depths_table(spec, tuple(strata[:, 0].tolist())) if by == "loop_depth" and len(strata) else ()
    return Stream(
        spec, seed, SPLITS.index(split), _ATTEMPTS, *_programs_table(spec),
        STRATA.index(by), strata_thresholds, strata, depths, ranges,
    )  # fmt: skip


def check_drawn(drawn: Stream, failed: int, stratum: int) -> None:
    """Raise ValueError if a row was given up: `failed` is its number, or -1."""
    if failed >= 0:
        what = f" with {_stratum_name(STRATA[drawn.by], *drawn.strata[stratum])}" if stratum >= 0 else ""
        split = SPLITS[drawn.split]
        raise ValueError(f"found no program{what} in the {split!r} split of this small machine; use a larger one")


def strata_weights(spec: MachineSpec, *, by: str = "outcome", branches: bool = False) -> NDArray[np.float64]:
    """Equal weights on every stratum that can occur.

    by: as in `sample`: "outcome" [9, 8] ([9, 8, 2] with `branches`), "loop_depth" [depths], "jump_distance"
    [n_instructions − 1] (or [1]).
    """
    check_kind("spec", spec, MachineSpec)
    check_choice("by", by, STRATA)
    feasible = _feasible(spec, by)
    if by == "outcome" and not branches:
        feasible = feasible.any(axis=2)
    return feasible / feasible.sum()


def count_programs(spec: MachineSpec) -> int:
    """How many valid programs the machine has."""
    check_kind("spec", spec, MachineSpec)
    return _completions(spec)[spec.n_instructions - 1][0]


def _n_plain(spec: MachineSpec) -> int:
    """How many ops a slot before the last may hold, brackets aside."""
    return sum(op not in (Op.WHILE, Op.ENDW) for op in spec.ops) - (not spec.stops)


def _completions(spec: MachineSpec, depth_at_end: int = 0) -> list[list[int]]:
    """completions[slots left][loops open]: how many ways to fill the slots so that `depth_at_end` loops are open."""
    plain = _n_plain(spec)
    free = spec.n_instructions - 1
    deepest = free // 2 + 1
    table = [[int(depth == depth_at_end) for depth in range(deepest + 1)]]
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
    plain = [op for op in spec.ops if op not in (Op.WHILE, Op.ENDW) and (spec.stops or op != Op.STOP)]
    choices = np.array([Op.WHILE, Op.ENDW, *plain], dtype=np.uint8)
    choices.flags.writeable = False
    return *_choice_table(spec, _completions(spec)), choices


def _choice_table(spec: MachineSpec, completions: list[list[int]]) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    """thresholds and per_op of `_programs_table`, from the number of completions."""
    plain, deepest = _n_plain(spec), len(completions[0]) - 1
    thresholds = np.zeros((spec.n_instructions, deepest + 1, 2), dtype=np.uint64)
    per_op = np.zeros((spec.n_instructions, deepest + 1), dtype=np.float64)
    for left in range(1, spec.n_instructions):
        after = [*completions[left - 1], 0]
        for depth in range(deepest + 1):
            total = completions[left][depth]
            opens = after[depth + 1] if spec.loops else 0
            brackets = opens + (after[depth - 1] if spec.loops and depth else 0)
            if total:
                thresholds[left, depth] = opens * _ONE // total, brackets * _ONE // total
            if brackets < total:
                per_op[left, depth] = plain / (_ONE - brackets * _ONE // total)
    thresholds.flags.writeable = per_op.flags.writeable = False
    return thresholds, per_op


@lru_cache(maxsize=32)
def _depths_table(
    spec: MachineSpec, depths: tuple[int, ...]
) -> tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.uint64]]:
    """How to draw a program, and a slot of it where so many loops are open: one table for each of `depths`.

    thresholds, per_op: those of `_programs_table`, for completions that leave so many loops open. places
    [depths, n_instructions]: 2^63 × the cumulative shares of the slot.
    """
    closing = _completions(spec)
    tables = []
    for depth in depths:
        opening = _completions(spec, depth)
        pairs = [opening[slot][0] * closing[-1 - slot][depth] for slot in range(spec.n_instructions)]
        cumulative = np.cumsum(np.array(pairs, dtype=object))
        places = np.array([int(share) * _ONE // int(cumulative[-1]) for share in cumulative], dtype=np.uint64)
        tables.append((*_choice_table(spec, opening), places))
    thresholds, per_op, places = (np.stack(part) for part in zip(*tables, strict=True))
    return thresholds, per_op, places


@lru_cache(maxsize=32)
def _feasible(spec: MachineSpec, by: str = "outcome") -> NDArray[np.bool_]:
    """Which strata can occur at all: bool [9, 8, 2], [depths] or [distances]."""
    free = spec.n_instructions - 1
    if by == "loop_depth":
        feasible = np.arange(free // 2 + 1) <= (free // 2 if spec.loops else 0)
    elif by == "jump_distance":
        feasible = np.arange(max(free, 1)) <= (free - 1 if spec.loops else 0)
    else:
        feasible = np.zeros((len(Op), len(Outcome), 2), dtype=bool)
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


def _strata(spec: MachineSpec, weights: ArrayLike | None, by: str) -> tuple[NDArray[np.int8], NDArray[np.uint64]]:
    """The strata with weight as rows of three, as the kernel's `Strata` says, and their cumulative thresholds [k]."""
    if weights is None:
        if by != "outcome":
            raise ValueError(f"by={by!r} needs weights; strata_weights(spec, by={by!r}) gives equal ones")
        return np.zeros((0, 3), dtype=np.int8), np.zeros(0, dtype=np.uint64)
    if by != "outcome" and spec.padded:
        raise ValueError(f"by={by!r} needs rows of one size, and this machine is padded")
    table = numbers("weights", weights)
    feasible = _feasible(spec, by)
    if by == "outcome" and table.shape == feasible.shape[:2]:
        feasible = feasible.any(axis=2)
    elif table.shape != feasible.shape:
        wanted = "[9, 8] or [9, 8, 2]" if by == "outcome" else f"[{len(feasible)}] for by={by!r} on this machine"
        raise ValueError(f"weights must be {wanted}, got {list(table.shape)}")
    if not np.isfinite(table).all() or (table < 0).any() or not table.sum() > 0:
        raise ValueError("weights must be finite, not negative, and not all 0")
    strata = np.argwhere(table > 0)
    impossible = np.argwhere((table > 0) & ~np.asarray(feasible))
    if len(impossible):
        raise ValueError(
            f"weights ask for {_stratum_name(by, *impossible[0].tolist())}, which cannot occur on this machine"
        )
    shares = table[table > 0]
    if by == "loop_depth":
        strata = np.column_stack([strata[:, 0], np.arange(len(strata)), np.zeros_like(strata[:, 0])])
    elif by == "jump_distance":
        strata = np.column_stack([strata[:, 0], np.zeros((len(strata), 2), dtype=np.int64)])
    elif table.ndim == 2:
        strata = np.column_stack([strata, np.full(len(strata), -1)])
    else:
        strata[~np.isin(strata[:, 0], (Op.WHILE, Op.ENDW)), 2] = -1
    cumulative = np.cumsum(shares) / shares.sum()
    thresholds = np.minimum(cumulative * _ONE, _ONE).astype(np.uint64)
    return np.ascontiguousarray(strata.astype(np.uint8).view(np.int8)), thresholds


def _stratum_name(by: str, first: int, outcome: int = 0, branch: int = -1) -> str:
    if by != "outcome":
        return f"{by} {int(first) % 256}"
    loop = first in (Op.WHILE, Op.ENDW)
    taken = {0: ", branch not taken" if loop else "", 1: ", branch taken"}.get(int(branch), "")
    return f"{Op(first).name} × {Outcome(outcome).name}{taken}"


def _size_ranges(spec: MachineSpec, sizes: Mapping[str, tuple[int, int]] | None) -> NDArray[np.intc]:
    """Smallest and largest sizes of a row, int [2, 4]."""
    whole = {name: getattr(spec, name) for name in SIZES}
    ranges = {name: (0 if name in ("n_input", "n_output") else 1, size) for name, size in whole.items()}
    if sizes is not None and not spec.padded:
        raise ValueError("sizes need a padded machine: MachineSpec(…, padded=True)")
    if sizes is not None:
        check_mapping("sizes", sizes)
    for name, given in (sizes or {}).items():
        if name not in ranges:
            raise ValueError(f"sizes has no {name!r}; there are {', '.join(SIZES)}")
        try:
            low, high = (operator.index(size) for size in given)
        except (TypeError, ValueError):
            raise TypeError(f"sizes[{name!r}] must be (smallest, largest), got {given!r}") from None
        if not ranges[name][0] <= low <= high <= whole[name]:
            raise ValueError(
                f"sizes[{name!r}] must be (smallest, largest) between {ranges[name][0]} and {whole[name]}, got {given}"
            )
        ranges[name] = (low, high)
    return np.array(list(ranges.values()), dtype=np.intc).T.copy()


def _integer(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if not 0 <= number < 2**64:
        raise ValueError(f"{name} must be from 0 to 2^64 − 1, got {number}")
    return number
