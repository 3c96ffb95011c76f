"""Arrays as they come, at every entry that takes one: right, or a clear refusal.

Each entry is called with the same values strided, reversed, in Fortran order, read-only, in the other byte order, in
every dtype that holds them, as a subclass and as lists; and with values that it cannot take.
"""

import inspect
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

import cython_vm
from cython_vm import (
    MachineSpec,
    Records,
    States,
    advance,
    decode,
    decode_outcome,
    encode,
    format_program,
    in_split,
    labelled_records,
    program_hash,
    reachable_hash,
    read_original,
    record_dtype,
    run,
    run_fate,
    sample,
    sample_original,
    sample_records,
    start_states,
    step,
    strata_weights,
    stream_hash,
    variable,
    write_shards,
)
from cython_vm.behaviour import behaviour_of
from cython_vm.long_runs import sample_long_runs

SPEC = MachineSpec(6, 3, 2, 2, bits=2)
SHOWN, PADDED = replace(SPEC, outcome_token=True), replace(SPEC, padded=True)
STATES = sample(SPEC, 4, seed=0)
PROGRAMS, INPUTS = STATES.program, np.array([[1, 2], [3, 0]])
DTYPES = ("i1", "u1", "<i2", ">i2", ">u2", "<i4", ">i4", ">u4", "<i8", ">i8", "<u8", ">u8")
EVERY_OP = (strata_weights(SPEC) > 0).astype(np.int64)


@dataclass(frozen=True)
class Entry:
    """A call with one array, and values that it takes."""

    call: Callable[[Any], Any]
    values: Any
    word: str  # a refusal says it
    bytes_alone: bool = False  # uint8 arrays and nothing else
    reals: bool = False  # takes numbers with fractions
    shapes: bool = False  # takes any number of axes
    words: bool = False  # takes all numbers of 64 bits
    lists: bool = True


def built(name: str) -> Callable[[Any], States]:
    return lambda values: States.build(SPEC, **{"program": "+", name: values})


def replaced(name: str) -> Callable[[Any], States]:
    return lambda values: STATES.replace(name, values)


def under(name: str) -> Callable[[Any], tuple[Any, ...]]:
    def call(values: Any) -> tuple[Any, ...]:
        transition = step(STATES, {name: values})
        return transition.next, transition.valid, transition.outcome, *transition.latents.values()

    return call


def both(states: tuple[States, States]) -> States:
    return States.concatenate(states)


@cache
def records() -> Records:
    """300 records: more than a byte can count."""
    return write_shards("records", SPEC, 300, seed=1, shard_rows=200)


def original(weights: Any) -> States:
    sample_original("original.npy", SPEC, 20, seed=0, weights=weights)
    return both(read_original("original.npy"))


def written(weights: Any) -> np.ndarray:
    return write_shards(f"weights {np.random.default_rng().integers(2**60)}", SPEC, 20, seed=0, weights=weights)[:]


CALLS = {
    "States(rows)": Entry(lambda x: States(SPEC, x), STATES.rows, "rows", bytes_alone=True, lists=False),
    "States.wrap(rows)": Entry(lambda x: States.wrap(SPEC, x), STATES.rows, "rows", bytes_alone=True, lists=False),
    "States.build(program)": Entry(built("program"), PROGRAMS, "program"),
    "States.build(one program)": Entry(built("program"), PROGRAMS[0], "program"),
    "States.build(instruction_ptr)": Entry(built("instruction_ptr"), [1, 0, 5], "instruction_ptr"),
    "States.build(array_ptr)": Entry(built("array_ptr"), [1, 0, 2], "array_ptr"),
    "States.build(cells)": Entry(built("cells"), [[1, 0, 2], [3, 3, 0]], "cells"),
    "States.build(input)": Entry(built("input"), [3, 1], "input"),
    "States.build(output)": Entry(built("output"), [[3, 1], [0, 2]], "output"),
    "States.build(sizes)": Entry(
        lambda x: States.build(PADDED, program="+", sizes={"n_cells": x}), [1, 3, 2], "n_cells"
    ),
    "States.replace(cells)": Entry(replaced("cells"), STATES.cells[::-1], "cells"),
    "States.replace(program)": Entry(replaced("program"), PROGRAMS[::-1], "program"),
    "States.replace(array_ptr)": Entry(replaced("array_ptr"), [1, 0, 2, 1], "array_ptr"),
    "States.replace(cell[1])": Entry(replaced("cell[1]"), [1, 0, 2, 3], r"cell\[1\]"),
    "States[index]": Entry(lambda x: STATES[x], [3, 0, 2], "index"),
    **{
        f"step(do={{{name}}})": Entry(under(name), [0, 1, 1, 0], "do")
        for name in ("op", "operand", "cell[1]", "next_cell[2]", "input[0]", "jump_target", "outcome", "instruction[0]")
    },
    "advance(n_steps)": Entry(lambda x: advance(STATES, x), [1, 2, 0, 5], "n_steps"),
    "encode(outcome)": Entry(lambda x: encode(sample(SHOWN, 4, seed=0), x), [0, 7, 2, 1], "outcome"),
    "decode(tokens)": Entry(lambda x: decode(SPEC, x), encode(STATES), "tokens|position"),
    "decode_outcome(tokens)": Entry(
        lambda x: decode_outcome(SHOWN, x), encode(sample(SHOWN, 4, seed=0), [0, 7, 2, 1]), "tokens|position"
    ),
    "format_program(program)": Entry(format_program, PROGRAMS[0], "program"),
    "in_split(hashes)": Entry(lambda x: in_split(x, "fit"), [0, 1, 2, 20, 101], "hashes", shapes=True, words=True),
    "sample(weights)": Entry(lambda x: sample(SPEC, 50, seed=0, weights=x), EVERY_OP, "weights", reals=True),
    "sample(branches)": Entry(
        lambda x: sample(SPEC, 50, seed=0, weights=x),
        (strata_weights(SPEC, branches=True) > 0).astype(int),
        "weights",
        reals=True,
    ),
    "sample(depths)": Entry(
        lambda x: sample(SPEC, 50, seed=0, weights=x, by="loop_depth"), [1, 2, 1], "weights", reals=True
    ),
    "sample(rows)": Entry(lambda x: sample(SPEC, 4, seed=0, rows=x), [7, 0, 100, 7], "rows", words=True),
    "sample_long_runs(rows)": Entry(
        lambda x: sample_long_runs(SPEC, 4, n_steps=5, seed=0, rows=x), [7, 0, 100, 7], "rows", words=True
    ),
    "sample_records(weights)": Entry(
        lambda x: sample_records(SPEC, 50, seed=0, weights=x), EVERY_OP, "weights", reals=True
    ),
    "sample_original(weights)": Entry(original, EVERY_OP, "weights", reals=True),
    "write_shards(weights)": Entry(written, EVERY_OP, "weights", reals=True),
    "Records[rows]": Entry(lambda x: records()[x], [7, 0, 100, 7], "rows|record"),
    "Records.states(rows)": Entry(lambda x: both(records().states(x)), [7, 0, 100, 7], "rows|record"),
    "behaviour_of(programs)": Entry(
        lambda x: behaviour_of(SPEC, x, INPUTS.astype(np.uint8)), PROGRAMS, "programs", bytes_alone=True, lists=False
    ),
    "behaviour_of(inputs)": Entry(
        lambda x: behaviour_of(SPEC, PROGRAMS, x), INPUTS, "inputs", bytes_alone=True, lists=False
    ),
}


@pytest.fixture(autouse=True, scope="module")
def empty_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("arrays"))
        yield


def makes(values: np.ndarray) -> list[np.ndarray]:
    """The same values laid out in many ways, in their own dtype."""
    spread = np.zeros([2 * size + 1 for size in values.shape], dtype=values.dtype)
    spread[tuple(slice(1, None, 2) for _ in values.shape)] = values
    offset = np.frombuffer(b"\0" + values.tobytes(), dtype=np.uint8)[1:].view(values.dtype).reshape(values.shape)
    fixed = values.copy()
    fixed.flags.writeable = False
    return [
        spread[tuple(slice(1, None, 2) for _ in values.shape)],
        np.flip(np.flip(values).copy()),
        np.asfortranarray(values),
        offset,  # not aligned, and read-only
        fixed,
        values.view(type("Own", (np.ndarray,), {})),
        np.ma.array(values),
    ]


def holding(values: np.ndarray) -> list[np.ndarray]:
    """The same values in every dtype that has room for them."""
    fits = [t for t in map(np.dtype, DTYPES) if np.iinfo(t).min <= values.min() <= values.max() <= np.iinfo(t).max]
    return [values.astype(dtype) for dtype in fits]


def spoilt(entry: Entry, values: np.ndarray) -> dict[str, Any]:
    """What the entry cannot take."""
    masked = np.ma.array(values, mask=np.zeros(values.shape, bool))
    masked[(0,) * values.ndim] = np.ma.masked
    worst = values.astype(np.uint64)
    worst[(0,) * values.ndim] = 2**64 - 1
    objects = values.astype(object)
    objects[(0,) * values.ndim] = None
    found = {
        "complex": values + 0j,
        "text": values.astype(str),
        "bytes": values.astype("S"),
        "dates": values.astype("datetime64[s]"),
        "objects": objects,
        "records": np.zeros(values.shape, "i4,f8"),
        "masked": masked,
    }
    if not entry.shapes:
        found["an axis more"] = values[None, None]
    if not entry.reals:
        found["floats"] = values + 0.0
    if not entry.reals and not entry.words:
        found |= {"2^64 - 1": worst, "2^64 - 1 swapped": worst.astype(">u8")}
    if entry.bytes_alone:
        found |= {str(dtype): values.astype(dtype) for dtype in DTYPES if dtype != "u1"}
    return found


def as_arrays(result: Any) -> list[np.ndarray]:
    """What can be compared."""
    if isinstance(result, tuple):
        return [array for one in result for array in as_arrays(one)]
    return [encode(result)] if isinstance(result, States) else [np.asarray(result)]


def usual(entry: Entry) -> np.ndarray:
    return np.array(entry.values, dtype=np.uint8 if entry.bytes_alone else np.int64)


@pytest.mark.parametrize("name", CALLS)
def test_an_array_counts_by_its_values(name):
    entry = CALLS[name]
    values = usual(entry)
    expected = as_arrays(entry.call(values))
    given: list[Any] = [*makes(values), *([] if entry.bytes_alone else holding(values))]
    if entry.lists:
        given.append(values.tolist())
    if entry.reals:
        given += [values / 8, (values / 8).astype(">f8"), (values / 8).astype(np.float16), (values / 8).tolist()]
    for one in given:
        kept = np.array(one)
        found = as_arrays(entry.call(one))
        assert len(found) == len(expected)
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True)), (type(one), kept.dtype)
        assert np.array_equal(np.asarray(one), kept), "an entry wrote to its input"


@pytest.mark.parametrize("name", CALLS)
def test_what_an_entry_cannot_take_is_refused(name):
    entry = CALLS[name]
    for what, values in spoilt(entry, usual(entry)).items():
        with pytest.raises((ValueError, TypeError, IndexError), match=entry.word):
            pytest.fail(f"takes {what}: {entry.call(values)!r}")


def test_every_parameter_that_takes_an_array_is_tried():
    """By its annotation. `step(do)` and `States.replace(values)` are tried by variable, `out` and `sizes` below."""
    tried = {name.replace("[index]", "(index)") for name in CALLS}
    functions = {
        name: getattr(cython_vm, name) for name in cython_vm.__all__ if inspect.isroutine(getattr(cython_vm, name))
    }
    functions |= {"States": States.__init__, "States.build": States.build, "States.wrap": States.wrap}
    takers = {
        f"{name}({parameter.name})"
        for name, function in functions.items()
        for parameter in inspect.signature(function).parameters.values()
        if any(word in str(parameter.annotation) for word in ("ArrayLike", "NDArray"))
    }
    other = {"step(do)", "labelled_records(out)", "sample_records(out)"}
    assert takers - tried == other and len(takers) > 15


READS = {
    "encode": encode,
    "step": lambda states: step(states).next,
    "step(do)": lambda states: step(states, {"operand": 1}).next,
    "run": lambda states: run(states, 9).row(3),
    "run last": lambda states: run(states, 9, keep="last").final,
    "run_fate": lambda states: run_fate(states, 9).final,
    "advance": lambda states: advance(states, np.arange(len(states))),
    "start_states": start_states,
    "labelled_records": labelled_records,
    "program_hash": program_hash,
    "stream_hash": partial(stream_hash, n_steps=9),
    "reachable_hash": partial(reachable_hash, n_steps=9),
    "variable.read": variable(SPEC, "steps_to_halt").read,
    "replace": lambda states: states.replace("array_ptr", 1),
}


@pytest.mark.parametrize("name", READS)
def test_states_over_rows_of_every_make_are_the_same_states(name):
    expected = as_arrays(READS[name](STATES))
    before = STATES.rows.copy()
    for rows in makes(STATES.rows.copy()):
        found = as_arrays(READS[name](States.wrap(SPEC, rows)))
        assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert np.array_equal(STATES.rows, before)


def test_records_are_written_only_where_they_fit():
    fits = np.empty(4, record_dtype(SPEC))
    expected = labelled_records(STATES)
    assert labelled_records(STATES, out=fits) is fits and np.array_equal(fits, expected)
    fixed = fits.copy()
    fixed.flags.writeable = False
    swapped, strided = np.empty(4, record_dtype(SPEC).newbyteorder(">")), np.empty(8, record_dtype(SPEC))[::2]
    for out in (fixed, swapped, strided, np.empty(3, record_dtype(SPEC)), np.empty((4, 1), record_dtype(SPEC))):
        for call in (
            lambda out: labelled_records(STATES, out=out),
            lambda out: sample_records(SPEC, 4, seed=0, out=out),
        ):
            with pytest.raises((ValueError, TypeError), match=r"\bout\b"):
                call(out)


def test_a_file_of_the_other_byte_order_reads_the_same():
    sample_original("little.npy", SPEC, 20, seed=0)
    tokens = np.load("little.npy")
    for number, other in enumerate((tokens.astype(">i4"), np.asfortranarray(tokens), tokens.astype(np.uint8))):
        np.save(f"other{number}.npy", other)
        shutil.copy("little.meta.json", f"other{number}.meta.json")
        assert both(read_original(f"other{number}.npy")) == both(read_original("little.npy"))
