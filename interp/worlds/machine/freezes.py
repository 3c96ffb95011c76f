"""Contrast pairs for the ways to freeze: the same instruction with the cause of the freeze taken away.

Clean executes an instruction that freezes; corrupted is the same state with the one stored quantity changed that makes
it freeze, so that the instruction runs there:

    ARRAY_OVERFLOW, ARRAY_UNDERFLOW     the pointer on a cell that has a neighbour
    VALUE_OVERFLOW, VALUE_UNDERFLOW     another value in the cell under the pointer
    OUTPUT_FULL                         a shorter output
    INPUT_EMPTY                         values in the input

The two next states then differ in whether the instruction pointer moves, and in what the instruction does. HALTED has
no such pair: STOP does nothing whatever the state is, and its circuit is that of the opcode STOP.
"""

from __future__ import annotations

import numpy as np

from cython_vm import MachineSpec, Op, Outcome, States

FREEZES: dict[Outcome, Op] = {
    Outcome.ARRAY_OVERFLOW: Op.NEXT,
    Outcome.ARRAY_UNDERFLOW: Op.PREV,
    Outcome.VALUE_OVERFLOW: Op.INC,
    Outcome.VALUE_UNDERFLOW: Op.DEC,
    Outcome.OUTPUT_FULL: Op.PUT,
    Outcome.INPUT_EMPTY: Op.GET,
}


def unfrozen(states: States, outcome: Outcome, rng: np.random.Generator) -> States:
    """Frozen states with the cause of `outcome` taken away, the new value uniform over those that let the op run.

    Rows that no value would free (a machine of one cell) come back as they are.
    """
    spec, sizes = states.spec, states.sizes

    def uniform(low: int, high: np.ndarray) -> np.ndarray:
        """Integers from `low` up to, not including, `high`, one a row."""
        return low + (rng.random(len(states)) * np.maximum(high - low, 0)).astype(np.int64)

    if outcome == Outcome.ARRAY_OVERFLOW:
        return states.replace("array_ptr", uniform(0, sizes["n_cells"] - 1))
    if outcome == Outcome.ARRAY_UNDERFLOW:
        return states.replace("array_ptr", np.minimum(uniform(1, sizes["n_cells"]), sizes["n_cells"] - 1))
    if outcome in (Outcome.VALUE_OVERFLOW, Outcome.VALUE_UNDERFLOW):
        cells = states.cells.copy()
        low = 0 if outcome == Outcome.VALUE_OVERFLOW else 1
        cells[np.arange(len(states)), states.array_ptr] = low + rng.integers(spec.max_value, size=len(states))
        return states.replace("cells", cells)
    if outcome == Outcome.OUTPUT_FULL:
        return states.replace("output_length", uniform(0, sizes["n_output"]))
    if outcome == Outcome.INPUT_EMPTY:
        filled = states.replace("input_length", np.minimum(uniform(1, sizes["n_input"] + 1), sizes["n_input"]))
        values = rng.integers(spec.max_value + 1, size=filled.input.shape)
        values[np.arange(spec.n_input) >= filled.input_length[:, None]] = 0
        return filled.replace("input", values)
    raise ValueError(
        f"{outcome.name} has no pairs of its own; the ways to freeze are {', '.join(f.name for f in FREEZES)}"
    )


def freezes(spec: MachineSpec) -> tuple[Outcome, ...]:
    """The ways to freeze that a machine has and that another value would free."""
    ops = spec.ops
    room = {
        Outcome.ARRAY_OVERFLOW: spec.n_cells > 1,
        Outcome.ARRAY_UNDERFLOW: spec.n_cells > 1,
        Outcome.OUTPUT_FULL: spec.n_output > 0,
        Outcome.INPUT_EMPTY: spec.n_input > 0,
    }
    return tuple(outcome for outcome, op in FREEZES.items() if op in ops and room.get(outcome, True))
