"""Slot machines: slots, slots-page."""

from __future__ import annotations

from pathlib import Path

import tyro

from interp.cli.arguments import RunPath, at_least, use_threads, writes
from interp.console import say, stage_display
from interp.runs import load


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
    from interp.results import write_frame
    from interp.runs import provenance
    from interp.studies.slots import measure_slots

    at_least("--n", n, 10)
    at_least("--n-pairs", n_pairs, 4)
    use_threads(threads)
    opened = load(run)
    writes(opened.path, FILE)
    with stage_display("planning and executing") as progress:
        rows = measure_slots(opened, n=n, n_pairs=n_pairs, sizes=sizes, progress=progress)
    write_frame(rows, opened.path / FILE, provenance=provenance(opened.config, step=opened.step))
    say(f"{len(rows):,} rows in {opened.path / FILE}")


def slots_page(runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs")) -> None:
    """Write slots.md about RUNS and its picture, from what tapelens slots measured on them.

    Args:
        runs: run folders, in the order of the page.
        out: the folder to write to.
    """
    from interp.pages.slots import FILE, PICTURE, write_slots_page
    from interp.results import read_frame

    writes(out, "slots.md", PICTURE)
    opened = [load(run) for run in runs]
    path = write_slots_page([(run, read_frame(run.path / FILE)) for run in opened], out)
    say(f"page in {path}")
