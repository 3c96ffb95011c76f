"""The slot machine in batches: memories as rows of integers, stepped, run and recorded.

A row is the kinds of the S slots, then their next, left and right pointers, their contents, and the registers: program
counter, carry, first free slot. `slots_reference.py` says what each operator does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cython_vm._slots import Kind, record_rows, run_rows, step_rows

Rows = NDArray[np.int32]
FIELDS = ("kind", "next", "left", "right", "content")  # of a slot, in a row's order
REGISTERS = ("pc", "carry", "free")
SEEN = ("op", "address[0]", "address[1]", "address[2]", "x", "y", "result", "branch", "next_pc", "outcome")


@dataclass(frozen=True)
class SlotSpec:
    """Sizes of a slot machine.

    Raises:
        ValueError: a size is out of range.
    """

    n_slots: int
    base: int = 10  # of the arithmetic
    n_values: int = 20  # contents are 0 … n_values − 1; at least 8, which three bits of an instruction need

    def __post_init__(self) -> None:
        for name, low, high in (("n_slots", 2, 30_000), ("base", 2, self.n_values), ("n_values", 8, 30_000)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise ValueError(f"{name} must be an integer from {low} to {high}, got {value!r}")

    @property
    def width(self) -> int:
        """Integers in a row."""
        return 5 * self.n_slots + 3

    def column(self, name: str, slot: int = 0) -> int:
        """Where a field of a slot, or a register, stands in a row."""
        if name in REGISTERS:
            return 5 * self.n_slots + REGISTERS.index(name)
        return FIELDS.index(name) * self.n_slots + slot

    def limits(self) -> NDArray[np.int64]:
        """How many values each number of a row can have, [width]."""
        sizes = (len(Kind), self.n_slots, self.n_slots, self.n_slots, self.n_values)
        return np.concatenate([np.repeat(sizes, self.n_slots), [self.n_slots, 2, self.n_slots]]).astype(np.int64)


class SlotRun(NamedTuple):
    """Where a run ended."""

    final: Rows  # [n, width]
    n_steps: NDArray[np.int64]  # [n], that ran
    outcome: NDArray[np.uint8]  # [n], a Fate: of the step after the last; RAN where the limit ended the run


def checked(spec: SlotSpec, rows: NDArray[np.integer]) -> Rows:
    """The rows as the kernel takes them, a copy. Raises ValueError where they are no memories of this machine."""
    found = np.array(rows, dtype=np.int32, order="C")
    if found.ndim != 2 or found.shape[1] != spec.width:
        raise ValueError(f"memories must be integers [n, {spec.width}], got {list(found.shape)}")
    wrong = (found < 0) | (found >= spec.limits())
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(f"row {row} of a memory has {found[row, column]} in column {column}, which is out of range")
    return found


def run(spec: SlotSpec, rows: NDArray[np.integer], limit: int | NDArray[np.integer]) -> SlotRun:
    """Run each memory until it halts or freezes, at most `limit` steps, one for all or one each [n]."""
    final = checked(spec, rows)
    n_steps, outcome = np.zeros(len(final), dtype=np.int64), np.zeros(len(final), dtype=np.uint8)
    limits = np.broadcast_to(np.asarray(limit, dtype=np.int64), (len(final),))
    if (limits < 0).any():
        raise ValueError(f"limit must be at least 0, got {limits.min()}")
    run_rows(spec.n_slots, spec.n_values, spec.base, final, np.ascontiguousarray(limits), n_steps, outcome)
    return SlotRun(final, n_steps, outcome)


def record(spec: SlotSpec, rows: NDArray[np.integer], n_steps: int) -> Rows:
    """The memory after each of `n_steps` steps, the first one in front, [n, n_steps + 1, width]."""
    if n_steps < 0:
        raise ValueError(f"n_steps must be at least 0, got {n_steps}")
    start = checked(spec, rows)
    out = np.zeros((len(start), n_steps + 1, spec.width), dtype=np.int32)
    record_rows(spec.n_slots, spec.n_values, spec.base, start, out)
    return out


def step(
    spec: SlotSpec, rows: NDArray[np.integer], do: Mapping[str, NDArray[np.integer]] | None = None
) -> tuple[Rows, dict[str, NDArray[np.int64]]]:
    """The memories one step on, and every quantity of the step by name, [n], −1 where there is none.

    do: quantities of the step that are set, [n] each; −1 sets nothing.

    Raises:
        ValueError: `do` names no quantity that can be set, or holds a value out of range.
    """
    after = checked(spec, rows)
    setting = np.full((len(after), len(SEEN) - 1), -1, dtype=np.int32)
    for name, values in (do or {}).items():
        if name not in SEEN[:-1]:
            raise ValueError(f"do takes {', '.join(SEEN[:-1])}, got {name!r}")
        setting[:, SEEN.index(name)] = values
        top = n_values_of(spec, name)
        if (setting[:, SEEN.index(name)] >= top).any() or (setting < -1).any():
            raise ValueError(f"{name} must be from 0 to {top - 1}, or -1 for none, got {np.asarray(values).tolist()}")
    seen = np.zeros((len(after), len(SEEN)), dtype=np.int32)
    step_rows(spec.n_slots, spec.n_values, spec.base, after, setting, seen)
    return after, {name: seen[:, at].astype(np.int64) for at, name in enumerate(SEEN)}


def n_values_of(spec: SlotSpec, name: str) -> int:
    """How many values a quantity of a step can have."""
    sizes = {"op": len(Kind), "x": spec.n_values, "y": spec.n_values, "result": spec.n_values, "branch": 2}
    return sizes.get(name, 7 if name == "outcome" else spec.n_slots)
