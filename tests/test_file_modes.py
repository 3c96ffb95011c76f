"""Who may read a file of a run is what the umask says, whichever library wrote it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from tiny import tiny_config

from cython_vm import MachineSpec, write_shards
from cython_vm.evolution import EvolutionConfig, evolve
from interp.compiled import compile_model
from interp.files import atomic_path, write_text
from interp.pages.cards import make_card
from interp.probing import SweepConfig
from interp.report import write_report
from interp.runs.compiled_run import compile_run
from interp.stage_options import CircuitOptions, EvaluationOptions, PatchOptions
from interp.studies.circuit_stage import circuit_stage
from interp.studies.evaluation_stage import evaluate_stage
from interp.studies.patch_stage import patch_stage
from interp.studies.probe_sweep import probe_run
from interp.training import train


@pytest.fixture(params=[0o022, 0o027, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, str]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): oct(stat.S_IMODE(file.stat().st_mode)) for file in files}


def test_every_file_of_a_run_has_the_mode_of_the_umask(umask: int, tmp_path: Path) -> None:
    run = train(tiny_config(steps=4, checkpoint_every=2, eval_every=2, steps_along=3), tmp_path / "run")
    evaluate_stage(run, EvaluationOptions(n=60, programs=0))
    sweep = SweepConfig(variables=("op",), places=("cells[@array_ptr]",), hooks=("blocks.0.hook_resid_post",), n=200)
    probe_run(run, config=sweep)
    patch_stage(run, PatchOptions(variables=("op",), n_pairs=4))
    circuit_stage(run, CircuitOptions(ops=("INC",), n_pairs=64, measure=("roles",)))
    make_card(run, n=60, programs=0)
    write_report(run)
    spec = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=1)
    compile_run(compile_model(spec), tmp_path / "compiled")
    write_shards(tmp_path / "shards", spec, 20, seed=0)
    evolve(spec, 1, config=EvolutionConfig(batch_size=64, n_inputs=2, max_steps=20)).save(tmp_path / "evolved.npz")
    found = modes(tmp_path)
    kinds = {Path(name).suffix for name in found}
    assert kinds >= {".json", ".safetensors", ".parquet", ".html", ".md", ".npy", ".npz"}, kinds
    assert set(found.values()) == {oct(0o666 & ~umask)}, found


def test_a_file_that_is_replaced_gets_the_mode_of_the_umask_too(umask: int, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(0o600)
    write_text(file, "new")
    assert modes(tmp_path) == {"file": oct(0o666 & ~umask)}


def test_what_a_crash_left_under_the_temporary_name_is_no_bar(umask: int, tmp_path: Path) -> None:
    left = tmp_path / f".file.{os.getpid()}.tmp"
    left.write_text("half of something longer")
    left.chmod(0o600)
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("whole")
    assert (tmp_path / "file").read_text() == "whole" and modes(tmp_path) == {"file": oct(0o666 & ~umask)}
