"""The machine in slow, plain Python: the specification. The kernels are tested to be equal to it.

One state at a time, plain integers and lists. `None` is an undefined value (−1 in the kernels); `NoValue` is raised
where an intervention asks for a value that does not exist (`valid` False in the kernels).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from cython_vm._isa import Op, Outcome
from cython_vm.spec import MachineSpec
from cython_vm.states import States


@dataclass(frozen=True)
class State:
    """One state. The buffers hold only what is in them, so their lengths are `len(input)` and `len(output)`.

    On a padded machine `program` and `cells` are as long as this state's own, and the buffers have sizes of their own.
    """

    instruction_ptr: int
    program: tuple[Op, ...]
    array_ptr: int
    cells: tuple[int, ...]
    input: tuple[int, ...]
    output: tuple[int, ...]
    n_input: int
    n_output: int


class NoValue(Exception):
    """An intervention asks for a value that does not exist."""


def step(spec: MachineSpec, state: State, do: Mapping[str, int] | None = None) -> tuple[State, dict[str, int | None]]:
    """The next state, and the variables of the step. `do` replaces the equations of the variables that it names."""
    do = do or {}
    if any(value == -1 for value in do.values()):
        raise NoValue("an undefined value cannot be set")

    def equation(name: str, computed: int | None) -> int | None:
        v[name] = do.get(name, computed)
        return v[name]

    v: dict[str, int | None] = {}
    state = edit_roots(spec, state, do)

    # Fetch. What is set here changes what is decided and written, not the state that it was fetched from.
    instruction_ptr = v["instruction_ptr"] = state.instruction_ptr
    array_ptr = v["array_ptr"] = state.array_ptr
    match = partner(state.program, instruction_ptr)
    op = equation("op", state.program[instruction_ptr])
    operand = equation("operand", state.cells[array_ptr])
    jump_target = equation("jump_target", None if match is None else match + 1)
    input_head = equation("input_head", state.input[0] if state.input else None)
    output_length = equation("output_length", len(state.output))
    assert op is not None  # the same for the next two: they always have a value
    assert operand is not None
    assert output_length is not None

    # Decide.
    ran = equation("outcome", outcome(spec, state, op, operand, input_head, output_length)) == Outcome.RAN
    branch_taken = equation("branch_taken", branch(op, operand))

    # Result. A step that did not run leaves everything as it is.
    result: int | None = state.cells[array_ptr]
    emitted, next_instruction_ptr, next_array_ptr = None, instruction_ptr, array_ptr
    if ran:
        if op == Op.STOP:
            raise NoValue("STOP has no effect that could run")
        result = {Op.INC: operand + 1, Op.DEC: operand - 1, Op.GET: input_head}.get(Op(op), result)
        emitted = operand if op == Op.PUT else None
        next_array_ptr += {Op.NEXT: 1, Op.PREV: -1}.get(Op(op), 0)
        next_instruction_ptr = jump_target if branch_taken == 1 else instruction_ptr + 1
    result = equation("result", result)
    emitted = equation("emitted", emitted)
    next_instruction_ptr = equation("next_instruction_ptr", next_instruction_ptr)
    next_array_ptr = equation("next_array_ptr", next_array_ptr)

    # The next state, if there is one.
    if result is None or not 0 <= result <= spec.max_value:
        raise NoValue(f"a cell cannot hold {result}")
    if next_array_ptr is None or not 0 <= next_array_ptr < len(state.cells):
        raise NoValue(f"there is no cell {next_array_ptr}")
    if next_instruction_ptr is None or not 0 <= next_instruction_ptr < len(state.program):
        raise NoValue(f"there is no instruction {next_instruction_ptr}")
    output = list(state.output)
    if emitted is not None:
        if output_length >= state.n_output or output_length > len(output):
            raise NoValue(f"the output has no slot {output_length} to write to")
        output[output_length : output_length + 1] = [emitted]
    cells = list(state.cells)
    cells[array_ptr] = result
    for cell in range(spec.n_cells):
        if f"next_cell[{cell}]" in do:
            if cell >= len(cells):
                raise NoValue(f"there is no cell {cell}")
            cells[cell] = do[f"next_cell[{cell}]"]
    consumed = 1 if ran and op == Op.GET else 0
    after = replace(
        state,
        instruction_ptr=next_instruction_ptr,
        array_ptr=next_array_ptr,
        cells=tuple(cells),
        input=state.input[consumed:],
        output=tuple(output),
    )
    return after, v


def outcome(
    spec: MachineSpec, state: State, op: int, operand: int, input_head: int | None, output_length: int
) -> Outcome:
    """RAN, or why the state stays as it is."""
    if op == Op.STOP:
        return Outcome.HALTED
    if op == Op.NEXT and state.array_ptr == len(state.cells) - 1:
        return Outcome.ARRAY_OVERFLOW
    if op == Op.PREV and state.array_ptr == 0:
        return Outcome.ARRAY_UNDERFLOW
    if op == Op.INC and operand == spec.max_value:
        return Outcome.VALUE_OVERFLOW
    if op == Op.DEC and operand == 0:
        return Outcome.VALUE_UNDERFLOW
    if op == Op.PUT and output_length == state.n_output:
        return Outcome.OUTPUT_FULL
    if op == Op.GET and input_head is None:
        return Outcome.INPUT_EMPTY
    return Outcome.RAN


def branch(op: int, operand: int) -> int | None:
    """1 where a loop instruction jumps, 0 where it goes on, None for other instructions."""
    if op == Op.WHILE:
        return int(operand == 0)
    if op == Op.ENDW:
        return int(operand != 0)
    return None


def partner(program: Sequence[int], slot: int) -> int | None:
    """The slot of the bracket that closes or opens the loop of the bracket in `slot`; None for other instructions."""
    opened: list[int] = []
    for at, op in enumerate(program):
        if op == Op.WHILE:
            opened.append(at)
        elif op == Op.ENDW:
            start = opened.pop()
            if slot in (start, at):
                return at if slot == start else start
    return None


def edit_roots(spec: MachineSpec, state: State, do: Mapping[str, int]) -> State:
    """The state with the stored variables of `do` changed."""
    program, cells = list(state.program), list(state.cells)
    inputs, outputs = list(state.input), list(state.output)
    for name, value in do.items():
        family, _, index = name.removesuffix("]").partition("[")
        values = {"instruction": program, "cell": cells, "input": inputs, "output": outputs}.get(family)
        if index and values is not None:
            if int(index) >= len(values):
                raise NoValue(f"{name} is empty")
            values[int(index)] = Op(value) if family == "instruction" else value
    if list(state.program) != program and not is_program(spec, program):
        raise NoValue("the edited program is none")
    length = do.get("input_length", len(inputs))
    if length > len(inputs):
        raise NoValue(f"the input holds {len(inputs)} values")
    instruction_ptr = do.get("instruction_ptr", state.instruction_ptr)
    array_ptr = do.get("array_ptr", state.array_ptr)
    if instruction_ptr >= len(program) or array_ptr >= len(cells):
        raise NoValue("a pointer lies beyond the state's own size")
    return replace(
        state,
        instruction_ptr=instruction_ptr,
        program=tuple(program),
        array_ptr=array_ptr,
        cells=tuple(cells),
        input=tuple(inputs[:length]),
        output=tuple(outputs),
    )


def is_program(spec: MachineSpec, program: Sequence[int]) -> bool:
    """Whether the machine may hold this program."""
    depth = 0
    for op in program:
        depth += (op == Op.WHILE) - (op == Op.ENDW)
        if depth < 0 or op not in spec.ops:
            return False
    return depth == 0 and program[-1] == Op.STOP and (spec.stops or Op.STOP not in program[:-1])


def all_programs(spec: MachineSpec) -> Iterator[tuple[Op, ...]]:
    """Every program of the machine: 9^(n_instructions − 1) tries, for small machines."""

    def extend(program: list[Op]) -> Iterator[tuple[Op, ...]]:
        if len(program) == spec.n_instructions:
            if is_program(spec, program):
                yield tuple(program)
            return
        for op in spec.ops:
            yield from extend([*program, op])

    yield from extend([])


def run(spec: MachineSpec, state: State, n_steps: int) -> list[State]:
    """The states from the first to the one that halts or freezes, or until n_steps have run."""
    states = [state]
    while len(states) <= n_steps:
        after, variables = step(spec, states[-1])
        if variables["outcome"] != Outcome.RAN:
            break
        states.append(after)
    return states


def tokens(spec: MachineSpec, state: State) -> list[str]:
    """The token names of a state encoded in the default layout."""

    def block(names: list[str], size: int) -> list[str]:
        return ["[", *names, *["PAD"] * (size - len(names)), "]"]

    def one_hot(index: int, size: int) -> list[str]:
        return ["1" if slot == index else "0" for slot in range(size)]

    def numbers(values: Sequence[int], size: int, empty: str) -> list[str]:
        return [f"NUM_{value}" for value in values] + [empty] * (size - len(values))

    return [
        "{",
        *block(one_hot(state.instruction_ptr, len(state.program)), spec.n_instructions),
        *block([Op(op).name for op in state.program], spec.n_instructions),
        *block(one_hot(state.array_ptr, len(state.cells)), spec.n_cells),
        *block(numbers(state.cells, len(state.cells), ""), spec.n_cells),
        *block(numbers(state.input, state.n_input, "EOI"), spec.n_input),
        *block(numbers(state.output, state.n_output, "EOO"), spec.n_output),
        "}",
    ]


def program_hash(program: Sequence[int]) -> int:
    """FNV-1a over the opcodes, then the finaliser of SplitMix64."""
    h = 0xCBF29CE484222325
    for op in program:
        h = ((h ^ op) * 0x100000001B3) % 2**64
    return _finished(h)


def hash_words(words: Iterable[int]) -> int:
    """The hash of `stream_hash` and `reachable_hash`: FNV-1a, each step folded on itself, then the same finaliser.

    Words of a stream are opcodes, 16 + values and 512 + branches taken; those of a reachable state are the bytes of its
    row, 255 for an instruction that is not reached.
    """
    h = 0xCBF29CE484222325
    for word in words:
        h = ((h ^ word) * 0x100000001B3) % 2**64
        h ^= h >> 29
    return _finished(h)


def _finished(h: int) -> int:
    h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) % 2**64
    return h ^ (h >> 31)


def to_state(states: States, row: int) -> State:
    """One row of a batch as a plain state."""
    one = states[row]
    sizes = {name: int(size[0]) for name, size in one.sizes.items()}
    return State(
        int(one.instruction_ptr[0]),
        tuple(Op(op) for op in one.program[0, : sizes["n_instructions"]]),
        int(one.array_ptr[0]),
        tuple(one.cells[0, : sizes["n_cells"]].tolist()),
        tuple(one.input[0, : one.input_length[0]].tolist()),
        tuple(one.output[0, : one.output_length[0]].tolist()),
        sizes["n_input"],
        sizes["n_output"],
    )


def to_states(spec: MachineSpec, states: Sequence[State]) -> States:
    """A batch from plain states."""
    sizes = {
        "n_instructions": [len(state.program) for state in states],
        "n_cells": [len(state.cells) for state in states],
        "n_input": [state.n_input for state in states],
        "n_output": [state.n_output for state in states],
    }
    return States.build(
        spec,
        program=[state.program for state in states],
        instruction_ptr=[state.instruction_ptr for state in states],
        array_ptr=[state.array_ptr for state in states],
        cells=[state.cells for state in states],
        input=[state.input for state in states],
        output=[state.output for state in states],
        sizes=sizes if spec.padded else None,
    )
