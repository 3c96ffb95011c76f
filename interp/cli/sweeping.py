"""Many runs from one file: sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from interp.cli.arguments import at_least, writes
from interp.commands import command, this_command
from interp.console import console, say, stage_display
from interp.runs import RunError

if TYPE_CHECKING:
    from interp.studies.sweep_pool import Pool
    from interp.studies.sweep_spec import SweepSpec

PoolKind = Literal["auto", "ray", "processes"]
SWEPT = ("runs/", "state/", "results.parquet", "plan.json", "sweep.json")  # what is written into a sweep's folder


def sweep(
    spec: Annotated[Path, tyro.conf.Positional],
    *,
    out: Path | None = None,
    dry_run: bool = False,
    status: bool = False,
    pool: PoolKind = "auto",
    address: str | None = None,
    workers: int | None = None,
    fresh: bool = False,
) -> None:
    """Train and measure many runs from one file, into one frame. A second call finishes what is left.

    Workers, machines and the sweep itself may be stopped at any time: trainings go on from their last checkpoint.

    Args:
        spec: a .toml file: a grid or list of runs, the verbs to run on each, and a budget (docs/scale.md).
        out: the sweep's folder, on a file system that all machines share (default: as the file says, or runs/NAME).
        dry_run: probe each run shortly; say how long all would take, and how much disk, and stop.
        status: say how far the sweep has come, and stop.
        pool: what works: Ray, or processes of this machine (auto: Ray where it is installed).
        address: of a Ray cluster that is there, HOST:PORT (default: a small one on this machine, for the time).
        workers: runs at a time on this machine (default: as many as its cores allow).
        fresh: start over; run folders of the sweep are removed.
    """
    from interp.studies.sweep_spec import read_spec

    if workers is not None:
        at_least("--workers", workers, 1)
    if address is not None and (pool == "processes" or workers is not None):
        raise ValueError("--address names a cluster of Ray; leave --workers and --pool processes out")
    asked = read_spec(spec)
    asked = asked if out is None else replace(asked, out=out)
    if not status:
        writes(asked.out, *SWEPT)

    from interp.cli.sweep_table import plan_sentence, plan_table, status_table, sweep_display
    from interp.studies.sweep import default_workers, forget, orders_of, run_sweep
    from interp.studies.sweep_gather import gather

    if status:
        console.print(status_table(asked.out, [cell.name for cell in asked.cells]))
        return
    if fresh:
        forget(asked)
    n_workers = workers or default_workers(asked)
    found = None
    if dry_run or asked.budget.seconds is not None:
        from interp.studies.sweep_plan import estimate, measure_runs

        with stage_display("probing the runs") as progress:
            found = measure_runs(asked, stages=dry_run, on_probe=progress)
    seconds = {name: each.step_seconds for name, each in found.items()} if found else None
    orders = orders_of(asked, step_seconds=seconds, command=this_command())
    if dry_run:
        estimates = estimate(asked, orders, found or {})
        console.print(plan_table(estimates))
        say(plan_sentence(estimates, workers=n_workers))
        for each in estimates:
            for verb, reason in each.refused.items():
                say(f"{each.name}: {verb} n/a: {reason}")
        return
    with sweep_display(asked.out, list(orders)) as display:
        done = run_sweep(asked, orders, _pool(asked, pool, address, n_workers), on_look=display)
    frame = gather(asked.out, orders)
    console.print(status_table(asked.out, list(orders), done))
    say(f"{len(frame):,} rows of {len(orders)} runs in {asked.out / 'results.parquet'}")
    if done.given_up:
        again = command("sweep", spec, *(["--out", out] if out else []))
        raise RunError(
            f"{len(done.given_up)} of {len(orders)} runs were given up; the same command tries again: {again}"
        )


def _pool(asked: SweepSpec, pool: PoolKind, address: str | None, workers: int) -> Callable[[], Pool]:
    """What makes the pool that is asked for, once there is something to do."""
    from interp.studies.sweep_pool import ProcessPool
    from interp.studies.sweep_ray import RayPool, has_ray

    resources = asked.resources
    if pool == "ray" or address is not None or (pool == "auto" and has_ray()):
        return lambda: RayPool(asked.out, resources, address=address, cpus=workers * resources.cpus)
    return lambda: ProcessPool(workers, threads=resources.n_threads)
