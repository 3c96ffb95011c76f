"""What every world promises, held against what it says itself; a new entry of WORLDS is checked by being there."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import cython_vm
from cython_vm import MachineSpec, Op, Outcome
from interp.worlds import SPLITS, WORLDS, World, as_world, in_split, world_from_dict
from interp.worlds.addition import Addition
from interp.worlds.base import half
from interp.worlds.machine import MachineWorld
from interp.worlds.slots import SlotWorld
from interp.worlds.strings import Arithmetic, Copying, Counting, Markov, Sticky, StringWorld
from interp.worlds.text import TextWorld

SMALL = {
    "machine": MachineSpec(n_instructions=8, n_cells=4, n_input=2, n_output=2, bits=2),
    "strings": StringWorld(Sticky(letters=3)),
    "strings-strict": StringWorld(Sticky(n=3, strict=True)),
    "strings-counting": StringWorld(Counting()),
    "strings-arithmetic": StringWorld(Arithmetic()),
    "strings-copying": StringWorld(Copying()),
    "strings-last-field": StringWorld(Copying(fields=3, longest=3)),
    "strings-markov": StringWorld(Markov(length=16)),
    "addition": Addition(n_digits=4, base=3),
    "text": TextWorld.of(length=24, block=256),
    "text-documents": TextWorld.of(length=24, unit="document"),
    "slots": SlotWorld(size=4, base=3, n_values=8),
    "slots-substring": SlotWorld(program="substring", size=8),
}


def test_every_world_is_in_the_battery() -> None:
    assert {name.partition("-")[0] for name in SMALL} == set(WORLDS)


@pytest.fixture(params=list(SMALL))
def world(request: pytest.FixtureRequest) -> World:
    return as_world(SMALL[request.param])


def same(first: Any, second: Any) -> bool:
    return bool((first == second).all()) if isinstance(first == second, np.ndarray) else bool(first == second)


def test_settings_survive_json(world: World) -> None:
    assert world_from_dict({"name": world.name, **world.to_dict()}) == world
    assert set(world.to_dict()) <= set(world.settings())


def test_variables_stand_behind_their_parents(world: World) -> None:
    seen: set[str] = set()
    for name, variable in world.variables().items():
        assert variable.name == name and name.startswith(variable.family)
        assert variable.n_values > 0 and variable.equation
        assert set(variable.parents) <= set(world.variables())
        seen.add(name)
    assert set(world.main_variables()) <= seen


def test_values_are_in_range(world: World) -> None:
    examples = world.draw(64, seed=0)
    for name, variable in world.variables().items():
        values = world.read(examples, name)
        assert values.shape == (64,) and values.dtype == np.int64
        assert values.min() >= -1 and values.max() < variable.n_values, name


def test_values_have_names(world: World) -> None:
    for name, variable in world.variables().items():
        names = [world.value_name(name, value) for value in range(variable.n_values)]
        assert len(set(names)) == len(names) and all(names), name
        assert world.value_name(name, variable.n_values) == str(variable.n_values)  # out of range: its number
    with pytest.raises(ValueError, match="nothing_like_that"):
        world.value_name("nothing_like_that", 0)


def test_the_machine_names_instructions_and_outcomes() -> None:
    machine = as_world(SMALL["machine"])
    assert [machine.value_name("op", value) for value in (0, 4)] == [Op(0).name, Op(4).name]
    assert machine.value_name("instruction[2]", int(Op.GET)) == "GET"
    assert machine.value_name("outcome", int(Outcome.INPUT_EMPTY)) == "INPUT_EMPTY"
    assert machine.value_name("branch_taken", 1) == "jumps"
    assert machine.value_name("cell[1]", 3) == "3"


def test_a_row_depends_on_its_number_alone(world: World) -> None:
    whole = world.draw(40, seed=5)
    assert same(world.draw(15, seed=5, start=25), whole[25:40])
    assert same(type(whole).concatenate([whole[:7], whole[7:]]), whole)
    assert not same(world.draw(40, seed=6), whole)


def test_splits_hold_out_whole_units(world: World) -> None:
    groups = {split: world.groups(world.draw(300, seed=1, split=split)) for split in SPLITS}
    for split, hashes in groups.items():
        assert hashes.dtype == np.uint64 and in_split(hashes, split).all(), split
    for one, other in (("fit", "validation"), ("fit", "evaluation"), ("validation", "evaluation")):
        assert not set(groups[one]) & set(groups[other])
    assert set(half(groups["evaluation"])) == {0, 1}
    with pytest.raises(ValueError, match="split must be one of all, train, fit, validation, evaluation, got 'test'"):
        in_split(groups["all"], "test")


def test_strata_are_named(world: World) -> None:
    examples = world.draw(200, seed=2)
    strata = world.strata(examples)
    assert len(strata) == 200 and strata.names == world.stratum_names and strata.parts == world.part_names
    members = np.sum([strata.members(*each) for each in strata.present()], axis=0)
    assert (members == (strata.number >= 0)).all()


def test_do_sets_what_is_read(world: World) -> None:
    if "do" not in world.capabilities:
        with pytest.raises(ValueError, match=f"the world {world.name} cannot be asked for 'do'"):
            world.answer(world.draw(4, seed=0), do={})
        return
    base, source = world.draw(80, seed=3), world.draw(80, seed=4)
    for name in world.main_variables():
        if not world.variable(name).settable:
            with pytest.raises(ValueError, match="can be read but not set"):
                world.settable(name)
            continue
        values = world.read(base, name)
        own = world.answer(base, do={name: values})
        plain = world.answer(base)
        rows = values >= 0
        assert (own.valid | ~rows).all(), "what a variable is, it can be"
        other = world.answer(base, do={name: world.read(source, name)})
        assert other.valid.shape == (80,) and plain.valid.all()


def test_an_edit_sets_one_stored_variable(world: World) -> None:
    if "edit" not in world.capabilities:
        pytest.skip("the world stores nothing that could be edited")
    examples, donor = world.draw(120, seed=5), world.draw(120, seed=6)
    for name in (each for each in world.variables() if world.editable(each)):
        values = world.read(donor, name)
        rows = np.flatnonzero((values >= 0) & (world.read(examples, name) >= 0))
        edited = world.edit(examples[rows], name, values[rows])
        assert (world.read(edited, name) == values[rows]).all()
        if not world.edits_change_units:
            assert (world.groups(edited) == world.groups(examples[rows])).all(), "an edit leaves the unit"


def test_unknown_names_are_answered_with_close_ones(world: World) -> None:
    name = world.main_variables()[0]
    with pytest.raises(ValueError, match=re.escape(name)):
        world.read(world.draw(2, seed=0), name + "x")
    with pytest.raises(ValueError, match="unknown world 'machin'.*did you mean machine"):
        WORLDS["machin"]


def test_the_machine_is_read_at_any_executed_step() -> None:
    """Against running step by step."""
    world = MachineWorld(SMALL["machine"])
    starts = world.draw_runs(30, n_steps=12, seed=0)
    at = np.tile(np.arange(14), (30, 1))
    for name in ("operand", "array_ptr", "instruction_ptr", "cell[1]", "outcome"):
        found, states = world.read(starts, name, at), starts
        alive = np.ones(30, dtype=bool)
        for time in range(14):
            want = cython_vm.variable(world.spec, name).read(states)
            assert (found[:, time] == np.where(alive, want, -1)).all(), (name, time)
            transition = cython_vm.step(states)
            alive &= transition.outcome == 0
            states = transition.next
        row = np.arange(30) % 14
        assert (world.read(starts, name, row) == found[np.arange(30), row]).all()


def test_do_at_a_step_is_the_machine_edited_on_the_way() -> None:
    world = MachineWorld(SMALL["machine"])
    starts, at = world.draw_runs(40, n_steps=12, seed=1), np.arange(40) % 9
    values = np.arange(40) % 4
    answer = world.answer(starts, do={"array_ptr": values}, at=at)
    for row in range(40):
        state = starts[row : row + 1]
        ran = 0
        while ran < at[row] and (step := cython_vm.step(state)).outcome[0] == 0:
            state, ran = step.next, ran + 1
        if ran < at[row]:
            assert not answer.valid[row]
            continue
        assert answer.valid[row]
        state = cython_vm.step(state, do={"array_ptr": values[row : row + 1]}).next
        for _ in range(11 - at[row]):
            state = cython_vm.step(state).next
        assert answer.after(12)[row : row + 1] == state
    plain = world.answer(starts)
    assert answer.after(at) == plain.after(at), "before the edit nothing has changed"
