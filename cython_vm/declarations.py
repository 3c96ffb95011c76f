"""Every variable of the machine, declared: what it depends on, its equation, how many values it has, where it stands.

This is what is known of variables without a state at hand; `variables` adds how they are read. Roots are stored in
S_t, and setting one is editing S_t. Setting a fetched copy changes only what is decided and written. Setting a result
changes the named slot of S_{t+1}. Families (`cell[i]`) have one variable a slot.

Notation of `parents` in DECLARED: `cell[i]` is the member of the same index, `cell[:]` every member.
`declared(spec, name)` names them one by one. An undefined value is −1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from cython_vm._isa import Op, Outcome

if TYPE_CHECKING:
    from cython_vm.spec import MachineSpec

Kind = Literal["root", "fetch", "decide", "result", "latent"]
STEPS_LIMIT = 255  # `steps_to_halt` looks this far ahead

FAMILIES: dict[str, Callable[[MachineSpec], int]] = {
    "instruction": lambda spec: spec.n_instructions,
    "cell": lambda spec: spec.n_cells,
    "input": lambda spec: spec.n_input,
    "output": lambda spec: spec.n_output,
    "next_cell": lambda spec: spec.n_cells,
}


@dataclass(frozen=True)
class Declared:
    """One variable (or family of variables) of the machine."""

    name: str
    kind: Kind
    parents: tuple[str, ...]
    equation: str  # in words, for people
    slot: str | None  # where it stands in an encoded state (S_{t+1} for results), None if nowhere
    settable: bool
    _n_values: Callable[[MachineSpec], int]
    index: int | None = None  # the member of a family

    def n_values(self, spec: MachineSpec) -> int:
        """Values are 0 … n_values − 1."""
        return self._n_values(spec)


def _slots(spec: MachineSpec) -> int:
    return spec.n_instructions


def _numbers(spec: MachineSpec) -> int:
    return spec.max_value + 1


def _root(name: str, n_values: Callable[[MachineSpec], int], slot: str | None, equation: str) -> Declared:
    return Declared(name, "root", (), equation, slot, True, n_values)


def _of_step(
    name: str, kind: Kind, parents: str, n_values: Callable[[MachineSpec], int], slot: str | None, equation: str
) -> Declared:
    return Declared(name, kind, tuple(parents.split()), equation, slot, True, n_values)


DECLARED = (
    _root("instruction_ptr", _slots, "instruction_ptr", "given"),
    _root("array_ptr", lambda spec: spec.n_cells, "array_ptr", "given"),
    _root("instruction[i]", lambda spec: len(Op), "instructions[i]", "given; an Op"),
    _root("cell[i]", _numbers, "cells[i]", "given"),
    _root("input_length", lambda spec: spec.n_input + 1, None, "given; set: only shorter"),
    _root("input[i]", _numbers, "input[i]", "given; undefined in an empty slot"),
    _root("output[i]", _numbers, "output[i]", "given; undefined in an empty slot"),
    _of_step(
        "op",
        "fetch",
        "instruction_ptr instruction[:]",
        lambda spec: len(Op),
        "instructions[@instruction_ptr]",
        "instruction[instruction_ptr], an Op",
    ),
    _of_step(
        "operand",
        "fetch",
        "array_ptr cell[:]",
        _numbers,
        "cells[@array_ptr]",
        "cell[array_ptr]",
    ),
    _of_step(
        "jump_target",
        "fetch",
        "instruction_ptr instruction[:]",
        _slots,
        None,
        "the slot after the partner of the bracket at instruction_ptr; undefined if it holds no bracket",
    ),
    _of_step(
        "input_head",
        "fetch",
        "input_length input[0]",
        _numbers,
        "input[0]",
        "input[0]; undefined if the input is empty",
    ),
    _of_step(
        "output_length",
        "fetch",
        "",
        lambda spec: spec.n_output + 1,
        None,
        "how many values the output of S_t holds; an emitted value goes to this slot",
    ),
    _of_step(
        "outcome",
        "decide",
        "op operand array_ptr input_head output_length",
        lambda spec: len(Outcome),
        None,
        "RAN, or why not: STOP halts; NEXT at the last cell, PREV at cell 0, INC at the largest value, DEC at 0, PUT "
        "with output_length = n_output, GET without input_head freeze",
    ),
    _of_step(
        "branch_taken",
        "decide",
        "op operand",
        lambda spec: 2,
        None,
        "WHILE: operand = 0; ENDW: operand ≠ 0; undefined for other ops",
    ),
    _of_step(
        "result",
        "result",
        "op outcome operand input_head array_ptr cell[:]",
        _numbers,
        "cells[@array_ptr]",
        "if RAN, INC: operand + 1, DEC: operand − 1, GET: input_head; else cell[array_ptr]",
    ),
    _of_step(
        "emitted",
        "result",
        "op outcome operand",
        _numbers,
        "output[@output_length]",
        "operand if PUT RAN, else undefined; where defined it is appended to the output",
    ),
    _of_step(
        "next_instruction_ptr",
        "result",
        "instruction_ptr outcome branch_taken jump_target",
        _slots,
        "instruction_ptr",
        "if RAN: jump_target where branch_taken = 1, else instruction_ptr + 1; if not RAN: instruction_ptr",
    ),
    _of_step(
        "next_array_ptr",
        "result",
        "op outcome array_ptr",
        lambda spec: spec.n_cells,
        "array_ptr",
        "if RAN, NEXT: array_ptr + 1, PREV: array_ptr − 1; else array_ptr",
    ),
    Declared(
        "next_cell[i]",
        "result",
        ("cell[i]", "array_ptr", "result"),
        "result if i = array_ptr, else cell[i]",
        "cells[i]",
        True,
        _numbers,
    ),
    Declared(
        "loop_depth",
        "latent",
        ("instruction_ptr", "instruction[:]"),
        "how many loops enclose instruction_ptr: WHILEs less ENDWs in the slots before it",
        None,
        False,
        lambda spec: (spec.n_instructions - 1) // 2 + 1 if spec.loops else 1,
    ),
    Declared(
        "steps_to_halt",
        "latent",
        ("instruction_ptr", "array_ptr", "instruction[:]", "cell[:]", "input_length", "input[:]"),
        f"how many steps run before one halts or freezes; undefined if more than {STEPS_LIMIT}",
        None,
        False,
        lambda spec: STEPS_LIMIT + 1,
    ),
)

_BY_NAME = {declared.name: declared for declared in DECLARED}


def concrete_names(spec: MachineSpec) -> list[str]:
    """The names of all variables of a machine, families member by member, in causal order."""
    names = []
    for name in _BY_NAME:
        family = name.removesuffix("[i]")
        names += [f"{family}[{i}]" for i in range(FAMILIES[family](spec))] if name.endswith("[i]") else [name]
    return names


def declared(spec: MachineSpec, name: str) -> Declared:
    """The variable of a concrete name (`op`, `cell[3]`), its parents named one by one.

    Raises ValueError with close matches where this machine has no such variable.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a variable must be text, got {name!r}")
    return _declared(spec, name)


@lru_cache(maxsize=4096)
def _declared(spec: MachineSpec, name: str) -> Declared:
    match = re.fullmatch(r"(\w+)\[(0|[1-9][0-9]{0,3})\]", name)
    family, index = (match[1], int(match[2])) if match else (name, None)
    found = _BY_NAME.get(f"{family}[i]" if match else name)
    if found is None or name.endswith("[i]") or (index is not None and index >= FAMILIES[family](spec)):
        close = difflib.get_close_matches(name, concrete_names(spec), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(_BY_NAME)}"
        raise ValueError(f"this machine has no variable {name!r}; {hint}")
    parents: list[str] = []
    for parent in found.parents:
        of = parent.partition("[")[0]
        if parent.endswith("[:]"):
            parents += [f"{of}[{i}]" for i in range(FAMILIES[of](spec))]
        elif parent.endswith("[i]"):
            parents.append(f"{of}[{index}]")
        elif "[" not in parent or int(parent[len(of) + 1 : -1]) < FAMILIES[of](spec):
            parents.append(parent)
    slot = found.slot.replace("[i]", f"[{index}]") if found.slot else None
    return replace(found, name=name, parents=tuple(parents), slot=slot, index=index)
