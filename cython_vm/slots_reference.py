"""The specification of the slot machine: one step of one memory, in plain Python. `_slots.pyx` must equal it.

A memory is S slots, each of a kind, with three pointers (next, left, right) and a content. A slot whose kind is an
operator is an instruction; its pointers name two arguments and a destination, and its content says by three bits which
of them are reached through the next pointer of the slot that is named. Slot 0 ends lists: nothing is allocated there.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

from cython_vm._slots import Fate, Kind
from cython_vm.slots import SlotSpec


@dataclass
class Memory:
    """A state: the slots, and three registers."""

    kinds: list[int]
    pointers: tuple[list[int], list[int], list[int]]  # next, left, right
    contents: list[int]
    pc: int = 0  # the address of the slot that is executed next
    carry: int = 0
    free: int = 0  # the first free slot, its next pointer the one behind it; 0: none


def order(a: int, b: int) -> int:
    """How two numbers compare: 0 where equal, 1 where the first is less, 2 where it is greater."""
    return 0 if a == b else 1 if a < b else 2


def step(spec: SlotSpec, memory: Memory, do: Mapping[str, int] | None = None) -> tuple[Memory, dict[str, int]]:
    """The next memory, and every quantity of the step by name; −1 where there is none.

    What cannot be done freezes: the memory stays as it was, the program counter too, and "outcome" says why.

    do: quantities of the step that are set, by name; of those that the step does not have, nothing comes.
    """
    do, m = do or {}, copy.deepcopy(memory)
    following, contents = m.pointers[0], m.contents
    op, mode = do.get("op", m.kinds[m.pc]), contents[m.pc] % 8
    address = [m.pointers[i][m.pc] for i in range(3)]
    address = [following[at] if mode >> i & 1 else at for i, at in enumerate(address)]
    address = [do.get(f"address[{i}]", at) for i, at in enumerate(address)]
    x, y = do.get("x", contents[address[0]]), do.get("y", contents[address[1]])
    fate, result, pointer, branch, carry = Fate.RAN, -1, -1, -1, m.carry
    if op in (Kind.ADC, Kind.SBB):  # with carry: of an addition what is carried, of a subtraction what is borrowed
        if max(x, y) >= spec.base:
            fate = Fate.VALUE_OVERFLOW
        elif op == Kind.ADC:
            carry, result = divmod(x + y + m.carry, spec.base)
        else:
            carry, result = int(x - y - m.carry < 0), (x - y - m.carry) % spec.base
    elif op == Kind.ADD:
        result = x + y
        if result >= spec.n_values:
            fate, result = Fate.VALUE_OVERFLOW, -1
    elif op in (Kind.DIV, Kind.MOD):
        result = divmod(x, spec.base)[op == Kind.MOD]
    elif op == Kind.CMP:
        result = order(x, y)
    elif op == Kind.COPY:
        result = x
    elif op == Kind.ORDER:  # of where two slots point
        result = order(following[address[0]], following[address[1]])
    elif op == Kind.POINT:  # at the argument
        pointer = address[0]
    elif op == Kind.STEP:  # to the slot behind the argument
        pointer = address[0] + 1
        if pointer == spec.n_slots:
            fate = Fate.POINTER_OVERFLOW
    elif op in (Kind.NEXT, Kind.LEFT, Kind.RIGHT):  # where the argument points
        pointer = m.pointers[op - Kind.NEXT][address[0]]
    elif op == Kind.JUMP:  # to the destination, if the arguments hold the same
        branch = do.get("branch", int(x == y))
    elif op == Kind.NEW:
        pointer = m.free
        if not m.free:
            fate = Fate.OUT_OF_MEMORY
    elif op == Kind.DROP:
        if address[0] == 0 or m.kinds[address[0]] != Kind.DATA:
            fate = Fate.BAD_FREE
    else:
        fate = Fate.HALTED if op == Kind.HALT else Fate.NOT_AN_OPERATOR
    if result >= 0:
        result = do.get("result", result)
    next_pc = do.get("next_pc", address[2] if branch == 1 else m.pc + 1)
    if fate == Fate.RAN and next_pc == spec.n_slots:
        fate = Fate.POINTER_OVERFLOW
    seen = {"op": op, **{f"address[{i}]": at for i, at in enumerate(address)}, "x": x, "y": y}
    seen |= {"result": result, "branch": branch, "next_pc": next_pc if fate == Fate.RAN else -1, "outcome": int(fate)}
    if fate != Fate.RAN:
        return m, seen
    if op == Kind.NEW:
        fresh, m.free = m.free, following[m.free]
        m.kinds[fresh], contents[fresh] = Kind.DATA, 0
        for pointers in m.pointers:
            pointers[fresh] = 0
    elif op == Kind.DROP:
        dropped = address[0]
        m.kinds[dropped], following[dropped], m.free = Kind.FREE, m.free, dropped
    if result >= 0:
        contents[address[2]] = result
    elif pointer >= 0:
        following[address[2]] = pointer
    m.pc, m.carry = next_pc, carry
    return m, seen
