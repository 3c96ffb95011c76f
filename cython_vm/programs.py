"""Programs as text, their validity, and the hash that splits them into training and evaluation."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cython_vm._isa import Op
from cython_vm.arguments import check_kind, integers

if TYPE_CHECKING:
    from cython_vm.spec import MachineSpec
    from cython_vm.states import States

CLASSIC = dict(zip("><+-.,[]", list(Op)[:8], strict=True))  # the spelling of the classic language; STOP has none
_CLASSIC_OF = {op: sign for sign, op in CLASSIC.items()}


def parse_program(text: str, *, spec: MachineSpec | None = None) -> tuple[Op, ...]:
    """Opcodes from words (`INC WHILE DEC ENDW`, any case) or the classic spelling (`+[-]`), which may be mixed.

    With a `spec` the program is padded with STOP to its length. Raises ValueError on an unknown word, unmatched loops,
    and on what the machine of `spec` cannot hold.
    """
    check_kind("text", text, str)
    ops: list[Op] = []
    for word in text.split():
        if word.upper() in Op.__members__:
            ops.append(Op[word.upper()])
        elif all(sign in CLASSIC for sign in word):
            ops += [CLASSIC[sign] for sign in word]
        else:
            raise ValueError(
                f"instruction {len(ops)}: {word!r} is neither one of {' '.join(Op.__members__)} "
                "nor spelled with > < + - . , [ ]"
            )
    fault = program_fault(ops)
    if fault:
        raise ValueError(fault)
    if spec is None:
        return tuple(ops)
    from cython_vm.spec import MachineSpec

    check_kind("spec", spec, MachineSpec)
    fits = len(ops) < spec.n_instructions or (len(ops) == spec.n_instructions and ops[-1] == Op.STOP)
    if not fits:
        raise ValueError(
            f"the program has {len(ops)} instructions; this machine has {spec.n_instructions} slots, the last for STOP"
        )
    own = np.array([len(ops) + (not ops or ops[-1] != Op.STOP)]) if spec.padded else None
    ops += [Op.STOP] * (spec.n_instructions - len(ops))
    check_programs(spec, np.array([ops], dtype=np.uint8), own, name_rows=False)
    return tuple(ops)


def format_program(program: Iterable[int] | NDArray[Any], *, classic: bool = False) -> str:
    """A program as words, or in the classic spelling; STOP at the end is left out (`parse_program` pads with it)."""
    codes = integers(
        "program", list(program) if isinstance(program, Iterable) and not isinstance(program, np.ndarray) else program
    )
    if codes.ndim != 1 or (codes.size and not 0 <= codes.min() <= codes.max() < len(Op)):
        raise ValueError(f"program must be opcodes from 0 to {len(Op) - 1} in one row, got {program!r}")
    ops = [Op(code) for code in codes.tolist()]
    while ops and ops[-1] == Op.STOP:
        ops.pop()
    if not classic:
        return " ".join(op.name for op in ops)
    return "".join(_CLASSIC_OF.get(op, f" {op.name} ") for op in ops)


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


def program_hash(states: States) -> NDArray[np.uint64]:
    """A fixed 64-bit hash of each program, uint64 [n]; `program_hash % 20 == 0` marks the evaluation programs.

    FNV-1a over the opcodes of all slots (G. Fowler, L. C. Noll, K.-P. Vo), then the finaliser of SplitMix64.
    """
    from cython_vm._machine import hash_rows
    from cython_vm.states import States

    check_kind("states", states, States)
    hashes = np.empty(len(states), dtype=np.uint64)
    hash_rows(states.spec, states.rows, hashes)
    return hashes
