"""The semantic control of Jin & Rinard (2024): would the probe read as well a machine whose instructions mean others?

The same program is executed exactly, loops included, under other meanings of its opcodes, and a probe is fitted on
that run's variables. What a model represents of the true run should be easier to read than what it has no use for. The
permutation must not be a mere relabelling of the state: NEXT and PREV exchanged only negate the pointer, so pointer
moves are exchanged with changes of the cell. Brackets, PUT, GET and STOP keep their meaning.
"""

from __future__ import annotations

import numpy as np

from cython_vm import Op, States

ALTERED = {Op.NEXT: Op.INC, Op.INC: Op.NEXT, Op.PREV: Op.DEC, Op.DEC: Op.PREV}


def altered(states: States, meanings: dict[Op, Op] = ALTERED) -> States:
    """The states with every instruction replaced by what it means under `meanings`.

    Raises:
        ValueError: the meanings are no permutation, touch an instruction that must keep its own, or only negate.
    """
    if set(meanings) != set(meanings.values()):
        raise ValueError("altered meanings must be a permutation of the instructions that they name")
    moves = (Op.NEXT, Op.PREV, Op.INC, Op.DEC)
    if kept := [op.name for op in meanings if op not in moves]:
        raise ValueError(f"brackets, PUT, GET and STOP keep their meaning; got another for {kept[0]}")
    lanes = {Op.NEXT: 0, Op.PREV: 0, Op.INC: 1, Op.DEC: 1}
    if all(lanes[old] == lanes[new] for old, new in meanings.items()):
        raise ValueError("NEXT with PREV or INC with DEC only negates: exchange pointer moves with changes of the cell")
    table = np.arange(len(Op))
    for old, new in meanings.items():
        table[old] = new
    return states.replace("program", table[states.program])
