"""States to token ids and back."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm._codec import decode_rows, encode_rows
from cython_vm._isa import Op, Outcome
from cython_vm.arguments import check_kind, integers
from cython_vm.layouts import NO_OUTCOME, TokenFault, plain, position_of, restore, rewrite
from cython_vm.packing import SIZE_OFFSETS, block_columns
from cython_vm.spec import SIZES, MachineSpec
from cython_vm.states import States, beyond_sizes
from cython_vm.validity import valid_programs

_FAULTS = {
    1: "another token belongs here",
    2: "a pointer's block holds only 0 and 1",
    3: "the pointer's block holds no 1",
    4: "the pointer's block holds a second 1",
    5: "an opcode of this machine belongs here",
    6: "the last instruction must be STOP",
    7: "with stops=False only the last instruction is STOP",
    8: "ENDW without a WHILE before it",
    9: "WHILE without an ENDW after it",
    10: "a number belongs here",
    11: "a number or the buffer's padding belongs here",
    12: "a number after the buffer's padding",
}


_SIZED_BY = {
    "instruction_ptr": "program",
    "instructions": "program",
    "array_ptr": "cells",
    "cells": "cells",
    "input": "input",
    "output": "output",
}
_EMPTY = {
    "instruction_ptr": "0",
    "instructions": "STOP",
    "array_ptr": "0",
    "cells": "NUM_0",
    "input": "EOI",
    "output": "EOO",
}


def encode(states: States, outcome: ArrayLike | None = None) -> NDArray[Any]:
    """Token ids [n, state_length], uint8 (uint16 where the vocabulary passes 256).

    outcome [n]: for a layout with an outcome token, what the step into each state did (`Transition.outcome`); UNKNOWN
    where it is None. Raises ValueError for a layout without one.
    """
    check_kind("states", states, States)
    spec = states.spec
    if outcome is not None and not spec.outcome_token:
        raise ValueError("outcome needs a layout that shows it: MachineSpec(…, outcome_token=True)")
    default = plain(spec)
    dtype = np.uint8 if spec.d_vocab <= 256 else np.uint16
    tokens = np.empty((len(states), default.state_length), dtype=dtype)
    encode_rows(spec, states.rows, op_ids(spec, dtype), tokens)
    if spec.padded:
        beyond = beyond_sizes(states)
        for block, size_of in _SIZED_BY.items():
            tokens[:, default.layout.slice(block)][beyond[size_of]] = spec.token_id("PAD")
    return tokens if spec.layout == default.layout else rewrite(spec, states, tokens, outcome)


@lru_cache(maxsize=32)
def op_ids(spec: MachineSpec, dtype: type[np.unsignedinteger[Any]]) -> NDArray[Any]:
    """The token id of every opcode, [9]; 0 for those that this machine lacks."""
    ids = np.array([spec.op_id(op) if op in spec.ops else 0 for op in Op], dtype=dtype)
    ids.flags.writeable = False
    return ids


def decode(spec: MachineSpec, tokens: ArrayLike) -> States:
    """States from token ids [n, state_length] of any integer dtype. An outcome token is checked, and left out.

    Raises ValueError naming the row, the position and the fault of the first token that makes no state of this machine.
    """
    return decode_named(spec, tokens, lambda row: f"row {row}")


def decode_named(spec: MachineSpec, tokens: ArrayLike, name_of: Callable[[int], str]) -> States:
    """As `decode`, for tokens that are part of something larger: a fault is that of `name_of(row)`."""
    check_kind("spec", spec, MachineSpec)
    given = integers("tokens", tokens)
    if given.ndim != 2 or given.shape[1] != spec.state_length:
        raise ValueError(f"tokens must be [n, {spec.state_length}] for this machine, got {list(given.shape)}")
    if given.dtype.kind not in "iu":
        raise TypeError(f"tokens must be integers, got {given.dtype}")
    wide = given.dtype.itemsize >= 4  # ids out of range must not wrap into range
    ids = np.clip(given, 0 if given.dtype.kind == "u" else -1, spec.d_vocab) if wide else given
    ids = np.ascontiguousarray(ids, dtype=np.int32)
    try:
        return _decode(spec, ids)
    except TokenFault as fault:
        token = int(given[fault.row, fault.position])
        name = spec.vocab[token] if 0 <= token < spec.d_vocab else f"id {token}"
        where = f"{name_of(fault.row)}, position {fault.position} ({spec.layout.name(fault.position)})"
        raise ValueError(f"{where}: {fault.what}, got {name!r}") from None


def decode_outcome(spec: MachineSpec, tokens: ArrayLike) -> NDArray[np.uint8]:
    """The outcome that each encoded state shows, uint8 [n], 255 for UNKNOWN. Raises as `decode`."""
    check_kind("spec", spec, MachineSpec)
    if not spec.outcome_token:
        raise ValueError("this machine's layout has no outcome token: MachineSpec(…, outcome_token=True)")
    decode(spec, tokens)
    shown = np.asarray(tokens)[:, spec.layout.position("outcome", 0)].astype(np.int64) - spec.token_id(Outcome(0).name)
    return np.where(shown < len(Outcome), shown, NO_OUTCOME).astype(np.uint8)


def _decode(spec: MachineSpec, ids: NDArray[np.int32]) -> States:
    """Back to the default layout, then to rows. Raises TokenFault."""
    default = plain(spec)
    moved = spec.layout != default.layout
    ids = restore(spec, ids) if moved else ids
    try:
        return _decode_default(default, ids, spec)
    except TokenFault as fault:
        raise TokenFault(
            fault.row, position_of(spec, fault.position) if moved else fault.position, fault.what
        ) from None


def _decode_default(default: MachineSpec, ids: NDArray[np.int32], spec: MachineSpec) -> States:
    """States of `spec` from ids in the layout of `default`."""
    sizes = None
    if spec.padded:
        ids, sizes = _without_padding(default, ids)
    rows = np.empty((len(ids), spec.row_bytes), dtype=np.uint8)
    row, position, fault = decode_rows(default, ids, np.array(spec.ops, dtype=np.uint8), rows)
    if row >= 0:
        raise TokenFault(row, position, _FAULTS[fault])
    if sizes is None:
        return States.wrap(spec, rows)
    columns = block_columns(spec)
    program, last = rows[:, columns["program"]], sizes[:, 0] - 1
    for row in np.flatnonzero(~valid_programs(spec, program, sizes[:, 0]))[:1]:
        early = np.flatnonzero(program[row, : last[row]] == Op.STOP)
        fault, slot = (7, early[0]) if program[row, last[row]] == Op.STOP else (6, last[row])
        raise TokenFault(int(row), default.layout.position("instructions", int(slot)), _FAULTS[fault])
    first = columns["output"].stop
    rows[:, first : first + len(SIZES)] = sizes - SIZE_OFFSETS
    return States.wrap(spec, rows)


def _without_padding(spec: MachineSpec, ids: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Ids with each PAD replaced by what an empty slot holds, and each row's own sizes [n, 4]. Raises TokenFault."""
    ids, pad = ids.copy(), spec.token_id("PAD")
    sizes: dict[str, NDArray[np.int64]] = {}
    for block in ("instructions", "cells", "input", "output", "instruction_ptr", "array_ptr"):
        where = spec.layout.slice(block)
        padded = ids[:, where] == pad
        held = sizes.setdefault(_SIZED_BY[block], (~padded).sum(axis=1))
        beyond = np.arange(padded.shape[1]) >= np.maximum(held, block in ("instructions", "cells"))[:, None]
        for row, slot in np.argwhere(padded != beyond)[:1].tolist():
            what = "PAD belongs here" if beyond[row, slot] else "PAD only past the end of the row's own slots"
            raise TokenFault(row, where.start + slot, what)
        ids[:, where][padded] = spec.token_id(_EMPTY[block])
    return ids, np.column_stack([sizes[name] for name in ("program", "cells", "input", "output")])
