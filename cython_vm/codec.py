"""States to token ids and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm._codec import decode_rows, encode_rows
from cython_vm._isa import Op
from cython_vm.spec import MachineSpec
from cython_vm.states import States

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


def encode(states: States) -> NDArray[Any]:
    """Token ids [n, state_length], uint8 (uint16 where the vocabulary passes 256)."""
    spec = states.spec
    dtype = np.uint8 if spec.d_vocab <= 256 else np.uint16
    op_ids = np.zeros(len(Op), dtype=dtype)
    for op in spec.ops:
        op_ids[op] = spec.op_id(op)
    tokens = np.empty((len(states), spec.state_length), dtype=dtype)
    encode_rows(spec, states.rows, op_ids, tokens)
    return tokens


def decode(spec: MachineSpec, tokens: ArrayLike) -> States:
    """States from token ids [n, state_length] of any integer dtype.

    Raises ValueError naming the row, the position and the fault of the first token that makes no state of this machine.
    """
    given = np.asarray(tokens)
    if given.ndim != 2 or given.shape[1] != spec.state_length:
        raise ValueError(f"tokens must be [n, {spec.state_length}] for this machine, got {list(given.shape)}")
    if given.dtype.kind not in "iu":
        raise TypeError(f"tokens must be integers, got {given.dtype}")
    wide = given.dtype.itemsize >= 4  # ids out of range must not wrap into range
    ids = np.clip(given, 0 if given.dtype.kind == "u" else -1, spec.d_vocab) if wide else given
    ids = np.ascontiguousarray(ids, dtype=np.int32)
    op_of = np.array(spec.ops, dtype=np.uint8)
    rows = np.empty((len(given), spec.row_bytes), dtype=np.uint8)
    row, position, fault = decode_rows(spec, ids, op_of, rows)
    if row >= 0:
        token = int(given[row, position])
        name = spec.vocab[token] if 0 <= token < spec.d_vocab else f"id {token}"
        where = spec.layout.name(position)
        raise ValueError(f"row {row}, position {position} ({where}): {_FAULTS[fault]}, got {name!r}")
    return States(spec, rows)
