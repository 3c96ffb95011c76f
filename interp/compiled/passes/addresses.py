"""Layer 0, attention: where the machine stands, told to every position.

A pointer is stored as a one-hot of tokens over its block. One head a pointer attends to the slot that holds "1" and
copies its index. The length of the output is the index of its first empty slot, or of its closing bracket if it is
full.
"""

from __future__ import annotations

import numpy as np

from interp.compiled.components import Head, Move, Pass, Score, selects
from interp.compiled.form import BLOCKS, ROLES, Form


def addresses(form: Form, *, sharpness: float) -> Pass:
    """Subspaces `instruction_ptr`, `array_ptr` and `output_length`, one-hot at every position."""
    spec = form.spec
    sizes = {"instruction_ptr": spec.n_instructions, "array_ptr": spec.n_cells, "output_length": spec.n_output + 1}
    return Pass(
        spaces=sizes,
        heads=(
            _pointer(form, "instruction_ptr", sharpness=sharpness),
            _pointer(form, "array_ptr", sharpness=sharpness),
            _output_length(form, sharpness=sharpness),
        ),
    )


def _pointer(form: Form, block: str, *, sharpness: float) -> Head:
    n_slots = len(form.positions(block))
    return Head(
        name=block,
        layer=0,
        scores=(
            Score(None, "token", selects(form.spec.d_vocab, form.token("1")[1], weight=sharpness)),
            Score(None, "role", selects(len(ROLES), BLOCKS.index(block), weight=sharpness)),
        ),
        moves=(Move("index", block, np.eye(form.n_indices, n_slots)),),
        keys=block,
        variable=block,
        role=f"attends to the slot of {block} that holds 1 and tells every position its index",
    )


def _output_length(form: Form, *, sharpness: float) -> Head:
    """Scores fall by `sharpness` a slot, so that the first empty slot wins; the bracket wins over full slots alone."""
    n_output = form.spec.n_output
    empty = sharpness * (n_output + 2)
    in_block = empty + 2 * sharpness
    role = selects(len(ROLES), BLOCKS.index("output"), weight=in_block)
    role[0, ROLES.index("output_end")] = in_block + sharpness * (n_output + 1)
    return Head(
        name="output_length",
        layer=0,
        scores=(
            Score(None, "role", role),
            Score(None, "token", selects(form.spec.d_vocab, form.token("EOO")[1], weight=empty)),
            Score(None, "index", -sharpness * np.arange(form.n_indices, dtype=float)[None]),
        ),
        moves=(Move("index", "output_length", np.eye(form.n_indices, n_output + 1)),),
        keys="output+output.]" if n_output else "output.]",
        variable="output_length",
        role="attends to the first empty slot of the output, or to its closing bracket, and tells every position which",
    )
