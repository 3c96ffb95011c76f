"""Layer 2, MLP: the next token of every slot.

The subspace `answer` holds 1 at the token that the slot has now. A gate adds 2 at another, which so wins by 1; and
where a pointer leaves a slot and comes back in the same step (the loop `[]` jumps to itself), setting adds 2 to the 1
that is kept, and wins over clearing by 1.
"""

from __future__ import annotations

from cython_vm import Op
from interp.compiled.components import Feature, Gate, Pass, conjunction
from interp.compiled.form import Form
from interp.compiled.passes.decide import ran

_WEIGHT = 2.0
_LEFT, _RIGHT = -1, 1


def write(form: Form) -> Pass:
    """The gates of all blocks; they write to `answer`."""
    spec = form.spec
    gates = [*_move_instruction_ptr(form), *_move_array_ptr(form), *_write_cell(form)]
    if spec.io:
        gates += [*_shift_input(form), *_append_output(form)]
    return Pass(gates=tuple(gates))


def _gate(
    form: Form,
    name: str,
    block: str,
    token: str,
    variable: str | None,
    *conditions: Feature,
    unless: Feature | None = None,
) -> Gate:
    """Write `token` at the slots of `block` where the step runs and all conditions hold."""
    reads, bias = conjunction(form.own_block(block), ran(form), *conditions, unless=unless)
    at = frozenset(form.answers(block))
    return Gate(name, 2, reads, bias, {form.answer_token(token): _WEIGHT}, variable=variable, at=at)


def _move_instruction_ptr(form: Form) -> list[Gate]:
    """Leave the slot that holds 1; go to the next slot, or to the jump's target where the branch is taken."""
    block, variable, n = "instruction_ptr", "next_instruction_ptr", form.spec.n_instructions
    own, taken = form.own_index, ("branch_taken", 1)
    gates = [_gate(form, "leave", block, "0", variable, form.answer_token("1"))]
    for i in range(1, n):
        conditions = ((own, i), (block, i - 1))
        unless = taken if form.n_levels else None
        gates.append(_gate(form, f"advance {i}", block, "1", variable, *conditions, unless=unless))
    if form.n_levels:
        for i in range(n):
            gates.append(_gate(form, f"jump {i}", block, "1", variable, (own, i), ("jump_target", i), taken))
    return gates


def _move_array_ptr(form: Form) -> list[Gate]:
    """Under NEXT and PREV, leave the slot that holds 1 and go to its neighbour."""
    block, variable, n = "array_ptr", "next_array_ptr", form.spec.n_cells
    gates = []
    for op, step in ((Op.NEXT, _RIGHT), (Op.PREV, _LEFT)):
        gates.append(_gate(form, f"{op.name} leave", block, "0", variable, form.op(op), form.answer_token("1")))
        for i in range(n):
            if 0 <= i - step < n:
                conditions = (form.op(op), (form.own_index, i), (block, i - step))
                gates.append(_gate(form, f"{op.name} {i}", block, "1", variable, *conditions))
    return gates


def _write_cell(form: Form) -> list[Gate]:
    """Into the cell under the pointer: operand + 1, operand - 1, or the head of the input."""
    here, top = ("at_array_ptr", 0), form.spec.max_value
    sources = [(Op.INC, "operand", value, value + 1) for value in range(top)]
    sources += [(Op.DEC, "operand", value, value - 1) for value in range(1, top + 1)]
    if form.spec.io and form.spec.n_input:
        sources += [(Op.GET, "input_head", value, value) for value in range(top + 1)]
    return [
        _gate(form, f"{op.name} {result}", "cells", f"NUM_{result}", "result", here, form.op(op), (space, value))
        for op, space, value, result in sources
    ]


def _shift_input(form: Form) -> list[Gate]:
    """Under GET, every slot of the input takes what the slot after it holds."""
    if not form.spec.n_input:
        return []
    tokens = [*(f"NUM_{value}" for value in range(form.n_numbers)), "EOI"]
    return [
        _gate(form, f"GET shift {token}", "input", token, None, form.op(Op.GET), ("next_input", i))
        for i, token in enumerate(tokens)
    ]


def _append_output(form: Form) -> list[Gate]:
    """Under PUT, the first empty slot of the output takes the operand."""
    here = ("at_output_length", 0)
    return [
        _gate(form, f"PUT {value}", "output", f"NUM_{value}", "emitted", here, form.op(Op.PUT), ("operand", value))
        for value in range(form.n_numbers if form.spec.n_output else 0)
    ]
