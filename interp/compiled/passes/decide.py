"""Layer 1, MLP: does the step run, does it jump, and which slots does it write?"""

from __future__ import annotations

from cython_vm import Op, Outcome
from interp.compiled.components import Constant, Feature, Gate, Pass, conjunction
from interp.compiled.form import Form


def ran(form: Form) -> Feature:
    """The feature that is 1 where the step runs."""
    return ("outcome", int(Outcome.RAN))


def outcome(form: Form) -> Pass:
    """Subspace `outcome`, one-hot at every position: RAN unless one of seven reasons holds."""
    spec = form.spec
    reasons: dict[Outcome, tuple[Feature, ...]] = {
        Outcome.HALTED: (form.op(Op.STOP),),
        Outcome.ARRAY_OVERFLOW: (form.op(Op.NEXT), ("array_ptr", spec.n_cells - 1)),
        Outcome.ARRAY_UNDERFLOW: (form.op(Op.PREV), ("array_ptr", 0)),
        Outcome.VALUE_OVERFLOW: (form.op(Op.INC), ("operand", spec.max_value)),
        Outcome.VALUE_UNDERFLOW: (form.op(Op.DEC), ("operand", 0)),
    }
    if spec.io:
        reasons[Outcome.OUTPUT_FULL] = (form.op(Op.PUT), ("output_length", spec.n_output))
        empty: tuple[Feature, ...] = (("input_head", form.n_numbers),) if spec.n_input else ()
        reasons[Outcome.INPUT_EMPTY] = (form.op(Op.GET), *empty)
    gates = []
    for reason, conditions in reasons.items():
        reads, bias = conjunction(*conditions)
        writes = {("outcome", int(reason)): 1.0, ran(form): -1.0}
        gates.append(Gate(reason.name.lower(), 1, reads, bias, writes, variable="outcome"))
    return Pass(
        spaces={"outcome": len(Outcome)}, gates=tuple(gates), constants=(Constant(1, {ran(form): 1.0}, "outcome"),)
    )


def branch(form: Form) -> Pass:
    """Subspace `branch_taken`, one-hot (no, yes) where the current instruction is a bracket, else 0."""
    zero = ("operand", 0)
    cases = {
        "while_ends": (conjunction(form.op(Op.WHILE), zero), 1),
        "while_enters": (conjunction(form.op(Op.WHILE), unless=zero), 0),
        "endw_repeats": (conjunction(form.op(Op.ENDW), unless=zero), 1),
        "endw_ends": (conjunction(form.op(Op.ENDW), zero), 0),
    }
    return Pass(
        spaces={"branch_taken": 2},
        gates=tuple(
            Gate(name, 1, reads, bias, {("branch_taken", taken): 1.0}, variable="branch_taken")
            for name, ((reads, bias), taken) in cases.items()
        ),
    )


def written_slots(form: Form) -> Pass:
    """Subspaces `at_array_ptr` and `at_output_length`: 1 at the cell, and at the output slot, that a step can write."""
    gates = []
    for space, address, block in (
        ("at_array_ptr", "array_ptr", "cells"),
        ("at_output_length", "output_length", "output"),
    ):
        for index in range(len(form.positions(block))):
            reads, bias = conjunction(form.own_block(block), (form.own_index, index), (address, index))
            at = frozenset(form.answers(block))
            gates.append(Gate(f"{space} {index}", 1, reads, bias, {(space, 0): 1.0}, at=at))
    return Pass(spaces={"at_array_ptr": 1, "at_output_length": 1}, gates=tuple(gates))
