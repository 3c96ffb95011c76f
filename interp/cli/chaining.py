"""Chains of thought: chains."""

from __future__ import annotations

from pathlib import Path

import tyro

from interp.cli.arguments import at_least, use_threads, writes
from interp.console import say, stage_display
from interp.reading import read_json
from interp.runs import load


def chains(
    runs: tyro.conf.Positional[tuple[Path, ...]] = (),
    *,
    n: int = 2048,
    n_sampled: int = 64,
    seed: int = 2,
    out: Path = Path("docs"),
    fresh: bool = False,
    threads: int = 1,
) -> None:
    """Whether a chain of thought is used, of runs of the task scratchpad: right by steps run, edits of one entry,
    pass@k; rows in RUN/chains.parquet and, of all runs so far, in OUT/chains.parquet; the page OUT/chains.md.

    Args:
        runs: run folders; rows of others that OUT/chains.parquet holds already stay on the page. None: the page anew.
        n: held-out programs of each bin, and edits.
        n_sampled: programs of each bin that 64 answers are sampled of, 0: none.
        seed: of programs, edits and samples.
        out: where the page goes.
        fresh: measure again what a run folder already holds.
        threads: PyTorch threads.
    """
    from interp.commands import command, this_command
    from interp.pages.chains import beside, write_chains_page
    from interp.results import read_frame, write_frame
    from interp.studies.chains import kept_or_measured, require_chain

    at_least("--n", n, 1)
    at_least("--n-sampled", n_sampled, 0)
    there = (out / "chains.parquet").exists()
    if not runs and not there:
        raise ValueError(f"name at least one run folder: {out} holds no chains.parquet yet")
    opened = [load(run) for run in runs]
    for run in opened:
        writes(run.path, "chains.parquet")
    writes(out, "chains.md", "chains.svg", "chains.parquet")
    for run in opened:
        require_chain(run)
    use_threads(threads)
    rows = read_frame(out / "chains.parquet") if there else None
    told = {} if rows is None else rows.attrs["provenance"]
    made, measured = dict(told.get("commands", {})), this_command() if runs else told.get("measured", "")
    with stage_display("chains of thought") as progress:
        for run in opened:
            own = kept_or_measured(run, n=n, n_sampled=n_sampled, seed=seed, fresh=fresh, progress=progress)
            rows = beside(own, rows)
            made[run.name] = read_json(run.path / "config.json", "a run's config").get("command") or ""
    assert rows is not None
    if runs:
        write_frame(rows, out / "chains.parquet", provenance={"commands": made, "measured": measured})
    page = write_chains_page(rows, made, command("chains", "--out", out), measured, out)
    say(f"{len(rows):,} rows in {out / 'chains.parquet'}; the page is {page}")
