"""Programs as text: words, or the spelling of the classic language."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cython_vm._isa import Op
from cython_vm.arguments import check_kind, integers
from cython_vm.spec import MachineSpec
from cython_vm.validity import check_programs, program_fault

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
