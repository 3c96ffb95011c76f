"""A sweep: many runs from one file, each trained and measured, on whatever machines there are, into one frame.

A run is a function of its config, its folder tells what it has, and everything is written whole or not at all. So a
worker, a driver or a machine may be lost at any moment: what was done stays done, a training goes on from its last
checkpoint, and the same call finishes what is left.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from interp.files import write_json
from interp.runs import versions
from interp.studies.sweep_pool import Ended, Pool
from interp.studies.sweep_spec import SweepSpec
from interp.studies.sweep_state import (
    PLAN,
    RESULTS,
    RUNS,
    SPEC,
    STATE,
    TOKEN,
    add_attempt,
    read_attempts,
    read_state,
    sole_worker,
)
from interp.studies.sweep_work import finished, order_for

LOOK_EVERY = 1.0  # seconds between looks at who has ended


@dataclass
class Progress:
    """A sweep as it goes, for whoever shows it."""

    orders: dict[str, dict[str, Any]]
    running: set[str] = field(default_factory=set)
    given_up: dict[str, str] = field(default_factory=dict)  # run → the last reason
    finished: set[str] = field(default_factory=set)
    losses: list[tuple[str, str]] = field(default_factory=list)  # (run, reason), in the order they came

    @property
    def waiting(self) -> list[str]:
        """Runs that nobody works at, not finished and not given up, in the order of the file."""
        return [name for name in self.orders if name not in self.running | self.finished | set(self.given_up)]


def orders_of(
    spec: SweepSpec, *, step_seconds: Mapping[str, float] | None = None, command: str | None = None
) -> dict[str, dict[str, Any]]:
    """What each run of a sweep asks of a worker, by name.

    Args:
        spec: the sweep.
        step_seconds: measured seconds of a step, by run, where the budget is in seconds.
        command: the command line that makes the sweep, which each run records.

    Raises:
        ValueError: a run that cannot be.
    """
    orders = {}
    for cell in spec.cells:
        config = cell.config(threads=spec.resources.n_threads)
        config = spec.budget.applied(config, step_seconds=(step_seconds or {}).get(cell.name))
        orders[cell.name] = order_for(
            spec.out,
            cell.name,
            config.to_dict(),
            config.digest,
            spec.verbs,
            spec.options,
            threads=spec.resources.n_threads,
            command=command,
        )
    return orders


def run_sweep(
    spec: SweepSpec,
    orders: Mapping[str, dict[str, Any]],
    make_pool: Callable[[], Pool],
    *,
    on_look: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Work until every run is finished or given up. `make_pool` is called once it is known that there is work.

    A run whose worker died, or that failed, is tried again up to `spec.retries` times; each reason is kept.

    Raises:
        RunError: another driver works at the same sweep.
        KeyboardInterrupt: as it came; every run can be gone on with.
    """
    with sole_worker(spec.out / "driver.lock", wait=0.0, what=f"the sweep {spec.out}"):
        (spec.out / TOKEN).unlink(missing_ok=True)  # of a driver that was killed
        _write_spec(spec, orders)
        progress = Progress(dict(orders), finished={name for name, order in orders.items() if finished(order)})
        _note_killed(spec, progress)
        if not progress.waiting:
            return progress
        pool = make_pool()
        try:
            while progress.waiting or progress.running:
                for name in progress.waiting[: max(0, pool.slots - len(progress.running))]:
                    pool.submit(orders[name])
                    progress.running.add(name)
                on_look(progress)
                for ended in pool.wait(LOOK_EVERY):
                    _take(spec, progress, ended)
            on_look(progress)
        finally:
            pool.close()
        return progress


def _take(spec: SweepSpec, progress: Progress, ended: Ended) -> None:
    """What an attempt came to: finished, to be tried again, or given up."""
    progress.running.discard(ended.name)
    result = ended.result or {}
    if result.get("state") == "done":
        progress.finished.add(ended.name)
        return
    reason = ended.lost or result.get("reason", "no reason was given")
    progress.losses.append((ended.name, reason))
    add_attempt(spec.out, ended.name, reason)
    if sum(name == ended.name for name, _ in progress.losses) > spec.retries:
        progress.given_up[ended.name] = reason


def _note_killed(spec: SweepSpec, progress: Progress) -> None:
    """Runs that an earlier driver left in the middle: their attempts ended with it, by no fault of theirs."""
    for name in progress.waiting:
        state, attempts = read_state(spec.out, name), read_attempts(spec.out, name)
        if state.get("state") == "running" and (not attempts or attempts[-1]["at"] < state.get("updated", 0)):
            add_attempt(spec.out, name, "the sweep was stopped")


def _write_spec(spec: SweepSpec, orders: Mapping[str, dict[str, Any]]) -> None:
    """What the sweep is made of, beside its results."""
    runs = {name: order["digest"] for name, order in orders.items()}
    write_json(
        spec.out / SPEC,
        {"name": spec.name, "versions": versions(), "verbs": list(spec.verbs), "runs": runs},
    )


def forget(spec: SweepSpec) -> None:
    """Remove what the sweep left: run folders, notes, plan and results. Other files of the folder stay."""
    for name in (RUNS, STATE):
        shutil.rmtree(spec.out / name, ignore_errors=True)
    for name in (PLAN, RESULTS, SPEC, "driver.lock"):
        (spec.out / name).unlink(missing_ok=True)


def default_workers(spec: SweepSpec) -> int:
    """How many runs fit on this machine at once."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // spec.resources.cpus)
