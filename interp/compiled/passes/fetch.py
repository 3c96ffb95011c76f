"""Attention as memory access: a head looks up the slot whose index is the address that an earlier layer brought."""

from __future__ import annotations

import numpy as np

from interp.compiled.components import Head, Matrix, Move, Pass, Score, selects
from interp.compiled.form import BLOCKS, ROLES, Form


def fetch(form: Form, *, sharpness: float) -> Pass:
    """Layer 1: subspaces `op`, `operand` and `input_head` at every position, all that a decision needs.

    `input_head` has a feature more than there are numbers: the input is empty.
    """
    spec = form.spec
    ops = np.zeros((spec.d_vocab, len(spec.ops)))
    ops[[spec.op_id(op) for op in spec.ops], range(len(spec.ops))] = 1.0
    heads = (
        _lookup(form, "op", "instructions", "instruction_ptr", ops, sharpness=sharpness),
        _lookup(form, "operand", "cells", "array_ptr", _numbers(form), sharpness=sharpness),
    )
    spaces = {"op": len(spec.ops), "operand": form.n_numbers}
    if spec.io and spec.n_input:
        heads += (_input_head(form, sharpness=sharpness),)
        spaces["input_head"] = form.n_numbers + 1
    return Pass(spaces=spaces, heads=heads)


def _lookup(form: Form, name: str, block: str, pointer: str, values: Matrix, *, sharpness: float) -> Head:
    return Head(
        name=name,
        layer=1,
        scores=(
            Score(pointer, "index", sharpness * np.eye(len(form.positions(block)), form.n_indices)),
            Score(None, "role", selects(len(ROLES), BLOCKS.index(block), weight=sharpness)),
        ),
        moves=(Move("token", name, values),),
        keys=f"{block}[@{pointer}]",
        variable=name,
        role=f"attends to the slot of {block} that {pointer} points to and tells every position what it holds",
    )


def _input_head(form: Form, *, sharpness: float) -> Head:
    return Head(
        name="input_head",
        layer=1,
        scores=(
            Score(None, "index", selects(form.n_indices, 0, weight=sharpness)),
            Score(None, "role", selects(len(ROLES), BLOCKS.index("input"), weight=sharpness)),
        ),
        moves=(Move("token", "input_head", _numbers(form, empty="EOI")),),
        keys="input[0]",
        variable="input_head",
        role="attends to the first slot of the input and tells every position what it holds",
    )


def next_input(form: Form, *, sharpness: float) -> Pass:
    """Layer 2: subspace `next_input`, at every slot of the input what the slot after it holds.

    The slot after the last is the closing bracket, and counts as empty.
    """
    n = form.spec.n_input
    following = np.zeros((form.n_indices, form.n_indices))
    following[:n, 1 : n + 1] = sharpness * np.eye(n)
    role = selects(len(ROLES), BLOCKS.index("input"), ROLES.index("input_end"), weight=sharpness)
    end = np.zeros((len(ROLES), form.n_numbers + 1))
    end[ROLES.index("input_end"), form.n_numbers] = 1.0
    head = Head(
        name="next_input",
        layer=2,
        scores=(Score(form.own_index, "index", following), Score(None, "role", role)),
        moves=(Move("token", "next_input", _numbers(form, empty="EOI")), Move("role", "next_input", end)),
        keys="input+input.]",
        variable=None,
        role="from each slot of the input, attends to the slot after it and brings what that holds",
    )
    return Pass(spaces={"next_input": form.n_numbers + 1}, heads=(head,))


def keep(form: Form, *, sharpness: float) -> Pass:
    """Layer 2, in `step` alone: the old content of the slot that a position answers for, into `answer`."""
    blocks = np.eye(len(BLOCKS), len(ROLES))
    held = np.eye(form.spec.d_vocab)
    held[[form.spec.token_id(name) for name in "{}[]"]] = 0.0
    head = Head(
        name="keep",
        layer=2,
        scores=(
            Score("slot_index", "index", 2 * sharpness * np.eye(form.n_indices)),
            Score("slot_role", "role", 2 * sharpness * blocks),
            Score(None, "role", selects(len(ROLES), ROLES.index("start"), weight=3 * sharpness)),
        ),
        moves=(Move("token", "answer", held),),
        keys="+".join(block for block in BLOCKS if form.positions(block)),
        variable=None,
        role="attends to the slot that its position answers for and brings what it holds; else attends to {",
    )
    return Pass(heads=(head,))


def _numbers(form: Form, *, empty: str | None = None) -> Matrix:
    """Tokens to numbers, [d_vocab, n_numbers], with a last column for the token of an empty slot if it is named."""
    ids = form.number_ids() + ([form.spec.token_id(empty)] if empty else [])
    matrix = np.zeros((form.spec.d_vocab, len(ids)))
    matrix[ids, range(len(ids))] = 1.0
    return matrix
