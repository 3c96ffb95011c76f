"""Generated roles against the declared ones of a compiled interpreter."""

from typing import Any

import pytest
import torch

from cython_vm import MachineSpec
from interp.circuits import Graph, head_roles
from interp.compiled.build import compile_model
from interp.tasks import TASKS

from .conftest import random_model
from .test_patching import n_hooks

SPEC = MachineSpec(n_instructions=6, n_cells=3, n_input=2, n_output=2, bits=2)


@pytest.fixture(scope="module")
def compiled():
    return compile_model(SPEC)


@pytest.fixture(scope="module")
def by_name(compiled):
    """Head names of the program -> (layer, head)."""
    program = compiled.program
    return {head.name: (head.layer, program.heads_of(head.layer).index(head)) for head in program.heads}


def test_the_heads_of_inc(compiled, by_name):
    fetched = {
        "instruction_ptr": "instruction_ptr[@instruction_ptr]",
        "array_ptr": "array_ptr[@array_ptr]",
        "op": "instructions[@instruction_ptr]",
        "operand": "cells[@array_ptr]",
    }
    idle = ["match_forward", "input_head", "output_length"]
    heads = [by_name[name] for name in [*fetched, *idle]]
    roles = head_roles(compiled.model, compiled.form.task, "INC", heads=heads, n=20)
    for role, (name, keys) in zip(roles, fetched.items(), strict=False):
        assert (role.layer, role.head) == by_name[name]
        assert role.variable == name
        assert role.to_block == keys
        assert role.attention > 0.95
        assert role.score > 0.8
        assert role.iia > 0.9
        assert role.score_low <= role.score <= role.score_high
        assert f"brings {name}" in role.sentence
        assert role.node in role.sentence
    # The contrast moves instruction_ptr alone: what depends on it is worth something, what fetches the cell is not.
    assert roles[0].effect < -5
    assert roles[2].effect < -5
    assert roles[1].effect == pytest.approx(0, abs=0.1)
    for role in roles[len(fetched) :]:
        assert role.variable is None
        assert role.score < 0.1
        assert role.effect == pytest.approx(0, abs=0.1)
        assert "none of" in role.sentence
    assert n_hooks(compiled.model) == 0


def test_what_a_head_does_depends_on_the_instruction(compiled, by_name):
    heads = [by_name["input_head"], by_name["operand"]]
    reader, idle = head_roles(compiled.model, compiled.form.task, "GET", heads=heads, n=20)
    assert (reader.variable, reader.to_block) == ("input_head", "input[0]")
    assert idle.variable is None  # GET writes over the cell without reading it


def test_both_tasks_and_a_model_without_roles():
    """Initial weights move no variable; in `step` the answer shown is each variable's own."""
    task = TASKS["step"](SPEC)
    model: Any = random_model(task)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.out.weight.zero_()
    calls = []
    roles = head_roles(model, task, "INC", variables=["operand", "array_ptr"], n=12, progress=calls.append)
    assert len(roles) == Graph.of(model).n_layers * model.cfg.n_heads
    assert all(role.variable is None and role.score == 0 and role.effect == 0 for role in roles)
    assert calls == sorted(calls)
    assert calls[-1] == 1


def test_bad_input_is_refused(compiled):
    model, task = compiled.model, compiled.form.task
    with pytest.raises(ValueError, match=r"the model has no head \(9, 0\): layers go to 2, heads to 3"):
        head_roles(model, task, "INC", heads=[(9, 0)], n=4)
    with pytest.raises(ValueError, match="'loop_depth' can be read but not set"):
        head_roles(model, task, "INC", heads=[(0, 0)], variables=["loop_depth"], n=4)
    with pytest.raises(ValueError, match="none of the variables output_length changes the answer of INC"):
        head_roles(model, task, "INC", heads=[(0, 0)], variables=["output_length"], n=4)
