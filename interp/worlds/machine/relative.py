"""`cell[@array_ptr+k]`: the cell that lies k places behind the pointer, as a variable beside `cell[i]`.

Both name the same tape in two ways. A model that keeps its tape at absolute places holds `cell[i]` in one part of its
state; one that shifts the tape as the pointer moves holds `cell[@array_ptr+k]` there. Which of the two a swapped part
carries is what tells them apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cython_vm import MachineSpec, States, variable
from interp.worlds.base import Variable

FAMILY = "relative_cell"
_NAME = re.compile(r"cell\[@array_ptr([+-]\d+)\]")


def relative_name(offset: int) -> str:
    """ "cell[@array_ptr+1]" of offset 1; offset 0 is spelt +0."""
    return f"cell[@array_ptr{offset:+d}]"


def offset_of(name: str) -> int | None:
    """The offset that a name spells; None where it is no relative cell."""
    found = _NAME.fullmatch(name)
    return None if found is None else int(found[1])


@lru_cache(maxsize=256)
def relative_variable(spec: MachineSpec, name: str) -> Variable | None:
    """What `World.variable` says of a relative cell; None where the name is another's.

    Raises:
        ValueError: no cell of the machine lies so far from any other.
    """
    offset = offset_of(name)
    if offset is None:
        return None
    if abs(offset) >= spec.n_cells:
        raise ValueError(f"a tape of {spec.n_cells} cells has offsets up to {spec.n_cells - 1}; got {name!r}")
    equation = f"cell[array_ptr{offset:+d}]; undefined beyond the tape"
    parents = ("array_ptr", *(f"cell[{index}]" for index in range(spec.n_cells)))
    values = variable(spec, "cell[0]").n_values(spec)
    return Variable(name, FAMILY, "root", parents, values, None, True, equation)


def read_relative(states: States, offset: int) -> NDArray[np.int64]:
    """The cell so many places behind the pointer of each state, int64 [n]; -1 beyond the tape."""
    place = states.array_ptr.astype(np.int64) + offset
    size = states.sizes["n_cells"] if states.spec.padded else states.spec.n_cells
    there = (place >= 0) & (place < size)
    cells = states.cells[np.arange(len(states)), np.where(there, place, 0)].astype(np.int64)
    return np.where(there, cells, -1)


def set_relative(
    states: States, do: Mapping[str, NDArray[np.integer]]
) -> tuple[States, dict[str, NDArray[np.integer]], NDArray[np.bool_]]:
    """The states with the relative cells of `do` set, the rest of `do`, and where all of them could be set, bool [n].

    A cell beyond the tape, or a value that no cell holds (-1), leaves the state as it was.
    """
    rest, possible = dict(do), np.ones(len(states), dtype=bool)
    for name in do:
        offset = offset_of(name)
        if offset is None:
            continue
        values = np.broadcast_to(np.asarray(rest.pop(name), dtype=np.int64), len(states))
        fits = (read_relative(states, offset) >= 0) & (values >= 0) & (values <= states.spec.max_value)
        cells, rows = states.cells.copy(), np.flatnonzero(fits)
        cells[rows, states.array_ptr[rows].astype(np.int64) + offset] = values[rows]
        states, possible = states.replace("cells", cells), possible & fits
    return states, rest, possible
