"""A compiled run is a run: `tapelens compile` writes it, and everything opens it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled_machine import SPEC

import interp
from cython_vm import encode, sample, step
from interp.cli import main
from interp.compiled import AnswerKey, Compiled
from interp.results import Metric, records
from interp.runs import RunError
from interp.runs.compiled_run import compile_run
from interp.stage_options import EvaluationOptions
from interp.studies.evaluation_stage import evaluate_run

SMALL = [f"--spec.{name}={value}" for name, value in (("n-instructions", 5), ("n-cells", 3), ("bits", 1))]


def test_the_command_writes_a_run_that_predicts_and_is_right(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "compiled"
    main(["compile", "--out", str(out), *SMALL, "--noise.rotate", "--n-circuit-pairs", "0"])
    assert "3 layers of 4 heads" in capsys.readouterr().out
    run = interp.load(out)
    states = sample(run.task.spec, 200, seed=1)
    assert np.array_equal(run.predict(encode(states)), step(states).tokens())
    key = AnswerKey.load(out)
    assert key.noise["rotate"] is True and key.directions.shape[1] == run.model.cfg.d_model
    assert key.circuits == () and len(key.variables) > 30
    with pytest.raises(SystemExit):
        main(["compile", "--out", str(out), *SMALL, "--n-circuit-pairs", "0"])
    assert "holds a compiled run already; --fresh replaces it" in capsys.readouterr().err


def test_evaluation_finds_no_error(compiled: Compiled, tmp_path: Path) -> None:
    run = compile_run(compiled, tmp_path / "run")
    scores = evaluate_run(run, EvaluationOptions(n=150, seed=9, programs=0))
    judged = (Metric.EXACT_MATCH, Metric.BLOCK_ACCURACY)
    right = [row["estimate"] for row in records(scores) if row["metric"] in judged]
    assert set(right) == {1.0}
    assert len(right) > 20


def test_a_trained_run_is_never_replaced(inplace: Compiled, tiny_run) -> None:
    before = (tiny_run.path / "model.safetensors").read_bytes()
    with pytest.raises(RunError, match="holds a trained run; give another --out"):
        compile_run(inplace, tiny_run.path, fresh=True)
    assert (tiny_run.path / "model.safetensors").read_bytes() == before


def test_fresh_drops_what_was_measured_on_the_old_weights(inplace: Compiled, tmp_path: Path) -> None:
    run = compile_run(inplace, tmp_path / "run")
    (run.path / "probes.parquet").write_bytes(b"old")
    compile_run(inplace, run.path, fresh=True)
    assert not (run.path / "probes.parquet").exists()
    assert interp.load(run.path).config.spec == SPEC
