"""Labelled records on the disk: what they say, who can read them, and what happens when a writing or a file breaks."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cython_vm import (
    MachineSpec,
    Records,
    States,
    decode,
    original,
    program_hash,
    read_original,
    sample,
    sample_original,
    shards,
    step,
    strata_weights,
    variable,
    write_original,
    write_shards,
)
from cython_vm.records import index_crc32

SMALL = MachineSpec(n_instructions=6, n_cells=4, n_input=2, n_output=2, bits=2)
SPECS = {
    "default": MachineSpec(),
    "small": SMALL,
    "no buffers": MachineSpec(n_instructions=5, n_cells=3, n_input=0, n_output=0, io=False, stops=False),
    "other layout": MachineSpec(n_instructions=5, n_cells=3, pointers="index", punctuation="none", outcome_token=True),
    "padded": MachineSpec(n_instructions=7, n_cells=5, padded=True),
    "wide ids": MachineSpec(n_instructions=4, n_cells=2, n_input=1, n_output=1, bits=8, loops=False),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """95 records of seed 3 in shards of 30."""
    write_shards(tmp_path / "records", SMALL, 95, seed=3, shard_rows=30)
    return tmp_path / "records"


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_a_record_says_what_the_machine_does(spec: MachineSpec, tmp_path: Path) -> None:
    records = write_shards(tmp_path / "r", spec, 500, seed=1, start=40, shard_rows=128)
    states, all_of_them = sample(spec, 500, seed=1, start=40), records[:]
    assert decode(spec, all_of_them["state"]) == states
    assert np.array_equal(all_of_them["next_state"], step(states).tokens())
    assert np.array_equal(all_of_them["program_hash"], program_hash(states))
    names = set(records.dtype.names or ()) - {"state", "next_state", "program_hash"}
    assert names == set(step(states).latents)
    for name in names:
        assert np.array_equal(all_of_them[name], variable(spec, name).read(states)), name
    assert records.states([7, 3])[0] == states[np.array([7, 3])]


def test_records_are_indexed_across_shards(folder: Path) -> None:
    records, whole = Records(folder), Records(folder)[:]
    assert len(records) == len(whole) == 95
    rows = np.array([94, 0, 30, 29, 30, -1, 61])
    assert np.array_equal(records[rows], whole[rows]) and np.array_equal(records[25:70:7], whole[25:70:7])
    assert records[59] == whole[59] and records[-2] == whole[93] and len(records[[]]) == 0
    assert np.array_equal(records.column("op"), whole["op"])
    with pytest.raises(IndexError, match="record 95 of 95"):
        records[[3, 95]]
    with pytest.raises(TypeError, match="integers, got float64"):
        records[[1.5]]
    with pytest.raises(ValueError, match="no field 'opp'"):
        records.column("opp")


def test_numpy_alone_reads_them(folder: Path) -> None:
    """With nothing of ours importable: the op of a record is the token under the instruction pointer's 1."""
    script = """
import sys
for name in ("cython_vm", "interp", "probes", "app", "torch"):
    sys.modules[name] = None
import json, zlib
import numpy as np
folder = sys.argv[1]
index = json.load(open(folder + "/index.json"))
vocab, at = index["vocab"], {name: i for i, name in enumerate(index["positions"])}
seen = 0
for shard in index["shards"]:
    records = np.load(folder + "/" + shard["file"], mmap_mode="r")
    assert zlib.crc32(open(folder + "/" + shard["file"], "rb").read()) == int(shard["crc32"], 16)
    assert records.dtype.itemsize == index["record_bytes"] and set(records.dtype.names) == set(index["fields"])
    for record in records:
        state = [vocab[token] for token in record["state"]]
        pointer = next(i for i in range(index["spec"]["n_instructions"]) if state[at[f"instruction_ptr[{i}]"]] == "1")
        assert state[at[f"instructions[{pointer}]"]] == index["ops"][record["op"]]
        if index["outcomes"][record["outcome"]] != "RAN":
            assert (record["state"] == record["next_state"]).all()
        seen += 1
print(seen)
"""
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=False)
    assert done.stdout == "95\n", done.stderr


def test_the_bytes_depend_on_the_arguments_alone(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_CHUNK", 7)
    write_shards(tmp_path / "again", SMALL, 95, seed=3, shard_rows=30, threads=3)
    assert contents(folder) == contents(tmp_path / "again")


def test_split_and_weights_are_kept(tmp_path: Path) -> None:
    weights = strata_weights(SMALL)
    train = write_shards(tmp_path / "t", SMALL, 2000, seed=0, split="train", weights=weights)
    held = write_shards(tmp_path / "e", SMALL, 200, seed=0, split="evaluation")
    assert (train.column("program_hash") % 20 != 0).all() and (held.column("program_hash") % 20 == 0).all()
    found = np.zeros_like(weights)
    np.add.at(found, (train.column("op"), train.column("outcome")), 1 / 2000)
    assert np.abs(found - weights).max() < 0.03
    assert np.array_equal(train.index["weights"], weights) and train.index["split"] == "train"


def test_an_interrupted_writing_goes_on(folder: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 60:
            raise KeyboardInterrupt

    broken = tmp_path / "broken"
    with pytest.raises(KeyboardInterrupt):
        write_shards(broken, SMALL, 95, seed=3, shard_rows=30, progress=stop)
    assert sorted(contents(broken)) == ["00000.npy", "00001.npy", "index.json"]
    with pytest.raises(ValueError, match="lacks 2 of 4 shards: its writing was interrupted"):
        Records(broken)
    before = (broken / "00001.npy").stat().st_mtime_ns
    write_shards(broken, SMALL, 95, seed=3, shard_rows=30)
    assert contents(broken) == contents(folder) and (broken / "00001.npy").stat().st_mtime_ns == before


def test_a_killed_writing_leaves_whole_shards(tmp_path: Path) -> None:
    script = (
        "import sys, time; from cython_vm import MachineSpec, write_shards;"
        "write_shards(sys.argv[1], MachineSpec(), 200_000, seed=5, shard_rows=20_000,"
        "progress=lambda done, n: time.sleep(0.02))"
    )
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", script, str(folder)])
    deadline = time.monotonic() + 60
    while not (folder / "00002.npy").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    listed = json.loads((folder / "index.json").read_text())["shards"]
    for shard in listed:
        data = (folder / shard["file"]).read_bytes()
        assert len(data) == shard["bytes"] and f"{zlib.crc32(data):08x}" == shard["crc32"]
    for file in folder.glob("*.npy"):  # renamed, whether listed yet or not
        assert len(np.load(file, mmap_mode="r")) == 20_000
    assert 2 <= len(listed) < 10
    write_shards(folder, MachineSpec(), 200_000, seed=5, shard_rows=20_000)
    write_shards(tmp_path / "whole", MachineSpec(), 200_000, seed=5, shard_rows=20_000)
    assert contents(folder) == contents(tmp_path / "whole")


def flip(file: Path, at: float) -> None:
    data = bytearray(file.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    file.write_bytes(data)


@pytest.mark.parametrize("at", [0.0, 0.01, 0.5, 1.0])
def test_a_flipped_bit_is_refused_by_name_and_repaired(at: float, folder: Path) -> None:
    before = contents(folder)
    flip(folder / "00002.npy", at)
    with pytest.raises(ValueError, match=r"00002.npy has checksum \w+, index.json says \w+: it is damaged"):
        Records(folder)
    write_shards(folder, SMALL, 95, seed=3, shard_rows=30)
    assert contents(folder) == before and len(Records(folder)) == 95


def test_truncated_missing_and_exchanged_shards_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    whole = contents(folder)
    (folder / "00001.npy").write_bytes(whole["00001.npy"][:-1])
    with pytest.raises(ValueError, match=r"00001.npy is truncated: it has [\d,]+ bytes, index.json says [\d,]+"):
        Records(folder, verify=False)
    (folder / "00001.npy").unlink()
    with pytest.raises(FileNotFoundError, match="00001.npy is missing"):
        Records(folder, verify=False)
    (folder / "00001.npy").write_bytes(whole["00002.npy"])
    with pytest.raises(ValueError, match=r"00001.npy has checksum .* belongs to other data"):
        Records(folder)
    write_shards(tmp_path / "other", SMALL, 95, seed=4, shard_rows=30)
    shutil.copy(tmp_path / "other" / "00001.npy", folder / "00001.npy")
    with pytest.raises(ValueError, match=r"00001.npy has checksum"):
        Records(folder)


def test_a_shard_of_another_shape_is_refused_without_checksums(folder: Path) -> None:
    size = (folder / "00000.npy").stat().st_size
    np.save(folder / "00000.npy", np.zeros(size - 128, dtype=np.uint8))
    with pytest.raises(ValueError, match=r"00000.npy should hold \[30\] records of \d+ bytes, got .* belongs to other"):
        Records(folder, verify=False)[0]
    (folder / "00000.npy").write_bytes(pickle.dumps({}).ljust(size, b"."))
    with pytest.raises(ValueError, match="00000.npy is no shard of records"):
        Records(folder, verify=False)[0]


def test_a_damaged_or_foreign_index_is_refused(folder: Path, tmp_path: Path) -> None:
    file = folder / "index.json"
    text = file.read_text()
    file.write_text(text.replace('"seed": 3', '"seed": 4'))
    with pytest.raises(ValueError, match="index.json is damaged or was edited"):
        Records(folder)
    file.write_text(text[:-30])
    with pytest.raises(ValueError, match="index.json is not an index of records"):
        Records(folder)
    file.write_text('{"format": "something", "version": 9}')
    with pytest.raises(ValueError, match="format 'something' version 9; this reads 'tapelens-records' version 1"):
        Records(folder)
    later = json.loads(text)
    later["spec"]["n_stacks"] = 2
    file.write_text(json.dumps(later | {"crc32": index_crc32(later)}))
    with pytest.raises(ValueError, match="index.json describes no machine of this version .*n_stacks"):
        Records(folder)
    with pytest.raises(FileNotFoundError, match="no records at .*nowhere: it has no index.json"):
        Records(tmp_path / "nowhere")


def test_a_folder_of_something_else_is_left_alone(folder: Path, tmp_path: Path) -> None:
    before = contents(folder)
    with pytest.raises(ValueError, match="holds other records: seed, first_records_crc32 differ; choose another"):
        write_shards(folder, SMALL, 95, seed=4, shard_rows=30)
    assert contents(folder) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="exists and is no folder of records"):
        write_shards(tmp_path, SMALL, 5, seed=0)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"n": 0}, ValueError, "n must be at least 1, got 0"),
        ({"n": 2.5}, TypeError, "n must be an integer, got 2.5"),
        ({"shard_rows": 0}, ValueError, "shard_rows must be at least 1"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0, got -1"),
        ({"split": "test"}, ValueError, "split must be one of all, train, evaluation"),
        ({"weights": np.ones(3)}, ValueError, "weights must be"),
        ({"n": 10**6, "shard_rows": 1}, ValueError, "more than 10000 files; use larger shards"),
    ],
)
def test_bad_arguments_make_no_folder(change: dict, error: type[Exception], says: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"n": 10, "seed": 0} | change
    with pytest.raises(error, match=says):
        write_shards(tmp_path / "r", SMALL, arguments.pop("n"), **arguments)
    assert not (tmp_path / "r").exists()


def test_records_pickle_as_their_path(folder: Path) -> None:
    records = Records(folder)
    assert np.array_equal(pickle.loads(pickle.dumps(records))[40:50], records[40:50])
    assert len(pickle.dumps(records)) < 500


def test_writing_takes_the_memory_of_a_few_chunks(tmp_path: Path) -> None:
    """Less than a fifth of one shard, so nothing of a shard is held back."""
    tracemalloc.start()
    records = write_shards(tmp_path / "r", SMALL, 600_000, seed=0, shard_rows=300_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0 < peak < records.index["shards"][0]["bytes"] / 5


@pytest.mark.parametrize("spec", [MachineSpec(), SMALL, MachineSpec(256, 256, 255, 255, 8)], ids=str)
def test_a_batch_of_states_costs_at_most_half_more_than_its_values(spec: MachineSpec) -> None:
    """One byte for each counter and slot is what a packed state needs; measured, not computed."""
    n = 20_000_000 // spec.row_bytes // 10
    needed = n * (4 + spec.n_instructions + spec.n_cells + spec.n_input + spec.n_output)
    sample(spec, 1, seed=0)
    tracemalloc.start()
    states = sample(spec, n, seed=0)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(states) == n and needed <= held <= peak <= 1.5 * needed


def test_the_originals_format_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = sample(SMALL, 50, seed=2, start=4)
    write_original(tmp_path / "whole.npy", states)
    monkeypatch.setattr(original, "_CHUNK", 7)
    seen = []
    sample_original(tmp_path / "parts.npy", SMALL, 50, seed=2, start=4, progress=lambda done, n: seen.append(done))
    assert (tmp_path / "whole.npy").read_bytes() == (tmp_path / "parts.npy").read_bytes() and seen[-1] == 50
    before, after = read_original(tmp_path / "parts.npy")
    assert before == states and after == step(states).next
    tokens = np.load(tmp_path / "parts.npy")
    tokens[17, 3] = 99
    np.save(tmp_path / "parts.npy", tokens)
    with pytest.raises(ValueError, match=r"parts.npy: S_t of record 17, position 3 "):
        read_original(tmp_path / "parts.npy")
    tokens[17] = np.load(tmp_path / "whole.npy")[17]
    tokens[40, SMALL.state_length + 3] = 99
    np.save(tmp_path / "parts.npy", tokens)
    with pytest.raises(ValueError, match=r"parts.npy: S_\{t\+1\} of record 40, position 3 "):
        read_original(tmp_path / "parts.npy")


def test_a_record_that_is_no_state_is_named_by_its_number(folder: Path) -> None:
    shard = np.load(folder / "00001.npy", mmap_mode="r+")
    shard["next_state"][12, 3] = 99
    shard.flush()
    records = Records(folder, verify=False)
    for rows in ([94, 42], slice(40, 50), np.array([-53]), 42):
        with pytest.raises(ValueError, match=r"^S_\{t\+1\} of record 42, position 3 "):
            records.states(rows)
    assert len(records.states([])[0]) == 0 and len(records.states(slice(0, 42))[0]) == 42


def test_the_originals_files_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample_original(tmp_path / "x.npy", SMALL, 50, seed=0, progress=stop)
    assert not list(tmp_path.iterdir())
    write_original(tmp_path / "x.npy", sample(SMALL, 50, seed=0))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-4])
    with pytest.raises(ValueError, match="x.npy is no whole array of tokens"):
        read_original(tmp_path / "x.npy")


def test_the_originals_format_holds_its_own_layout_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the original's format holds the default layout"):
        write_original(tmp_path / "x.npy", sample(MachineSpec(padded=True), 3, seed=0))
    assert not list(tmp_path.iterdir())


def test_a_file_of_no_records_reads_back(tmp_path: Path) -> None:
    write_original(tmp_path / "none.npy", States(SMALL, np.empty((0, SMALL.row_bytes), np.uint8)))
    before, after = read_original(tmp_path / "none.npy")
    assert len(before) == len(after) == 0
