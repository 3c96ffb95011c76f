"""Labelled records: one transition each, with the tokens of S_t and S_{t+1}, every variable of the step between them,
and the hash of the program, which decides the split.

At the default layout a kernel draws, steps and writes them in one pass, a few rows at a time; for other layouts, tokens
of two bytes and padded machines they are put together from `step` and `encode`. The records are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm._machine import STEP_NAMES
from cython_vm._records import RecordFormat
from cython_vm.arguments import check_kind
from cython_vm.codec import encode, op_ids
from cython_vm.layouts import plain
from cython_vm.machine import step
from cython_vm.programs import program_hash
from cython_vm.sampling import check_drawn, row_range, sample, stream
from cython_vm.spec import MachineSpec
from cython_vm.states import States


def record_dtype(spec: MachineSpec) -> np.dtype[np.void]:
    """The structured dtype of one record, packed, little-endian: `program_hash`, the variables of the step, int16 each
    (−1 = undefined), and the tokens `state` and `next_state` [state_length]."""
    check_kind("spec", spec, MachineSpec)
    return _record_dtype(spec)


@lru_cache(maxsize=32)
def _record_dtype(spec: MachineSpec) -> np.dtype[np.void]:
    token = "|u1" if spec.d_vocab <= 256 else "<u2"
    labels = [(name, "<i2") for name in STEP_NAMES]
    tokens = [(name, token, (spec.state_length,)) for name in ("state", "next_state")]
    return np.dtype([("program_hash", "<u8"), *labels, *tokens])


def sample_records(
    spec: MachineSpec,
    n: int,
    *,
    seed: int,
    start: int = 0,
    split: str = "all",
    weights: ArrayLike | None = None,
    by: str = "outcome",
    sizes: Mapping[str, tuple[int, int]] | None = None,
    out: NDArray[np.void] | None = None,
) -> NDArray[np.void]:
    """Rows start … start + n − 1 of the stream of `seed` as labelled records, [n] of `record_dtype(spec)`.

    The arguments are those of `sample`; the records are those of the states that it draws. `out`, [n] of that dtype, is
    written and returned in place of a new array: one that serves again and again spares the system the work of finding
    memory. The GIL is released while records are made, so that threads can each make their own.

    Raises as `sample`, and TypeError or ValueError on an `out` that cannot take the records.
    """
    n, start = row_range(n, start)
    drawn = stream(spec, seed=seed, split=split, weights=weights, by=by, sizes=sizes)
    if not _in_one_pass(spec):
        states = sample(spec, n, seed=seed, start=start, split=split, weights=weights, by=by, sizes=sizes)
        return labelled_records(states, out=out)
    out = _destination(spec, n, out)
    check_drawn(drawn, *_format(spec).draw(drawn, start, _bytes(out)))
    return out


def labelled_records(states: States, *, out: NDArray[np.void] | None = None) -> NDArray[np.void]:
    """One record a state, [n] of `record_dtype`: the machine takes the step and every variable is written down.

    `out` as in `sample_records`.
    """
    check_kind("states", states, States)
    out = _destination(states.spec, len(states), out)
    if _in_one_pass(states.spec):
        _format(states.spec).label(states.rows, _bytes(out))
        return out
    after = step(states)
    out["program_hash"] = program_hash(states)
    for name, values in after.latents.items():
        out[name] = values
    out["state"] = encode(states)
    out["next_state"] = after.tokens()
    return out


@lru_cache(maxsize=64)
def _in_one_pass(spec: MachineSpec) -> bool:
    """Whether the kernel knows how this machine's records are written."""
    return plain(spec) == spec and not spec.padded and spec.d_vocab <= 256 and sys.byteorder == "little"


@lru_cache(maxsize=32)
def _format(spec: MachineSpec) -> RecordFormat:
    return RecordFormat(spec, op_ids(spec, np.uint8))


def _bytes(records: NDArray[np.void]) -> NDArray[np.uint8]:
    """The same memory, [n, bytes of a record]."""
    return records.view(np.uint8).reshape(len(records), records.itemsize)


def _destination(spec: MachineSpec, n: int, out: Any) -> NDArray[np.void]:
    """`out`, checked, or a new array of n records."""
    dtype = record_dtype(spec)
    if out is None:
        try:
            return np.empty(n, dtype)
        except (MemoryError, ValueError):
            raise MemoryError(f"n = {n} records of {dtype.itemsize} bytes each do not fit into memory") from None
    check_kind("out", out, np.ndarray)
    if out.dtype != dtype:
        raise TypeError(f"out must have dtype record_dtype(spec), {dtype.itemsize} bytes a record; got {out.dtype}")
    if out.shape != (n,) or not out.flags.c_contiguous or not out.flags.writeable:
        kind = ("" if out.flags.c_contiguous else ", not contiguous") + ("" if out.flags.writeable else ", read-only")
        raise ValueError(f"out must be a contiguous, writable array of n = {n} records, got {list(out.shape)}{kind}")
    return out
