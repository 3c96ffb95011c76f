"""The slot machine: a memory of slots runs a compiled plan; every slot, pointer and register is known at every step.

    a[3], key, …           the inputs, in the slots of these names, before the first step
    kind[s], next[s], left[s], right[s], content[s]   of the slot at address s, at any executed step
    pc, carry, free        the registers
    op                     the operator that the counter stands at
    address[0..2]          where its two arguments and its destination are, pointers followed
    x, y                   what the arguments hold
    result                 what is written to the destination's content; none where a pointer is written, or nothing
    branch                 of a jump: 1 if it is taken
    next_pc                where the counter goes; none where the step freezes
    outcome                whether the step ran, halts, or freezes, and why

All but the outcome can be set at any executed step; the machine then goes on from there. What each operator does is in
`cython_vm/slots_reference.py`, which tasks there are in `slots_programs.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from cython_vm import slots as machine
from cython_vm._slots import Fate, Kind
from interp.worlds.base import Capability, Split, Strata, Variable, World, in_split
from interp.worlds.rows import Rows, RowsAnswer, hash_rows, mix
from interp.worlds.slots_draws import DRAWS, numbers_hash
from interp.worlds.slots_programs import COMPILERS, compile_program

Ints = NDArray[np.int64]
_TRIES = 2000  # of a row, before a split counts as empty
_FETCHED = {
    "op": ("fetch", ("pc",), "the kind of the slot at pc"),
    "address[0]": ("fetch", ("pc",), "the slot's next pointer, followed once more where its content says so"),
    "address[1]": ("fetch", ("pc",), "the slot's left pointer, followed once more where its content says so"),
    "address[2]": ("fetch", ("pc",), "the slot's right pointer, followed once more where its content says so"),
    "x": ("fetch", ("address[0]",), "the content at address[0]"),
    "y": ("fetch", ("address[1]",), "the content at address[1]"),
    "result": ("result", ("op", "x", "y", "carry"), "what the operator makes of x, y and the carry"),
    "branch": ("decide", ("op", "x", "y"), "of a jump: 1 if x equals y"),
    "next_pc": ("decide", ("op", "branch", "pc", "address[2]"), "address[2] where a jump is taken, else pc + 1"),
    "outcome": ("decide", ("op", "x", "y"), "whether the step runs, halts or freezes"),
}


@dataclass(frozen=True)
class SlotTask:
    """What is chosen about a world of slots. JSON-ready.

    Raises:
        ValueError: a value is out of range.
    """

    program: str = "add"  # key in COMPILERS
    size: int = 4  # digits, or values
    least: int = 1  # of numbers: how many digits the shorter ones have
    form: Literal["looped", "straight"] = "looped"  # of the plan
    base: int = 10  # of digits; other values are below it too
    n_values: int = 20  # that a content can have

    def __post_init__(self) -> None:
        if not isinstance(self.least, int) or not 1 <= self.least <= self.size:
            raise ValueError(f"least must be an integer from 1 to size = {self.size}, got {self.least!r}")
        if self.form not in ("looped", "straight"):
            raise ValueError(f"form must be 'looped' or 'straight', got {self.form!r}")


class SlotWorld(World):
    """Runs of one compiled task; examples are Rows of its inputs.

    Held out: one input in twenty by its hash (the unit); of two numbers, whatever their order and length of field.
    """

    name, unit, stratum_title = "slots", "input", "program"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"do", "edit"})
    edits_change_units: ClassVar[bool] = True

    def __init__(self, **settings: Any):
        self.task = SlotTask(**settings)
        self.size, self.base = self.task.size, self.task.base
        sizes = {"straight": self.task.form == "straight", "base": self.base, "n_values": self.task.n_values}
        self.program = compile_program(self.task.program, self.size, **sizes)
        self.spec = self.program.spec
        self.stratum_names = (self.task.program,)
        self.limit = 100 + 20 * self.size * (self.size + 1)  # steps within which every input's run ends

    @property
    def contrast_names(self) -> tuple[str, ...]:
        """None."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self.task))

    # What is true.

    @cached_property
    def input_names(self) -> tuple[str, ...]:
        """The names of an example's integers, in order."""
        return tuple(self.program.names[at] for at in self.program.inputs)

    @cached_property
    def _variables(self) -> dict[str, Variable]:
        spec, found = self.spec, {}
        for name in self.input_names:
            family = name.partition("[")[0]
            found[name] = Variable(name, family, "root", (), self.base, name, True, "given")
        sizes = (len(Kind), spec.n_slots, spec.n_slots, spec.n_slots, spec.n_values)
        for family, size in zip(machine.FIELDS, sizes, strict=True):
            for s, slot in enumerate(self.program.names):
                given = (slot,) if family == "content" and slot in self.input_names else ()
                words = f"of the slot {slot}"
                place = f"memory[{s}]"
                found[f"{family}[{s}]"] = Variable(f"{family}[{s}]", family, "latent", given, size, place, True, words)
        words = ("the address of the slot that is executed", "what is carried or borrowed", "the first free slot")
        for name, size, each in zip(machine.REGISTERS, (spec.n_slots, 2, spec.n_slots), words, strict=True):
            found[name] = Variable(name, name, "latent", (), size, None, True, each)
        for name, (kind, parents, each) in _FETCHED.items():
            size, family = machine.n_values_of(spec, name), name.partition("[")[0]
            found[name] = Variable(name, family, kind, parents, size, None, name != "outcome", each)  # type: ignore[arg-type]
        return found

    def variables(self) -> Mapping[str, Variable]:
        return self._variables

    def main_variables(self) -> list[str]:
        """The inputs of up to four places, the registers, and every quantity of a step."""
        shown = [name for name in self.input_names if "[" not in name or int(name.partition("[")[2][:-1]) < 4]
        return [*shown, *machine.REGISTERS, *_FETCHED]

    def value_name(self, name: str, value: int) -> str:
        """As `World`; kinds, operators and outcomes by name, booleans of a branch in words."""
        family = self.variable(name).family
        if not 0 <= value < self.variable(name).n_values:
            return str(value)
        names = {"kind": Kind, "op": Kind, "outcome": Fate}
        return names[family](value).name if family in names else str(value)

    def memories(self, examples: Rows) -> NDArray[np.int32]:
        """The memory before the first step, [n, width]."""
        return self.program.memories(examples.values)

    def trace(self, examples: Rows, n_steps: int | None = None) -> NDArray[np.int32]:
        """The memory after every step, the first in front, [n, steps + 1, width]; as many as the longest run has."""
        start = self.memories(examples)
        longest = int(machine.run(self.spec, start, self.limit).n_steps.max(initial=0)) if n_steps is None else n_steps
        return machine.record(self.spec, start, longest)

    def n_steps(self, examples: Rows) -> Ints:
        """How many steps each run has before it halts, [n]."""
        return machine.run(self.spec, self.memories(examples), self.limit).n_steps

    @cached_property
    def longest_run(self) -> int:
        """The most steps that a run was seen to have: of 2,000 drawn inputs, one that falls, and one all alike."""
        falling = np.arange(len(self.input_names) - 1, -1, -1) % self.base
        inputs = np.concatenate(
            [self.draw(2000, seed=0, split="all").values, falling[None], np.zeros_like(falling)[None]]
        )
        return int(self.n_steps(Rows(inputs)).max())

    def read(self, examples: Rows, name: str, at: int | NDArray[np.int64] = 0) -> Ints:
        self.variable(name)
        when = np.asarray(at, dtype=np.int64)
        if when.ndim == 2:
            columns = [self.read(examples, name, when[:, m]) for m in range(when.shape[1])]
            return np.stack(columns, axis=1) if columns else np.zeros(when.shape, dtype=np.int64)
        when = np.broadcast_to(when, (len(examples),))
        if name in self.input_names:
            return np.where(when == 0, examples.values[:, self.input_names.index(name)], -1)
        rows, there = self._reached(examples, when)
        if name in _FETCHED:
            values = machine.step(self.spec, rows)[1][name]
        else:
            values = rows[:, self._column(name)].astype(np.int64)
        return np.where(there, values, -1)

    def _reached(self, examples: Rows, when: Ints) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
        """The memories after `when` steps, and whether there are so many, bool [n]."""
        run = machine.run(self.spec, self.memories(examples), np.maximum(when, 0))
        return run.final, (when >= 0) & (run.n_steps == when)

    def _column(self, name: str) -> int:
        family, _, slot = name.partition("[")
        return self.spec.column(family, int(slot[:-1]) if slot else 0)

    def answer(
        self, examples: Rows, do: Mapping[str, NDArray[np.integer]] | None = None, at: int | NDArray[np.int64] = 0
    ) -> RowsAnswer:
        """What the answer's slots hold when the run halts, values [n, k]. With `do`: where the step is executed, the
        variables have a value there, and the run then halts within the limit."""
        when = np.broadcast_to(np.asarray(at, dtype=np.int64), (len(examples),))
        rows, valid = self._reached(examples, when)
        plain = machine.step(self.spec, rows)[1]
        setting, rows = {}, rows.copy()
        for name, values in (do or {}).items():
            each, given = self.settable(name), np.asarray(values, dtype=np.int64)
            valid = valid & (given >= 0) & (given < each.n_values)
            inside = np.where((given >= 0) & (given < each.n_values), given, -1)
            if name in _FETCHED:
                valid = valid & (plain[name] >= 0)
                setting[name] = inside
            else:
                if name in self.input_names:
                    valid = valid & (when == 0)
                    column = self.spec.column("content", self.program.inputs[self.input_names.index(name)])
                else:
                    column = self._column(name)
                rows[:, column] = np.where(inside >= 0, inside, rows[:, column])
        if setting:
            rows = machine.step(self.spec, rows, setting)[0]
        run = machine.run(self.spec, rows, self.limit)
        return RowsAnswer(self.program.contents(run.final), valid & (run.outcome == Fate.HALTED))

    def edit(self, examples: Rows, name: str, values: NDArray[np.integer]) -> Rows:
        self.variable(name)
        if not self.editable(name):
            raise ValueError(f"variable {name!r} is no input; an edit takes one of {', '.join(self.input_names)}")
        return examples.with_column(self.input_names.index(name), values)

    # Drawing and splits.

    def strata(self, examples: Rows) -> Strata:
        """One for all: the program."""
        return Strata(self.stratum_title, self.stratum_names, np.zeros(len(examples), dtype=np.int64))

    def groups(self, examples: Rows) -> NDArray[np.uint64]:
        if self.task.program in ("add", "compare"):
            return hash_rows(np.sort(numbers_hash(examples.values, self.size), axis=1))
        return hash_rows(examples.values)

    def types(self, examples: Rows, name: str) -> Ints:
        """The last input's value: what the control task draws labels by."""
        return examples.values[:, -1]

    def draw(self, n: int, *, seed: int, start: int = 0, split: Split = "evaluation", weights: Any = None) -> Rows:
        """`n` inputs; numbers have every length from `least` to `size` equally often, lists are as DRAWS says.

        Raises:
            ValueError: weights, since all belong to one stratum; or a split in which hardly any input is.
        """
        if weights is not None:
            raise ValueError("the inputs of a slot machine belong to one stratum: leave weights out")
        rows = np.arange(start, start + n, dtype=np.int64)
        found, waiting = np.zeros((n, len(self.input_names)), dtype=np.int64), np.arange(n)
        for tried in range(_TRIES):
            if not len(waiting):
                return Rows(found)
            key = mix(mix(np.full(len(waiting), seed, np.uint64) ^ mix(np.full(len(waiting), tried, np.uint64))))
            words = mix(key ^ mix(rows[waiting].astype(np.uint64)))
            drawn = Rows(DRAWS.get(self.task.program, DRAWS["values"])(self.task, words))
            kept = in_split(self.groups(drawn), split)
            found[waiting[kept]] = drawn.values[kept]
            waiting = waiting[~kept]
        if len(waiting):
            raise ValueError(f"no input of the split {split!r} in {_TRIES} draws with {self!r}")
        return Rows(found)

    # In words.

    def in_words(self) -> str:
        plan = "" if self.task.form == "looped" else ", in a straight plan"
        return f"a slot machine that {COMPILERS[self.task.program].words}, size {self.size}{plan}"

    @property
    def title(self) -> str:
        return "the slot machine"

    def describe(self, example: Rows) -> str:
        shown = " ".join(map(str, example.values[0].tolist()))
        return f"{self.task.program} {shown} → {' '.join(map(str, self.answer(example).values[0].tolist()))}"

    def sizes(self) -> Mapping[str, tuple[str, ...]]:
        return {"size": ("size",)}
