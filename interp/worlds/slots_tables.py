"""What the slot machine's operators compute, as tables made by running it: for machines made of tensors.

The kinds stand here by name, so that models can be imported where the machine is not; a test holds them to it.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

_NAMES = (
    *("FREE", "DATA", "HALT", "ADC", "SBB", "ADD", "DIV", "MOD", "CMP", "COPY"),
    *("ORDER", "POINT", "STEP", "NEXT", "LEFT", "RIGHT", "JUMP", "NEW", "DROP"),
)
KINDS: dict[str, int] = {name: number for number, name in enumerate(_NAMES)}
ARITHMETIC: tuple[str, ...] = ("ADC", "SBB", "ADD", "DIV", "MOD", "CMP", "COPY")  # write what follows from contents
CARRYING: tuple[str, ...] = ("ADC", "SBB")  # of these, those that set the carry
N_MODES = 3  # bits of an instruction's content: which of its three operands are reached through a pointer


def arithmetic_tables(base: int, n_values: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each of ARITHMETIC what is written, and what is carried then, [operator, x, y, carry]; −1: it freezes."""
    from cython_vm import slots as machine

    spec = machine.SlotSpec(6, base, n_values)
    cases = np.array(list(product(range(len(ARITHMETIC)), range(n_values), range(n_values), range(2))))
    rows = np.zeros((len(cases), spec.width), dtype=np.int32)
    rows[:, spec.column("kind", 1)] = np.array([KINDS[name] for name in ARITHMETIC])[cases[:, 0]]
    for field, value in (("next", 2), ("left", 3), ("right", 4)):
        rows[:, spec.column(field, 1)] = value
    rows[:, spec.column("content", 2)], rows[:, spec.column("content", 3)] = cases[:, 1], cases[:, 2]
    rows[:, spec.column("pc")], rows[:, spec.column("carry")] = 1, cases[:, 3]
    after, seen = machine.step(spec, rows)
    shape = (len(ARITHMETIC), n_values, n_values, 2)
    carried = np.where(seen["outcome"] == 0, after[:, spec.column("carry")], -1).astype(np.int64)
    return seen["result"].reshape(shape), carried.reshape(shape)


def mode_bits(n_values: int) -> NDArray[np.float64]:
    """Of every content, which operands of an instruction that holds it are reached through a pointer, [value, 3]."""
    return (np.arange(n_values)[:, None] >> np.arange(N_MODES) & 1).astype(np.float64)
