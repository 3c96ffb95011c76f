"""Sweeps on processes: one frame however they were stopped, reasons kept, refusals told apart from failures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from sweep_cases import results, spec_values, toml, until

from interp.cli import main
from interp.results import Metric, read_frame, select
from interp.runs import RunError, load
from interp.studies.sweep import Progress, forget, orders_of, run_sweep
from interp.studies.sweep_gather import gather
from interp.studies.sweep_plan import estimate, measure_runs
from interp.studies.sweep_pool import Ended, ProcessPool
from interp.studies.sweep_spec import SweepSpec, spec_from
from interp.studies.sweep_state import read_attempts, read_state, run_folder, sole_worker
from interp.studies.sweep_work import finished, work

STEPS = 900  # enough to be seen at work after a worker was lost


class Here:
    """A pool of this very process: no worker to wait for, none to lose."""

    slots = 1

    def __init__(self) -> None:
        self.ended: list[Ended] = []
        self.closed = False

    def submit(self, order: Any) -> None:
        self.ended.append(Ended(order["name"], work(order)))

    def wait(self, seconds: float) -> list[Ended]:
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        self.closed = True


def sweep(out: Path, **tables: Any) -> SweepSpec:
    return replace(spec_from(spec_values(**tables), name="s"), out=out)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep that the others are held against, run by this process."""
    spec = sweep(tmp_path_factory.mktemp("undisturbed"), steps=STEPS)
    orders = orders_of(spec, command="tapelens sweep s.toml")
    assert run_sweep(spec, orders, Here).finished == set(orders)
    gather(spec.out, orders)
    return spec.out


def test_rows_of_all_runs_stand_in_one_frame(undisturbed: Path) -> None:
    frame = read_frame(undisturbed / "results.parquet")
    names = ["trace_gru_s0", "trace_gru_s1"]
    assert frame["run"].unique().tolist() == names and frame["seed"].unique().tolist() == [0, 1]
    for name in names:
        own = load(run_folder(undisturbed, name)).frame("metrics")
        made = json.loads((run_folder(undisturbed, name) / "config.json").read_text())
        assert made["command"] == "tapelens sweep s.toml"
        pd.testing.assert_frame_equal(select(frame, run=name).reset_index(drop=True), own)
    final = select(frame, metric=Metric.EXACT_MATCH, aggregation="macro", n=128)
    assert len(final) == 2 and final["checkpoint_step"].tolist() == [STEPS, STEPS]
    assert set(frame.attrs["provenance"]["runs"]) == set(names)
    assert not [file for file in undisturbed.rglob("*") if file.suffix in (".pkl", ".pickle", ".pt")]


def test_a_finished_sweep_asks_for_no_pool(undisturbed: Path) -> None:
    spec = sweep(undisturbed, steps=STEPS)
    orders = orders_of(spec)
    assert all(map(finished, orders.values()))

    def refuse() -> Any:
        raise AssertionError("a pool was asked for")

    assert run_sweep(spec, orders, refuse).finished == set(orders)
    more = orders_of(replace(spec, verbs=("train", "eval", "probe")))
    assert not any(map(finished, more.values()))


def test_another_sweep_is_not_mixed_in(undisturbed: Path) -> None:
    spec = replace(sweep(undisturbed, steps=STEPS + 1), retries=0)
    done = run_sweep(spec, orders_of(spec), Here)
    assert not done.finished and all("holds a run with config" in reason for reason in done.given_up.values())
    assert load(run_folder(undisturbed, "trace_gru_s0")).config.training.steps == STEPS
    for name in done.given_up:
        (undisturbed / "state" / f"{name}.attempts.json").unlink()


def test_killed_workers_and_a_killed_driver_change_nothing(undisturbed: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "s.toml", tmp_path / "out"
    file.write_text(toml(spec_values(steps=STEPS)))
    asked = [sys.executable, "-m", "interp", "sweep", str(file), "--out", str(out), "--pool", "processes"]

    def training(name: str, *, after: int = 0) -> int | None:
        state = read_state(out, name)
        moved = state.get("stage") == "train" and state.get("done", 0) > 10 and state.get("pid") != after
        return state["pid"] if moved else None

    driver = subprocess.Popen([*asked, "--workers", "2"], stderr=subprocess.PIPE, text=True)
    try:
        pid = until(lambda: training("trace_gru_s0"), seconds=120, what="training")
        os.kill(pid, signal.SIGKILL)
        until(lambda: read_attempts(out, "trace_gru_s0"), seconds=30, what="noted")
        other = until(lambda: training("trace_gru_s0", after=pid), seconds=120, what="taken up again")
    finally:
        driver.kill()
        driver.wait()
    until(lambda: not psutil.pid_exists(other), seconds=20, what="ended with its driver")
    assert read_attempts(out, "trace_gru_s0")[0]["reason"] == "the worker was ended by SIGKILL"
    stopped = load(run_folder(out, "trace_gru_s0")).step
    assert 0 < stopped < STEPS and stopped % 10 == 0

    spec = sweep(out, steps=STEPS)
    orders, begun = orders_of(spec), time.time()
    done = run_sweep(spec, orders, Here)
    assert done.finished == set(orders) and not done.losses
    assert read_attempts(out, "trace_gru_s0")[-1]["reason"] == "the sweep was stopped"
    assert read_attempts(out, "trace_gru_s0")[-1]["at"] >= begun
    gather(out, orders)
    pd.testing.assert_frame_equal(results(out), results(undisturbed), check_exact=True)


def test_a_pool_outlives_its_workers_and_says_what_became_of_them(tmp_path: Path) -> None:
    """No torch: an order that `work` refuses at once, around a worker that is killed while it idles or works."""
    pool, order = ProcessPool(1), {"out": str(tmp_path), "name": "a", "threads": 0}
    try:
        pool.submit(order)
        (ended,) = until(lambda: pool.wait(1.0), seconds=120, what="answered")
        assert ended.name == "a" and ended.lost is None and ended.result["state"] == "failed"
        pool._workers[0].process.kill()
        pool.submit(order)
        (ended,) = until(lambda: pool.wait(1.0), seconds=30, what="told as lost")
        assert ended == Ended("a", None, lost="the worker was ended by SIGKILL") and pool._workers == []
        pool.submit(order)
        pool.submit({**order, "name": "b"})
        both = [until(lambda: pool.wait(1.0), seconds=120, what="answered")[0].name for _ in range(2)]
        assert both == ["a", "b"]
    finally:
        pool.close()


def test_a_failure_is_tried_again_and_a_refusal_is_not(tmp_path: Path) -> None:
    """What a run lacks is said once; whatever else goes wrong is tried again, and its reason kept."""
    spec = sweep(tmp_path, verbs=["train", "circuit", "eval"], grid={"seed": [0]})
    orders = orders_of(spec)
    done = run_sweep(spec, orders, Here)
    stages = read_state(tmp_path, "trace_gru_s0")["stages"]
    assert done.finished == {"trace_gru_s0"} and not done.losses
    assert stages["circuit"]["state"] == "refused" and "gru" in stages["circuit"]["reason"]
    assert stages["eval"]["state"] == "done"

    class Failing(Here):
        def submit(self, order: Any) -> None:
            self.ended.append(Ended(order["name"], {"state": "failed", "reason": "OSError: the disk is full"}))

    forget(spec)
    assert not (tmp_path / "runs").exists()
    done = run_sweep(replace(spec, retries=2), orders, Failing)
    assert done.given_up == {"trace_gru_s0": "OSError: the disk is full"}
    assert len(read_attempts(tmp_path, "trace_gru_s0")) == 3
    done = run_sweep(spec, orders, Here)  # called again, it tries again
    assert done.finished == {"trace_gru_s0"}


def test_a_run_that_does_not_suit_is_marked_and_the_rest_goes_on(tmp_path: Path) -> None:
    """Masked diffusion needs an answer behind its prompt, a recurrent net one that follows: told before any step."""
    values = spec_values(verbs=["train", "eval"], grid={"seed": [0]}, runs=[{"training.data": 1}])
    with pytest.raises(ValueError, match="run trace_gru_data=1_s0: "):
        orders_of(spec_from(values, name="s"))
    runs = [{"architecture": "transformer"}, {"architecture": "gru", "task": "step_inplace", "name": "blind"}]
    values = spec_values(grid={"seed": [0]}, runs=runs)
    del values["set"]["options.n_steps"]
    spec = replace(spec_from(values, name="s"), out=tmp_path)
    orders = orders_of(spec)
    done = run_sweep(spec, orders, Here)
    stages = read_state(tmp_path, "blind_s0")["stages"]
    assert done.finished == set(orders)
    assert stages["train"]["state"] == "refused" and "eval" not in stages
    frame = gather(tmp_path, orders)
    assert frame["run"].unique().tolist() == ["trace_gru_transformer_s0"]
    assert frame.attrs["provenance"]["runs"]["blind_s0"]["stages"]["train"]["reason"] == stages["train"]["reason"]


def test_ctrl_c_closes_the_pool_and_leaves_the_sweep(tmp_path: Path) -> None:
    spec, pools = sweep(tmp_path), []

    class Interrupted(Here):
        def __init__(self) -> None:
            super().__init__()
            pools.append(self)

        def wait(self, seconds: float) -> list[Ended]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(spec, orders_of(spec), Interrupted)
    assert pools[0].closed
    held = sole_worker(tmp_path / "driver.lock", wait=0, what="it")  # nobody holds it any more
    with held, pytest.raises(RunError, match="another process works at the sweep"):
        run_sweep(spec, orders_of(spec), Here)


def test_a_plan_is_measured_and_kept(tmp_path: Path) -> None:
    """What a probe of eight steps says of a run is near what the run then takes, and probes leave nothing behind."""
    spec, probed = sweep(tmp_path, steps=STEPS, verbs=["train", "eval", "circuit"]), []
    found = measure_runs(spec, on_probe=lambda done, total, name: probed.append(name))
    assert probed == ["trace_gru_s0"]  # the other differs in its seed alone
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]
    orders = orders_of(spec)
    first, second = estimate(spec, orders, found)
    assert first.steps == STEPS and first.seconds == second.seconds and "gru" in first.refused["circuit"]
    assert set(first.seconds) == {"train", "eval"} and first.total_seconds == sum(first.seconds.values())
    assert measure_runs(spec, on_probe=lambda done, total, name: probed.append(name)) == found and len(probed) == 1
    work(orders["trace_gru_s0"])
    folder = run_folder(tmp_path, "trace_gru_s0")
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    assert 0.5 < first.bytes / size < 2
    took = read_state(tmp_path, "trace_gru_s0")["stages"]["train"]["seconds"]
    assert 0.1 < first.seconds["train"] / took < 10  # cores are shared with whoever else is there


def test_status_says_how_far_it_is_without_working(
    undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.toml"
    file.write_text(toml(spec_values(steps=STEPS, grid={"seed": [0, 1, 2]})))
    before = sorted(undisturbed.rglob("*"))
    main(["sweep", str(file), "--out", str(undisturbed), "--status"])
    shown = capsys.readouterr().out
    assert sorted(undisturbed.rglob("*")) == before
    assert shown.count("train eval") == 2 and "waiting" in shown


def test_what_waits_is_what_nobody_has() -> None:
    progress = Progress({name: {} for name in "abcd"}, running={"a"}, finished={"b"}, given_up={"c": "why"})
    assert progress.waiting == ["d"]
