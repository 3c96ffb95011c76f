"""Records from disk in PyTorch: every row once whatever dies; models trained on files, held-out programs left out."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny import tiny_config
from torch.utils.data import DataLoader

import interp
from cython_vm import (
    MachineSpec,
    Op,
    Outcome,
    Records,
    encode,
    program_hash,
    sample,
    sample_original,
    step,
    strata_weights,
    write_shards,
)
from interp.cli import main
from interp.results import Metric, select
from interp.runs import RunConfig, RunError
from interp.runs.training_config import DataSource
from interp.training import TrainingProgress, train
from interp.training.presets import transformer_for
from interp.worlds import as_world
from interp.worlds.machine.dataset import RecordDataset, ShuffledBatches, ShuffledLoader, shuffled
from interp.worlds.machine.training_records import TrainingRecords

SPEC = MachineSpec(n_instructions=6, n_cells=3, n_input=1, n_output=1, bits=1)
N = 1000
ORIGINAL = Path(__file__).parents[1] / "machine" / "data" / "original.npy"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 records of seed 7 in shards of 300. Do not write into it."""
    path = tmp_path_factory.mktemp("data") / "records"
    write_shards(path, SPEC, N, seed=7, shard_rows=300)
    return path


@pytest.fixture(scope="module")
def dataset(folder: Path) -> RecordDataset:
    return RecordDataset(folder)


def rows_of(batch: dict[str, torch.Tensor]) -> list[bytes]:
    """What identifies a record: its state and next state."""
    both = torch.cat([batch["state"], batch["next_state"]], dim=1)
    return [row.numpy().tobytes() for row in both]


def identities(dataset: RecordDataset) -> list[bytes]:
    return rows_of(dataset[np.arange(len(dataset))])


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 5))
def test_the_order_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    assert np.array_equal(np.sort(shuffled(np.arange(n), n, seed=seed, epoch=epoch)), np.arange(n))


def test_every_place_gets_every_row_equally_often() -> None:
    """Over 1,500 orders of 12 rows: each place's rows, and each pair of neighbours, are uniform (chi-square)."""
    orders = np.array([shuffled(np.arange(12), 12, seed=seed) for seed in range(1500)])
    places = np.array([np.bincount(orders[:, place], minlength=12) for place in range(12)])
    assert chisquare(places.ravel()).pvalue > 1e-4
    pairs = np.bincount(orders[:, :-1].ravel() * 12 + orders[:, 1:].ravel(), minlength=144).reshape(12, 12)
    assert not pairs.diagonal().any() and chisquare(pairs[~np.eye(12, dtype=bool)]).pvalue > 1e-4
    assert len(np.unique(orders, axis=0)) == 1500


def test_an_order_of_a_trillion_rows_costs_nothing() -> None:
    rows = shuffled(np.arange(10**11, 10**11 + 1000), 10**12, seed=1)
    assert len(set(rows.tolist())) == 1000 and rows.max() < 10**12 and rows.std() > 10**11


def test_items_are_the_records(folder: Path, dataset: RecordDataset) -> None:
    states = sample(SPEC, N, seed=7)
    after = step(states)
    batch = dataset[[999, 3, 300]]
    assert np.array_equal(batch["state"], encode(states)[[999, 3, 300]])
    assert np.array_equal(batch["next_state"], encode(after.next)[[999, 3, 300]])
    assert np.array_equal(batch["operand"], after.latents["operand"][[999, 3, 300]])
    assert all(values.dtype == torch.long for values in batch.values())
    assert dataset[5]["op"].shape == () and int(dataset[5]["op"]) == after.latents["op"][5]
    held = program_hash(states) % 20 == 0
    train_rows, held_rows = (RecordDataset(folder, split=split) for split in ("train", "evaluation"))
    assert len(train_rows) == (~held).sum() and len(held_rows) == held.sum() > 0
    chosen = program_hash(states) % 20 == 1
    fit_rows, chosen_rows = (RecordDataset(folder, split=split) for split in ("fit", "validation"))
    assert np.array_equal(chosen_rows[np.arange(len(chosen_rows))]["state"], encode(states)[chosen]) and chosen.any()
    assert np.array_equal(fit_rows[np.arange(len(fit_rows))]["state"], encode(states)[~held & ~chosen])
    assert np.array_equal(held_rows[np.arange(len(held_rows))]["state"], encode(states)[held])
    assert list(RecordDataset(folder, fields=("op", "state"))[0]) == ["op", "state"]
    with pytest.raises(ValueError, match="no field 'opp'"):
        RecordDataset(folder, fields=["opp"])
    with pytest.raises(ValueError, match="split must be one of all, train, evaluation, validation, fit, got 'test'"):
        RecordDataset(folder, split="test")  # type: ignore[arg-type]


def test_torchs_own_loader_reads_it(dataset: RecordDataset) -> None:
    seen = [row for batch in DataLoader(dataset, batch_size=64, shuffle=True) for row in rows_of(batch)]
    assert sorted(seen) == sorted(identities(dataset))


def test_an_epoch_is_every_row_once_in_an_order_of_its_own(dataset: RecordDataset) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    loader = ShuffledLoader(dataset, 64, seed=5)
    first, second = ([row for batch in loader for row in rows_of(batch)] for _ in range(2))
    assert loader.epoch == 2 and len(loader) == 16
    assert sorted(first) == sorted(second) == sorted(identities(dataset)) and first != second
    assert first == [row for batch in ShuffledLoader(dataset, 64, seed=5, num_workers=2) for row in rows_of(batch)]
    assert first != [row for batch in ShuffledLoader(dataset, 64, seed=6) for row in rows_of(batch)]
    assert sum(len(batch["op"]) for batch in ShuffledLoader(dataset, 64, drop_last=True)) == 15 * 64
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("stop", [1, 7, 16])
def test_what_is_left_is_the_same_with_any_number_of_workers(stop: int, dataset: RecordDataset) -> None:
    whole = [rows_of(batch) for loader in [ShuffledLoader(dataset, 64)] for _ in range(2) for batch in loader]
    broken = ShuffledLoader(dataset, 64, num_workers=2)
    for number, _ in enumerate(broken, start=1):
        if number == stop:
            break
    state = json.loads(json.dumps(broken.state_dict()))
    again = ShuffledLoader(dataset, 64, num_workers=0)
    again.load_state_dict(state)
    rest = [rows_of(batch) for batch in again]
    assert rest == (whole[stop:16] if stop < 16 else whole[16:])


def test_a_killed_worker_costs_no_row(dataset: RecordDataset) -> None:
    loader, seen = ShuffledLoader(dataset, 20, num_workers=2), []
    kills, deaths = [3, 30], []
    while loader.epoch == 0:
        try:
            for batch in loader:
                seen += rows_of(batch)
                if kills and loader.batch == kills[0]:
                    kills.pop(0)
                    victim = multiprocessing.active_children()[0]
                    os.kill(victim.pid or 0, signal.SIGKILL)
                    time.sleep(5)  # PyTorch reports the death of a worker at once
        except RuntimeError as error:
            deaths.append(str(error))
    assert len(deaths) == 2 and all("killed by signal: Killed" in death for death in deaths)
    assert sorted(seen) == sorted(identities(dataset))


def test_a_dataset_travels_to_spawned_workers_as_its_path(folder: Path) -> None:
    held = RecordDataset(folder, split="evaluation")
    assert identities(pickle.loads(pickle.dumps(held))) == identities(held)
    assert len(pickle.dumps(held)) < 1500


def test_a_state_of_another_order_is_refused(dataset: RecordDataset) -> None:
    state = ShuffledLoader(dataset, 64, seed=1).state_dict()
    with pytest.raises(ValueError, match="taken with seed 1, this loader has 2"):
        ShuffledLoader(dataset, 64, seed=2).load_state_dict(state)
    with pytest.raises(ValueError, match="taken with batch_size 64, this loader has 32"):
        ShuffledLoader(dataset, 32, seed=1).load_state_dict(state)
    with pytest.raises(ValueError, match="batch 17 of epoch 0 is not among 16"):
        ShuffledLoader(dataset, 64, seed=1).load_state_dict(state | {"batch": 17})
    with pytest.raises(ValueError, match="a loader's state has n, batch_size"):
        ShuffledLoader(dataset, 64).load_state_dict({})
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        ShuffledLoader(dataset, 0)
    with pytest.raises(ValueError, match="drop_last leaves no batch"):
        ShuffledBatches(5, 6, drop_last=True)


# Training on files.


def config_of(records: TrainingRecords, *, task: str = "step_inplace", **training) -> RunConfig:
    base = tiny_config(task=task, **training)
    model = transformer_for(task, records.spec, n_layers=1, n_heads=2, d_model=16)
    return dataclasses.replace(
        base, world=as_world(records.spec), model=model, data=DataSource(str(records.path), records.digest)
    )


def test_only_training_programs_are_drawn_and_every_one_once_an_epoch(folder: Path) -> None:
    records = TrainingRecords(folder)
    held = program_hash(sample(SPEC, N, seed=7)) % 20 == 0
    assert (records.n, records.n_held_out) == (N, held.sum()) and held.sum() > 0
    kept = N - int(held.sum())
    before, after = records.draw(0, 2 * kept, seed=0, weights=None)
    assert (program_hash(before) % 20 != 0).all() and np.array_equal(step(before).tokens(), after)
    keys = [row.tobytes() for row in before.rows]
    expected = sorted(row.tobytes() for row in sample(SPEC, N, seed=7)[~held].rows)
    assert sorted(keys[:kept]) == sorted(keys[kept:]) == expected and keys[:kept] != keys[kept:]
    parts = [records.draw(k, 10, seed=0, weights=None)[0].rows for k in range(7)]
    assert np.array_equal(np.concatenate(parts), before.rows[:70])


@pytest.mark.parametrize("branches", [False, True])
def test_weights_choose_the_strata(branches: bool, folder: Path) -> None:
    records, weights = TrainingRecords(folder), strata_weights(SPEC, branches=branches)
    before, _ = records.draw(3, 20_000, seed=0, weights=weights)
    assert before == records.draw(3, 20_000, seed=0, weights=weights)[0]
    after = step(before)
    assert (program_hash(before) % 20 != 0).all()
    found = np.zeros(weights.shape)
    index = (after.latents["op"], after.outcome, np.maximum(after.latents["branch_taken"], 0))
    np.add.at(found, index if branches else index[:2], 1 / len(before))
    present = found > 0  # a small file may lack a stratum; its share goes to the others
    assert present.sum() >= (weights > 0).sum() - 2 and not found[weights == 0].any()
    assert np.abs(found - weights * present / weights[present].sum()).max() < 0.02


def test_a_file_of_the_original_trains_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line: the machine is the file's, and what is left out is told."""
    path = tmp_path / "theirs.npy"
    shutil.copy(ORIGINAL, path)
    shutil.copy(ORIGINAL.with_suffix(".meta.json"), path.with_suffix(".meta.json"))
    arguments = ["train", "--data", str(path), "--out", str(tmp_path / "run"), "--threads", "1"]
    main([*arguments, "--steps", "2", "--batch-size", "4"])
    held = int((program_hash(TrainingRecords(path)._states) % 20 == 0).sum())
    assert held == 0 and "20 records in" in (out := capsys.readouterr().out) and "held-out programs are left out" in out
    run = interp.load(tmp_path / "run")
    assert run.config.spec == MachineSpec() and run.step == 2
    assert run.config.data is not None and run.config.data.path == str(path)
    assert run.predict(encode(sample(MachineSpec(), 2, seed=0))).shape == (2, 74)


@pytest.mark.parametrize("form", ["original", "shards"])
def test_a_model_learns_from_a_file_as_interrupted_as_not(form: str, folder: Path, tmp_path: Path) -> None:
    path = folder
    if form == "original":
        path = tmp_path / "records.npy"
        sample_original(path, SPEC, N, seed=7)
    records = TrainingRecords(path)
    config = config_of(records, steps=100, balance="natural", eval_every=50, checkpoint_every=50)
    whole = train(config, tmp_path / "whole", records=records)
    losses = select(whole.frame("metrics"), metric=Metric.LOSS)["estimate"].tolist()
    assert losses[-1] < 0.8 * losses[0]

    def stop(progress: TrainingProgress) -> None:
        if progress.step == 74:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "broken", on_progress=stop)
    broken = train(config, tmp_path / "broken")
    for one, other in zip(whole.model.parameters(), broken.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert interp.load(tmp_path / "whole").config == config


def test_data_may_move_but_not_change(folder: Path, tmp_path: Path) -> None:
    config = config_of(TrainingRecords(folder), steps=10)
    train(config, tmp_path / "run", on_progress=None)
    shutil.copytree(folder, tmp_path / "moved")
    moved = TrainingRecords(tmp_path / "moved")
    assert dataclasses.replace(config, data=DataSource(str(moved.path), moved.digest)).digest == config.digest
    train(config, tmp_path / "run", records=moved)
    write_shards(tmp_path / "other", SPEC, N, seed=8)
    with pytest.raises(RunError, match=r"other holds other records \(\w+\) than this run's"):
        train(config, tmp_path / "run", records=TrainingRecords(tmp_path / "other"))
    with pytest.raises(RunError, match="its config names no data"):
        train(tiny_config(), tmp_path / "drawn", records=moved)


def test_a_run_without_data_keeps_its_digest() -> None:
    assert "data" not in tiny_config().to_dict()
    assert interp.load(Path(__file__).parents[2] / "checkpoints" / "quickstart").config.data is None


def test_broken_data_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "flipped")
    file = tmp_path / "flipped" / "00001.npy"
    data = bytearray(file.read_bytes())
    data[-40] ^= 4
    file.write_bytes(data)
    for opened in (Records, RecordDataset, TrainingRecords):
        with pytest.raises(ValueError, match=r"00001.npy has checksum"):
            opened(tmp_path / "flipped")
    sample_original(tmp_path / "wrong.npy", SPEC, 50, seed=7)
    tokens = np.load(tmp_path / "wrong.npy")
    tokens[13, SPEC.state_length :] = tokens[14, SPEC.state_length :]
    np.save(tmp_path / "wrong.npy", tokens)
    with pytest.raises(
        ValueError, match=r"wrong.npy: S_\{t\+1\} of record 13 is not what the machine makes of its S_t"
    ):
        TrainingRecords(tmp_path / "wrong.npy")
    write_shards(tmp_path / "held", SPEC, 20, seed=0, split="evaluation")
    with pytest.raises(ValueError, match="held has no records of the split 'train'"):
        TrainingRecords(tmp_path / "held")


def test_the_code_of_the_schemas_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    monkeypatch.chdir(tmp_path)
    main(["sample", "records", "--n", "3000", "--seed", "1"])
    capsys.readouterr()
    for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL):
        exec(compile(block, "docs/data.md", "exec"), {})
    out = capsys.readouterr().out
    n_train = int((Records("records").column("program_hash") % 20 != 0).sum())
    assert f"{n_train - 3 * 256} records are left" in out and re.search(r"\d+ steps at WHILE, of which \d+ jump", out)
    index = json.loads(Path("records/index.json").read_text())
    for name in (*index, *index["fields"], *index["shards"][0]):
        assert f"`{name}`" in page, f"docs/data.md does not explain {name}"


def test_sample_continues_verifies_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "records"
    command = ["sample", str(out), "--n", "500", "--shard-rows", "200", "--spec.n-cells", "4"]
    command += ["--balance", "op_outcome", "--weights", "WHILE", "3", "PUT:OUTPUT_FULL", "0", "--split", "train"]
    main(command)
    (out / "00001.npy").unlink()
    main(command)
    main(["sample", str(out), "--verify"])
    assert "500 records in 3 shards of" in capsys.readouterr().out
    records = Records(out)
    assert records.spec.n_cells == 4 and records.index["split"] == "train"
    weights = np.array(records.index["weights"])
    assert weights[Op.PUT, Outcome.OUTPUT_FULL] == 0 and weights[Op.WHILE, 0] == pytest.approx(3 * weights[Op.INC, 0])
    (out / "00002.npy").write_bytes((out / "00001.npy").read_bytes()[: (out / "00002.npy").stat().st_size])
    for arguments, says in (
        (["sample", str(out), "--verify"], "00002.npy has checksum"),
        ([*command, "--seed", "9"], "holds other records: seed, first_records_crc32 differ"),
        (["sample", str(tmp_path / "x.npy")], "shards go into a folder, got .*x.npy"),
        (["sample", str(tmp_path / "x"), "--weights", "WHILE", "3"], "with them balance must be"),
        (["sample", str(tmp_path / "x"), "--balance", "branches", "--weights", "ADD", "3"], "got 'ADD'"),
        (["train", "--data", str(tmp_path / "nowhere")], "no records at .*nowhere"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tapelens: ")]
        assert len(err) == 1 and re.search(says, err[0]), err
