"""The stage `patch` on runs of every kind: what it writes, that it goes on where it stopped, and what it refuses."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import interp
from interp.results import records, select
from interp.runs import RunError
from interp.stage_options import PatchOptions
from interp.studies.patch_stage import patch_stage

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
BUNDLED = {"quickstart": "operand", "output": "array_ptr"}  # chain and trace: tests/tasks/test_task_battery.py


def copied(name: str, folder: Path) -> Any:
    """A bundled run without what was measured of it."""
    path = folder / name
    path.mkdir()
    for file in ("config.json", "model.safetensors", "metrics.parquet"):
        shutil.copy(CHECKPOINTS / name / file, path / file)
    return interp.load(path)


@pytest.mark.parametrize("name", BUNDLED)
def test_every_kind_of_run_is_patched(name, tmp_path):
    run, variable = copied(name, tmp_path), BUNDLED[name]
    frame = patch_stage(run, PatchOptions(variables=(variable,), n_pairs=16, positions=("instructions", "all")))
    measured = select(frame, metric="iia", control=None, stratum="all", method="full_vector")
    assert {"instructions", "all"} <= set(measured.position)
    assert set(measured.variable) == {variable}
    by_stratum = select(frame, pair_design="stratified", stratum="changes")
    assert by_stratum.op.notna().all()
    assert set(by_stratum.op) <= set(run.task.world.stratum_names)
    assert by_stratum.position.nunique() == 1
    assert {"unpatched", "same_value"} <= set(by_stratum.control.dropna())
    again = patch_stage(run, PatchOptions(variables=(variable,), n_pairs=16, positions=("instructions", "all")))
    assert records(again) == records(frame)  # nothing was left to do


def test_the_breakdown_is_of_the_best_place(tmp_path):
    run = copied("quickstart", tmp_path)
    frame = patch_stage(run, PatchOptions(variables=("operand",), n_pairs=32))
    whole = select(
        frame, metric="iia", control=None, stratum="changes", method="full_vector", pair_design="independent"
    )
    inner = whole[whole.site.isin(run.model.residual_hooks()[1:-1]) & (whole.position != "all")]
    best = inner.loc[inner.estimate.idxmax()]
    by_stratum = select(frame, pair_design="stratified", method="full_vector")
    assert set(by_stratum.site) == {best.site}
    assert set(by_stratum.position) == {best.position}


def test_a_world_that_cannot_be_asked_is_refused(tmp_path, monkeypatch):
    run = copied("quickstart", tmp_path)
    monkeypatch.setattr(type(run.task.world), "capabilities", frozenset({"contrasts"}))
    with pytest.raises(RunError, match=r"interchange cannot judge .*the world machine cannot be asked for 'do'"):
        patch_stage(run)
    assert not (run.path / "interventions.parquet").exists()


def test_unknown_names_are_refused_before_anything_is_measured(tmp_path):
    run = copied("chain", tmp_path)
    with pytest.raises(ValueError, match="no variable 'operands'"):
        patch_stage(run, PatchOptions(pairs_of=("operands+op",), n_pairs=8))
    with pytest.raises(ValueError, match="no hook 'mlp.hook_pots'"):
        patch_stage(run, PatchOptions(hooks=("mlp.hook_pots",), n_pairs=8))
    assert not (run.path / "interventions.parquet").exists()
