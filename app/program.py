"""What the Step page runs: a program with its tape and buffers, checked, and every step it takes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from app.numbers import quoted, whole_number
from cython_vm import MachineSpec, Op, Outcome, States, Transition, format_program, parse_program, step

MAX_STEPS = 200  # transitions that the app follows

_EXAMPLES = {
    "Multiply, then print": "++[>+++<-]>.",
    "Count down, printing": "+++[.-]",
    "Print, then move on": "++.>+++.<-.",
    "Echo the input": ",[.,]",
    "Add the input to the tape": ",>,<[->+<]>.",
    "Fall off the tape": "+[>+]",
    "Count, without loops": "+++-.",
    "Walk along the tape": "+>+>+<",
}


class ProgramError(ValueError):
    """A program or a buffer that the machine cannot hold; the message says what was expected and what came."""


@dataclass(frozen=True)
class Start:
    """Where a run of the machine begins. Cells and buffers that are shorter than the machine's are filled up."""

    program: tuple[str, ...]  # opcode names; the machine fills the rest with STOP
    input: tuple[int, ...] = ()
    cells: tuple[int, ...] = ()
    output: tuple[int, ...] = ()
    instruction_ptr: int = 0
    array_ptr: int = 0


@dataclass(frozen=True)
class Walk:
    """Every state from a start to the end, and why it ended. Transition t goes from states[t] to states[t + 1]."""

    states: States  # n_steps + 1 of them
    transition: Transition  # of states[:-1], all at once
    ending: Literal["halted", "froze", "cut"]

    @property
    def n_steps(self) -> int:
        return len(self.states) - 1

    @property
    def ops(self) -> list[str]:
        """The opcode name that each transition executes."""
        return [Op(int(code)).name for code in self.transition.latents["op"]]

    @property
    def outcomes(self) -> list[str]:
        return [Outcome(int(code)).name for code in self.transition.outcome]


def parse(text: str, spec: MachineSpec) -> tuple[str, ...]:
    """The opcodes that `text` spells, in words or in the classic `><+-.,[]` spelling, without the STOPs at its end.

    Raises:
        ProgramError: unknown word, an opcode this machine lacks, unmatched loops, too long.
    """
    try:
        program = [op.name for op in parse_program(text, spec=spec)]
    except ValueError as error:
        sentence = str(error).rstrip(".")
        raise ProgramError(f"{sentence[0].upper()}{sentence[1:]}.") from None
    while program and program[-1] == "STOP":
        program.pop()
    return tuple(program)


def spell(program: Sequence[str]) -> str:
    """The classic spelling; `parse` reads it back."""
    return format_program([Op[name] for name in program], classic=True).strip()


def parse_numbers(text: str, *, what: str, limit: int, spec: MachineSpec) -> tuple[int, ...]:
    """Cell values separated by spaces or commas. Raises ProgramError: not a number, out of range, too many."""
    values = []
    for word in re.split(r"[\s,.]+", text.strip()) if text.strip() else []:
        value = whole_number(word)
        if value is None or value > spec.max_value:
            raise ProgramError(
                f"Each {what} value must be a whole number from 0 to {spec.max_value}; got {quoted(word)}."
            )
        values.append(value)
    if len(values) > limit:
        raise ProgramError(f"The {what} holds {limit} values; got {len(values)}.")
    return tuple(values)


def build(start: Start, spec: MachineSpec) -> States:
    """The machine state of a start, a batch of one. Raises ProgramError for pointers off the machine."""
    for name, size in (("instruction_ptr", spec.n_instructions), ("array_ptr", spec.n_cells)):
        if not 0 <= getattr(start, name) < size:
            raise ProgramError(f"{name} must be from 0 to {size - 1}; got {getattr(start, name)}.")
    return States.build(
        spec,
        program=" ".join(start.program),
        instruction_ptr=start.instruction_ptr,
        array_ptr=start.array_ptr,
        cells=start.cells,
        input=start.input,
        output=start.output,
    )


def of_state(states: States, row: int = 0) -> Start:
    """The start that `build` turns into row `row` of `states`."""
    return Start(
        program=tuple(format_program(states.program[row]).split()),
        input=tuple(int(v) for v in states.input[row][: int(states.input_length[row])]),
        cells=tuple(int(v) for v in np.trim_zeros(states.cells[row], "b")),
        output=tuple(int(v) for v in states.output[row][: int(states.output_length[row])]),
        instruction_ptr=int(states.instruction_ptr[row]),
        array_ptr=int(states.array_ptr[row]),
    )


def executed(states: States, row: int = 0) -> str:
    """The opcode name that row `row` of `states` executes next."""
    return Op(int(states.program[row][int(states.instruction_ptr[row])])).name


def walk(start: States, *, max_steps: int = MAX_STEPS) -> Walk:
    """Step the machine until it halts or freezes, or `max_steps` are done; the freezing step is the last."""
    states, ending = [start], "cut"
    for _ in range(max_steps):
        transition = step(states[-1])
        states.append(transition.next)
        outcome = int(transition.outcome[0])
        if outcome != Outcome.RAN:
            ending = "halted" if outcome == Outcome.HALTED else "froze"
            break
    every = States.concatenate(states)
    return Walk(states=every, transition=step(every[: len(every) - 1]), ending=ending)


def examples(spec: MachineSpec) -> dict[str, str]:
    """Small programs by title, as many as this machine can hold; the first is where a new visit begins."""
    fitting = {}
    for title, text in _EXAMPLES.items():
        try:
            parse(text, spec)
        except ProgramError:
            continue
        if spec.max_value >= 3:
            fitting[title] = text
    return fitting or {"Stop at once": ""}


def example_input(spec: MachineSpec) -> tuple[int, ...]:
    """Input values that an example may read."""
    return tuple(v for v in (2, 1, 3) if v <= spec.max_value)[: spec.n_input]


def first(spec: MachineSpec) -> Start:
    """The start that a visit begins with: a program that loops and prints, where the machine allows one."""
    return Start(program=parse(next(iter(examples(spec).values())), spec), input=example_input(spec))


def to_address(start: Start) -> dict[str, str]:
    """Address parameters of a start; what is empty or zero is left out. Inverse of `from_address`."""
    words = {"program": " ".join(start.program) or "STOP"}
    for name in ("input", "cells", "output"):
        words |= {name: ".".join(map(str, getattr(start, name)))} if getattr(start, name) else {}
    for name in ("instruction_ptr", "array_ptr"):
        words |= {name: str(getattr(start, name))} if getattr(start, name) else {}
    return words


def from_address(parameters: Mapping[str, str], spec: MachineSpec) -> Start | None:
    """The start that an address spells, None if it names no program. Raises ProgramError."""
    if "program" not in parameters:
        return None
    numbers = {
        name: parse_numbers(parameters.get(name, ""), what=name, limit=limit, spec=spec)
        for name, limit in (("input", spec.n_input), ("cells", spec.n_cells), ("output", spec.n_output))
    }
    pointers = {}
    for name in ("instruction_ptr", "array_ptr"):
        text = parameters.get(name, "0")
        pointer = whole_number(text)
        if pointer is None:
            raise ProgramError(f"{name} must be a whole number; got {quoted(text)}.")
        pointers[name] = pointer
    start = Start(program=parse(parameters["program"], spec), **numbers, **pointers)
    build(start, spec)
    return start


def slot_text(token: str) -> str:
    """A token as the boards show it: NUM_3 is 3, an empty buffer slot is ·."""
    return "·" if token in ("EOI", "EOO") else token.removeprefix("NUM_")
