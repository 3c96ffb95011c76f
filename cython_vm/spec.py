"""The size of a machine, its vocabulary, and which token position holds what.

A state is written as one token a slot, in this order, braces around the state and brackets around each block:

    { [ instruction_ptr ] [ instructions ] [ array_ptr ] [ cells ] [ input ] [ output ] }

Both pointers are one-hot. The vocabulary, in id order, is `{ } [ ] 0 1`, the opcodes, `NUM_0 … NUM_max`, `EOI`, `EOO`.
"""

from __future__ import annotations

import hashlib
import json
import operator
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from cython_vm._isa import Op, row_stride

_RANGES = {
    "n_instructions": (1, 256),
    "n_cells": (1, 256),
    "n_input": (0, 255),
    "n_output": (0, 255),
    "bits": (1, 8),
}
_SWITCHES = ("io", "loops", "stops")


@dataclass(frozen=True)
class MachineSpec:
    """Sizes and switches of a machine. Raises ValueError or TypeError on a field that is out of range."""

    n_instructions: int = 15  # slots of the program, 1–256; the last one always holds STOP
    n_cells: int = 10  # cells of the tape, 1–256
    n_input: int = 5  # slots of the input buffer, 0–255
    n_output: int = 5  # slots of the output buffer, 0–255
    bits: int = 4  # a cell holds 0 … 2**bits − 1; 1–8
    io: bool = True  # programs may hold PUT and GET
    loops: bool = True  # programs may hold WHILE and ENDW
    stops: bool = True  # programs may hold STOP before the last slot

    def __post_init__(self) -> None:
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            try:
                number = operator.index(value)
            except TypeError:
                number = None
            if number is None or isinstance(value, bool):
                raise TypeError(f"{name} must be an integer from {low} to {high}, got {value!r}")
            if not low <= number <= high:
                raise ValueError(f"{name} must be from {low} to {high}, got {number}")
            object.__setattr__(self, name, number)
        for name in _SWITCHES:
            value = getattr(self, name)
            if not isinstance(value, (bool, np.bool_)):
                raise TypeError(f"{name} must be True or False, got {value!r}")
            object.__setattr__(self, name, bool(value))

    @property
    def max_value(self) -> int:
        """The largest value of a cell, 2**bits − 1."""
        return 2**self.bits - 1

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        """The opcodes of this machine's language, in vocabulary order."""
        left_out = set() if self.io else {Op.PUT, Op.GET}
        left_out |= set() if self.loops else {Op.WHILE, Op.ENDW}
        return tuple(op for op in Op if op not in left_out)

    @cached_property
    def vocab(self) -> tuple[str, ...]:
        """Token names in id order."""
        numbers = (f"NUM_{value}" for value in range(self.max_value + 1))
        return ("{", "}", "[", "]", "0", "1", *(op.name for op in self.ops), *numbers, "EOI", "EOO")

    @property
    def d_vocab(self) -> int:
        return len(self.vocab)

    @cached_property
    def _token_ids(self) -> dict[str, int]:
        return {name: token for token, name in enumerate(self.vocab)}

    def token_id(self, name: str) -> int:
        """The id of a token name such as `"["`, `"WHILE"`, `"NUM_3"` or `"EOI"`."""
        if name not in self._token_ids:
            raise ValueError(f"no token {name!r} in this machine's vocabulary: {' '.join(self.vocab)}")
        return self._token_ids[name]

    def op_id(self, op: Op | int) -> int:
        """The token id of an opcode."""
        return self.token_id(Op(op).name)

    def number_id(self, value: int) -> int:
        """The token id of a cell value."""
        return self.token_id(f"NUM_{int(value)}")

    @cached_property
    def layout(self) -> Layout:
        """Which token position of an encoded state is what."""
        sizes = (self.n_instructions, self.n_instructions, self.n_cells, self.n_cells, self.n_input, self.n_output)
        return Layout(sizes)

    @property
    def state_length(self) -> int:
        """Tokens of one encoded state."""
        return self.layout.length

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one packed state, the second axis of `States.rows`."""
        return row_stride(self.n_instructions, self.n_cells, self.n_input, self.n_output)

    @cached_property
    def digest(self) -> str:
        """A hash of the fields, the same in every process: 16 hexadecimal digits."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def variables(self) -> dict[str, int]:
        """Every concrete variable of this machine (`op`, `cell[0]`, …) with its number of values, in causal order."""
        from cython_vm.variables import concrete_names, variable

        return {name: variable(self, name).n_values(self) for name in concrete_names(self)}


@dataclass(frozen=True)
class Layout:
    """Positions of an encoded state. `sizes` are the slots of each block, in the order of `blocks`."""

    sizes: tuple[int, ...]

    blocks = ("instruction_ptr", "instructions", "array_ptr", "cells", "input", "output")

    @property
    def length(self) -> int:
        return sum(self.sizes) + 2 * len(self.sizes) + 2

    @cached_property
    def _slices(self) -> dict[str, slice]:
        slices, start = {}, 2  # after "{" and the first "["
        for block, size in zip(self.blocks, self.sizes, strict=True):
            slices[block] = slice(start, start + size)
            start += size + 2
        return slices

    def slice(self, block: str) -> slice:
        """The positions of a block's slots, brackets left out."""
        if block not in self._slices:
            raise ValueError(f"no block {block!r}; the blocks are {', '.join(self.blocks)}")
        return self._slices[block]

    def position(self, block: str, index: int) -> int:
        """The position of one slot of a block."""
        where = self.slice(block)
        size = where.stop - where.start
        if not 0 <= index < size:
            raise ValueError(f"{block} has {size} slots, numbered from 0; got index {index}")
        return where.start + index

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of every position: `{`, `instruction_ptr.[`, `instruction_ptr[0]`, …, `output.]`, `}`."""
        names = ["{"]
        for block, size in zip(self.blocks, self.sizes, strict=True):
            names += [f"{block}.[", *(f"{block}[{index}]" for index in range(size)), f"{block}.]"]
        return (*names, "}")

    def name(self, position: int) -> str:
        """The name of a position, such as `array_ptr[5]`."""
        if not 0 <= position < self.length:
            raise ValueError(f"a state has {self.length} positions, numbered from 0; got {position}")
        return self.names[position]

    @cached_property
    def _positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """The position of a name: the inverse of `name`."""
        if name not in self._positions:
            raise ValueError(f"no position is named {name!r}; names look like {self.names[2]}, {self.names[-3]}")
        return self._positions[name]

    @cached_property
    def roles(self) -> np.ndarray:
        """Block role of every position, int64 [length]: 0 `{`, 1 `}`; in block b `[` 2+3b, `]` 3+3b, slots 4+3b."""
        roles = [0]
        for block, size in enumerate(self.sizes):
            roles += [2 + 3 * block, *[4 + 3 * block] * size, 3 + 3 * block]
        return _frozen([*roles, 1])

    @cached_property
    def indices(self) -> np.ndarray:
        """Slot index inside the block of every position, int64 [length]; 0 at braces and brackets."""
        indices = [0]
        for size in self.sizes:
            indices += [0, *range(size), 0]
        return _frozen([*indices, 0])

    @property
    def n_roles(self) -> int:
        return 2 + 3 * len(self.blocks)

    @property
    def max_index(self) -> int:
        """The largest entry of `indices`."""
        return max(0, max(self.sizes) - 1)


def _frozen(values: list[int]) -> np.ndarray:
    array = np.array(values, dtype=np.int64)
    array.flags.writeable = False
    return array
