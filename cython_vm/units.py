"""Hashes of what a model is shown: what counts as one unit where training and evaluation are kept apart.

A program's hash (`program_hash`) tells programs apart that no run tells apart: their unexecuted instructions differ.
Where a model is shown a run, the unit is the stream of its executed instructions; where it is shown a program and an
input and answers what the run prints, it is the part of the program that the run reaches, with the input.

Both are FNV-1a, each step folded on itself, then the finaliser of SplitMix64; `in_split` splits by them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cython_vm._fate import hash_reachable, hash_streams
from cython_vm.arguments import check_kind, whole_number
from cython_vm.states import States

_MAX_STEPS = 2**20  # of a run that may never end


def stream_hash(states: States, n_steps: int) -> NDArray[np.uint64]:
    """The hash of the instructions that the run from each state executes, at most n_steps of them; uint64 [n].

    An instruction is its op, and, if it ran, the value that GET read, the value that PUT wrote, or whether WHILE or
    ENDW jumped. The instruction that halts or freezes is the last, with nothing behind it. States have equal hashes
    where these streams are equal, token for token, whatever else is different, and others up to collisions of 64 bits.

    Raises TypeError or ValueError on an n_steps that is no integer from 0 to 2^20.
    """
    check_kind("states", states, States)
    limit = whole_number("n_steps", n_steps, high=_MAX_STEPS)
    hashes = np.empty(len(states), dtype=np.uint64)
    hash_streams(states.spec, states.rows.copy(), limit, hashes)
    return hashes


def reachable_hash(states: States, n_steps: int) -> NDArray[np.uint64]:
    """The hash of each state without the instructions that its run does not reach in at most n_steps; uint64 [n].

    An instruction is reached where the run comes to it, the one that halts or freezes included; it counts with its
    slot. The rest of the state counts whole: the input with its length (read or not) and, where states are no starts,
    pointers, cells and output; on a padded machine the row's own sizes. So programs that differ in unreached
    instructions alone have equal hashes under the same input.

    Raises TypeError or ValueError on an n_steps that is no integer from 0 to 2^20.
    """
    check_kind("states", states, States)
    limit = whole_number("n_steps", n_steps, high=_MAX_STEPS)
    hashes = np.empty(len(states), dtype=np.uint64)
    hash_reachable(states.spec, states.rows, limit, hashes)
    return hashes
