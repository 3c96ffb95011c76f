"""Every op × outcome worked by hand, and every rule of `do` from its sentence in the specification."""

import numpy as np
import pytest

from cython_vm import VARIABLES, MachineSpec, Op, Outcome, States, ancestors, sample, step, strata_weights, variable

SPEC = MachineSpec(n_instructions=8, n_cells=3, n_input=2, n_output=2, bits=2)  # cells hold 0 … 3


def state(program, ip=0, ap=0, cells=(0, 0, 0), input=(), output=()):
    return States.build(
        SPEC, program=program, instruction_ptr=ip, array_ptr=ap, cells=cells, input=input, output=output
    )


# (what, S_t, outcome, what changes in S_{t+1})
CASES = [
    ("NEXT moves right", state(">", ap=1), "RAN", {"instruction_ptr": 1, "array_ptr": 2}),
    ("NEXT at the last cell", state(">", ap=2), "ARRAY_OVERFLOW", {}),
    ("PREV moves left", state("<", ap=2), "RAN", {"instruction_ptr": 1, "array_ptr": 1}),
    ("PREV at cell 0", state("<"), "ARRAY_UNDERFLOW", {}),
    ("INC adds 1", state("+", ap=1, cells=(1, 2, 3)), "RAN", {"instruction_ptr": 1, "cells": (1, 3, 3)}),
    ("INC at the largest value", state("+", cells=(3, 0, 0)), "VALUE_OVERFLOW", {}),
    ("DEC takes 1", state("-", ap=1, cells=(1, 2, 3)), "RAN", {"instruction_ptr": 1, "cells": (1, 1, 3)}),
    ("DEC at 0", state("-"), "VALUE_UNDERFLOW", {}),
    ("PUT appends", state(".", cells=(3, 0, 0), output=(1,)), "RAN", {"instruction_ptr": 1, "output": (1, 3)}),
    ("PUT into an empty output", state(".", cells=(2, 0, 0)), "RAN", {"instruction_ptr": 1, "output": (2,)}),
    ("PUT when full", state(".", output=(1, 0)), "OUTPUT_FULL", {}),
    (
        "GET takes the head",
        state(",", ap=2, input=(2, 1)),
        "RAN",
        {"instruction_ptr": 1, "cells": (0, 0, 2), "input": (1,)},
    ),
    ("GET of the last", state(",", input=(3,)), "RAN", {"instruction_ptr": 1, "cells": (3, 0, 0), "input": ()}),
    ("GET when empty", state(","), "INPUT_EMPTY", {}),
    ("WHILE on 0 leaves its loop", state("[+[-]]+"), "RAN", {"instruction_ptr": 6}),
    ("WHILE on 0 inside another", state("[+[-]]+", ip=2), "RAN", {"instruction_ptr": 5}),
    ("WHILE goes on", state("[+[-]]+", cells=(1, 0, 0)), "RAN", {"instruction_ptr": 1}),
    ("ENDW jumps back", state("[+[-]]+", ip=5, cells=(1, 0, 0)), "RAN", {"instruction_ptr": 1}),
    ("ENDW of the inner loop", state("[+[-]]+", ip=4, cells=(1, 0, 0)), "RAN", {"instruction_ptr": 3}),
    ("ENDW on 0 goes on", state("[+[-]]+", ip=5), "RAN", {"instruction_ptr": 6}),
    ("an empty loop spins", state("[]", ip=1, cells=(1, 0, 0)), "RAN", {"instruction_ptr": 1}),
    ("STOP in the middle", state("+ STOP +", ip=1), "HALTED", {}),
    ("STOP in the last slot", state("+", ip=7), "HALTED", {}),
]


@pytest.mark.parametrize(
    ("before", "outcome", "changes"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_step_by_hand(before, outcome, changes):
    transition = step(before)
    assert Outcome(transition.outcome[0]).name == outcome
    assert transition.valid.all()
    fields = {
        "program": before.program[0],
        "instruction_ptr": before.instruction_ptr[0],
        "array_ptr": before.array_ptr[0],
        "cells": before.cells[0],
        "input": before.input[0, : before.input_length[0]],
        "output": before.output[0, : before.output_length[0]],
    }
    assert transition.next == States.build(SPEC, **(fields | changes))


def test_the_table_covers_every_op_and_outcome():
    done = {(int(case[1].program[0, case[1].instruction_ptr[0]]), Outcome[case[2]]) for case in CASES}
    assert done == {tuple(cell) for cell in np.argwhere(strata_weights(SPEC) > 0).tolist()}


def test_latents_by_hand():
    at_endw = state("[+[-]]+", ip=4, ap=1, cells=(0, 2, 0), input=(3, 1), output=(1,))
    latents = {name: int(values[0]) for name, values in step(at_endw).latents.items()}
    assert latents == {
        "instruction_ptr": 4,
        "op": Op.ENDW,
        "array_ptr": 1,
        "operand": 2,
        "jump_target": 3,
        "input_head": 3,
        "output_length": 1,
        "outcome": Outcome.RAN,
        "branch_taken": 1,
        "result": 2,
        "emitted": -1,
        "next_instruction_ptr": 3,
        "next_array_ptr": 1,
    }
    put = step(state(".", cells=(3, 0, 0))).latents
    assert (put["emitted"][0], put["input_head"][0], put["jump_target"][0], put["branch_taken"][0]) == (3, -1, -1, -1)


# (S_t, do, S_{t+1} as a state, or None where no value exists)
DO_CASES = {
    "a root is an edit of S_t": (state("+"), {"cell[2]": 3}, state("+", ip=1, cells=(1, 0, 3))),
    "an edited root is fetched": (state("+"), {"cell[0]": 2}, state("+", ip=1, cells=(3, 0, 0))),
    "a moved pointer fetches another op": (state("+>"), {"instruction_ptr": 1}, state("+>", ip=2, ap=1)),
    "a frozen row keeps the edit": (state("<"), {"cell[1]": 2}, state("<", cells=(0, 2, 0))),
    "an instruction is a root": (state("+"), {"instruction[0]": Op.NEXT}, state(">", ip=1, ap=1)),
    "half a loop is no program": (state("+"), {"instruction[0]": Op.WHILE}, None),
    "an input value is a root": (state(",", input=(1, 2)), {"input[0]": 3}, state(",", 1, 0, (3, 0, 0), (2,))),
    "an empty slot has no value": (state(",", input=(1,)), {"input[1]": 3}, None),
    "the input may be cut": (state(",", input=(1, 2)), {"input_length": 0}, state(",")),
    "the input cannot grow": (state(",", input=(1,)), {"input_length": 2}, None),
    "operand under INC": (state("+", cells=(0, 1, 0)), {"operand": 2}, state("+", ip=1, cells=(3, 1, 0))),
    "operand under PUT emits and leaves the cell": (
        state(".", cells=(1, 0, 0)),
        {"operand": 3},
        state(".", 1, 0, (1, 0, 0), (), (3,)),
    ),
    "operand under NEXT changes nothing": (state(">"), {"operand": 3}, state(">", ip=1, ap=1)),
    "operand decides a branch": (state("[+]"), {"operand": 3}, state("[+]", ip=1)),
    "operand decides a freeze": (state("+"), {"operand": 3}, state("+")),
    "another op": (state("+"), {"op": Op.NEXT}, state("+", ip=1, ap=1)),
    "op WHILE without a partner jumps nowhere": (state("+"), {"op": Op.WHILE}, None),
    "op WHILE that goes on needs none": (
        state("+", cells=(1, 0, 0)),
        {"op": Op.WHILE},
        state("+", ip=1, cells=(1, 0, 0)),
    ),
    "op WHILE with a target": (state("+"), {"op": Op.WHILE, "jump_target": 5}, state("+", ip=5)),
    "another op in the last slot runs off": (state("+", ip=7), {"op": Op.INC}, None),
    "jump_target moves the jump": (state("[+]"), {"jump_target": 6}, state("[+]", ip=6)),
    "jump_target without a jump": (state("+"), {"jump_target": 6}, state("+", ip=1, cells=(1, 0, 0))),
    "input_head is what GET stores": (
        state(",", input=(1, 2)),
        {"input_head": 3},
        state(",", 1, 0, (3, 0, 0), (2,)),
    ),
    "input_head feeds an empty input": (state(","), {"input_head": 3}, state(",", ip=1, cells=(3, 0, 0))),
    "output_length full": (state("."), {"output_length": 2}, state(".")),
    "output_length overwrites": (state(".", output=(3, 2)), {"output_length": 0}, state(".", ip=1, output=(0, 2))),
    "output_length leaves a gap": (state("."), {"output_length": 1}, None),
    "outcome freezes": (state("+"), {"outcome": Outcome.HALTED}, state("+")),
    "outcome RAN at the largest value": (state("+", cells=(3, 0, 0)), {"outcome": Outcome.RAN}, None),
    "outcome RAN at the last cell": (state(">", ap=2), {"outcome": Outcome.RAN}, None),
    "outcome RAN at STOP": (state(""), {"outcome": Outcome.RAN}, None),
    "outcome RAN when full": (state(".", output=(1, 2)), {"outcome": Outcome.RAN}, None),
    "outcome RAN without input": (state(","), {"outcome": Outcome.RAN}, None),
    "outcome RAN with a result given": (
        state("+", cells=(3, 0, 0)),
        {"outcome": Outcome.RAN, "result": 1},
        state("+", ip=1, cells=(1, 0, 0)),
    ),
    "branch taken": (state("[+]", cells=(1, 0, 0)), {"branch_taken": 1}, state("[+]", ip=3, cells=(1, 0, 0))),
    "branch not taken": (state("[+]"), {"branch_taken": 0}, state("[+]", ip=1)),
    "branch taken off a loop": (state("+"), {"branch_taken": 1}, None),
    "result is the cell left": (state("+"), {"result": 3}, state("+", ip=1, cells=(3, 0, 0))),
    "result under NEXT is the old cell": (state(">"), {"result": 3}, state(">", ip=1, ap=1, cells=(3, 0, 0))),
    "emitted under PUT": (state("."), {"emitted": 3}, state(".", ip=1, output=(3,))),
    "emitted appends": (state("+"), {"emitted": 3}, state("+", ip=1, cells=(1, 0, 0), output=(3,))),
    "emitted when full": (state("+", output=(1, 2)), {"emitted": 3}, None),
    "next_instruction_ptr": (state("+"), {"next_instruction_ptr": 6}, state("+", ip=6, cells=(1, 0, 0))),
    "next_array_ptr": (state("+"), {"next_array_ptr": 2}, state("+", ip=1, ap=2, cells=(1, 0, 0))),
    "next_cell": (state("+"), {"next_cell[1]": 2}, state("+", ip=1, cells=(1, 2, 0))),
    "next_cell under the pointer": (state("+"), {"next_cell[0]": 3}, state("+", ip=1, cells=(3, 0, 0))),
    "an undefined value": (state("+"), {"jump_target": -1}, None),
}


@pytest.mark.parametrize(("before", "do", "after"), DO_CASES.values(), ids=DO_CASES)
def test_do_by_hand(before, do, after):
    transition = step(before, do)
    assert transition.valid.tolist() == [after is not None]
    assert transition.next == (before if after is None else after)


def test_a_set_variable_keeps_its_value():
    spec = MachineSpec()
    states = sample(spec, 300, seed=4)
    rng = np.random.default_rng(0)
    for name in step(states).latents:
        values = rng.integers(0, variable(spec, name).n_values(spec), len(states))
        transition = step(states, {name: values})
        assert transition.valid.any()
        assert np.array_equal(transition.latents[name][transition.valid], values[transition.valid])


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ({"op": [0, 9]}, r"do\(op\).*0 to 8.*got 9 at row 1"),
        ({"cell[1]": 4}, r"do\(cell\[1\]\).*0 to 3.*got 4 at row 0"),
        ({"operand": -2}, r"do\(operand\).*got -2 at row 0"),
        ({"operand": np.array([2**63], dtype=np.uint64).repeat(2)}, r"do\(operand\).*got 9223372036854775808"),
        ({"operands": 1}, "no variable 'operands'; did you mean operand"),
        ({"cell[3]": 1}, r"no variable 'cell\[3\]'.*cell\[2\]"),
        ({"cell[i]": 1}, r"no variable 'cell\[i\]'"),
        ({"loop_depth": 1}, "loop_depth can be read but not set"),
        ({"op": [1, 2, 3]}, "one for each of 2 rows"),
    ],
)
def test_bad_interventions_are_named(do, message):
    states = States.concatenate([state("+"), state("-")])
    with pytest.raises(ValueError, match=message):
        step(states, do)


def test_floats_are_no_values():
    with pytest.raises(TypeError, match="integers, got float64"):
        step(state("+"), {"op": 1.0})


# The causal graph that `parents` declares.

GRAPH_SPEC = MachineSpec(n_instructions=7, n_cells=3, n_input=2, n_output=2, bits=2)


def values_after(states, do):
    """Every variable of S_t (edited), of the step and of S_{t+1} under an intervention."""
    transition = step(states, do)
    values: dict[str, np.ndarray] = dict(transition.latents)
    for i in range(states.spec.n_cells):
        values[f"next_cell[{i}]"] = transition.next.cells[:, i]
    return values, transition.valid


def test_only_descendants_change_and_every_parent_matters():
    states = sample(GRAPH_SPEC, 4000, seed=0, weights=strata_weights(GRAPH_SPEC, branches=True))
    base, _ = values_after(states, None)
    rng = np.random.default_rng(0)
    depends = {name: ancestors(GRAPH_SPEC, name) for name in base}
    for name in GRAPH_SPEC.variables():
        target = variable(GRAPH_SPEC, name)
        if not target.settable:
            continue
        changed, valid = values_after(states, {name: rng.integers(0, target.n_values(GRAPH_SPEC), len(states))})
        for other, values in changed.items():
            differs = (values != base[other])[valid].any()
            if other != name and name not in depends[other]:
                assert not differs, f"{other} changed with {name}, which is not among its ancestors"
            # The last instruction is always STOP, and one edit cannot move a loop (see the next test).
            fixed = name == "instruction[6]" or (other == "jump_target" and name.startswith("instruction["))
            if name in variable(GRAPH_SPEC, other).parents and not fixed:
                assert differs, f"{name} is a parent of {other} but never changes it"


def test_jump_target_depends_on_every_instruction():
    """No single edit keeps the loops matched, so each slot is changed together with one other."""
    states = sample(GRAPH_SPEC, 20000, seed=0)
    other = states[np.random.default_rng(0).permutation(len(states))]
    base = step(states).latents["jump_target"]
    edited = step(states, {f"instruction[{i}]": other.program[:, i] for i in range(7)})
    assert edited.valid.all()
    slots = np.argwhere((states.program != other.program) & (edited.latents["jump_target"] != base)[:, None])[:, 1]
    assert set(slots.tolist()) == set(range(6))  # the last one is always STOP


def test_latents_of_a_run_depend_on_their_parents_only():
    states = sample(GRAPH_SPEC, 1500, seed=1)
    for latent in ("loop_depth", "steps_to_halt"):
        target = variable(GRAPH_SPEC, latent)
        base = target.read(states)
        assert base.max() > 0
        assert base.max() < target.n_values(GRAPH_SPEC)
        rng = np.random.default_rng(0)
        for name in GRAPH_SPEC.variables():
            root = variable(GRAPH_SPEC, name)
            if root.kind != "root" or name.startswith("instruction[") or name == "input_length":
                continue
            given = root.read(states)
            values = np.where(given < 0, 0, rng.integers(0, root.n_values(GRAPH_SPEC), len(states)))
            held = states[given >= 0]
            differs = (target.read(held.replace(name, values[given >= 0])) != target.read(held)).any()
            assert differs == (name in target.parents), (latent, name)


def test_variables_are_listed_with_their_sizes():
    sizes = GRAPH_SPEC.variables()
    assert sizes["cell[2]"] == 4
    assert sizes["outcome"] == 8
    assert sizes["output_length"] == 3
    assert "cell[3]" not in sizes
    assert [name for name in VARIABLES if name.endswith("[i]")] == [
        "instruction[i]",
        "cell[i]",
        "input[i]",
        "output[i]",
        "next_cell[i]",
    ]
    states = sample(GRAPH_SPEC, 3000, seed=2, weights=strata_weights(GRAPH_SPEC, branches=True))
    for name, size in sizes.items():
        values = variable(GRAPH_SPEC, name).read(states)
        assert values.dtype == np.int64
        assert values.min() >= -1, name
        assert values.max() < size, name


def test_variables_read_what_they_say():
    states = sample(GRAPH_SPEC, 500, seed=3)
    read = {name: variable(GRAPH_SPEC, name).read(states) for name in GRAPH_SPEC.variables()}
    rows = np.arange(len(states))
    assert np.array_equal(read["op"], states.program[rows, states.instruction_ptr])
    assert np.array_equal(read["operand"], states.cells[rows, states.array_ptr])
    assert np.array_equal(read["input_head"], read["input[0]"])
    assert np.array_equal(read["input[1]"] >= 0, states.input_length > 1)
    assert np.array_equal(read["next_cell[1]"], step(states).next.cells[:, 1])
    with pytest.raises(ValueError, match="family"):
        VARIABLES["cell[i]"].read(states)
