"""Edits of one forward pass: what they write, and that the Python of a recipe gives the same answer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import interp
from cython_vm import MachineSpec, States
from interp.compiled import compile_model
from interp.interventions import (
    Edit,
    Site,
    ablated,
    carry_out,
    edited_answer,
    one_edits,
    patched,
    python,
    source_with,
    swapped,
)
from interp.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
SPEC = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=2)


@pytest.fixture(scope="module")
def compiled():
    """A model whose mechanism is known: the stream after a layer holds what the answer key says."""
    torch.set_num_threads(1)
    return compile_model(SPEC)


@pytest.fixture(scope="module")
def quickstart() -> interp.Run:
    torch.set_num_threads(1)
    return interp.load(ROOT / "checkpoints" / "quickstart")


def base(spec: MachineSpec = SPEC) -> States:
    return States.build(spec, program="INC NEXT DEC", array_ptr=1, cells=(2, 1, 0))


def test_a_variable_set_in_a_compiled_model_moves_the_answer_as_the_machine_says(compiled) -> None:
    task = TASKS["step_inplace"](SPEC)
    first = compiled.model.residual_hooks()[0]
    done = carry_out(compiled.model, task, base(), [Edit("set", Site(first, "array_ptr"), "array_ptr", 0)])
    assert done.do == {"array_ptr": 0}
    assert done.sources[0] is not None and done.sources[0].words == "this example with array_ptr = 0"
    answer = done.answer
    changed = {answer.names[i]: task.vocab[answer.after[i]] for i in np.flatnonzero(answer.before != answer.after)}
    # INC now adds to cell 0, which holds 2, in place of cell 1, which holds 1; the pointer's own slots say where it is
    assert changed == {"array_ptr[0]": "1", "array_ptr[1]": "0", "cells[0]": "NUM_3", "cells[1]": "NUM_1"}
    assert answer.right and int(answer.should_change.sum()) == 4


def test_a_source_is_as_near_as_can_be() -> None:
    task = TASKS["step_inplace"](SPEC)
    own = source_with(task, base(), "array_ptr", 1)
    assert own.words == "this example as it is"
    fetched = source_with(task, base(), "op", 3)  # no slot of its own: the pointer moves to where DEC stands
    assert fetched.words == "this example with instruction_ptr = 2"
    assert int(task.world.read(fetched.examples, "op")[0]) == 3
    nowhere = source_with(task, base(), "op", 5)  # no edit brings an op that the program lacks
    assert nowhere.words.startswith("held-out example ")
    with pytest.raises(ValueError, match="array_ptr takes values from 0 to 2, got 3"):
        source_with(task, base(), "array_ptr", 3)


def test_one_edits_change_one_stored_value_each() -> None:
    world = TASKS["step_inplace"](SPEC).world
    every = one_edits(world, base())
    assert sum(len(told) for _, told in every) == 3 + 2 + 3 * 3  # pointers and cells; the input is empty
    now = world.encode(base())[0]
    for edited, told in every:
        for row, phrase in zip(world.encode(edited), told, strict=True):
            limit = 2 if phrase.startswith(("array_ptr", "instruction_ptr")) else 1  # a pointer is two slots
            assert int((row != now).sum()) == limit, phrase


def test_a_swap_of_everything_is_the_other_examples_answer(quickstart: interp.Run) -> None:
    task, model = quickstart.task, quickstart.model
    both = task.draw(2, seed=1)
    base, source = both[:1], both[1:]
    answer = edited_answer(
        model, task, base, [swapped(model, task, base, source, Site("blocks.1.hook_resid_post", "all"))]
    )
    np.testing.assert_array_equal(answer.after, task.answer(model, task.render(source))[0])
    np.testing.assert_array_equal(answer.before, task.answer(model, task.render(base))[0])
    assert not (answer.before == answer.after).all()


def test_an_ablation_writes_what_it_says(quickstart: interp.Run) -> None:
    task, model = quickstart.task, quickstart.model
    base = task.draw(1, seed=2)
    site = Site("blocks.1.attn.hook_z", "cells", 2)
    zero = ablated(model, task, base, site, "zero")
    with patched(model, [zero]):
        _, cache = model.run_with_cache(task.render(base).tokens)
    cells = task.resolve("cells", task.render(base))[0]
    z = cache["blocks.1.attn.hook_z"][0]
    assert (z[cells, 2] == 0).all() and (z[cells, 1] != 0).any()
    mean = ablated(model, task, base, site, "mean")
    assert mean.value.shape == (1, 6, 16) and mean.value.abs().sum() > 0
    with pytest.raises(ValueError, match="must be 'zero', 'mean' or 'resample'"):
        ablated(model, task, base, site, "none")  # type: ignore[arg-type]


def test_contradicting_edits_are_refused(compiled) -> None:
    task = TASKS["step_inplace"](SPEC)
    hook = compiled.model.residual_hooks()[0]
    edits = [Edit("set", Site(hook, "array_ptr"), "array_ptr", value) for value in (0, 2)]
    with pytest.raises(ValueError, match="array_ptr is set to 0 and to 2"):
        carry_out(compiled.model, task, base(), edits)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([], "an edit must be an object"),
        ({"kind": "burn", "hook": "x"}, "kind must be one of set, swap, ablate"),
        ({"kind": "ablate"}, "needs a hook"),
        ({"kind": "ablate", "hook": "x", "head": "1"}, "head of an edit must be int"),
        ({"kind": "set", "hook": "x"}, "must name it"),
        ({"kind": "swap", "hook": "x", "source": 0}, "from 1; got 0"),
        ({"kind": "ablate", "hook": "x", "force": 1}, "no field 'force'"),
    ],
)
def test_edits_from_a_link_are_checked(values: object, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Edit.from_dict(values)


RECIPES = {
    "quickstart": [
        {"kind": "set", "hook": "blocks.0.hook_resid_post", "positions": "array_ptr", "variable": "array_ptr",
         "value": 2},
        {"kind": "ablate", "hook": "blocks.1.attn.hook_z", "positions": "all", "head": 3, "ablation": "resample"},
        {"kind": "swap", "hook": "blocks.2.hook_mlp_out", "positions": "cells", "source": 5},
    ],
    "trace": [
        {"kind": "set", "hook": "blocks.1.hook_resid_post", "positions": "stream[@step]", "variable": "operand",
         "value": 3},
    ],
    "step": [
        {"kind": "swap", "hook": "blocks.1.hook_resid_post", "positions": "all", "source": 3, "variable": "array_ptr"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_the_python_of_a_recipe_gives_the_same_answer(name: str) -> None:
    """The lines that the app shows are executed, and give the numbers that the app shows."""
    folder = ROOT / "checkpoints" / name
    run = interp.load(folder)
    at = 4 if run.task.edits_any_step else 0
    edits = [Edit.from_dict(each) for each in RECIPES[name]]
    assert [edit.to_dict() for edit in edits] == RECIPES[name]
    lines = python(str(folder), ['base = task.draw(1, seed=20, start=6, split="evaluation")'], edits, at=at)
    told: dict = {}
    exec(compile(lines, "recipe", "exec"), told)
    base = run.task.draw(1, seed=20, start=6, split="evaluation")
    found = carry_out(run.model, run.task, base, edits, at=at).answer
    np.testing.assert_array_equal(found.after, told["answer"].after)
    np.testing.assert_array_equal(found.expected, told["answer"].expected)
    np.testing.assert_allclose(found.p_after, told["answer"].p_after, atol=1e-5)
    assert (found.before != found.after).any() or name == "trace"
