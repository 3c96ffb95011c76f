"""Every argument of every public entry against values it was not made for: a clear refusal or a right result, no third.

For each argument the table says which word its refusals carry and which of the JUNK values it takes. What it takes must
give a result, everything else must raise one of ERRORS with that word.
"""

import inspect
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

import cython_vm
from cython_vm import (
    VARIABLES,
    EvolutionConfig,
    Layout,
    MachineSpec,
    ProgramArchive,
    Records,
    States,
    advance,
    ancestors,
    count_programs,
    decode,
    decode_outcome,
    encode,
    evolve,
    format_program,
    in_split,
    labelled_records,
    parse_program,
    program_hash,
    reachable_hash,
    read_original,
    record_dtype,
    run,
    run_fate,
    sample,
    sample_evolved,
    sample_original,
    sample_reachable,
    sample_records,
    start_states,
    step,
    strata_weights,
    stream_hash,
    variable,
    write_original,
    write_shards,
)

ERRORS = (ValueError, TypeError, IndexError, FileNotFoundError, FileExistsError)
SPEC = MachineSpec(6, 3, 2, 2, bits=2)
PADDED, SHOWN = replace(SPEC, padded=True), replace(SPEC, outcome_token=True)
STATES = sample(SPEC, 4, seed=0)
TRACE = run(STATES, 5)
OP, ARRAY_PTR = VARIABLES["op"], VARIABLES["array_ptr"]

JUNK: dict[str, Any] = {
    "None": None,
    "True": True,
    "-1": -1,
    "2**70": 2**70,
    "1.5": 1.5,
    "nan": float("nan"),
    "text": "x",
    "bytes": b"x",
    "[]": [],
    "{}": {},
    "{1}": {1},
    "object": object(),
    "0-d": np.array(1),
    "floats": np.ones(4),
    "no floats": np.zeros(0),
    "3-d": np.zeros((2, 2, 2), dtype=int),
    "objects": np.array([None, 1], dtype=object),
    "strings": np.array(["a", "b"]),
    "ragged": [[1], [2, 3]],
    "1j": 1j,
    "date": np.datetime64("2020-01-01"),
    "record": np.zeros(2, dtype="i4,f8"),
    "States": STATES,
    "spec": SPEC,
    "function": len,
}


@dataclass(frozen=True)
class Argument:
    call: Callable[[Any], Any]
    word: str  # a regular expression that a refusal must match
    takes: set[str] = field(default_factory=set)
    without: set[str] = field(default_factory=set)  # not tried here


def build(name: str) -> Callable[[Any], States]:
    return lambda x: States.build(**({"spec": SPEC, "program": "+"} | {name: x}))


@cache
def archive() -> ProgramArchive:
    return evolve(SPEC, 1, config=EvolutionConfig(batch_size=64, n_inputs=2, max_steps=20, min_quality=0.0))


def fresh() -> str:
    """A folder that does not exist yet."""
    return f"folder {next(NUMBERS)}"


NUMBERS = itertools.count()
UNHASHABLE = {name for name, value in JUNK.items() if type(value).__hash__ is None}  # no keys of a dict
WHOLE = {"True", "0-d"}  # whole numbers in range, as `operator.index` sees it
OPS = "Op|opcode|NEXT PREV"
STATES_WORD, SPEC_WORD = "[Ss]tates", "spec|MachineSpec"

ARGUMENTS: dict[str, Argument] = {
    "EvolutionConfig(seed)": Argument(lambda x: EvolutionConfig(seed=x), "seed"),
    "EvolutionConfig(batch_size)": Argument(lambda x: EvolutionConfig(batch_size=x), "batch_size"),
    "EvolutionConfig(min_quality)": Argument(lambda x: EvolutionConfig(min_quality=x), "min_quality"),
    "MachineSpec(n_cells)": Argument(lambda x: MachineSpec(n_cells=x), "n_cells", {"0-d"}),
    "MachineSpec(bits)": Argument(lambda x: MachineSpec(bits=x), "bits", {"0-d"}),
    "MachineSpec(padded)": Argument(lambda x: MachineSpec(padded=x), "padded", {"True"}),
    "MachineSpec(pointers)": Argument(lambda x: MachineSpec(pointers=x), "pointers"),
    "MachineSpec(punctuation)": Argument(lambda x: MachineSpec(punctuation=x), "punctuation"),
    "MachineSpec(io)": Argument(lambda x: MachineSpec(io=x), r"\bio\b", {"True"}),
    "MachineSpec.token_id(name)": Argument(lambda x: SPEC.token_id(x), "token"),
    "MachineSpec.op_id(op)": Argument(lambda x: SPEC.op_id(x), r"\bop\b|Op", WHOLE),
    "MachineSpec.number_id(value)": Argument(lambda x: SPEC.number_id(x), "value|NUM_", WHOLE),
    "Layout(sizes)": Argument(lambda x: Layout(x).names, "sizes"),
    "Layout.slice(block)": Argument(lambda x: SPEC.layout.slice(x), "block"),
    "Layout.position(block)": Argument(lambda x: SPEC.layout.position(x, 0), "block"),
    "Layout.position(index)": Argument(lambda x: SPEC.layout.position("cells", x), "index", WHOLE),
    "Layout.name(position)": Argument(lambda x: SPEC.layout.name(x), "position", WHOLE),
    "Layout.index(name)": Argument(lambda x: SPEC.layout.index(x), "name"),
    "ProgramArchive.load(path)": Argument(ProgramArchive.load, "path|archive|No such file"),
    "ProgramArchive.members(split)": Argument(lambda x: archive().members(x), "split"),
    "Records(path)": Argument(Records, "path|records"),
    "States(spec)": Argument(lambda x: States(x, STATES.rows), SPEC_WORD, {"spec"}),
    "States(rows)": Argument(lambda x: States(SPEC, x), "rows"),
    "States.wrap(spec)": Argument(lambda x: States.wrap(x, STATES.rows), SPEC_WORD, {"spec"}),
    "States.wrap(rows)": Argument(lambda x: States.wrap(SPEC, x), "rows"),
    "States[index]": Argument(lambda x: STATES[x], "index|row", {"-1", "[]", "no floats"}),
    "States.equal(other)": Argument(lambda x: STATES.equal(x), "equal", {"States"}),
    "States.concatenate(batches)": Argument(lambda x: States.concatenate(x), "concatenate", {"States"}),
    "States.concatenate([one])": Argument(lambda x: States.concatenate([STATES, x]), "concatenate", {"States"}),
    "States.build(spec)": Argument(build("spec"), SPEC_WORD, {"spec"}),
    "States.build(program)": Argument(build("program"), "program|instruction", {"[]", "no floats", "ragged"}),
    "States.build(instruction_ptr)": Argument(build("instruction_ptr"), "instruction_ptr", {*WHOLE, "[]", "no floats"}),
    "States.build(array_ptr)": Argument(build("array_ptr"), "array_ptr", {*WHOLE, "[]", "no floats"}),
    "States.build(cells)": Argument(build("cells"), "cells", {"None", "[]", "no floats", "ragged"}),
    "States.build(input)": Argument(build("input"), "input", {"[]", "no floats", "ragged"}),
    "States.build(output)": Argument(build("output"), "output", {"[]", "no floats", "ragged"}),
    "States.build(sizes)": Argument(lambda x: States.build(PADDED, program="+", sizes=x), "sizes", {"None", "{}"}),
    "States.build(sizes={name: 1})": Argument(
        lambda x: States.build(PADDED, program="+", sizes={x: 2}), "sizes", set(), UNHASHABLE
    ),
    "States.replace(name)": Argument(lambda x: STATES.replace(x, 0), "variable|name"),
    "States.replace(array_ptr)": Argument(lambda x: STATES.replace("array_ptr", x), "array_ptr", WHOLE),
    "States.replace(cells)": Argument(lambda x: STATES.replace("cells", x), "cells", WHOLE),
    "States.replace(cell[1])": Argument(lambda x: STATES.replace("cell[1]", x), r"cell\[1\]", WHOLE),
    "States.replace(program)": Argument(lambda x: STATES.replace("program", x), "program"),
    "States.replace(input)": Argument(lambda x: STATES.replace("input", x), "input", WHOLE),
    "States.replace(output_length)": Argument(lambda x: STATES.replace("output_length", x), "output_length", WHOLE),
    "Trace.row(index)": Argument(lambda x: TRACE.row(x), "row", {"0-d"}, {"True"}),
    "Trace.at(t)": Argument(lambda x: TRACE.at(x), r"\bt\b", WHOLE, {"2**70"}),
    "Variable.read(states)": Argument(OP.read, STATES_WORD, {"States"}),
    "Variable.n_values(spec)": Argument(ARRAY_PTR.n_values, SPEC_WORD, {"spec"}),
    "advance(states)": Argument(lambda x: advance(x, np.ones(4, int)), STATES_WORD, {"States"}),
    "advance(n_steps)": Argument(lambda x: advance(STATES, x), "n_steps"),
    "ancestors(spec)": Argument(lambda x: ancestors(x, "op"), SPEC_WORD, {"spec"}),
    "ancestors(name)": Argument(lambda x: ancestors(SPEC, x), "variable|name"),
    "count_programs(spec)": Argument(count_programs, SPEC_WORD, {"spec"}),
    "decode(spec)": Argument(lambda x: decode(x, encode(STATES)), SPEC_WORD, {"spec"}),
    "decode(tokens)": Argument(lambda x: decode(SPEC, x), "tokens"),
    "decode_outcome(spec)": Argument(lambda x: decode_outcome(x, encode(STATES)), SPEC_WORD, set(), {"spec"}),
    "decode_outcome(tokens)": Argument(lambda x: decode_outcome(SHOWN, x), "tokens"),
    "in_split(hashes)": Argument(lambda x: in_split(x, "fit"), "hashes", {*WHOLE, "[]", "no floats", "3-d"}),
    "in_split(split)": Argument(lambda x: in_split(np.zeros(2, np.uint64), x), "split"),
    "encode(outcome)": Argument(lambda x: encode(sample(SHOWN, 4, seed=0), x), "outcome", {"None"}),
    "encode(states)": Argument(encode, STATES_WORD, {"States"}),
    "evolve(spec)": Argument(lambda x: evolve(x, 0), SPEC_WORD, {"spec"}),
    "evolve(n_generations)": Argument(lambda x: evolve(SPEC, x, archive=archive()), "n_generations", WHOLE),
    "evolve(config)": Argument(lambda x: evolve(SPEC, 0, config=x), "config", {"None"}),
    "evolve(archive)": Argument(lambda x: evolve(SPEC, 0, archive=x), "archive", {"None"}),
    "format_program(program)": Argument(format_program, "program", {"[]", "{}", "{1}", "no floats"}),
    "labelled_records(states)": Argument(labelled_records, STATES_WORD, {"States"}),
    "labelled_records(out)": Argument(lambda x: labelled_records(STATES, out=x), r"\bout\b", {"None"}),
    "parse_program(text)": Argument(parse_program, "text|instruction"),
    "parse_program(spec)": Argument(lambda x: parse_program("+", spec=x), SPEC_WORD, {"None", "spec"}),
    "program_hash(states)": Argument(program_hash, STATES_WORD, {"States"}),
    "reachable_hash(states)": Argument(lambda x: reachable_hash(x, 2), STATES_WORD, {"States"}),
    "reachable_hash(n_steps)": Argument(lambda x: reachable_hash(STATES, x), "n_steps", WHOLE),
    "stream_hash(states)": Argument(lambda x: stream_hash(x, 2), STATES_WORD, {"States"}),
    "stream_hash(n_steps)": Argument(lambda x: stream_hash(STATES, x), "n_steps", WHOLE),
    "read_original(path)": Argument(read_original, r"path|name|\.npy"),
    "record_dtype(spec)": Argument(record_dtype, SPEC_WORD, {"spec"}),
    "run(states)": Argument(lambda x: run(x, 2), STATES_WORD, {"States"}),
    "run(n_steps)": Argument(lambda x: run(STATES, x), "n_steps", WHOLE),
    "run(keep)": Argument(lambda x: run(STATES, 2, keep=x), "keep"),
    "run_fate(states)": Argument(lambda x: run_fate(x, 2), STATES_WORD, {"States"}),
    "run_fate(max_steps)": Argument(lambda x: run_fate(STATES, x), "max_steps", WHOLE),
    "sample(spec)": Argument(lambda x: sample(x, 2, seed=0), SPEC_WORD, {"spec"}),
    "sample(n)": Argument(lambda x: sample(SPEC, x, seed=0), r"\bn\b", WHOLE),
    "sample(seed)": Argument(lambda x: sample(SPEC, 2, seed=x), "seed", WHOLE),
    "sample(start)": Argument(lambda x: sample(SPEC, 2, seed=0, start=x), "start", WHOLE),
    "sample(split)": Argument(lambda x: sample(SPEC, 2, seed=0, split=x), "split"),
    "sample(weights)": Argument(lambda x: sample(SPEC, 2, seed=0, weights=x), "weights", {"None"}),
    "sample(by)": Argument(lambda x: sample(SPEC, 2, seed=0, by=x), r"\bby\b"),
    "sample(rows)": Argument(lambda x: sample(SPEC, 2, seed=0, rows=x), "rows", {"None"}),
    "sample(sizes)": Argument(lambda x: sample(PADDED, 2, seed=0, sizes=x), "sizes", {"None", "{}"}),
    "sample(sizes={'n_cells': x})": Argument(lambda x: sample(PADDED, 2, seed=0, sizes={"n_cells": x}), "n_cells"),
    "sample_evolved(archive)": Argument(lambda x: sample_evolved(x, 2, seed=0), "archive"),
    "sample_evolved(n)": Argument(lambda x: sample_evolved(archive(), x, seed=0), r"\bn\b", WHOLE),
    "sample_evolved(seed)": Argument(lambda x: sample_evolved(archive(), 2, seed=x), "seed", WHOLE),
    "sample_evolved(at)": Argument(lambda x: sample_evolved(archive(), 2, seed=0, at=x), r"\bat\b"),
    "sample_evolved(split)": Argument(lambda x: sample_evolved(archive(), 2, seed=0, split=x), "split"),
    "sample_original(path)": Argument(lambda x: sample_original(x, SPEC, 2, seed=0), r"path|name|\.npy"),
    "sample_original(spec)": Argument(lambda x: sample_original("x.npy", x, 2, seed=0), SPEC_WORD, {"spec"}),
    "sample_original(n)": Argument(lambda x: sample_original("x.npy", SPEC, x, seed=0), r"\bn\b", WHOLE, {"2**70"}),
    "sample_reachable(spec)": Argument(lambda x: sample_reachable(x, 2, seed=0), SPEC_WORD, {"spec"}),
    "sample_reachable(n)": Argument(lambda x: sample_reachable(SPEC, x, seed=0), r"\bn\b", WHOLE),
    "sample_reachable(seed)": Argument(lambda x: sample_reachable(SPEC, 2, seed=x), "seed", WHOLE),
    "sample_reachable(start)": Argument(lambda x: sample_reachable(SPEC, 2, seed=0, start=x), "start", WHOLE),
    "sample_reachable(split)": Argument(lambda x: sample_reachable(SPEC, 2, seed=0, split=x), "split"),
    "sample_reachable(max_steps)": Argument(
        lambda x: sample_reachable(SPEC, 2, seed=0, max_steps=x), "max_steps", WHOLE
    ),
    "sample_reachable(exclude)": Argument(
        lambda x: sample_reachable(SPEC, 2, seed=0, exclude=x), "exclude", {"[]", "{}", "no floats"}
    ),
    "sample_records(spec)": Argument(lambda x: sample_records(x, 2, seed=0), SPEC_WORD, {"spec"}),
    "sample_records(n)": Argument(lambda x: sample_records(SPEC, x, seed=0), r"\bn\b", WHOLE),
    "sample_records(seed)": Argument(lambda x: sample_records(SPEC, 2, seed=x), "seed", WHOLE),
    "sample_records(start)": Argument(lambda x: sample_records(SPEC, 2, seed=0, start=x), "start", WHOLE),
    "sample_records(split)": Argument(lambda x: sample_records(SPEC, 2, seed=0, split=x), "split"),
    "sample_records(weights)": Argument(lambda x: sample_records(SPEC, 2, seed=0, weights=x), "weights", {"None"}),
    "sample_records(by)": Argument(lambda x: sample_records(SPEC, 2, seed=0, by=x), r"\bby\b"),
    "sample_records(sizes)": Argument(lambda x: sample_records(PADDED, 2, seed=0, sizes=x), "sizes", {"None", "{}"}),
    "sample_records(out)": Argument(lambda x: sample_records(SPEC, 2, seed=0, out=x), r"\bout\b", {"None"}),
    "start_states(states)": Argument(start_states, STATES_WORD, {"States"}),
    "step(states)": Argument(step, STATES_WORD, {"States"}),
    "step(do)": Argument(lambda x: step(STATES, x), r"\bdo\b", {"None", "{}"}),
    "step(do={name: 0})": Argument(lambda x: step(STATES, {x: 0}), "variable|name", set(), UNHASHABLE),
    "step(do={'op': x})": Argument(lambda x: step(STATES, {"op": x}), r"do\(op\)", {*WHOLE, "-1"}),
    "step(do={'cell[1]': x})": Argument(lambda x: step(STATES, {"cell[1]": x}), r"do\(cell\[1\]\)", {*WHOLE, "-1"}),
    "strata_weights(spec)": Argument(strata_weights, SPEC_WORD, {"spec"}),
    "strata_weights(by)": Argument(lambda x: strata_weights(SPEC, by=x), r"\bby\b"),
    "variable(spec)": Argument(lambda x: variable(x, "op"), SPEC_WORD, {"spec"}),
    "variable(name)": Argument(lambda x: variable(SPEC, x), "variable|name"),
    "write_original(path)": Argument(lambda x: write_original(x, STATES), r"path|name|\.npy"),
    "write_original(states)": Argument(lambda x: write_original("x.npy", x), STATES_WORD, {"States"}),
    "write_shards(folder)": Argument(lambda x: write_shards(x, SPEC, 2, seed=0), "path|folder", {"text"}),
    "write_shards(spec)": Argument(lambda x: write_shards(fresh(), x, 2, seed=0), SPEC_WORD, {"spec"}),
    "write_shards(n)": Argument(lambda x: write_shards(fresh(), SPEC, x, seed=0), r"\bn\b", WHOLE),
    "write_shards(seed)": Argument(lambda x: write_shards(fresh(), SPEC, 2, seed=x), "seed", WHOLE),
    "write_shards(weights)": Argument(lambda x: write_shards(fresh(), SPEC, 2, seed=0, weights=x), "weights", {"None"}),
    "write_shards(shard_rows)": Argument(
        lambda x: write_shards(fresh(), SPEC, 2, seed=0, shard_rows=x), "shard_rows", {*WHOLE, "2**70"}
    ),
    "write_shards(threads)": Argument(
        lambda x: write_shards(fresh(), SPEC, 2, seed=0, threads=x), "threads", {*WHOLE, "2**70"}
    ),
}

NOT_ENTRIES = {
    "SPLITS",
    "VARIABLES",
    "Op",
    "Outcome",
    "Fate",
    "Fates",
    "Transition",
}  # a tuple, a dict, enums, results that people only read


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def refusals(argument: Argument) -> dict[str, Exception]:
    """What each junk value that the argument does not take raises; what passes in silence is an AssertionError."""
    raised = {}
    for junk in JUNK.keys() - argument.takes - argument.without:
        try:
            result = argument.call(JUNK[junk])
        except Exception as error:
            raised[junk] = error
        else:
            raised[junk] = AssertionError(f"takes {junk}: {result!r}")
    return raised


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_an_argument_takes_gives_a_result(name):
    for junk in ARGUMENTS[name].takes:
        ARGUMENTS[name].call(JUNK[junk])


@pytest.mark.parametrize("name", ARGUMENTS)
def test_nothing_else_passes_in_silence(name):
    raised = refusals(ARGUMENTS[name])
    assert not [error for error in raised.values() if isinstance(error, AssertionError)]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_refusals_name_the_argument(name):
    argument = ARGUMENTS[name]
    wrong = {
        junk: f"{type(error).__name__}: {error}"
        for junk, error in refusals(argument).items()
        if not isinstance(error, ERRORS) or not re.search(argument.word, str(error))
    }
    assert not wrong


def test_every_public_entry_is_in_the_table():
    tried = {name.partition("(")[0].partition("[")[0].partition(".")[0] for name in ARGUMENTS}
    public = set(cython_vm.__all__) - NOT_ENTRIES
    assert public - tried == set(), "a public name without a row in ARGUMENTS"
    methods = {"concatenate", "build", "replace", "equal", "wrap"}
    assert {name for name, _ in inspect.getmembers(States, inspect.isroutine) if name[0] != "_"} == methods
