"""Programs: as text, their validity, and the hash that splits them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cython_vm._machine import hash_rows
from cython_vm.arguments import check_kind
from cython_vm.program_text import CLASSIC, format_program, parse_program
from cython_vm.states import States
from cython_vm.validity import check_programs, program_fault, valid_programs

__all__ = [
    "CLASSIC",
    "check_programs",
    "format_program",
    "parse_program",
    "program_fault",
    "program_hash",
    "valid_programs",
]


def program_hash(states: States) -> NDArray[np.uint64]:
    """A fixed 64-bit hash of each program, uint64 [n]; `in_split` splits by it: % 20 = 0 is evaluation, 1 validation.

    FNV-1a over the opcodes of all slots (G. Fowler, L. C. Noll, K.-P. Vo), then the finaliser of SplitMix64.
    """
    check_kind("states", states, States)
    hashes = np.empty(len(states), dtype=np.uint64)
    hash_rows(states.spec, states.rows, hashes)
    return hashes
