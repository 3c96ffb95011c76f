"""Every variable of the machine: how it is read, what it depends on, and its equation.

A variable can be read (`read(states)`) and most can be set (`step(states, do={name: values})`, which replaces the
equation). Roots are stored in S_t, and setting one is editing S_t. Setting a fetched copy changes only what is decided
and written. Setting a result changes the named slot of S_{t+1}. Families (`cell[i]`) have one variable a slot.

Notation of `parents` in VARIABLES: `cell[i]` is the member of the same index, `cell[:]` every member.
`variable(spec, name)` names them one by one. An undefined value is −1.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cython_vm._isa import Op, Outcome
from cython_vm.arguments import check_kind

if TYPE_CHECKING:
    from cython_vm.spec import MachineSpec
    from cython_vm.states import States

Kind = Literal["root", "fetch", "decide", "result", "latent"]
STEPS_LIMIT = 255  # `steps_to_halt` looks this far ahead

_FAMILIES: dict[str, Callable[[MachineSpec], int]] = {
    "instruction": lambda spec: spec.n_instructions,
    "cell": lambda spec: spec.n_cells,
    "input": lambda spec: spec.n_input,
    "output": lambda spec: spec.n_output,
    "next_cell": lambda spec: spec.n_cells,
}


@dataclass(frozen=True)
class Variable:
    """One variable (or family of variables) of the machine."""

    name: str
    kind: Kind
    parents: tuple[str, ...]
    equation: str  # in words, for people
    slot: str | None  # where it stands in an encoded state (S_{t+1} for results), None if nowhere
    settable: bool
    _n_values: Callable[[MachineSpec], int]
    _read: Callable[[States, int], NDArray[np.integer]]
    index: int | None = None  # the member of a family

    def n_values(self, spec: MachineSpec) -> int:
        """Values are 0 … n_values − 1."""
        _check_spec(spec)
        return self._n_values(spec)

    def read(self, states: States) -> NDArray[np.int64]:
        """The variable in every state, int64 [n], −1 where it is undefined."""
        if "[i]" in self.name:
            raise ValueError(f"{self.name} is a family; read one member, such as {self.name.replace('[i]', '[0]')}")
        from cython_vm.states import States

        check_kind("states", states, States)
        return self._read(states, self.index or 0).astype(np.int64)


def _check_spec(spec: MachineSpec) -> None:
    from cython_vm.spec import MachineSpec

    check_kind("spec", spec, MachineSpec)


def _stored(name: str) -> Callable[[States, int], NDArray[np.integer]]:
    return lambda states, index: getattr(states, name)


def _slot(block: str, size: str) -> Callable[[States, int], NDArray[np.integer]]:
    def read(states: States, index: int) -> NDArray[np.integer]:
        values = getattr(states, block)[:, index]
        return _where_there(states, size, index, values) if states.spec.padded else values

    return read


def _where_there(states: States, size: str, index: int, values: NDArray[np.integer]) -> NDArray[np.integer]:
    return np.where(states.sizes[size] > index, values.astype(np.int64), -1)


def _buffer(block: str) -> Callable[[States, int], NDArray[np.integer]]:
    def read(states: States, index: int) -> NDArray[np.integer]:
        held = getattr(states, f"{block}_length") > index
        return np.where(held, getattr(states, block)[:, index].astype(np.int64), -1)

    return read


def _stepped(name: str) -> Callable[[States, int], NDArray[np.integer]]:
    def read(states: States, index: int) -> NDArray[np.integer]:
        from cython_vm.machine import step

        return step(states).latents[name]

    return read


def _next_cell(states: States, index: int) -> NDArray[np.integer]:
    from cython_vm.machine import step

    return _slot("cells", "n_cells")(step(states).next, index)


def _loop_depth(states: States, index: int) -> NDArray[np.integer]:
    brackets = (states.program == Op.WHILE).astype(np.int64) - (states.program == Op.ENDW)
    before = np.arange(states.spec.n_instructions) < states.instruction_ptr[:, None]
    return (brackets * before).sum(axis=1)


def _steps_to_halt(states: States, index: int) -> NDArray[np.integer]:
    from cython_vm.running import run

    trace = run(states, STEPS_LIMIT, keep="last")
    return np.where(trace.stopped, trace.n_steps, -1)


def _slots(spec: MachineSpec) -> int:
    return spec.n_instructions


def _numbers(spec: MachineSpec) -> int:
    return spec.max_value + 1


def _root(
    name: str, read: Callable, n_values: Callable[[MachineSpec], int], slot: str | None, equation: str
) -> Variable:
    return Variable(name, "root", (), equation, slot, True, n_values, read)


def _of_step(
    name: str, kind: Kind, parents: str, n_values: Callable[[MachineSpec], int], slot: str | None, equation: str
) -> Variable:
    return Variable(name, kind, tuple(parents.split()), equation, slot, True, n_values, _stepped(name))


_ALL = (
    _root("instruction_ptr", _stored("instruction_ptr"), _slots, "instruction_ptr", "given"),
    _root("array_ptr", _stored("array_ptr"), lambda spec: spec.n_cells, "array_ptr", "given"),
    _root(
        "instruction[i]", _slot("program", "n_instructions"), lambda spec: len(Op), "instructions[i]", "given; an Op"
    ),
    _root("cell[i]", _slot("cells", "n_cells"), _numbers, "cells[i]", "given"),
    _root("input_length", _stored("input_length"), lambda spec: spec.n_input + 1, None, "given; set: only shorter"),
    _root("input[i]", _buffer("input"), _numbers, "input[i]", "given; undefined in an empty slot"),
    _root("output[i]", _buffer("output"), _numbers, "output[i]", "given; undefined in an empty slot"),
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
    Variable(
        "next_cell[i]",
        "result",
        ("cell[i]", "array_ptr", "result"),
        "result if i = array_ptr, else cell[i]",
        "cells[i]",
        True,
        _numbers,
        _next_cell,
    ),
    Variable(
        "loop_depth",
        "latent",
        ("instruction_ptr", "instruction[:]"),
        "how many loops enclose instruction_ptr: WHILEs less ENDWs in the slots before it",
        None,
        False,
        lambda spec: (spec.n_instructions - 1) // 2 + 1 if spec.loops else 1,
        _loop_depth,
    ),
    Variable(
        "steps_to_halt",
        "latent",
        ("instruction_ptr", "array_ptr", "instruction[:]", "cell[:]", "input_length", "input[:]"),
        f"how many steps run before one halts or freezes; undefined if more than {STEPS_LIMIT}",
        None,
        False,
        lambda spec: STEPS_LIMIT + 1,
        _steps_to_halt,
    ),
)

VARIABLES: dict[str, Variable] = {variable.name: variable for variable in _ALL}


def concrete_names(spec: MachineSpec) -> list[str]:
    """The names of all variables of a machine, families member by member, in causal order."""
    names = []
    for name in VARIABLES:
        family = name.removesuffix("[i]")
        names += [f"{family}[{i}]" for i in range(_FAMILIES[family](spec))] if name.endswith("[i]") else [name]
    return names


def variable(spec: MachineSpec, name: str) -> Variable:
    """The variable of a concrete name (`op`, `cell[3]`), its parents named one by one.

    Raises ValueError with close matches where this machine has no such variable.
    """
    _check_spec(spec)
    if not isinstance(name, str):
        raise TypeError(f"the name of a variable must be text, got {name!r}")
    return _variable(spec, name)


@lru_cache(maxsize=4096)
def _variable(spec: MachineSpec, name: str) -> Variable:
    match = re.fullmatch(r"(\w+)\[(0|[1-9][0-9]{0,3})\]", name)
    family, index = (match[1], int(match[2])) if match else (name, None)
    found = VARIABLES.get(f"{family}[i]" if match else name)
    if found is None or name.endswith("[i]") or (index is not None and index >= _FAMILIES[family](spec)):
        close = difflib.get_close_matches(name, concrete_names(spec), n=3)
        hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(VARIABLES)}"
        raise ValueError(f"this machine has no variable {name!r}; {hint}")
    parents: list[str] = []
    for parent in found.parents:
        of = parent.partition("[")[0]
        if parent.endswith("[:]"):
            parents += [f"{of}[{i}]" for i in range(_FAMILIES[of](spec))]
        elif parent.endswith("[i]"):
            parents.append(f"{of}[{index}]")
        elif "[" not in parent or int(parent[len(of) + 1 : -1]) < _FAMILIES[of](spec):
            parents.append(parent)
    slot = found.slot.replace("[i]", f"[{index}]") if found.slot else None
    return replace(found, name=name, parents=tuple(parents), slot=slot, index=index)


def ancestors(spec: MachineSpec, name: str) -> frozenset[str]:
    """Every variable that `name` depends on, directly or not."""
    found: set[str] = set()
    waiting = list(variable(spec, name).parents)
    while waiting:
        parent = waiting.pop()
        if parent not in found:
            found.add(parent)
            waiting += variable(spec, parent).parents
    return frozenset(found)
