"""Addition: sums, sums-lengths, sums-tables, sums-page."""

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
    n_held_out: int = 2000,
    digits: tuple[int, ...] = (),
    threads: int = 2,
) -> None:
    """How a model adds, into RUN/sums.parquet: cascades, rival accounts of the carry, clock, attention, lengths.

    Args:
        run: the run folder, of a model of addition.
        n: sums of each measurement.
        n_pairs: pairs on which the accounts disagree, for each place.
        n_held_out: held-out sums of each kind that are answered whole, cascades of every length equally often.
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
    at_least("--n-held-out", n_held_out, 10)
    use_threads(threads)
    opened = load(run)
    writes(opened.path, FILE)
    with stage_display("adding") as progress:
        rows = measure_sums(opened, n=n, n_pairs=n_pairs, n_held_out=n_held_out, progress=progress)
        if digits:
            longer = length_rows(opened, digits, n=min(n, 500), progress=progress)
            rows = pd.concat([rows, opened.identified(rows_frame(longer))], ignore_index=True)
    write_frame(rows, opened.path / FILE, provenance=provenance(opened.config, step=opened.step))
    say(f"{len(rows):,} rows in {opened.path / FILE}")


def sums_lengths(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    *,
    out: Path = Path("docs"),
    digits: tuple[int, ...] = (15, 20, 30, 50, 75, 100),
    n: int = 200,
    n_chosen: int = 2000,
    threads: int = 2,
) -> None:
    """Several trainings on numbers longer than they were trained on, into OUT/addition_lengths.parquet.

    Args:
        runs: run folders, of trainings that differ in their seed.
        out: the folder to write to.
        digits: exact match on two numbers of exactly so many.
        n: sums of each length, as they come and with all cascades equally often.
        n_chosen: validation sums on which the best training is chosen.
        threads: PyTorch threads.
    """
    from interp.pages.addition_tables import LENGTHS
    from interp.results import write_frame
    from interp.studies.sums import seed_length_rows

    at_least("--n", n, 10)
    at_least("--n-chosen", n_chosen, 10)
    use_threads(threads)
    writes(out, LENGTHS)
    opened = [load(run) for run in runs]
    with stage_display("longer numbers") as progress:
        rows = seed_length_rows(opened, digits, n=n, n_chosen=n_chosen, progress=progress)
    write_frame(rows, out / LENGTHS)
    say(f"{len(rows):,} rows in {out / LENGTHS}")


def sums_tables(
    *,
    out: Path = Path("docs"),
    folder: Path = Path("runs/addition_tables"),
    steps: int = 600,
    batch_size: int = 32,
    n: int = 2000,
    seed: int = 0,
    fresh: bool = False,
) -> None:
    """Sums said several tokens at once, and in other bases: trained, tested and timed on one thread, into
    OUT/addition_tables.parquet.

    Args:
        out: the folder to write to.
        folder: of the trainings; those that ended are not repeated.
        steps: of each training.
        batch_size: sums a step.
        n: held-out sums of each test.
        seed: of weights and sums.
        fresh: start over.
    """
    from interp.pages.addition_tables import TABLES
    from interp.results import write_frame
    from interp.studies.sum_tables import TablesConfig, measure_tables

    for name, value in (("--steps", steps), ("--batch-size", batch_size), ("--n", n)):
        at_least(name, value, 1)
    at_least("--seed", seed, 0)
    use_threads(1)
    writes(out, TABLES)
    writes(folder)
    config = TablesConfig(steps=steps, batch_size=batch_size, n=n, seed=seed)
    with stage_display("sums side by side") as progress:
        rows = measure_tables(folder, config, fresh=fresh, progress=progress)
    write_frame(rows, out / TABLES)
    say(f"{len(rows):,} rows in {out / TABLES}")


def sums_page(runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs")) -> None:
    """Write addition.md about RUNS and its picture, from what tapelens sums measured on them, and from the rows of
    tapelens sums-lengths and sums-tables that are in OUT.

    Args:
        runs: run folders; the first is told in detail.
        out: the folder to write to.
    """
    from interp.pages.addition import FILE, PICTURE, write_addition_page
    from interp.pages.addition_tables import LENGTHS, TABLES
    from interp.results import read_frame

    writes(out, "addition.md", PICTURE)
    opened = [load(run) for run in runs]
    beside = [read_frame(out / name) if (out / name).exists() else None for name in (TABLES, LENGTHS)]
    page = write_addition_page([(run, read_frame(run.path / FILE)) for run in opened], out, *beside)
    say(f"page in {page}")
