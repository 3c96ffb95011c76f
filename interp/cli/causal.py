"""Causal tests of a model: patch, states-page, sources, circuit, circuit-page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from interp.cli.arguments import RunPath, use_threads, writes
from interp.console import console, say, stage_display
from interp.runs import Run, load
from interp.stage_options import CircuitOptions, PatchOptions, SourceOptions

PATCHED = ("interventions.parquet",)  # what the verbs write into a run folder
STATES = "states.parquet"
SOURCES = "sources.parquet"
CIRCUITS = ("circuits/", "circuits.parquet", "attention.safetensors")


def patch(
    run: RunPath,
    *,
    asked: Annotated[PatchOptions, tyro.conf.arg(name="")] = PatchOptions(),  # noqa: B008 (frozen)
    part: tuple[str, ...] = (),
    fresh: bool = False,
    threads: int = 2,
) -> None:
    """Interchange interventions, judged by the machine, into RUN/interventions.parquet.

    Args:
        run: the run folder.
        asked: what to swap, where and how.
        part: in place of all this, exchange parts of what the model carries from token to token, into
            RUN/states.parquet: all, layers, groups (heads or channels), layer0, layer1.head2, subspaces, or one of
            probe_subspace, mean_difference, das. With other numbers than the file was measured with, it is kept, and
            what is measured anew is shown beside it.
        fresh: measure again what the file already holds.
        threads: PyTorch threads.
    """
    from interp.studies.patch_stage import patch_stage

    use_threads(threads)
    opened = load(run)
    if part:
        _states(opened, part, asked, fresh=fresh)
        return
    writes(opened.path, *PATCHED)
    with stage_display("intervening") as progress:
        rows = patch_stage(opened, asked, fresh=fresh, progress=progress)
    say(f"{len(rows):,} rows in {opened.path / 'interventions.parquet'}")


def _states(run: Run, parts: tuple[str, ...], asked: PatchOptions, *, fresh: bool) -> None:
    """State interchange, and its table."""
    from interp.interventions import SubspaceFit
    from interp.studies.state_stage import headlines, state_stage
    from interp.studies.state_tables import state_table

    writes(run.path, STATES)
    with stage_display("exchanging states") as progress:
        found = state_stage(
            run,
            variables=asked.variables,
            parts=parts,
            n_pairs=asked.n_pairs,
            seed=asked.seed,
            fit=SubspaceFit(rank=asked.rank),
            fresh=fresh,
            progress=progress,
        )
    console.print(state_table(found.headlines, None if found.kept is None else headlines(found.kept)))
    if found.kept is not None:
        say(f"{run.path / STATES} was measured with other numbers and is kept; --fresh replaces it")
    else:
        say(f"{len(found.asked):,} rows in {run.path / STATES}")


def states_page(runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs")) -> None:
    """Write states.md and its figure about RUNS, from what tapelens patch --part measured on them.

    Args:
        runs: run folders of a task that tells streams.
        out: the folder to write to.
    """
    opened = [load(run) for run in runs]
    writes(out, "states.md")
    from interp.pages.states import write_states_page

    say(f"page in {write_states_page(opened, out)}")


def sources(
    run: RunPath,
    *,
    asked: Annotated[SourceOptions, tyro.conf.arg(name="")] = SourceOptions(),  # noqa: B008 (frozen)
    threads: int = 2,
) -> None:
    """Where values that are asked for come from, in streams, into RUN/sources.parquet: is a value right by how its cell
    came by it, and what do heads read when it is asked for?

    Args:
        run: the run folder.
        asked: how many streams, and which.
        threads: PyTorch threads.
    """
    from interp.studies.source_tables import source_sentences, source_table
    from interp.studies.sources import sources_stage

    use_threads(threads)
    opened = load(run)
    writes(opened.path, SOURCES)
    with stage_display("reading streams") as progress:
        rows = sources_stage(opened, asked, progress=progress)
    console.print(source_table(rows))
    for sentence in source_sentences(rows):
        say(sentence)
    say(f"{len(rows):,} rows in {opened.path / SOURCES}")


def circuit(
    run: RunPath,
    *,
    asked: Annotated[CircuitOptions, tyro.conf.arg(name="")] = CircuitOptions(),  # noqa: B008 (frozen)
    fresh: bool = False,
    threads: int = 2,
) -> None:
    """Find the circuit of each instruction, into RUN/circuits.parquet and RUN/circuits/.

    What is measured already, with the same settings, is kept: the same command continues.

    Args:
        run: the run folder.
        asked: of which instructions, and what to measure of each.
        fresh: measure again what the folder already holds.
        threads: PyTorch threads.
    """
    from interp.studies.circuit_stage import circuit_stage
    from interp.studies.circuit_summary import summary_of

    use_threads(threads)
    opened = load(run)
    writes(opened.path, *CIRCUITS)
    with stage_display("finding circuits") as progress:
        rows = circuit_stage(opened, asked, fresh=fresh, progress=progress)
    for sentence in summary_of(opened)["sentences"].values():
        say(sentence)
    say(f"{len(rows):,} rows in {opened.path / 'circuits.parquet'}")


def circuit_page(runs: tyro.conf.Positional[tuple[Path, ...]], *, out: Path = Path("docs"), n_null: int = 200) -> None:
    """Write circuits.md and its figures about RUNS, from what tapelens circuit measured on them.

    Args:
        runs: run folders; several of one machine and shape also get their agreement across seeds.
        out: the folder to write to.
        n_null: random pairings of heads.
    """
    opened = [load(run) for run in runs]
    writes(out, "circuits.md")
    from interp.pages.circuits import write_circuit_page

    say(f"page in {write_circuit_page(opened, out, n_null=n_null)}")
