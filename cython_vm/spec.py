"""The size of a machine, its vocabulary, and which token position holds what.

By default a state is written as one token a slot, in this order, with braces around it and brackets around each block:

    { [ instruction_ptr ] [ instructions ] [ array_ptr ] [ cells ] [ input ] [ output ] }

Both pointers are one-hot. The vocabulary, in id order, is `{ } [ ] 0 1`, the opcodes, `NUM_0 … NUM_max`, `EOI`, `EOO`,
then what else a layout needs: `PAD` beyond a row's own sizes, `SPACE` between slots, `AT_0 …` for a pointer in one
token, and the names of the outcomes, with `UNKNOWN` where nothing has happened yet.
"""

from __future__ import annotations

import hashlib
import json
import operator
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from cython_vm._isa import Op, Outcome, row_stride
from cython_vm.arguments import check_choice, whole_number
from cython_vm.declarations import concrete_names, declared

_RANGES = {
    "n_instructions": (1, 256),
    "n_cells": (1, 256),
    "n_input": (0, 255),
    "n_output": (0, 255),
    "bits": (1, 8),
}
_BLOCKS = ("instruction_ptr", "instructions", "array_ptr", "cells", "input", "output", "outcome")
_SWITCHES = ("io", "loops", "stops", "padded", "outcome_token")
_CHOICES = {"pointers": ("one_hot", "index"), "punctuation": ("blocks", "none", "spaced")}
_LATER = ("padded", "pointers", "punctuation", "outcome_token")  # not in the digest where they have their defaults
SIZES = ("n_instructions", "n_cells", "n_input", "n_output")


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
    padded: bool = False  # each state has sizes of its own, up to those above; what lies beyond is PAD
    # How a state is written as tokens.
    pointers: str = "one_hot"  # or "index": one token AT_i for each pointer
    punctuation: str = "blocks"  # braces and brackets; "none": slots alone; "spaced": and SPACE between two slots
    outcome_token: bool = False  # a last block says what the step into the state did; UNKNOWN in S_t

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
        for name, choices in _CHOICES.items():
            check_choice(name, getattr(self, name), choices)

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
        at = range(max(self.n_instructions, self.n_cells)) if self.pointers == "index" else ()
        return (
            *("{", "}", "[", "]", "0", "1", *(op.name for op in self.ops), *numbers, "EOI", "EOO"),
            *(("PAD",) if self.padded else ()),
            *(("SPACE",) if self.punctuation == "spaced" else ()),
            *(f"AT_{index}" for index in at),
            *((*(outcome.name for outcome in Outcome), "UNKNOWN") if self.outcome_token else ()),
        )

    @property
    def d_vocab(self) -> int:
        return len(self.vocab)

    @cached_property
    def _token_ids(self) -> dict[str, int]:
        return {name: token for token, name in enumerate(self.vocab)}

    def token_id(self, name: str) -> int:
        """The id of a token name such as `"["`, `"WHILE"`, `"NUM_3"` or `"EOI"`."""
        if not isinstance(name, str) or name not in self._token_ids:
            raise ValueError(f"no token {name!r} in this machine's vocabulary: {' '.join(self.vocab)}")
        return self._token_ids[name]

    def op_id(self, op: Op | int) -> int:
        """The token id of an opcode."""
        return self.token_id(Op(whole_number("op", op, high=len(Op) - 1)).name)

    def number_id(self, value: int) -> int:
        """The token id of a cell value."""
        return self.token_id(f"NUM_{whole_number('value', value, high=self.max_value)}")

    @cached_property
    def layout(self) -> Layout:
        """Which token position of an encoded state is what."""
        sizes = [self.n_instructions, self.n_instructions, self.n_cells, self.n_cells, self.n_input, self.n_output]
        if self.pointers == "index":
            sizes[0] = sizes[2] = 1
        return Layout((*sizes, 1) if self.outcome_token else tuple(sizes), self.punctuation)

    @property
    def state_length(self) -> int:
        """Tokens of one encoded state."""
        return self.layout.length

    @cached_property
    def row_bytes(self) -> int:
        """Bytes of one packed state, the second axis of `States.rows`."""
        return row_stride(self.n_instructions, self.n_cells, self.n_input, self.n_output, self.padded)

    @cached_property
    def digest(self) -> str:
        """A hash of the fields, the same in every process: 16 hexadecimal digits."""
        text = json.dumps(self.to_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The fields, ready for JSON; those that say how states are written only where they differ from the default."""
        defaults = {field.name: field.default for field in fields(self)}
        given = asdict(self)
        return {name: value for name, value in given.items() if name not in _LATER or value != defaults[name]}

    def variables(self) -> dict[str, int]:
        """Every concrete variable of this machine (`op`, `cell[0]`, …) with its number of values, in causal order."""
        return {name: declared(self, name).n_values(self) for name in concrete_names(self)}


@dataclass(frozen=True)
class Layout:
    """Positions of an encoded state. `sizes` are the slots of each block, in the order of `blocks`."""

    sizes: tuple[int, ...]
    punctuation: str = "blocks"

    def __post_init__(self) -> None:
        sizes = self.sizes
        whole = isinstance(sizes, tuple) and all(isinstance(size, int) and size >= 0 for size in sizes)
        if not whole or len(sizes) not in (len(_BLOCKS) - 1, len(_BLOCKS)):
            raise ValueError(
                f"sizes must be six or seven integers, one for each of {', '.join(_BLOCKS)}; got {sizes!r}"
            )
        check_choice("punctuation", self.punctuation, _CHOICES["punctuation"])

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks in order; the last, `outcome`, only where the layout has one."""
        return _BLOCKS[: len(self.sizes)]

    @cached_property
    def _positions(self) -> tuple[tuple[str, int, int], ...]:
        """Name, role and slot index of every position."""
        bare = self.punctuation == "none"
        positions = [] if bare else [("{", 0, 0)]
        for number, (block, size) in enumerate(zip(self.blocks, self.sizes, strict=True)):
            slots = [(f"{block}[{index}]", 4 + 3 * number, index) for index in range(size)]
            if self.punctuation == "spaced":
                role = 2 + 3 * len(self.sizes) + number
                pairs = ((slot, (f"{block}.space[{slot[2]}]", role, slot[2])) for slot in slots)
                slots = [position for pair in pairs for position in pair][:-1]
            opens, closes = (f"{block}.[", 2 + 3 * number, 0), (f"{block}.]", 3 + 3 * number, 0)
            positions += slots if bare else [opens, *slots, closes]
        return tuple(positions if bare else [*positions, ("}", 1, 0)])

    @property
    def length(self) -> int:
        return len(self._positions)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The name of every position: `{`, `instruction_ptr.[`, `instruction_ptr[0]`, …, `output.]`, `}`."""
        return tuple(name for name, _, _ in self._positions)

    @cached_property
    def roles(self) -> np.ndarray:
        """Block role of every position, int64 [length]: 0 `{`, 1 `}`; in block b `[` 2+3b, `]` 3+3b, slots 4+3b.

        The spaces of block b, where there are such, have 2 + 3 × the number of blocks + b.
        """
        return _frozen([role for _, role, _ in self._positions])

    @cached_property
    def indices(self) -> np.ndarray:
        """Slot index inside the block of every position, int64 [length]; 0 at braces and brackets."""
        return _frozen([index for _, _, index in self._positions])

    @property
    def n_roles(self) -> int:
        return 2 + (4 if self.punctuation == "spaced" else 3) * len(self.sizes)

    @property
    def max_index(self) -> int:
        """The largest entry of `indices`."""
        return max(0, max(self.sizes) - 1)

    @cached_property
    def _slices(self) -> dict[str, slice]:
        step = 2 if self.punctuation == "spaced" else 1
        slices, start = {}, 0
        for block, size in zip(self.blocks, self.sizes, strict=True):
            start += 0 if self.punctuation == "none" else 2  # brackets and braces
            end = start + max(0, step * size - (step - 1))
            slices[block] = slice(start, end, None if step == 1 else step)
            start = end
        return slices

    def slice(self, block: str) -> slice:
        """The positions of a block's slots, brackets left out."""
        if not isinstance(block, str) or block not in self._slices:
            raise ValueError(f"no block {block!r}; the blocks are {', '.join(self.blocks)}")
        return self._slices[block]

    def position(self, block: str, index: int) -> int:
        """The position of one slot of a block."""
        where = self.slice(block)
        slots = range(self.length)[where]
        index = whole_number("index", index, low=-(2**63), high=2**128)
        if not 0 <= index < len(slots):
            raise ValueError(f"{block} has {len(slots)} slots, numbered from 0; got index {index}")
        return slots[index]

    def name(self, position: int) -> str:
        """The name of a position, such as `array_ptr[5]`."""
        position = whole_number("position", position, low=-(2**63), high=2**128)
        if not 0 <= position < self.length:
            raise ValueError(f"a state has {self.length} positions, numbered from 0; got {position}")
        return self.names[position]

    @cached_property
    def _index_of(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def index(self, name: str) -> int:
        """The position of a name: the inverse of `name`."""
        if not isinstance(name, str) or name not in self._index_of:
            raise ValueError(f"no position is named {name!r}; names look like {self.names[2]}, {self.names[-3]}")
        return self._index_of[name]


def _frozen(values: list[int]) -> np.ndarray:
    array = np.array(values, dtype=np.int64)
    array.flags.writeable = False
    return array
