"""Chains of thought: chains."""

from __future__ import annotations

from pathlib import Path

import tyro

from interp.cli.arguments import at_least, use_threads, writes
from interp.console import say, stage_display
from interp.reading import read_json
from interp.runs import load


def chains(
    runs: tyro.conf.Positional[tuple[Path, ...]],
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
        runs: run folders; rows of others that OUT/chains.parquet holds already stay on the page.
        n: held-out programs of each bin, and edits.
        n_sampled: programs of each bin that 64 answers are sampled of, 0: none.
        seed: of programs, edits and samples.
        out: where the page goes.
        fresh: measure again what a run folder already holds.
        threads: PyTorch threads.
    """
    from interp.commands import command
    from interp.pages.chains import beside, write_chains_page
    from interp.results import read_frame, write_frame
    from interp.studies.chains import kept_or_measured, require_chain

    at_least("--n", n, 1)
    at_least("--n-sampled", n_sampled, 0)
    if not runs:
        raise ValueError("name at least one run folder")
    opened = [load(run) for run in runs]
    for run in opened:
        require_chain(run)
        writes(run.path, "chains.parquet")
    writes(out, "chains.md", "chains.svg", "chains.parquet")
    use_threads(threads)
    kept = read_frame(out / "chains.parquet") if (out / "chains.parquet").exists() else None
    made = dict(kept.attrs["provenance"].get("commands", {})) if kept is not None else {}
    rows = kept
    with stage_display("chains of thought") as progress:
        for run in opened:
            own = kept_or_measured(run, n=n, n_sampled=n_sampled, seed=seed, fresh=fresh, progress=progress)
            rows = beside(own, rows)
            made[run.name] = read_json(run.path / "config.json", "a run's config").get("command") or ""
    assert rows is not None
    asked = command("chains", *(run.path for run in opened), "--out", out)
    write_frame(rows, out / "chains.parquet", provenance={"commands": made, "command": asked})
    page = write_chains_page(rows, made, asked, out)
    say(f"{len(rows):,} rows in {out / 'chains.parquet'}; the page is {page}")
