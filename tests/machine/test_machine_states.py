"""MachineSpec, programs as text, and States as a batch: made, indexed, edited, refused."""

import dataclasses
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest

from cython_vm import MachineSpec, Op, Outcome, States, count_programs, format_program, parse_program, sample

SPEC = MachineSpec(n_instructions=6, n_cells=3, n_input=2, n_output=2, bits=2)


def test_import_needs_numpy_alone():
    """With every other package of the project blocked, the machine still runs."""
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in "torch interp probes app pandas sklearn transformer_lens scipy".split():
            raise ImportError(name)
sys.meta_path.insert(0, Block())
from cython_vm import MachineSpec, encode, run, sample, step
states = sample(MachineSpec(), 10, seed=0)
print(len(encode(step(states).next)), len(run(states, 5)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["10", "10"], done.stderr


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"n_instructions": 0}, ValueError, "n_instructions must be from 1 to 256, got 0"),
        ({"n_cells": 257}, ValueError, "n_cells must be from 1 to 256, got 257"),
        ({"n_input": -1}, ValueError, "n_input must be from 0 to 255, got -1"),
        ({"n_output": 256}, ValueError, "n_output"),
        ({"bits": 9}, ValueError, "bits must be from 1 to 8, got 9"),
        ({"bits": 4.0}, TypeError, "bits must be an integer from 1 to 8, got 4.0"),
        ({"n_cells": True}, TypeError, "n_cells must be an integer"),
        ({"io": 1}, TypeError, "io must be True or False, got 1"),
    ],
)
def test_sizes_out_of_range(fields, error, message):
    with pytest.raises(error, match=message):
        MachineSpec(**fields)


def test_spec_is_json_ready_and_has_a_stable_digest():
    spec = MachineSpec(n_cells=np.int64(7), io=np.bool_(False))  # pyright: ignore[reportArgumentType]
    fields = json.loads(json.dumps(dataclasses.asdict(spec)))
    assert MachineSpec(**fields) == spec
    assert MachineSpec(**fields).digest == spec.digest != MachineSpec().digest
    assert MachineSpec().digest == "f7160382c18d1985"


def test_vocabulary_follows_the_switches():
    assert " ".join(MachineSpec(bits=1).vocab) == (
        "{ } [ ] 0 1 NEXT PREV INC DEC PUT GET WHILE ENDW STOP NUM_0 NUM_1 EOI EOO"
    )
    spec = MachineSpec(io=False, loops=False)
    assert spec.ops == (Op.NEXT, Op.PREV, Op.INC, Op.DEC, Op.STOP)
    assert spec.op_id(Op.STOP) == 10
    assert spec.number_id(0) == spec.token_id("NUM_0") == 11
    with pytest.raises(ValueError, match="no token 'PUT'"):
        spec.op_id(Op.PUT)


def test_codes_are_strict():
    assert [op.name for op in Op] == ["NEXT", "PREV", "INC", "DEC", "PUT", "GET", "WHILE", "ENDW", "STOP"]
    assert len(Outcome) == 8
    with pytest.raises(ValueError, match="255"):
        Outcome(255)


# Programs as text.


def test_both_spellings():
    ops = (Op.NEXT, Op.PREV, Op.INC, Op.DEC, Op.PUT, Op.GET, Op.WHILE, Op.ENDW)
    assert parse_program("><+-.,[]") == ops
    assert parse_program("next PREV INC DEC PUT GET while ENDW") == ops
    assert parse_program("+ INC [-] STOP >") == (2, 2, 6, 3, 7, 8, 0)
    assert format_program(ops, classic=True) == "><+-.,[]"
    assert format_program([*ops, Op.STOP, Op.STOP]) == "NEXT PREV INC DEC PUT GET WHILE ENDW"
    assert parse_program("", spec=SPEC) == (Op.STOP,) * 6


@pytest.mark.parametrize("classic", [True, False])
def test_programs_survive_their_text(classic):
    for program in sample(SPEC, 50, seed=0).program:
        assert parse_program(format_program(program, classic=classic), spec=SPEC) == tuple(program)


@pytest.mark.parametrize(
    ("text", "fields", "message"),
    [
        ("+ FOO", {}, "instruction 1: 'FOO' is neither one of NEXT PREV"),
        ("+]", {}, "instruction 1 is ENDW without a WHILE before it"),
        ("[+[-]", {}, "instruction 0 is WHILE without an ENDW after it"),
        ("++++++", {}, "has 6 instructions; this machine has 6 slots, the last for STOP"),
        ("+.", {"io": False}, "instruction 1 is PUT; this machine has NEXT PREV INC DEC WHILE ENDW STOP"),
        ("[]", {"loops": False}, "instruction 0 is WHILE"),
        ("+ STOP +++", {"stops": False}, "instruction 1 is STOP; with stops=False only the last slot"),
    ],
)
def test_bad_programs_are_named(text, fields, message):
    spec = dataclasses.replace(SPEC, **fields)
    with pytest.raises(ValueError, match=message):
        parse_program(text, spec=spec)
    with pytest.raises(ValueError, match=message):
        States.build(spec, program=text)


def test_counts_of_programs():
    assert count_programs(MachineSpec(n_instructions=1)) == 1
    assert count_programs(MachineSpec(n_instructions=3)) == 7**2 + 1
    assert count_programs(MachineSpec(n_instructions=3, loops=False, io=False, stops=False)) == 4**2


# States.


def test_build_one_and_many():
    one = States.build(SPEC, program="+[-]", cells=[1, 2], input=[3], output=[])
    assert (len(one), one.input_length[0], one.output_length[0]) == (1, 1, 0)
    assert one.cells.tolist() == [[1, 2, 0]]
    assert one.program.tolist() == [[2, 6, 3, 7, 8, 8]]
    many = States.build(
        SPEC,
        program=["+", [Op.DEC]],
        instruction_ptr=[0, 5],
        array_ptr=2,
        cells=[[1], [2, 3]],
        input=np.array([[1, 2], [3, 0]]),
        output=[[], [1]],
    )
    assert many.cells.tolist() == [[1, 0, 0], [2, 3, 0]]
    assert many.array_ptr.tolist() == [2, 2]
    assert many.input_length.tolist() == [2, 2]
    assert many.output_length.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"instruction_ptr": 6}, "instruction_ptr must be from 0 to 5, got 6"),
        ({"array_ptr": [0, 3]}, "array_ptr must be from 0 to 2, got 3 at row 1"),
        ({"cells": [0, 4]}, "cells of row 0 must be from 0 to 3, got 4 at slot 1"),
        ({"cells": [0, 0, 0, 0]}, "cells of row 0 has 4 values; this machine has 3 slots"),
        ({"input": [0, 4]}, "input of row 0 must be from 0 to 3, got 4 at slot 1"),
        ({"output": [[1, 1], [0, 4]]}, "output of row 1 must be from 0 to 3, got 4 at slot 1"),
        (
            {"cells": np.array([0, 2**64 - 1], np.uint64)},
            "cells of row 0 must be from 0 to 3, got 18446744073709551615",
        ),
        ({"program": ["+", "x"]}, "program of row 1: instruction 0: 'x' is neither"),
        ({"program": "x"}, "^instruction 0: 'x' is neither"),
        ({"program": [8, 9]}, "program of row 0 must be from 0 to 8, got 9 at slot 1"),
        ({"input": [[1], [1, 2, 3]]}, "input of row 1 has 3 values; this machine has 2 slots"),
        ({"program": [[9]]}, "program of row 0 must be from 0 to 8, got 9"),
        ({"program": [2] * 6}, "the last instruction must be STOP, got INC"),
        ({"program": ["+", "-"], "cells": [[1]] * 3}, "every part must have one row or the same number of rows"),
    ],
)
def test_build_names_what_is_wrong(fields, message):
    with pytest.raises(ValueError, match=message):
        States.build(SPEC, **({"program": "+"} | fields))


def test_indexing_joins_and_compares():
    states = sample(SPEC, 20, seed=0)
    assert states[3:7] == states[np.array([3, 4, 5, 6])] == states[[3, 4, 5, 6]]
    assert states[np.arange(20) % 2 == 0] == states[::2]
    assert len(states[-1]) == 1
    assert states[-1] == states[19]
    assert len(states[[]]) == 0
    assert States.concatenate([states[:5], states[5:]]) == states
    assert States.concatenate(list(states)) == states
    assert states != states[::-1]
    assert states != sample(MachineSpec(), 20, seed=0)
    assert states.equal(states[::-1]).tolist() == [a == b for a, b in zip(states, states[::-1], strict=True)]
    assert pickle.loads(pickle.dumps(states)) == states
    with pytest.raises(IndexError, match="row 20 of a batch of 20"):
        states[20]
    with pytest.raises(TypeError, match="indexed by"):
        states[np.zeros(3)]
    with pytest.raises(ValueError, match="one machine"):
        States.concatenate([states, sample(MachineSpec(), 1, seed=0)])


def test_states_cannot_be_written_to():
    states = sample(SPEC, 3, seed=0)
    for view in (states.cells, states.instruction_ptr, states.rows, pickle.loads(pickle.dumps(states)).cells):
        with pytest.raises(ValueError, match="read-only"):
            view[0] = 1


def test_replace():
    states = States.build(SPEC, program=["+", "-"], cells=[[1, 2, 3], [3, 2, 1]], input=[[1, 2], [3]])
    assert states.replace("cell[1]", [0, 1]).cells.tolist() == [[1, 0, 3], [3, 1, 1]]
    assert states.replace("array_ptr", 2).array_ptr.tolist() == [2, 2]
    assert states.replace("input_length", [1, 1]).input.tolist() == [[1, 0], [3, 0]]
    assert states.replace("cells", np.zeros((2, 3), int)).cells.sum() == 0
    assert states.replace("program", [6, 7, 8, 8, 8, 8]).program[1].tolist() == [6, 7, 8, 8, 8, 8]
    assert states.cells.tolist() == [[1, 2, 3], [3, 2, 1]]
    for name, values, message in (
        ("cell[1]", [0, 4], r"cell\[1\] must be from 0 to 3, got 4 at row 1"),
        ("cells", [0, 0, 4], "cells must be from 0 to 3, got 4 at slot 2"),
        ("cells", [[0, 0, 0], [0, 4, 0]], "cells must be from 0 to 3, got 4 at row 1, slot 1"),
        ("array_ptr", [0, 3], "array_ptr must be from 0 to 2, got 3 at row 1"),
        ("cell[3]", 0, r"no variable 'cell\[3\]'"),
        ("input[1]", 0, r"input\[1\] of row 1 is empty"),
        ("instruction[0]", Op.WHILE, "instruction 0 is WHILE without"),
        ("instruction[5]", Op.INC, "the last instruction must be STOP"),
        ("operand", 0, "computed by the step, not stored"),
        ("cells", [1, 2], r"cells takes one value or shape \[2, 3\], got \[2\]"),
    ):
        with pytest.raises(ValueError, match=message):
            states.replace(name, values)
