"""The command line: each mistake is one line on standard error and a non-zero exit."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cython_vm import read_original, sample
from interp.cli import COMMANDS, main
from interp.runs import Run, load


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[str, int]:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("tapelens: ")]
    assert len(lines) == 1 and "Traceback" not in err
    assert isinstance(stopped.value.code, int)
    return lines[0], stopped.value.code


@pytest.mark.parametrize(
    ("arguments", "says", "code"),
    [
        (["trian"], "Available subcommands: demo, sample, .*train", 2),
        (["train", "--colour", "3"], "Unrecognized options: --colour, 3; see: tapelens train --help", 2),
        (["train", "--steps", "many"], "invalid literal for int.*'many'", 2),
        (["eval"], "see: tapelens eval --help", 2),
        (["train", "--preset", "huge"], "--preset must be one of quickstart, .*; got 'huge'", 1),
        (
            ["train", "--machine", "cells=3"],
            "--machine takes NAME=VALUE with one of .*, got 'cells=3'",
            1,
        ),
        (["train", "--machine", "n_cells=0"], "n_cells must be from 1 to 256, got 0", 1),
        (["train", "--steps", "0"], "steps must be a whole number of at least 1, got 0", 1),
        (["eval", "nowhere"], "no run at nowhere; train one with", 1),
        (["probe", "nowhere"], "no run at nowhere", 1),
        (["circuit", "nowhere"], "no run at nowhere", 1),
        (["patch", "nowhere", "--n-pairs", "0"], "--n-pairs must be a whole number of at least 1, got 0", 1),
        (["circuit", "nowhere", "--n-pairs", "8"], "--n-pairs must be a whole number of at least 10, got 8", 1),
        (["report", "nowhere"], "no run at nowhere", 1),
        (["app", "nowhere"], "no run at nowhere", 1),
        (["sample", "x", "--n", "0"], "--n must be at least 1, got 0", 1),
        (["sample", "x", "--spec.bits", "9"], "bits must be from 1 to 8, got 9", 2),
        (["bench", "everything"], "invalid choice|everything", 2),
    ],
)
def test_a_mistake_is_one_line(arguments: list[str], says: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    line, found = fails(capsys, *arguments)
    assert found == code
    assert re.search(says, line), line


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["probe", "RUN", "--variables", "opernad"], "opernad.*operand"),
        (["probe", "RUN", "--positions", "cellz"], "no positions are named 'cellz'"),
        (["probe", "RUN", "--positions", "cells"], "a probe reads one position; 'cells' names 3"),
        (["patch", "RUN", "--variables", "loop_depth"], "loop_depth.*can be read but not set"),
        (["circuit", "RUN", "--ops", "ADD"], "the task step_inplace has no contrast 'ADD'; it has NEXT, PREV"),
    ],
)
def test_a_bad_request_of_a_run_is_one_line(
    arguments: list[str], says: str, tiny_run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    line, code = fails(capsys, *(str(tiny_run.path) if a == "RUN" else a for a in arguments))
    assert code == 1 and re.search(says, line), line


def test_python_m_interp_is_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "interp", "--help"], capture_output=True, text=True, check=True)
    assert all(verb in done.stdout for verb in COMMANDS)


def test_help_does_not_wait_for_torch() -> None:
    script = "import sys, interp.cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_sample_writes_the_original_format(tmp_path: Path) -> None:
    main(["sample", str(tmp_path / "records"), "--n", "25", "--seed", "3", "--format", "original"])
    tokens = np.load(tmp_path / "records.npy")
    meta = json.loads((tmp_path / "records.meta.json").read_text())
    assert tokens.dtype == np.int32 and tokens.shape == (25, meta["record_token_length"]) == (25, 148)
    assert len(read_original(tmp_path / "records.npy")[0]) == 25


def test_eval_prints_a_table(tiny_run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    main(["eval", str(tiny_run.path), "--n", "120", "--threads", "1"])
    out = capsys.readouterr().out
    assert "macro average over op × outcome" in out and "WHILE" in out


def test_an_interrupt_says_how_to_go_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "train", interrupted)
    line, code = fails(capsys, "train")
    assert code == 130 and "the same command continues" in line


def test_a_full_disk_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    line, code = fails(capsys, "train", "--steps", "1", "--out", str(tmp_path / "run"))
    assert code == 1 and "No space left on device" in line


def test_train_on_another_machine_and_layout(tmp_path: Path) -> None:
    out = tmp_path / "run"
    fields = ["n_cells=3", "n_instructions=5", "outcome_token=true", "pointers=index"]
    main(["train", "--out", str(out), "--steps", "3", "--batch-size", "8", "--machine", *fields])
    run = load(out)
    assert (run.task.spec.n_cells, run.task.spec.outcome_token, run.task.spec.pointers) == (3, True, "index")
    assert run.model.cfg.n_ctx == run.task.spec.state_length
    assert run.predict_states(sample(run.task.spec, 5, seed=0)).shape == (5, run.task.spec.state_length)
