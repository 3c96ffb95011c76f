"""Probing: probe, probing-page."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated

import tyro

from interp.cli.arguments import RunPath, use_threads, writes
from interp.console import say, stage_display
from interp.runs import load
from interp.stage_options import ProbeOptions

PROBED = ("probes.parquet", "probe_errors.parquet", "probes.safetensors")  # what is written into a run folder


def probe(
    run: RunPath,
    *,
    asked: Annotated[ProbeOptions, tyro.conf.arg(name="")] = ProbeOptions(),  # noqa: B008 (frozen)
    along: bool = False,
    fresh: bool = False,
    threads: int = 2,
) -> None:
    """Probe variables x layers x positions, with controls, into RUN/probes.parquet.

    Saved after every hook: the same command continues where it stopped.

    Args:
        run: the run folder.
        asked: what to probe for, where and how.
        along: at every checkpoint that the run kept instead, into RUN/steps/STEP/.
        fresh: measure again what the file already holds.
        threads: PyTorch threads.
    """
    from interp.results import records
    from interp.studies.probe_stage import probe_stage
    from interp.studies.probe_sweep import n_probes, peak_megabytes, probe_along

    use_threads(threads)
    opened = load(run)
    writes(opened.path, *(["steps/"] if along else PROBED))
    stage = functools.partial(probe_stage, options=asked, fresh=fresh)
    with stage_display("probing") as progress:
        if along:
            rows = probe_along(opened, lambda then, report: stage(then, progress=report), progress=progress)
        else:
            rows = stage(opened, progress=progress)
    where = opened.path / "steps" if along else opened.path / "probes.parquet"
    say(f"{len(rows):,} rows about {n_probes(records(rows)):,} probes in {where}; {peak_megabytes():,.0f} MB at most")


def probing_page(runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs")) -> None:
    """Write probing.md and its figures about RUNS, from what tapelens probe measured on them.

    Args:
        runs: run folders.
        out: the folder to write to.
    """
    opened = [load(run) for run in runs]
    writes(out, "probing.md")
    from interp.pages.probing import write_probing_page

    say(f"page in {write_probing_page(opened, out)}")
