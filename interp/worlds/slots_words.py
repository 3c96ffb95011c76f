"""What any memory of a slot machine, compiled or not, answers, and what it executes, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cython_vm import slots as machine
from cython_vm._slots import Fate, Kind

_OF_ONE = (Kind.DIV, Kind.MOD, Kind.COPY, Kind.POINT, Kind.STEP, Kind.NEXT, Kind.LEFT, Kind.RIGHT, Kind.DROP)


def answers_after(world: Any, rows: NDArray[np.integer], n_steps: int) -> NDArray[np.int64]:
    """What the answer's slots of memories [n, width] hold after at most so many steps, [n, k]."""
    return world.program.contents(machine.run(world.spec, rows, n_steps).final)


def executed_words(world: Any, row: NDArray[np.integer], n_steps: int) -> str:
    """The steps that a memory [1, width] executes before it stops, so many at most: "ADC a[0] b[0] → sum[0]".
    Arguments that the operator does not use are left out."""
    names, parts = world.program.names, []
    for _ in range(n_steps):
        after, seen = machine.step(world.spec, row)
        if seen["outcome"][0] != Fate.RAN:
            break
        kind = Kind(int(seen["op"][0]))
        first, second, to = (names[int(seen[f"address[{i}]"][0])] for i in range(3))
        given = () if kind == Kind.NEW else (first,) if kind in _OF_ONE else (first, second)
        parts.append(" ".join([kind.name, *given, *(() if kind == Kind.DROP else ("→", to))]))
        row = after
    return "; ".join(parts)
