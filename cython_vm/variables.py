"""Variables of the machine: reading them in states, and what depends on what. What each is stands in `declarations`.

A variable can be read (`read(states)`) and most can be set (`step(states, do={name: values})`, which replaces the
equation).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cython_vm.arguments import check_kind
from cython_vm.declarations import DECLARED, STEPS_LIMIT, Declared, declared
from cython_vm.machine import step
from cython_vm.running import loop_depth, run
from cython_vm.spec import MachineSpec
from cython_vm.states import States

Reader = Callable[[States, int], NDArray[np.integer]]  # of states and the member of a family


@dataclass(frozen=True)
class Variable(Declared):
    """One variable (or family of variables) of the machine, that can be read."""

    def n_values(self, spec: MachineSpec) -> int:
        """Values are 0 … n_values − 1."""
        check_kind("spec", spec, MachineSpec)
        return self._n_values(spec)

    def read(self, states: States) -> NDArray[np.int64]:
        """The variable in every state, int64 [n], −1 where it is undefined."""
        if "[i]" in self.name:
            raise ValueError(f"{self.name} is a family; read one member, such as {self.name.replace('[i]', '[0]')}")
        check_kind("states", states, States)
        read = _READERS.get(self.name.partition("[")[0]) or _stepped(self.name)
        return read(states, self.index or 0).astype(np.int64)


def _stored(name: str) -> Reader:
    return lambda states, index: getattr(states, name)


def _slot(block: str, size: str) -> Reader:
    def read(states: States, index: int) -> NDArray[np.integer]:
        values = getattr(states, block)[:, index]
        return np.where(states.sizes[size] > index, values.astype(np.int64), -1) if states.spec.padded else values

    return read


def _buffer(block: str) -> Reader:
    def read(states: States, index: int) -> NDArray[np.integer]:
        held = getattr(states, f"{block}_length") > index
        return np.where(held, getattr(states, block)[:, index].astype(np.int64), -1)

    return read


def _stepped(name: str) -> Reader:
    return lambda states, index: step(states).latents[name]


def _steps_to_halt(states: States, index: int) -> NDArray[np.integer]:
    trace = run(states, STEPS_LIMIT, keep="last")
    return np.where(trace.stopped, trace.n_steps, -1)


_READERS: dict[str, Reader] = {
    "instruction_ptr": _stored("instruction_ptr"),
    "array_ptr": _stored("array_ptr"),
    "instruction": _slot("program", "n_instructions"),
    "cell": _slot("cells", "n_cells"),
    "input_length": _stored("input_length"),
    "input": _buffer("input"),
    "output": _buffer("output"),
    "next_cell": lambda states, index: _READERS["cell"](step(states).next, index),
    "loop_depth": lambda states, index: loop_depth(states),
    "steps_to_halt": _steps_to_halt,
}
"""By family; the variables of a step, which are not named here, are read off the step."""


def _readable(one: Declared) -> Variable:
    return Variable(*(getattr(one, field.name) for field in fields(one)))


VARIABLES: dict[str, Variable] = {one.name: _readable(one) for one in DECLARED}


def variable(spec: MachineSpec, name: str) -> Variable:
    """The variable of a concrete name (`op`, `cell[3]`), its parents named one by one.

    Raises ValueError with close matches where this machine has no such variable.
    """
    check_kind("spec", spec, MachineSpec)
    found = declared(spec, name)
    return _variable(spec, found.name)


@lru_cache(maxsize=4096)
def _variable(spec: MachineSpec, name: str) -> Variable:
    return _readable(declared(spec, name))


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
