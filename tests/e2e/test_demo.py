"""The whole path on a tiny preset, and the promises of the bundled run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from tiny import tiny_config

import interp
from cython_vm import encode, step
from interp.circuits import read_attention, read_circuit
from interp.demo import run_demo
from interp.results import Aggregation, Control, Metric, select
from interp.stage_options import EvaluationOptions
from interp.studies.evaluation_stage import evaluate_run
from interp.training import PRESETS

pytestmark = pytest.mark.xdist_group("demo")  # one worker makes the run for all of them

BUNDLED = Path(__file__).resolve().parents[2] / "checkpoints" / "quickstart"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    patch = pytest.MonkeyPatch()
    patch.setitem(PRESETS, "tiny", tiny_config(steps=120, eval_every=60, checkpoint_every=60, threads=2))
    folder = tmp_path_factory.mktemp("demo") / "tiny"
    try:
        run_demo(folder, preset="tiny")
        stamps = {file: file.stat().st_mtime_ns for file in folder.rglob("*.parquet")}
        run_demo(folder, preset="tiny")
        reused = {file.name for file, stamp in stamps.items() if file.stat().st_mtime_ns == stamp}
    finally:
        patch.undo()
    run = interp.load(folder)
    run.reused = reused  # type: ignore[attr-defined]
    return run


def test_the_demo_leaves_every_file_of_a_run(demo: interp.Run) -> None:
    ops = {op.name for op in demo.config.spec.ops}
    assert {file.stem for file in (demo.path / "circuits").glob("*.json")} == ops | {"summary"}
    for kind in ("metrics", "probes", "interventions", "circuits"):
        frame = demo.frame(kind)
        assert len(frame) and not bool(frame["estimate"].isna().any()) and set(frame["run"]) == {"tiny"}
        assert frame.attrs["provenance"]["digest"] == demo.config.digest
    assert read_attention(demo.path / "attention.safetensors")[0].roles.shape[0] == len(ops)
    report = (demo.path / "report.html").read_text()
    assert demo.config.digest in report and all(op in report for op in ops)


def test_a_second_call_reuses_what_is_done(demo: interp.Run) -> None:
    assert {"probes.parquet", "metrics.parquet"} <= demo.reused  # type: ignore[attr-defined]


def test_every_probe_stands_beside_its_controls(demo: interp.Run) -> None:
    accuracy = select(demo.frame("probes"), metric=Metric.ACCURACY)
    keys = ["site", "position", "variable"]
    own = set(select(accuracy, control=None)[keys].itertuples(index=False, name=None))
    wanted = (Control.MAJORITY_CLASS, Control.CONTROL_TASK, Control.EMBEDDING_ONLY, Control.UNTRAINED_MODEL)
    for control in wanted:
        assert set(select(accuracy, control=control)[keys].itertuples(index=False, name=None)) == own
    embedding = select(accuracy, control=None, site="blocks.0.hook_resid_pre").set_index(["position", "variable"])
    control = select(accuracy, control=Control.EMBEDDING_ONLY, site="blocks.0.hook_resid_post")
    control = control.set_index(["position", "variable"])
    assert (embedding["estimate"] == control["estimate"].loc[embedding.index]).all()


def test_the_final_evaluation_is_of_other_states_than_the_curve(demo: interp.Run) -> None:
    macro = select(demo.frame("metrics"), metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO)
    assert macro["n"].tolist()[-1] == 20_000 and (macro["n"].iloc[:-1] == 60).all()


def test_the_bundled_run_keeps_its_promises() -> None:
    """Solved to 99.7 % on states never drawn before, whole, small, and made by the command that it names."""
    run = interp.load(BUNDLED)
    spec = run.config.spec
    assert min(spec.n_instructions - 7, spec.n_cells - 5, spec.n_input - 2, spec.n_output - 2, spec.bits - 2) >= 1
    assert spec.io and spec.loops and spec.stops
    scores = evaluate_run(run, EvaluationOptions(n=3000, seed=12345, programs=0))
    assert select(scores, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO)["estimate"].item() >= 0.997
    for kind in ("metrics", "probes", "interventions", "circuits"):
        assert len(run.frame(kind))
    for op in spec.ops:
        circuit, provenance = read_circuit(BUNDLED / "circuits" / f"{op.name}.json")
        assert provenance["digest"] == run.config.digest and circuit.op == op.name
    assert sum(file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file()) <= 6_500_000
    assert json.loads((BUNDLED / "config.json").read_text())["command"].startswith("tapelens train --preset quickstart")


def test_the_quickstart_preset_is_the_bundled_run_but_for_its_length_draws_and_rate() -> None:
    bundled, preset = interp.load(BUNDLED).config, PRESETS["quickstart"]
    assert (bundled.task, bundled.spec, bundled.model) == (preset.task, preset.spec, preset.model)
    free = {
        name: getattr(preset.training, name)
        for name in ("steps", "threads", "eval_states", "muon_lr", "adaptive", "validation")
    }
    assert dataclasses.replace(bundled.training, **free) == preset.training


def test_the_bundled_run_predicts_as_the_machine_does() -> None:
    run = interp.load(BUNDLED)
    batch = run.task.sample(50, seed=77)
    assert (run.predict(encode(batch.examples)) == encode(step(batch.examples).next)).all(axis=1).mean() > 0.95
