"""Other ways to write a state than the default one: pointers in one token, no punctuation or more, an outcome token.

Every layout is the default one with columns left out, put in, or moved; so a state is first written the default way
and then rewritten, and read back by undoing that.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cython_vm._isa import Outcome
from cython_vm.arguments import integers
from cython_vm.spec import MachineSpec
from cython_vm.states import States

NO_OUTCOME = 255
_POINTERS = {"instruction_ptr": "instructions", "array_ptr": "cells"}  # and the block that each points into


class TokenFault(Exception):
    """A token that makes no state, where it stands."""

    def __init__(self, row: int, position: int, what: str):
        super().__init__(what)
        self.row, self.position, self.what = row, position, what


@lru_cache(maxsize=64)
def plain(spec: MachineSpec) -> MachineSpec:
    """The same machine with the default layout. Its token ids are the same."""
    return replace(spec, pointers="one_hot", punctuation="blocks", outcome_token=False)


def rewrite(spec: MachineSpec, states: States, tokens: NDArray[Any], outcome: ArrayLike | None) -> NDArray[Any]:
    """Tokens of the default layout in that of `spec`: [n, state_length]."""
    source = _sources(spec)
    written = tokens[:, np.maximum(source, 0)]
    if spec.punctuation == "spaced":
        written[:, source < 0] = spec.token_id("SPACE")
    if spec.pointers == "index":
        for pointer in _POINTERS:
            written[:, spec.layout.position(pointer, 0)] = getattr(states, pointer) + np.intp(spec.token_id("AT_0"))
    if spec.outcome_token:
        written[:, spec.layout.position("outcome", 0)] = _outcome_ids(spec, len(states), outcome)
        if spec.punctuation != "none":
            written[:, spec.layout.index("outcome.[")] = spec.token_id("[")
            written[:, spec.layout.index("outcome.]")] = spec.token_id("]")
    return written


def restore(spec: MachineSpec, ids: NDArray[np.int32]) -> NDArray[np.int32]:
    """Token ids of the layout of `spec` in the default one. Raises TokenFault at what the default one cannot hold."""
    layout, default, source = spec.layout, plain(spec).layout, _sources(spec)
    if spec.punctuation == "spaced":
        spaces = np.array([".space[" in name for name in layout.names])
        _require(ids, spaces, ids == spec.token_id("SPACE"), "SPACE belongs here")
    if spec.outcome_token:
        first = spec.token_id(Outcome(0).name)
        _require(
            ids, layout.slice("outcome"), (ids >= first) & (ids <= first + len(Outcome)), "an outcome belongs here"
        )
        if spec.punctuation != "none":
            for bracket in "[]":
                at = layout.index(f"outcome.{bracket}")
                _require(ids, slice(at, at + 1), ids == spec.token_id(bracket), "another token belongs here")

    restored = np.tile(_punctuation(spec), (len(ids), 1))
    restored[:, source[source >= 0]] = ids[:, source >= 0]
    if spec.pointers == "index":
        for pointer, block in _POINTERS.items():
            where, target = default.slice(pointer), default.slice(block)
            at = ids[:, layout.position(pointer, 0)] - spec.token_id("AT_0")
            size = where.stop - where.start
            fits = np.zeros(ids.shape, dtype=bool)
            fits[:, layout.slice(pointer)] = ((at >= 0) & (at < size))[:, None]
            _require(ids, layout.slice(pointer), fits, f"one of AT_0 … AT_{size - 1} belongs here")
            one_hot = np.where(np.arange(size) == at[:, None], spec.token_id("1"), spec.token_id("0"))
            if spec.padded:
                pad = spec.token_id("PAD")
                one_hot = np.where((restored[:, target] == pad) & (one_hot == spec.token_id("0")), pad, one_hot)
            restored[:, where] = one_hot
    return restored


def position_of(spec: MachineSpec, position: int) -> int:
    """Where the layout of `spec` shows what the default one has at `position`."""
    name = plain(spec).layout.name(position)
    pointer = name.partition("[")[0]
    if spec.pointers == "index" and pointer in _POINTERS:
        name = f"{pointer}[0]"
    return spec.layout.index(name)


def _outcome_ids(spec: MachineSpec, n: int, outcome: ArrayLike | None) -> NDArray[np.int64]:
    """Token ids of outcomes [n]; UNKNOWN for None and 255."""
    given = np.full(n, NO_OUTCOME) if outcome is None else integers("outcome", outcome)
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise ValueError(f"outcome must be integers [{n}], got {given.dtype} {list(given.shape)}")
    bad = (given != NO_OUTCOME) & ((given < 0) | (given >= len(Outcome)))
    for row in np.flatnonzero(bad)[:1]:
        raise ValueError(
            f"outcome must be from 0 to {len(Outcome) - 1}, or 255 for none; got {given[row]} at row {row}"
        )
    return np.where(given == NO_OUTCOME, len(Outcome), given).astype(np.int64) + spec.token_id(Outcome(0).name)


def _require(ids: NDArray[np.int32], where: Any, right: NDArray[np.bool_], what: str) -> None:
    """Raise TokenFault at the first of the positions `where` that is not right."""
    wrong = np.zeros(ids.shape, dtype=bool)
    wrong[:, where] = ~right[:, where]
    for row, position in np.argwhere(wrong)[:1].tolist():
        raise TokenFault(row, position, what)


@lru_cache(maxsize=64)
def _sources(spec: MachineSpec) -> NDArray[np.int64]:
    """For each position, that of the default layout which holds the same token; −1 where none does."""
    default = {name: position for position, name in enumerate(plain(spec).layout.names)}
    moved = {f"{pointer}[0]" for pointer in _POINTERS} if spec.pointers == "index" else set()
    return np.array([-1 if name in moved else default.get(name, -1) for name in spec.layout.names])


@lru_cache(maxsize=64)
def _punctuation(spec: MachineSpec) -> NDArray[np.int32]:
    """The default layout with only its braces and brackets."""
    names = (name.rpartition(".")[2] for name in plain(spec).layout.names)  # "{", "cells.[" or "cells[3]"
    return np.array([spec.token_id(name if name in "{}[]" else "0") for name in names], dtype=np.int32)
