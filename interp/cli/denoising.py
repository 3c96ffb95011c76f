"""Models that write otherwise: diffusion."""

from __future__ import annotations

from pathlib import Path

import tyro

from interp.cli.arguments import at_least, use_threads, writes
from interp.console import say, stage_display
from interp.runs import load


def diffusion(
    runs: tyro.conf.Positional[tuple[Path, ...]],
    *,
    n: int = 1_000,
    seed: int = 3,
    out: Path = Path("docs"),
    fresh: bool = False,
    threads: int = 1,
) -> None:
    """How models that fill in, denoise, or read by cross-attention come to an answer: orders, edits and swaps between
    passes, where the instruction is fetched, calibration by slot, what scratch slots gain; rows in
    RUN/diffusion.parquet, the page OUT/diffusion.md.

    Args:
        runs: run folders of masked or continuous diffusion, or encoder–decoders, about one step of the machine; or of
            any model about whole runs (output), to stand beside each other.
        n: held-out examples of each part; pairs are fewer.
        seed: of examples, pairs and noise.
        out: where the page goes.
        fresh: measure again, and replace, what a run folder already holds; rows of another n or seed stay otherwise.
        threads: PyTorch threads.
    """
    from interp.pages.diffusion import write_diffusion_page
    from interp.studies.diffusion import FILE, kept_or_measured

    at_least("--n", n, 1)
    if not runs:
        raise ValueError("name at least one run folder")
    opened = [load(run) for run in runs]
    for run in opened:
        writes(run.path, FILE)
    writes(out, "diffusion.md")
    use_threads(threads)
    rows = []
    with stage_display("denoising") as progress:
        for run in opened:
            rows.append(kept_or_measured(run, n=n, seed=seed, fresh=fresh, progress=progress))
    page = write_diffusion_page(opened, rows, out, n=n, seed=seed)
    say(f"{sum(len(each) for each in rows):,} rows; the page is {page}")
