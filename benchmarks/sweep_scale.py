"""What a sweep costs beside its runs: many tiny ones, the driver's memory as it goes, seconds a run, files left.

    python -m benchmarks.sweep_scale --runs 200 --pool processes

Docs/scale.md says what was measured. Memory is the resident set of the driver, sampled twice a second; overhead is the
time of the workers that no stage of a run accounts for, a run, from the first run's start on.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil
import tyro

from interp.studies.sweep import orders_of, run_sweep
from interp.studies.sweep_gather import gather
from interp.studies.sweep_pool import Pool, ProcessPool
from interp.studies.sweep_ray import RayPool
from interp.studies.sweep_spec import SweepSpec, read_spec, spec_from
from interp.studies.sweep_state import read_state

SPEC = Path(__file__).resolve().parents[1] / "examples" / "sweep_tiny.toml"


def tiny_sweep(out: Path, runs: int) -> SweepSpec:
    """So many runs of a one-layer transformer on a very small machine, 20 steps each, trained and evaluated."""
    values: dict[str, Any] = {
        "verbs": ["train", "eval"],
        "grid": {"seed": list(range(runs))},
        "set": {name: value for name, value in read_spec(SPEC).cells[0].settings.items() if name not in ("seed",)},
        "options": {"eval": {"n": 128, "programs": 0}},
    }
    values["set"]["training.steps"] = 20
    return replace(spec_from(values, name="scale"), out=out)


def main(*, runs: int = 200, pool: Literal["processes", "ray"] = "processes", workers: int = 2) -> None:
    """Run it and print what was found.

    Args:
        runs: how many.
        pool: what works at them.
        workers: at a time.
    """
    with tempfile.TemporaryDirectory(prefix="tapelens-scale-") as place:
        spec = tiny_sweep(Path(place), runs)
        began = time.perf_counter()
        orders = orders_of(spec)
        planned = time.perf_counter()
        samples: list[tuple[int, float]] = []  # finished runs, MB
        done, stop = [0], threading.Event()
        me = psutil.Process()

        def sample() -> None:
            while not stop.wait(0.5):
                samples.append((done[0], me.memory_info().rss / 1e6))

        def make() -> Pool:
            if pool == "ray":
                return RayPool(spec.out, spec.resources, cpus=workers)
            return ProcessPool(workers)

        threading.Thread(target=sample, daemon=True).start()
        run_sweep(spec, orders, make, on_look=lambda progress: done.__setitem__(0, len(progress.finished)))
        finished = time.perf_counter()
        frame = gather(spec.out, orders)
        stop.set()
        states = [read_state(spec.out, name) for name in orders]
        first = min(each["updated"] - each["seconds"] for each in states)
        span = max(each["updated"] for each in states) - first
        stages = [sum(each["seconds"] for each in state["stages"].values()) for state in states]
        files = [file for file in spec.out.rglob("*") if file.is_file()]
        early = [mb for n, mb in samples if n <= max(2, runs // 20)]
        late = [mb for n, mb in samples if n >= runs - max(2, runs // 20)]
        print(f"{runs} runs, {pool}, {workers} at a time: {finished - planned:.1f} s")
        begun, gathered = finished - planned - span, time.perf_counter() - finished
        print(f"configs of all runs: {planned - began:.1f} s; start to the first run: {begun:.1f} s")
        print(f"gathering {len(frame):,} rows: {gathered:.1f} s")
        overhead = (span * workers - sum(stages)) / runs
        print(f"a run: stages {statistics.median(stages):.2f} s (median), overhead {overhead:.3f} s")
        print(f"driver: {statistics.median(early):.0f} MB at the start, {statistics.median(late):.0f} MB at the end")
        print(f"files a run: {len(files) / runs:.1f}, {sum(f.stat().st_size for f in files) / runs / 1e3:.0f} kB")


if __name__ == "__main__":
    tyro.cli(main)
