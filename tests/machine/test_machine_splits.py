"""The three splits, at every way to draw: they partition the programs, and old streams are drawn as they were."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cython_vm import (
    SPLITS,
    MachineSpec,
    Records,
    decode,
    encode,
    in_split,
    program_hash,
    read_original,
    sample,
    sample_original,
    sample_reachable,
    sample_records,
    strata_weights,
    write_shards,
)
from cython_vm.long_runs import sample_long_runs

SPEC, N = MachineSpec(6, 3, 2, 2, bits=2), 400
PADDED = MachineSpec(6, 3, 2, 2, bits=2, padded=True)
PARTS = {"evaluation": [0], "validation": [1], "fit": range(2, 20), "train": range(1, 20), "all": range(20)}


def from_shards(folder, split):
    records = write_shards(folder / "shards", SPEC, N, seed=1, split=split)
    assert (Records(folder / "shards")[:]["program_hash"] == program_hash(records.states(slice(None))[0])).all()
    return records.states(slice(None))[0]


def from_original(folder, split):
    sample_original(folder / "original.npy", SPEC, N, seed=1, split=split)
    return read_original(folder / "original.npy")[0]


DRAWS = {
    "sample": lambda folder, split: sample(SPEC, N, seed=1, split=split),
    "few rows": lambda folder, split: sample(SPEC, 3, seed=1, split=split),
    "strata": lambda folder, split: sample(SPEC, N, seed=1, split=split, weights=strata_weights(SPEC)),
    "loop depths": lambda folder, split: sample(SPEC, N, seed=1, split=split, weights=[1, 1, 1], by="loop_depth"),
    "padded": lambda folder, split: sample(PADDED, N, seed=1, split=split),
    "records": lambda folder, split: decode(SPEC, sample_records(SPEC, N, seed=1, split=split)["state"]),
    "reachable": lambda folder, split: sample_reachable(SPEC, N, seed=1, split=split),
    "long runs": lambda folder, split: sample_long_runs(MachineSpec(), N, n_steps=8, seed=1, split=split),
    "shards": from_shards,
    "original": from_original,
}


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("draw", DRAWS)
def test_every_way_to_draw_keeps_to_the_split(draw, split, tmp_path):
    part = program_hash(DRAWS[draw](tmp_path, split)) % 20
    assert np.isin(part, list(PARTS[split])).all()
    if len(part) == N:
        assert len(np.unique(part)) == len(PARTS[split])


GOLDEN = {
    "all": ("f3b1e5c373e02905", "dd5172c8457de99c"),
    "train": ("29a72699f03fe4af", "cbdad64f55209b46"),
    "evaluation": ("bba46d1b5666b03d", "de4e9eab19d15746"),
}  # drawn before there was a validation split


@pytest.mark.parametrize("split", GOLDEN)
def test_streams_of_old_runs_are_drawn_as_they_were(split):
    options = {"seed": 2026, "start": 3, "split": split}
    draws = sample_long_runs(MachineSpec(), 300, n_steps=64, **options), sample_reachable(MachineSpec(), 300, **options)
    digests = [hashlib.sha256(encode(states).astype("<i8").tobytes()).hexdigest()[:16] for states in draws]
    assert tuple(digests) == GOLDEN[split]


def test_evaluation_validation_and_fit_partition_the_programs():
    hashes = program_hash(sample(SPEC, 5000, seed=2))
    held, chosen, fit, train = (in_split(hashes, split) for split in ("evaluation", "validation", "fit", "train"))
    assert (held.astype(int) + chosen + fit == 1).all() and held.any() and chosen.any()
    assert (train == ~held).all() and (fit == (train & ~chosen)).all() and in_split(hashes, "all").all()


@given(st.lists(st.integers(0, 2**64 - 1)))
def test_a_split_is_a_remainder(hashes):
    for split, parts in PARTS.items():
        assert in_split(np.array(hashes, dtype=np.uint64), split).tolist() == [h % 20 in parts for h in hashes]


def test_an_unknown_split_is_named_before_anything_is_made(tmp_path):
    for draw in DRAWS.values():
        with pytest.raises(ValueError, match="split must be one of all, train, .*, got 'test'"):
            draw(tmp_path, "test")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="must not be negative, got -3"):
        in_split(np.array([5, -3]), "fit")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("dtype", [np.int64, np.uint64, ">i4"])
def test_rows_by_number_are_those_of_the_stream(split, dtype):
    """Neighbours, repeats and any order, in blocks whole and cut: row i is row i."""
    for size in (0, 1, 5, 33, 100):
        rows = np.random.default_rng(size).integers(300, size=size).astype(dtype)
        for weights in (None, strata_weights(SPEC)):
            whole = sample(SPEC, 300, seed=5, split=split, weights=weights)
            assert sample(SPEC, size, seed=5, split=split, weights=weights, rows=rows) == whole[rows]
        whole = sample(PADDED, 300, seed=5, split=split)
        assert sample(PADDED, size, seed=5, split=split, rows=rows) == whole[rows]
        whole = sample_long_runs(SPEC, 300, n_steps=(1, 9), seed=5, split=split)
        assert sample_long_runs(SPEC, size, n_steps=(1, 9), seed=5, split=split, rows=rows) == whole[rows]


def test_rows_far_out_and_rows_that_make_no_sense():
    far = 2**63 - 2
    for draw in (sample, lambda *args, **options: sample_long_runs(*args, n_steps=5, **options)):
        assert draw(SPEC, 2, seed=5, rows=[far + 1, far]) == draw(SPEC, 2, seed=5, start=far)[[1, 0]]
        with pytest.raises(ValueError, match="rows must be n = 3 integers, got int64 \\[2\\]"):
            draw(SPEC, 3, seed=5, rows=np.arange(2))
        with pytest.raises(ValueError, match="rows must not be negative, got -1"):
            draw(SPEC, 2, seed=5, rows=[4, -1])
        with pytest.raises(ValueError, match="got rows and start = 7"):
            draw(SPEC, 2, seed=5, start=7, rows=[4, 1])
        with pytest.raises(TypeError, match="rows must be integers, got float64"):
            draw(SPEC, 2, seed=5, rows=[4.0, 1.0])
