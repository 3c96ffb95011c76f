"""States: a batch of machine states over one packed buffer of bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm._isa import Op
from cython_vm.arguments import check_kind, check_unmasked
from cython_vm.packing import (
    COUNTERS,
    SIZE_OFFSETS,
    block_columns,
    check_packed,
    check_range,
    n_slots,
    own_sizes,
    padded_rows,
    program_rows,
    root_column,
    value_rows,
    whole_numbers,
)
from cython_vm.spec import SIZES, MachineSpec
from cython_vm.validity import check_programs


class States:
    """n states of one machine, immutable: the arrays are read-only views of `rows`, uint8 [n, bytes a row].

    Make them with `sample`, `States.build`, `decode` or `step`. Index with an integer (a batch of one), a slice, an
    integer array or a boolean array. Buffer slots past the length are 0; past a padded row's own sizes, program slots
    are STOP and cells are 0.
    """

    __slots__ = ("rows", "spec")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, spec: MachineSpec, rows: NDArray[np.uint8]):
        """States from packed rows, copied and checked (kernels trust them). Raises ValueError naming the row."""
        check_kind("spec", spec, MachineSpec)
        check_kind("rows", rows, np.ndarray)
        check_packed(spec, rows)
        rows = np.array(rows, order="C", subok=False)
        rows.flags.writeable = False
        self.spec = spec
        self.rows = rows
        _check_rows(self)

    @classmethod
    def wrap(cls, spec: MachineSpec, rows: NDArray[np.uint8]) -> States:
        """States over rows that are known to be valid: their shape and dtype alone are checked. No copy if contiguous.

        Raises TypeError or ValueError on what is no array of this machine's rows.
        """
        check_kind("spec", spec, MachineSpec)
        check_kind("rows", rows, np.ndarray)
        check_packed(spec, rows)
        states = cls.__new__(cls)
        states.spec = spec
        states.rows = np.ascontiguousarray(rows).view()
        states.rows.flags.writeable = False
        return states

    # The columns of a row, in order.

    @property
    def instruction_ptr(self) -> NDArray[np.uint8]:
        """uint8 [n]"""
        return self.rows[:, 0]

    @property
    def array_ptr(self) -> NDArray[np.uint8]:
        """uint8 [n]"""
        return self.rows[:, 1]

    @property
    def input_length(self) -> NDArray[np.uint8]:
        """uint8 [n]: how many values the input buffer holds."""
        return self.rows[:, 2]

    @property
    def output_length(self) -> NDArray[np.uint8]:
        """uint8 [n]: how many values the output buffer holds."""
        return self.rows[:, 3]

    @property
    def program(self) -> NDArray[np.uint8]:
        """Op codes, uint8 [n, n_instructions]."""
        return self._block("program")

    @property
    def cells(self) -> NDArray[np.uint8]:
        """uint8 [n, n_cells]"""
        return self._block("cells")

    @property
    def input(self) -> NDArray[np.uint8]:
        """uint8 [n, n_input], 0 from `input_length` on."""
        return self._block("input")

    @property
    def output(self) -> NDArray[np.uint8]:
        """uint8 [n, n_output], 0 from `output_length` on."""
        return self._block("output")

    @property
    def sizes(self) -> dict[str, NDArray[np.int64]]:
        """Each row's own n_instructions, n_cells, n_input and n_output, int64 [n]; the machine's unless padded."""
        if not self.spec.padded:
            return {name: np.full(len(self), getattr(self.spec, name), dtype=np.int64) for name in SIZES}
        first = block_columns(self.spec)["output"].stop
        stored = self.rows[:, first : first + len(SIZES)].astype(np.int64) + SIZE_OFFSETS
        return dict(zip(SIZES, stored.T, strict=True))

    def _block(self, name: str) -> NDArray[np.uint8]:
        return self.rows[:, block_columns(self.spec)[name]]

    # A batch as a sequence.

    def __len__(self) -> int:
        return self.rows.shape[0]

    def __getitem__(self, index: int | slice | ArrayLike) -> States:
        if isinstance(index, (bool, tuple)):
            raise TypeError(f"States are indexed by one integer, slice or array, got {index!r}")
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):
                raise IndexError(f"row {index} of a batch of {len(self)} states")
            index = slice(int(index) % len(self), int(index) % len(self) + 1)
        if not isinstance(index, slice):
            check_unmasked("an index of States", index)
            try:
                index = np.asarray(index)
            except ValueError:
                raise TypeError(f"States are indexed by one array of integers, got {index!r}") from None
            if index.size == 0:
                index = index.astype(np.intp)
            if index.ndim != 1 or index.dtype.kind not in "iub":
                raise TypeError(
                    "States are indexed by an integer, a slice, or a one-dimensional array of integers or booleans, "
                    f"got {index.dtype} {list(index.shape)}"
                )
            if index.dtype.kind == "u" and index.size and index.max() >= len(self):  # NumPy would wrap it round
                raise IndexError(f"index {index.max()} is out of range for a batch of {len(self)} states")
        return States.wrap(self.spec, self.rows[index])

    def __iter__(self) -> Iterator[States]:
        return (self[row] for row in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, States):
            return NotImplemented
        return self.spec == other.spec and np.array_equal(self.rows, other.rows)

    def equal(self, other: States) -> NDArray[np.bool_]:
        """Row by row equality of whole states, bool [n]."""
        check_kind("equal's other", other, States)
        if self.spec != other.spec or len(self) != len(other):
            raise ValueError(f"equal compares batches of one machine and one length, got {self!r} and {other!r}")
        return (self.rows == other.rows).all(axis=1)

    def __repr__(self) -> str:
        s = self.spec
        sizes = f"n_instructions={s.n_instructions}, n_cells={s.n_cells}, n_input={s.n_input}, n_output={s.n_output}"
        return f"States(n={len(self)}, {sizes}, bits={s.bits})"

    def __reduce__(self) -> tuple[Any, ...]:
        return States.wrap, (self.spec, self.rows)

    @staticmethod
    def concatenate(batches: Sequence[States]) -> States:
        """One batch of all rows, in order. All must be of one machine."""
        try:
            batches = list(batches)
        except TypeError:
            raise TypeError(f"concatenate takes several batches of States, got {batches!r}") from None
        if not batches:
            raise ValueError("concatenate needs at least one batch of States")
        for states in batches:
            check_kind("each batch for concatenate", states, States)
        spec = batches[0].spec
        for states in batches:
            if states.spec != spec:
                raise ValueError(f"concatenate joins states of one machine, got {spec} and {states.spec}")
        return States.wrap(spec, np.concatenate([states.rows for states in batches]))

    # Making and editing.

    @staticmethod
    def build(
        spec: MachineSpec,
        *,
        program: str | Sequence[Any] | NDArray[Any],
        instruction_ptr: ArrayLike = 0,
        array_ptr: ArrayLike = 0,
        cells: ArrayLike | None = None,
        input: Sequence[Any] | NDArray[Any] = (),
        output: Sequence[Any] | NDArray[Any] = (),
        sizes: Mapping[str, ArrayLike] | None = None,
    ) -> States:
        """States from plain values, one row or many; single values serve every row.

        `program` is text (words or `><+-.,[]`), a sequence of opcodes, or a list of either, padded with STOP. `cells`
        are padded with 0. `input` and `output` are as long as the buffers' contents. `sizes` are the rows' own, by
        name, for a padded machine; what is not named has the machine's size. Raises ValueError naming the row.
        """
        check_kind("spec", spec, MachineSpec)
        parts = {
            "program": program_rows(spec, program),
            "cells": value_rows("cells", () if cells is None else cells),
            "input": value_rows("input", input),
            "output": value_rows("output", output),
        }
        counters = {
            "instruction_ptr": np.atleast_1d(whole_numbers("instruction_ptr", instruction_ptr)),
            "array_ptr": np.atleast_1d(whole_numbers("array_ptr", array_ptr)),
        }
        own = own_sizes(spec, sizes)
        for name, values in (counters | own).items():
            if values.ndim > 1:
                raise ValueError(f"{name} must be one value or one a row, got {list(values.shape)}")
        lengths = {name: len(value) for name, value in (parts | counters | own).items()}
        many = {name: length for name, length in lengths.items() if length != 1}
        if len(set(many.values())) > 1:
            raise ValueError(f"every part must have one row or the same number of rows, got {many}")
        n = next(iter(many.values()), 1)

        columns = block_columns(spec)
        rows = np.zeros((n, spec.row_bytes), dtype=np.uint8)
        for name, values in counters.items():
            check_range(name, values, n_slots(spec, name))
            rows[:, COUNTERS[name]] = values
        for name, given in parts.items():
            slots = columns[name].stop - columns[name].start
            limit = len(Op) if name == "program" else spec.max_value + 1
            rows[:, columns[name]] = padded_rows(name, given, slots, limit)
            if name in ("input", "output"):
                rows[:, COUNTERS[f"{name}_length"]] = [len(values) for values in given]
        for offset, (size, values) in enumerate(own.items()):
            rows[:, columns["output"].stop + offset] = values - SIZE_OFFSETS[SIZES.index(size)]
        return _checked(States.wrap(spec, rows))

    def replace(self, name: str, values: ArrayLike) -> States:
        """A copy with one stored variable changed: a counter, a slot such as `cell[3]`, or a whole block.

        `values` is one value for all rows or one a row ([n], or [n, slots] for `program`, `cells`, `input`, `output`).
        A longer buffer shows 0 in its new slots. Raises ValueError on a value or a program that does not fit.
        """
        check_kind("name", name, str)
        columns = block_columns(self.spec)
        rows = self.rows.copy()
        given = whole_numbers(name, values)
        if name in COUNTERS:
            column, limit = COUNTERS[name], n_slots(self.spec, name)
        elif name in columns:
            column, limit = columns[name], len(Op) if name == "program" else self.spec.max_value + 1
        else:
            column, limit = root_column(self.spec, name)
        one_row = name in columns and given.ndim == 1  # a whole block, the same in every row
        check_range(name, given, limit, axes=("slot",) if one_row else ("row", "slot"))
        place = rows[:, column]
        try:  # an axis more than the rows have would be dropped in silence
            place[...] = np.broadcast_to(given, place.shape)
        except ValueError:
            raise ValueError(f"{name} takes one value or shape {list(place.shape)}, got {list(given.shape)}") from None
        for block in ("input", "output"):
            beyond = np.arange(columns[block].stop - columns[block].start) >= rows[:, [COUNTERS[f"{block}_length"]]]
            where = columns[block]
            if name.startswith(f"{block}[") and beyond[:, column - where.start].any():
                row = int(np.flatnonzero(beyond[:, column - where.start])[0])
                raise ValueError(
                    f"{name} of row {row} is empty: {block} holds {rows[row, COUNTERS[f'{block}_length']]}"
                )
            rows[:, where][beyond] = 0
        return _checked(States.wrap(self.spec, rows))


def beyond_sizes(states: States) -> dict[str, NDArray[np.bool_]]:
    """For each block, which slots lie past the row's own sizes: bool [n, slots]."""
    sizes = states.sizes
    size_of = {"program": "n_instructions", "cells": "n_cells", "input": "n_input", "output": "n_output"}
    return {block: np.arange(getattr(states.spec, size)) >= sizes[size][:, None] for block, size in size_of.items()}


def _check_rows(states: States) -> None:
    """Raise ValueError naming the first row whose bytes are no state."""
    spec, columns = states.spec, block_columns(states.spec)
    limits = np.zeros(spec.row_bytes, dtype=np.int64)  # the largest value of each column; 0 for what is padding
    for name, column in COUNTERS.items():
        limits[column] = n_slots(spec, name) - 1
    limits[columns["program"]] = len(Op) - 1
    for block in ("cells", "input", "output"):
        limits[columns[block]] = spec.max_value
    if spec.padded:
        first = columns["output"].stop
        limits[first : first + len(SIZES)] = [getattr(spec, name) for name in SIZES] - SIZE_OFFSETS
    bad = states.rows > limits
    for block in ("input", "output"):
        length = states.rows[:, [COUNTERS[f"{block}_length"]]]
        where = columns[block]
        bad[:, where] |= (np.arange(where.stop - where.start) >= length) & (states.rows[:, where] > 0)
    for row, column in np.argwhere(bad)[:1]:
        raise ValueError(f"row {row} of rows is no state of this machine: byte {column} is {states.rows[row, column]}")
    _checked(states)


def _checked(states: States) -> States:
    """The states, if programs and sizes agree. Raises ValueError naming the row."""
    if not states.spec.padded:
        check_programs(states.spec, states.program)
        return states
    sizes = states.sizes
    check_programs(states.spec, states.program, sizes["n_instructions"])
    for name, limit in (
        ("instruction_ptr", sizes["n_instructions"] - 1),
        ("array_ptr", sizes["n_cells"] - 1),
        ("input_length", sizes["n_input"]),
        ("output_length", sizes["n_output"]),
    ):
        values = getattr(states, name)
        for row in np.flatnonzero(values > limit)[:1]:
            raise ValueError(
                f"{name} must be from 0 to {limit[row]} in a row of this size, got {values[row]} at row {row}"
            )
    for row, cell in np.argwhere(beyond_sizes(states)["cells"] & (states.cells > 0))[:1]:
        raise ValueError(f"cell[{cell}] of row {row} lies beyond its {sizes['n_cells'][row]} cells")
    return states
