"""Which programs a machine holds, and what is wrong with one that it does not."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from cython_vm._isa import Op
from cython_vm.spec import MachineSpec


def program_fault(program: Iterable[int]) -> str | None:
    """What is wrong with the loops of a program, or None."""
    opened: list[int] = []
    for slot, op in enumerate(program):
        if op == Op.WHILE:
            opened.append(slot)
        elif op == Op.ENDW:
            if not opened:
                return f"instruction {slot} is ENDW without a WHILE before it"
            opened.pop()
    return f"instruction {opened[-1]} is WHILE without an ENDW after it" if opened else None


def valid_programs(
    spec: MachineSpec, program: NDArray[np.uint8], lengths: NDArray[np.integer] | None = None
) -> NDArray[np.bool_]:
    """Which rows of opcodes [n, n_instructions] are programs of this machine: bool [n].

    lengths [n]: how many slots each row has; STOP stands in the last of them and in what lies beyond.
    """
    table = np.zeros(256, dtype=bool)
    table[[int(op) for op in spec.ops]] = True
    last = _last_slots(spec, program, lengths)
    slots = np.arange(spec.n_instructions)
    ok = table[program].all(axis=1) & ((program == Op.STOP) | (slots < last)).all(axis=1)
    if not spec.stops:
        ok &= ((program != Op.STOP) | (slots >= last)).all(axis=1)
    depth = np.cumsum((program == Op.WHILE).astype(np.int16) - (program == Op.ENDW), axis=1)
    return ok & (depth >= 0).all(axis=1) & (depth[:, -1] == 0)


def check_programs(
    spec: MachineSpec,
    program: NDArray[np.uint8],
    lengths: NDArray[np.integer] | None = None,
    *,
    name_rows: bool = True,
) -> None:
    """Raise ValueError naming the first row, the slot and the fault of a program that this machine does not hold."""
    ok = valid_programs(spec, program, lengths)
    if ok.all():
        return
    row = int(np.flatnonzero(~ok)[0])
    where = f"program of row {row}: " if name_rows else ""
    ops, last = program[row], int(_last_slots(spec, program, lengths)[row, 0])
    for slot, op in enumerate(ops):
        if op not in spec.ops:
            name = Op(op).name if op < len(Op) else str(op)
            raise ValueError(
                f"{where}instruction {slot} is {name}; this machine has {' '.join(o.name for o in spec.ops)}"
            )
        if op == Op.STOP and not spec.stops and slot < last:
            raise ValueError(f"{where}instruction {slot} is STOP; with stops=False only the last slot holds it")
        if op != Op.STOP and slot >= last:
            raise ValueError(f"{where}the last instruction must be STOP, got {Op(op).name} at instruction {slot}")
    raise ValueError(f"{where}{program_fault(ops)}")


def _last_slots(
    spec: MachineSpec, program: NDArray[np.uint8], lengths: NDArray[np.integer] | None
) -> NDArray[np.int64]:
    """The last slot of every row, int64 [n, 1]."""
    if lengths is None:
        return np.full((len(program), 1), spec.n_instructions - 1)
    return lengths.astype(np.int64)[:, None] - 1
