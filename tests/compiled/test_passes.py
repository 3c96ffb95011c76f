"""Each pass alone: what it writes is the machine's variable, at every position that is to read it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from compiled_machine import SPEC, stratified

from cython_vm import Op, reference, variable
from interp.compiled.build import Compiled

STATES = stratified(SPEC, 170, seed=2)

# variable, subspace, the stream point after its pass
WRITTEN = [
    ("instruction_ptr", "instruction_ptr", "blocks.0.hook_resid_mid"),
    ("array_ptr", "array_ptr", "blocks.0.hook_resid_mid"),
    ("output_length", "output_length", "blocks.0.hook_resid_mid"),
    ("op", "op", "blocks.1.hook_resid_mid"),
    ("operand", "operand", "blocks.1.hook_resid_mid"),
    ("input_head", "input_head", "blocks.1.hook_resid_mid"),
    ("outcome", "outcome", "blocks.1.hook_resid_post"),
    ("branch_taken", "branch_taken", "blocks.1.hook_resid_post"),
    ("jump_target", "jump_target", "blocks.2.hook_resid_mid"),
]


@pytest.fixture(scope="module")
def stream(compiled: Compiled):
    """From a subspace, a hook and positions to the features there, [n, positions, features]."""
    hooks = compiled.key.hooks
    with torch.inference_mode():
        tokens = compiled.form.task.render(STATES).tokens
        _, cache = compiled.model.run_with_cache(tokens, names_filter=list(hooks))

    def read(space: str, hook: str, positions: list[int]) -> np.ndarray:
        return cache[hook][:, positions][..., compiled.program.slice(space)].numpy()

    return read


@pytest.mark.parametrize(("name", "space", "hook"), WRITTEN)
def test_a_pass_writes_the_variable_one_hot(compiled: Compiled, stream, name: str, space: str, hook: str) -> None:
    positions = compiled.form.answers("instruction_ptr")  # the one block at which all of them are needed
    found = stream(space, hook, positions)
    values = variable(SPEC, name).read(STATES)
    expected = np.zeros(found.shape)
    for row in np.flatnonzero(values >= 0):
        expected[row, :, values[row]] = 1.0
    if name == "input_head":  # one feature more: the input is empty
        expected[values < 0, :, SPEC.max_value + 1] = 1.0
    if name == "op":  # the subspace has this machine's ops
        expected = expected[..., : len(SPEC.ops)]
    assert np.abs(found - expected).max() < 2e-3


def test_depth_is_the_machine_s_loop_depth_at_every_instruction(compiled: Compiled, stream) -> None:
    found = stream("depth", "blocks.0.hook_resid_mid", compiled.form.positions("instructions"))[..., 0]
    for slot in range(SPEC.n_instructions):
        depth = variable(SPEC, "loop_depth").read(STATES.replace("instruction_ptr", slot))
        assert np.abs(found[:, slot] - depth).max() < 2e-3


def test_partners_have_one_level(compiled: Compiled, stream) -> None:
    slots = compiled.form.positions("instructions")
    opening = stream("opening", "blocks.0.hook_resid_post", slots)
    closing = stream("closing", "blocks.0.hook_resid_post", slots)
    n_pairs = 0
    for row, program in enumerate(STATES.program.tolist()):
        for slot, op in enumerate(program):
            partner = reference.partner(program, slot)
            if op == Op.WHILE:
                assert partner is not None
                assert np.abs(opening[row, slot] - closing[row, partner]).max() < 5e-3
                assert abs(opening[row, slot].sum() - 1) < 5e-3
                n_pairs += 1
            if op != Op.WHILE:
                assert not opening[row, slot].any()
            if op != Op.ENDW:
                assert not closing[row, slot].any()
    assert n_pairs > 50


def test_the_slots_that_a_step_can_write_are_marked(compiled: Compiled, stream) -> None:
    hook, form = "blocks.1.hook_resid_post", compiled.form
    cells = stream("at_array_ptr", hook, form.answers("cells"))[..., 0]
    assert np.abs(cells - np.eye(SPEC.n_cells)[STATES.array_ptr]).max() < 2e-3
    outputs = stream("at_output_length", hook, form.answers("output"))[..., 0]
    assert np.abs(outputs - np.eye(SPEC.n_output + 1)[STATES.output_length][:, :-1]).max() < 2e-3


def test_the_next_input_is_what_stands_one_slot_on(compiled: Compiled, stream) -> None:
    found = stream("next_input", "blocks.2.hook_resid_mid", compiled.form.answers("input"))
    empty = SPEC.max_value + 1
    held = np.where(np.arange(SPEC.n_input) < STATES.input_length[:, None], STATES.input, empty)
    following = np.concatenate([held[:, 1:], np.full((len(STATES), 1), empty)], axis=1)
    assert np.abs(found - np.eye(empty + 1)[following]).max() < 2e-3
