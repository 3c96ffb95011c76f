"""Where the bytes of a packed row stand, and plain values made ready for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm._isa import Op
from cython_vm.arguments import check_mapping, check_unmasked, integers
from cython_vm.declarations import declared
from cython_vm.program_text import parse_program
from cython_vm.spec import SIZES, MachineSpec

PROGRAM = 4  # first column of the program; the four counters stand before it
COUNTERS = {"instruction_ptr": 0, "array_ptr": 1, "input_length": 2, "output_length": 3}
SIZE_OFFSETS = np.array([1, 1, 0, 0])  # what a padded row's stored sizes leave out


def block_columns(spec: MachineSpec) -> dict[str, slice]:
    """The columns of each block of a packed row."""
    columns, start = {}, PROGRAM
    sizes = {"program": spec.n_instructions, "cells": spec.n_cells, "input": spec.n_input, "output": spec.n_output}
    for name, size in sizes.items():
        columns[name] = slice(start, start + size)
        start += size
    return columns


def root_column(spec: MachineSpec, name: str) -> tuple[int, int]:
    """The column of a stored variable and its number of values; ValueError if it is not stored."""
    root = declared(spec, name)
    if name in COUNTERS:
        return COUNTERS[name], root.n_values(spec)
    if root.kind != "root":
        raise ValueError(f"{name} is computed by the step, not stored in a state; use step(states, do={{{name!r}: …}})")
    family, _, index = name.removesuffix("]").partition("[")
    block = {"instruction": "program", "cell": "cells"}.get(family, family)
    return block_columns(spec)[block].start + int(index), root.n_values(spec)


def check_range(
    name: str, values: NDArray[Any], limit: int, *, low: int = 0, axes: Sequence[str] = ("row", "slot")
) -> None:
    """Raise ValueError naming the place of the first value outside low … limit − 1; `axes` are the words for it."""
    bad = (values < low) | (values >= limit)
    if np.any(bad):
        where = np.argwhere(bad)[0]
        value = values[tuple(where)]
        place = ", ".join(f"{axis} {index}" for axis, index in zip(axes, where, strict=False))
        raise ValueError(f"{name} must be from {low} to {limit - 1}, got {value}{f' at {place}' if place else ''}")


def check_packed(spec: MachineSpec, rows: NDArray[Any]) -> None:
    """Raise ValueError unless the kernels can take these bytes for rows."""
    check_unmasked("rows", rows)
    if rows.dtype != np.uint8 or rows.ndim != 2 or rows.shape[1] != spec.row_bytes:
        raise ValueError(f"rows must be uint8 [n, {spec.row_bytes}], got {rows.dtype} {list(rows.shape)}")


def n_slots(spec: MachineSpec, counter: str) -> int:
    """How many values a counter has."""
    return {
        "instruction_ptr": spec.n_instructions,
        "array_ptr": spec.n_cells,
        "input_length": spec.n_input + 1,
        "output_length": spec.n_output + 1,
    }[counter]


def own_sizes(spec: MachineSpec, sizes: Mapping[str, ArrayLike] | None) -> dict[str, NDArray[np.int64]]:
    """The four sizes of each row, {} for a machine that is not padded."""
    if not spec.padded:
        if sizes is not None:
            raise ValueError("sizes need a padded machine: MachineSpec(…, padded=True)")
        return {}
    own = {name: np.atleast_1d(getattr(spec, name)) for name in SIZES}
    if sizes is not None:
        check_mapping("sizes", sizes)
    for name, given in (sizes or {}).items():
        if name not in own:
            raise ValueError(f"sizes has no {name!r}; there are {', '.join(SIZES)}")
        own[name] = np.atleast_1d(whole_numbers(f"sizes[{name!r}]", given))
        low = int(SIZE_OFFSETS[SIZES.index(name)])
        check_range(f"sizes[{name!r}]", own[name], getattr(spec, name) + 1, low=low)
    return own


def whole_numbers(name: str, values: ArrayLike) -> NDArray[Any]:
    """int64; uint64 where a value would not fit, for `check_range` to refuse as it is."""
    given = integers(name, values)
    beyond = given.dtype.kind == "u" and given.size and given.max() > np.iinfo(np.int64).max
    return given if beyond else given.astype(np.int64)


def padded_rows(name: str, given: Sequence[Any], slots: int, limit: int) -> NDArray[np.uint8]:
    """Rows of values below `limit` in a block of slots, padded with 0: uint8 [row, slot]. ValueError names the row."""
    table = np.zeros((len(given), slots), dtype=np.uint8)
    for row, values in enumerate(given):
        if len(values) > slots:
            raise ValueError(f"{name} of row {row} has {len(values)} values; this machine has {slots} slots")
        check_range(f"{name} of row {row}", values, limit, axes=("slot",))
        table[row, : len(values)] = values
    return table


def program_rows(spec: MachineSpec, program: Any) -> list[NDArray[np.int64]]:
    """One array of n_instructions opcodes for each program given."""
    _check_rows_of("program", program)
    single = isinstance(program, str) or len(program) == 0 or isinstance(program[0], (int, np.integer))
    if single:
        program = [program]
    rows = []
    for row, one in enumerate(program):
        if isinstance(one, str):
            try:
                codes = np.array(parse_program(one, spec=spec), dtype=np.int64)
            except ValueError as error:
                raise ValueError(f"{'' if single else f'program of row {row}: '}{error}") from None
        else:
            codes = whole_numbers(f"program of row {row}", one)
        padding = np.full(max(0, spec.n_instructions - len(codes)), int(Op.STOP), dtype=np.int64)
        rows.append(np.concatenate([codes, padding]))
    return rows


def _check_rows_of(name: str, values: Any) -> None:
    """Raise TypeError unless `values` is a sequence of values, or one of rows of values (programs: or text)."""
    text = name == "program" and isinstance(values, str)
    if not text and not 1 <= _depth(values) <= 2:
        raise TypeError(f"{name} must be a sequence of values, or one of rows of values, got {values!r}")


def _depth(values: Any) -> int:
    """How deeply sequences are nested, by the first of each; text and numbers are leaves."""
    if isinstance(values, np.ndarray):
        return values.ndim
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        return 0
    return 1 + (_depth(values[0]) if len(values) else 0)


def value_rows(name: str, values: Any) -> list[NDArray[np.int64]]:
    """One array of values for each row; a flat sequence is one row."""
    _check_rows_of(name, values)
    if len(values) == 0 or np.ndim(values[0]) == 0:
        return [whole_numbers(name, values)]
    return [whole_numbers(f"{name} of row {row}", one) for row, one in enumerate(values)]
