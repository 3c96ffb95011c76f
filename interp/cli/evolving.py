"""The search for programs behind `tapelens evolve`: into one file, continued where it stopped, told in numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.table import Table

from cython_vm import MachineSpec
from cython_vm.comparison import METRICS
from cython_vm.evolution import EvolutionConfig, ProgramArchive, evolve

_SAVE_EVERY = 10.0  # seconds


def evolve_into(
    out: Path,
    spec: MachineSpec,
    n_generations: int,
    *,
    config: EvolutionConfig,
    fresh: bool = False,
    progress: Callable[[float, float, str], None],
) -> tuple[ProgramArchive, float]:
    """Search until n_generations are done and keep `out` up to date, also when interrupted; the archive and the runs
    a minute. A file that is there is continued. Raises ValueError if it was begun with other settings."""
    archive = None
    if out.exists() and not fresh:
        archive = ProgramArchive.load(out)
        if (archive.spec, archive.config) != (spec, config):
            raise ValueError(
                f"{out} was begun with {archive.spec}, {archive.config}; use those, another --out, or --fresh"
            )
    before = archive.evaluations if archive is not None else 0
    began = saved = time.perf_counter()
    latest = archive

    def on_generation(now: ProgramArchive) -> None:
        nonlocal latest, saved
        latest = now
        rate = (now.evaluations - before) / (time.perf_counter() - began) * 60
        progress(now.generation, n_generations, f"{len(now):,} programs, {rate / 1e6:.1f} million runs a minute")
        if time.perf_counter() - saved > _SAVE_EVERY:
            now.save(out)
            saved = time.perf_counter()

    try:
        archive = evolve(spec, n_generations, config=config, archive=archive, on_generation=on_generation)
    finally:
        if latest is not None and latest.evaluations > before:
            latest.save(out)
    return archive, (archive.evaluations - before) / (time.perf_counter() - began) * 60


def comparison_table(comparison: NDArray[np.void]) -> Table:
    """`compare_with_uniform` as a table: evolved beside uniform, with 95 % intervals."""
    columns = [comparison[comparison["programs"] == name] for name in ("evolved", "uniform")]
    n = int(comparison["n"][0])
    table = Table(title=f"{n:,} programs each, on inputs that the search has not seen", box=SIMPLE)
    table.add_column("")
    table.add_column("evolved", justify="right")
    table.add_column("uniform", justify="right")
    for evolved, uniform in zip(*columns, strict=True):
        table.add_row(METRICS[str(evolved["metric"])][0], _interval(evolved), _interval(uniform))
    return table


def _interval(row: np.void) -> str:
    return f"{row['estimate']:.3g} [{row['ci_low']:.3g}, {row['ci_high']:.3g}]"
