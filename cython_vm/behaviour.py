"""What programs do on a panel of inputs: how often they halt, loop, read, print, and how far that depends on the input.

Every program starts with pointers 0, cells 0 and an empty output, once for each input of the panel.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cython_vm._isa import Op
from cython_vm.arguments import check_unmasked
from cython_vm.fate import Fate, check_steps, run_fate
from cython_vm.packing import block_columns, check_range
from cython_vm.sampling import sample
from cython_vm.spec import MachineSpec
from cython_vm.states import States
from cython_vm.validity import check_programs

BEHAVIOUR = np.dtype(
    [
        ("halts", "f8"),  # share of the inputs on which the program halts
        ("loops_for_ever", "f8"),  # share on which it is shown to loop for ever
        ("executed", "f8"),  # share of its instructions, STOPs at the end left out, that some run executes
        # Over the runs that halt (0 where none does):
        ("steps", "f8"),  # mean steps to the halt
        ("loop_iterations", "f8"),  # mean number of jumps back
        ("reads", "f8"),  # mean number of values read
        ("prints", "f8"),  # mean number of values printed
        ("distinct_iterations", "i8"),  # how many different numbers of jumps back
        ("distinct_outputs", "i8"),  # how many different outputs
        ("function", "u8"),  # a hash of which input gives which output, where it halts
    ]
)
"""One record a program."""


def draw_inputs(spec: MachineSpec, n: int, *, seed: int, start: int = 0) -> NDArray[np.uint8]:
    """Full input buffers, uint8 [n, n_input]: their values are drawn as `sample` draws cells, row by row."""
    if spec.n_input == 0:
        return np.zeros((n, 0), dtype=np.uint8)
    tape = replace(spec, n_instructions=1, n_cells=spec.n_input, n_input=0, n_output=0, padded=False)
    return sample(tape, n, seed=seed, start=start).cells


def draw_programs(spec: MachineSpec, n: int, *, seed: int, start: int = 0, split: str = "all") -> NDArray[np.uint8]:
    """Uniform programs of the machine's full size, also where it is padded; uint8 [n, n_instructions]."""
    return sample(replace(spec, padded=False), n, seed=seed, start=start, split=split).program


def begin(spec: MachineSpec, programs: NDArray[np.uint8], inputs: NDArray[np.uint8]) -> States:
    """Row i: programs[i] at the start of a run with inputs[i] as its full input buffer, at the machine's full size.

    programs: uint8 [n, n_instructions]; inputs: uint8 [n, n_input]. Both must be valid (see `check_panel`).
    """
    columns = block_columns(spec)
    any_program = [int(Op.NEXT)] * (spec.n_instructions - 1) + [int(Op.STOP)]
    rows = np.repeat(States.build(spec, program=any_program).rows, len(programs), axis=0)
    rows[:, columns["program"]] = programs
    rows[:, columns["input"]] = inputs
    rows[:, 2] = spec.n_input  # input_length
    return States.wrap(spec, rows)


def behaviour_of(
    spec: MachineSpec, programs: NDArray[np.uint8], inputs: NDArray[np.uint8], *, max_steps: int = 1000
) -> NDArray[np.void]:
    """What each program does on the panel: one `BEHAVIOUR` record a program, [n].

    programs: uint8 [n, n_instructions]; inputs: uint8 [k, n_input], the panel, k ≥ 1. That is n × k runs. Outputs and
    functions are told apart by 64-bit hashes. Raises ValueError naming the program or the input that does not fit.
    """
    check_panel(spec, programs, inputs)
    check_steps("max_steps", max_steps)
    n, k = len(programs), len(inputs)
    fates = run_fate(begin(spec, np.repeat(programs, k, axis=0), np.tile(inputs, (n, 1))), max_steps)
    halted = (fates.fate == Fate.HALTED).reshape(n, k)
    n_halted = np.maximum(halted.sum(axis=1), 1)

    def over_halted(values: NDArray) -> NDArray[np.float64]:
        return np.where(halted, values.reshape(n, k), 0).sum(axis=1, dtype=np.float64) / n_halted

    table = np.zeros(n, dtype=BEHAVIOUR)
    table["halts"] = halted.mean(axis=1)
    table["loops_for_ever"] = (fates.fate == Fate.LOOPS).reshape(n, k).mean(axis=1)
    ran = fates.executed.reshape(n, k, -1).any(axis=1)
    table["executed"] = ran.sum(axis=1) / np.maximum(program_length(programs), 1)
    table["steps"] = over_halted(fates.n_steps)
    table["loop_iterations"] = over_halted(fates.loop_iterations)
    table["reads"] = over_halted(spec.n_input - fates.final.input_length.astype(np.int64))
    table["prints"] = over_halted(fates.final.output_length)
    table["distinct_iterations"] = _distinct(fates.loop_iterations.astype(np.uint64), halted)
    output = _hash_columns(fates.final.output_length, *fates.final.output.T).reshape(n, k)
    table["distinct_outputs"] = _distinct(output, halted)
    table["function"] = _hash_columns(*np.where(halted, output, 0).T)
    return table


def quality(behaviour: NDArray[np.void]) -> NDArray[np.float64]:
    """How much of a program is at work, 0 to 1: the share of inputs on which it halts × the share of it executed."""
    return behaviour["halts"] * behaviour["executed"]


def program_length(programs: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Instructions before the STOPs at the end, int64 [n]."""
    written = programs != Op.STOP
    return np.where(written.any(axis=1), programs.shape[1] - np.argmax(written[:, ::-1], axis=1), 0)


def check_panel(spec: MachineSpec, programs: NDArray[np.uint8], inputs: NDArray[np.uint8]) -> None:
    """Raise ValueError on programs or inputs that are not the machine's."""
    for name, array, width in (("programs", programs, spec.n_instructions), ("inputs", inputs, spec.n_input)):
        if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != width:
            got = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
            raise ValueError(f"{name} must be uint8 [n, {width}], got {got}")
        check_unmasked(name, array)
    if len(inputs) == 0:
        raise ValueError("inputs must hold at least one input")
    check_programs(spec, programs)
    check_range("inputs", inputs, spec.max_value + 1)


def _hash_columns(*columns: NDArray[np.integer]) -> NDArray[np.uint64]:
    """FNV-1a over one word from every column, [n] each, each step folded on itself, uint64 [n]."""
    hashes = np.full(len(columns[0]), 0xCBF29CE484222325, dtype=np.uint64)
    for column in columns:
        hashes = (hashes ^ column.astype(np.uint64)) * np.uint64(0x100000001B3)
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _distinct(values: NDArray[np.uint64], counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many different values each row has where `counted`, int64 [n]; both are [n, k] or flattened."""
    table = np.where(counted, values.reshape(counted.shape), np.iinfo(np.uint64).max)
    table.sort(axis=1)
    return 1 + (np.diff(table, axis=1) != 0).sum(axis=1) - ~counted.all(axis=1)
