"""Addition: sums, sums-page."""

from __future__ import annotations

from pathlib import Path

import tyro

from interp.cli.arguments import RunPath, at_least, use_threads, writes
from interp.console import say, stage_display
from interp.runs import load


def sums(
    run: RunPath,
    *,
    n: int = 2000,
    n_pairs: int = 128,
    digits: tuple[int, ...] = (),
    threads: int = 2,
) -> None:
    """How a model adds, into RUN/sums.parquet: cascades, rival accounts of the carry, clock, attention, lengths.

    Args:
        run: the run folder, of a model of addition.
        n: sums of each measurement.
        n_pairs: pairs on which the accounts disagree, for each place.
        digits: also exact match on numbers of exactly so many digits, such as 10 20 50.
        threads: PyTorch threads.
    """
    import pandas as pd

    from interp.pages.addition import FILE
    from interp.results import rows_frame, write_frame
    from interp.runs import provenance
    from interp.studies.sums import length_rows, measure_sums

    at_least("--n", n, 10)
    at_least("--n-pairs", n_pairs, 4)
    use_threads(threads)
    opened = load(run)
    writes(opened.path, FILE)
    with stage_display("adding") as progress:
        rows = measure_sums(opened, n=n, n_pairs=n_pairs, progress=progress)
        if digits:
            longer = length_rows(opened, digits, n=min(n, 500), progress=progress)
            rows = pd.concat([rows, opened.identified(rows_frame(longer))], ignore_index=True)
    write_frame(rows, opened.path / FILE, provenance=provenance(opened.config, step=opened.step))
    say(f"{len(rows):,} rows in {opened.path / FILE}")


def sums_page(runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs")) -> None:
    """Write addition.md about RUNS and its picture, from what tapelens sums measured on them.

    Args:
        runs: run folders; the first is told in detail.
        out: the folder to write to.
    """
    from interp.pages.addition import FILE, PICTURE, write_addition_page
    from interp.results import read_frame

    writes(out, "addition.md", PICTURE)
    opened = [load(run) for run in runs]
    page = write_addition_page([(run, read_frame(run.path / FILE)) for run in opened], out)
    say(f"page in {page}")
