"""Probing: probe, probing-page."""

from __future__ import annotations

import functools
from pathlib import Path

import tyro

from interp.cli.arguments import RunPath, at_least, use_threads, writes
from interp.console import say, stage_display
from interp.runs import load

PROBED = ("probes.parquet", "probe_errors.parquet", "probes.safetensors")  # what is written into a run folder


def probe(
    run: RunPath,
    *,
    variables: tuple[str, ...] = (),
    positions: tuple[str, ...] = (),
    sites: tuple[str, ...] = (),
    methods: tuple[str, ...] = ("logistic",),
    n: int | None = None,
    edits: int | None = None,
    controls: bool = True,
    along: bool = False,
    seed: int = 3,
    fresh: bool = False,
    threads: int = 2,
) -> None:
    """Probe variables x layers x positions, with controls, into RUN/probes.parquet.

    Saved after every hook: the same command continues where it stopped.

    Args:
        run: the run folder.
        variables: names such as op, operand, cell[0] (default: the machine's derived variables; of streams, the
            pointer, every cell and loop state).
        positions: names such as cells[0] or instructions[@instruction_ptr] (default: the telling ones); of streams
            stream (all tokens pooled), ops, answers, asked, or a token such as stream[7].
        sites: hooks, such as blocks.0.hook_mlp_out (default: the residual stream before and after every layer).
        methods: logistic, ridge, mean_difference or mlp (one hidden layer), several if you like.
        n: states, or tokens of streams, split by program into fit and held-out halves.
        edits: pairs on which writing along each probe is judged by the machine (default: 64; 0: none).
        controls: also fit control task, shuffled labels, altered semantics and an untrained model, and measure code
            lengths (--no-controls: a quarter of the time).
        along: at every checkpoint that the run kept instead, into RUN/steps/STEP/.
        seed: of the states.
        fresh: measure again what the file already holds.
        threads: PyTorch threads.
    """
    from interp.results import records
    from interp.studies.probe_stage import probe_stage
    from interp.studies.probe_sweep import n_probes, peak_megabytes, probe_along

    if n is not None:
        at_least("--n", n, 1)
    use_threads(threads)
    opened = load(run)
    writes(opened.path, *(["steps/"] if along else PROBED))
    stage = functools.partial(
        probe_stage,
        variables=variables,
        positions=positions,
        hooks=sites,
        methods=methods,
        n=n,
        n_edits=edits,
        controls=controls,
        seed=seed,
        fresh=fresh,
    )
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
