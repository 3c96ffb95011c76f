"""An assembler for the slot machine: slots by name, instructions whose arguments are names, resolved at the end.

`*name` is reached through the next pointer of the slot `name`; slot 0 is called `nil`: its pointers lead to itself and
it holds 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cython_vm._slots import Kind
from cython_vm.slots import FIELDS, SlotSpec


@dataclass(frozen=True)
class Program:
    """A memory ready to run, but for the contents of its inputs.

    `blocks` groups the slots by what they are for, in the memory's order; a slot has a number inside its block.
    """

    spec: SlotSpec
    row: NDArray[np.int32]  # [width], inputs 0
    names: tuple[str, ...]  # of each slot: "sum[3]", of instructions "step[4]"
    roles: tuple[tuple[str, int], ...]  # of each slot, see `Assembler`
    inputs: tuple[int, ...]  # addresses of the slots that hold the input, in the order of an example's integers
    answers: tuple[int, ...]  # addresses of the slots that hold what comes out

    def memories(self, inputs: NDArray[np.integer]) -> NDArray[np.int32]:
        """A memory for each row of inputs [n, k]: [n, width]."""
        rows = np.repeat(self.row[None], len(inputs), axis=0)
        rows[:, self.spec.column("content") + np.array(self.inputs)] = inputs
        return rows

    def contents(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """What comes out, of memories [..., width]: [..., k]."""
        return rows[..., self.spec.column("content") + np.array(self.answers)].astype(np.int64)

    def slots(self, rows: NDArray[np.integer]) -> NDArray[np.int64]:
        """Memories [n, width] slot by slot: kind, next, left, right, content, [n, slots, 5]."""
        fields = np.asarray(rows)[:, : 5 * self.spec.n_slots].reshape(len(rows), 5, -1)
        return fields.transpose(0, 2, 1).astype(np.int64)


@dataclass
class Assembler:
    """Collects slots in their order; `build` resolves names to addresses.

    Each slot has a role, the same at every size, and an index inside it: ("p", 0). Where a plan grows with the input,
    the slots of an array are its first, its last, and those between, which are told apart by their index alone.
    """

    base: int = 10
    n_values: int = 20
    _slots: list[tuple[str, int, tuple[str, ...], int]] = field(default_factory=list)
    _roles: list[tuple[str, int]] = field(default_factory=list)
    _labels: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data("nil")

    def label(self, name: str) -> None:
        """Name the next slot, so that a jump can lead there."""
        self._labels[name] = len(self._slots)

    def op(
        self,
        kind: Kind,
        first: str = "nil",
        second: str = "nil",
        to: str = "nil",
        *,
        place: tuple[int, int] | None = None,
    ) -> None:
        """An instruction. Its arguments may be `*name`; `place`: it is repeated for each of n places, and this is
        place i of n."""
        mode = sum(each.startswith("*") << place for place, each in enumerate((first, second, to)))
        names = tuple(each.removeprefix("*") for each in (first, second, to))
        step = sum(found.startswith("step[") for found, *_ in self._slots)
        if place is not None:
            role = array_role("place", *place)
        else:
            role = (f"step {sum(each.startswith('step ') for each, _ in self._roles)}", 0)
        self._add(f"step[{step}]", int(kind), names, mode, role)

    def jump(self, to: str) -> None:
        """A jump that is always taken."""
        self.op(Kind.JUMP, "nil", "nil", to)

    def data(
        self,
        name: str,
        content: int = 0,
        following: str = "nil",
        left: str = "nil",
        right: str = "nil",
        *,
        role: tuple[str, int] | None = None,
    ) -> None:
        """A slot that holds something; its role is its name, if nothing else is said."""
        self._add(name, int(Kind.DATA), (following, left, right), content, role or (name, 0))

    def array(self, name: str, n: int, *, linked: bool = False) -> None:
        """`name[0]` to `name[n - 1]`; linked: each one's left pointer leads to the one before it."""
        for i in range(n):
            before = f"{name}[{i - 1}]" if linked and i else "nil"
            self.data(f"{name}[{i}]", left=before, role=array_role(name, i, n))

    def heap(self, n: int) -> None:
        """`n` free slots, at the end of the memory; the first heads the free list."""
        for i in range(n):
            following = f"heap[{i + 1}]" if i + 1 < n else "nil"
            self._add(f"heap[{i}]", int(Kind.FREE), (following, "nil", "nil"), 0, array_role("heap", i, n))

    def _add(self, name: str, kind: int, pointers: tuple[str, ...], content: int, role: tuple[str, int]) -> None:
        if name in self._labels and self._labels[name] != len(self._slots):
            raise ValueError(f"the memory has two slots {name!r}")
        self._labels[name] = len(self._slots)
        self._slots.append((name, kind, pointers, content))
        self._roles.append(role)

    def build(self, inputs: list[str], answers: list[str]) -> Program:
        """The program, whose first instruction is slot 1. Raises ValueError where a name leads nowhere."""
        spec = SlotSpec(len(self._slots), self.base, self.n_values)
        row = np.zeros(spec.width, dtype=np.int32)
        for at, (name, kind, pointers, content) in enumerate(self._slots):
            if missing := [each for each in pointers if self._labels.get(each, len(self._slots)) >= len(self._slots)]:
                raise ValueError(f"slot {name!r} points to {missing[0]!r}, which is not there")
            values = (kind, *(self._labels[each] for each in pointers), content)
            for column, value in zip(FIELDS, values, strict=True):
                row[spec.column(column, at)] = value
        row[spec.column("pc")] = 1
        row[spec.column("free")] = self._labels.get("heap[0]", 0)
        named = tuple(name for name, *_ in self._slots)
        addresses = [tuple(self._labels[each] for each in names) for names in (inputs, answers)]
        return Program(spec, row, named, tuple(self._roles), *addresses)


def array_role(name: str, i: int, n: int) -> tuple[str, int]:
    """The role of element i of n: the first, the last, or one between."""
    if i == 0:
        return f"{name} first", 0
    return (f"{name} last", 0) if i == n - 1 else (name, i - 1)
