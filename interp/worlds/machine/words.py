"""A machine, and one of its states, as a person would say them."""

from __future__ import annotations

import numpy as np

from cython_vm import MachineSpec, Op, Outcome, States, format_program, step

OP_WORDS = {
    "NEXT": "moves the array pointer one cell right",
    "PREV": "moves the array pointer one cell left",
    "INC": "adds 1 to the cell under the array pointer",
    "DEC": "subtracts 1 from the cell under the array pointer",
    "PUT": "appends the cell to the output",
    "GET": "moves the head of the input into the cell",
    "WHILE": "if the cell is 0, jumps past the matching ENDW",
    "ENDW": "if the cell is not 0, jumps back behind the matching WHILE",
    "STOP": "changes nothing, for ever",
}


def value_names(family: str) -> tuple[str, ...]:
    """Names of a family's values, from 0 on; () where numbers say it."""
    ops, outcomes = (tuple(each.name for each in kind) for kind in (Op, Outcome))
    named = {"op": ops, "instruction": ops, "outcome": outcomes, "branch_taken": ("goes on", "jumps")}
    return named.get(family, ())


def machine_words(spec: MachineSpec) -> str:
    """Its sizes: "a machine of 8 instructions, 6 cells of 3 bits, and buffers of 3 and 3"."""
    return (
        f"a machine of {spec.n_instructions} instructions, {spec.n_cells} cells of {spec.bits} bits, and buffers of "
        f"{spec.n_input} and {spec.n_output}"
    )


def state_words(state: States) -> str:
    """One state: its program, what is executed and how that ends, the tape and the buffers."""
    transition = step(state)
    op, outcome = Op(int(transition.latents["op"][0])).name, Outcome(int(transition.outcome[0])).name
    program = format_program(state.program[0], classic=True)
    return (
        f"`{program}`, instruction_ptr {int(state.instruction_ptr[0])} ({op}, "
        f"{outcome.replace('_', ' ').lower()}), array_ptr {int(state.array_ptr[0])}, "
        f"cells {_values(state.cells[0])}, input {_values(state.input[0][: state.input_length[0]])}, "
        f"output {_values(state.output[0][: state.output_length[0]])}"
    )


def _values(values: np.ndarray) -> str:
    return " ".join(map(str, values.tolist())) or "empty"
