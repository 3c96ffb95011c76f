"""Training that begins with another run's weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from interp.cli import main
from interp.runs import Run, RunConfig, RunError, load, read_config
from interp.training import train
from interp.training.start import started_from


@pytest.fixture
def first(tiny_run: Run, tmp_path: Path) -> Run:
    shutil.copytree(tiny_run.path, tmp_path / "first")
    return load(tmp_path / "first")


def other_seed(run: Run, **changes: float) -> RunConfig:
    return replace(run.config, training=replace(run.config.training, seed=91, **changes))


def test_training_begins_with_the_weights_of_the_other_run(first: Run, tmp_path: Path) -> None:
    config = started_from(other_seed(first, steps=1, muon_lr=1e-9, adamw_lr=1e-9), first.path)
    after = train(config, tmp_path / "second")
    random = train(replace(config, start=None), tmp_path / "random")
    theirs = first.model.state_dict()
    for name, tensor in after.model.state_dict().items():
        assert torch.allclose(tensor, theirs[name], atol=1e-5), name
    assert any(not torch.allclose(t, theirs[name], atol=1e-2) for name, t in random.model.state_dict().items())


def test_a_run_knows_what_it_started_from_wherever_that_lies(first: Run, tmp_path: Path) -> None:
    config = started_from(other_seed(first, steps=2), first.path)
    train(config, tmp_path / "second")
    assert read_config(tmp_path / "second").start == config.start
    shutil.move(first.path, tmp_path / "moved")
    elsewhere = started_from(replace(config, start=None), tmp_path / "moved")
    assert elsewhere.digest == config.digest != replace(config, start=None).digest
    assert train(config, tmp_path / "second").step == 2  # trained already: what it began with is not needed
    with pytest.raises(RunError, match="no run at"):
        train(config, tmp_path / "third")


def test_another_run_in_its_place_is_refused(first: Run, tmp_path: Path) -> None:
    config = started_from(other_seed(first, steps=2), first.path)
    shutil.rmtree(first.path)
    train(other_seed(first, steps=1), first.path)
    with pytest.raises(RunError, match="this run starts from step 30 of"):
        train(config, tmp_path / "second")


def test_what_does_not_fit_is_refused_in_a_sentence(
    first: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="would repeat those that .* has seen; give --seed another"):
        started_from(first.config, first.path)
    larger = replace(other_seed(first), model=replace(first.config.model, d_mlp=48))
    with pytest.raises(ValueError, match="they differ in d_mlp"):
        started_from(larger, first.path)
    with pytest.raises(SystemExit) as error:
        main(["train", "--start", str(tmp_path / "nowhere"), "--seed", "9", "--out", str(tmp_path / "second")])
    assert error.value.code and "no run at" in capsys.readouterr().err
    assert not (tmp_path / "second").exists()


def test_the_command_fine_tunes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = ["--machine", "n_instructions=4", "n_cells=3", "n_input=1", "n_output=1", "bits=2"]
    short = ["--steps", "2", "--batch-size", "4", "--threads", "1", "--training.eval-states", "40"]
    main(["train", *machine, *short, "--out", str(tmp_path / "first")])
    again = ["--start", str(tmp_path / "first"), "--out", str(tmp_path / "second")]
    main(["train", *machine, *short, *again, "--seed", "5"])
    start = read_config(tmp_path / "second").start
    assert start is not None and (start.digest, start.step) == (read_config(tmp_path / "first").digest, 2)
    with pytest.raises(SystemExit):
        main(["train", "--resume", *again])
    assert "leave --start out" in capsys.readouterr().err
