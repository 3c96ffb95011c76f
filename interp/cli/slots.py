"""Slot machines: slots, slots-inside, slots-restarts, slots-page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tyro

from interp.cli.arguments import RunPath, at_least, use_threads, writes
from interp.console import say, stage_display
from interp.runs import Run, load, provenance


def slots(
    run: RunPath,
    *,
    n: int = 1000,
    n_pairs: int = 200,
    sizes: tuple[int, ...] = (5, 10, 20, 22),
    threads: int = 2,
) -> None:
    """What a slot machine plans and executes, into RUN/slots.parquet: by size, its ALU, interchange on its state.

    Args:
        run: the run folder, of a slot machine.
        n: held-out inputs of each size.
        n_pairs: pairs of the interchange.
        sizes: digits or values of the inputs, each for itself.
        threads: PyTorch threads.
    """
    from interp.pages.slots import FILE
    from interp.studies.slots import measure_slots

    at_least("--n", n, 10)
    at_least("--n-pairs", n_pairs, 4)
    use_threads(threads)
    opened = load(run)
    writes(opened.path, FILE)
    with stage_display("planning and executing") as progress:
        rows = measure_slots(opened, n=n, n_pairs=n_pairs, sizes=sizes, progress=progress)
    _keep(rows, opened, FILE)


def slots_inside(run: RunPath, *, n: int = 100, n_pairs: int = 200, n_probed: int = 1000, threads: int = 2) -> None:
    """What a slot machine holds while it runs softly, and where its controller has the plan, into
    RUN/slots_inside.parquet: interchange, probes, how sharp addresses must be, gradients by step, its ALU's entries.

    Args:
        run: the run folder, of a slot machine.
        n: inputs of each size on the curve of sharpness.
        n_pairs: pairs of each interchange.
        n_probed: inputs of the probes, half to fit and half to score.
        threads: PyTorch threads.
    """
    from interp.pages.slots import INSIDE
    from interp.studies.slot_inside import measure_inside

    at_least("--n", n, 4)
    at_least("--n-pairs", n_pairs, 4)
    at_least("--n-probed", n_probed, 40)
    use_threads(threads)
    opened = load(run)
    writes(opened.path, INSIDE)
    with stage_display("looking inside") as progress:
        rows = measure_inside(opened, n=n, n_pairs=n_pairs, n_probed=n_probed, progress=progress)
    _keep(rows, opened, INSIDE)


def _keep(rows: Any, run: Run, file: str) -> None:
    """Write rows into the run folder, and say so."""
    from interp.results import write_frame

    write_frame(rows, run.path / file, provenance=provenance(run.config, step=run.step))
    say(f"{len(rows):,} rows in {run.path / file}")


def slots_restarts(
    *, out: Path = Path("docs"), n_restarts: int = 64, n_steps: int = 300, seed: int = 0, threads: int = 2
) -> None:
    """Whether programs of at most eight slots are found by gradients from final answers alone, in many restarts, into
    OUT/slots_restarts.parquet: success rates, with gradient noise and an entropy bonus, and the programs found.

    Args:
        out: the folder to write to.
        n_restarts: of each program and way.
        n_steps: of the optimizer.
        seed: of what restarts begin from.
        threads: PyTorch threads.
    """
    from interp.pages.slots import RESTARTS
    from interp.results import write_frame
    from interp.studies.slot_restarts import measure_restarts

    at_least("--n-restarts", n_restarts, 1)
    at_least("--n-steps", n_steps, 1)
    at_least("--seed", seed, 0)
    use_threads(threads)
    writes(out, RESTARTS)
    with stage_display("restarting") as progress:
        rows = measure_restarts(n_restarts=n_restarts, n_steps=n_steps, seed=seed, progress=progress)
    write_frame(rows, out / RESTARTS)
    say(f"{len(rows):,} rows in {out / RESTARTS}")


def slots_page(
    runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs"), restarts: Path | None = None
) -> None:
    """Write slots.md about RUNS and its picture, from what tapelens slots, slots-inside and slots-restarts measured.

    Args:
        runs: run folders, in the order of the page.
        out: the folder to write to.
        restarts: the rows of tapelens slots-restarts (default: those in OUT, if there are any).
    """
    from interp.pages.slots import FILE, INSIDE, PICTURE, RESTARTS, write_slots_page
    from interp.results import read_frame

    writes(out, "slots.md", PICTURE)
    opened = [load(run) for run in runs]
    inside = [(run, read_frame(run.path / INSIDE)) for run in opened if (run.path / INSIDE).exists()]
    found = restarts or out / RESTARTS
    searched = read_frame(found) if restarts or found.exists() else None
    path = write_slots_page([(run, read_frame(run.path / FILE)) for run in opened], out, inside, searched)
    say(f"page in {path}")
