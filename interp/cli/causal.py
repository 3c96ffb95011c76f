"""Causal tests of a model: patch, states-page, circuit, circuit-page."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from interp.cli.arguments import RunPath, at_least, use_threads, writes
from interp.console import console, say, stage_display
from interp.runs import Run, load

PATCHED = ("interventions.parquet",)  # what the verbs write into a run folder
STATES = "states.parquet"
CIRCUITS = ("circuits/", "circuits.parquet", "attention.safetensors")


def patch(
    run: RunPath,
    *,
    variables: tuple[str, ...] = (),
    designs: tuple[Literal["independent", "minimal"], ...] = ("independent",),
    methods: tuple[Literal["mean_difference", "das", "position_search"], ...] = (),
    pairs_of: tuple[str, ...] = (),
    hooks: tuple[str, ...] = (),
    positions: tuple[str, ...] = (),
    part: tuple[str, ...] = (),
    places: int = 1,
    rank: int = 4,
    n_pairs: int = 256,
    seed: int = 4,
    fresh: bool = False,
    threads: int = 2,
) -> None:
    """Interchange interventions, judged by the machine, into RUN/interventions.parquet.

    Args:
        run: the run folder.
        variables: which to swap (default: the machine's variables that one step depends on).
        designs: independent draws base and source apart; minimal makes source from base by one edit.
        methods: further questions at each variable's best places: swap within the differences of class means
            (mean_difference) or a fitted subspace (das), and find the smallest set of positions (position_search).
        pairs_of: variables to swap together, from sources of their own, such as op+operand.
        hooks: further places to swap at, beside the residual stream: attn.hook_z, attn.hook_z[*] (each head apart),
            mlp.hook_post, or one layer's by its whole name. Methods then ask at the best of these.
        positions: sets of positions there, such as cells[@array_ptr] array_ptr+cells (default: blocks, pointed slots).
        part: in place of all this, exchange parts of what the model carries from token to token, into
            RUN/states.parquet: all, layers, groups (heads or channels), layer0, layer1.head2, subspaces, or one of
            probe_subspace, mean_difference, das. With other numbers than the file was measured with, it is kept, and
            what is measured anew is shown beside it.
        places: at how many of a variable's best places the methods ask.
        rank: dimensions of das.
        n_pairs: base and source pairs a variable.
        seed: of the pairs.
        fresh: measure again what the file already holds.
        threads: PyTorch threads.
    """
    from interp.studies.patch_stage import patch_stage

    at_least("--n-pairs", n_pairs, 1)
    at_least("--rank", rank, 1)
    at_least("--places", places, 1)
    use_threads(threads)
    opened = load(run)
    if part:
        _states(opened, part, variables=variables, n_pairs=n_pairs, seed=seed, rank=rank, fresh=fresh)
        return
    writes(opened.path, *PATCHED)
    with stage_display("intervening") as progress:
        rows = patch_stage(
            opened,
            variables=variables,
            designs=designs,
            methods=methods,
            pairs_of=pairs_of,
            hooks=hooks,
            positions=positions,
            places=places,
            rank=rank,
            n_pairs=n_pairs,
            seed=seed,
            fresh=fresh,
            progress=progress,
        )
    say(f"{len(rows):,} rows in {opened.path / 'interventions.parquet'}")


def _states(
    run: Run, parts: tuple[str, ...], *, variables: tuple[str, ...], n_pairs: int, seed: int, rank: int, fresh: bool
) -> None:
    """State interchange, and its table."""
    from interp.interventions import SubspaceFit
    from interp.studies.state_stage import headlines, state_stage
    from interp.studies.state_tables import state_table

    writes(run.path, STATES)
    with stage_display("exchanging states") as progress:
        found = state_stage(
            run,
            variables=variables,
            parts=parts,
            n_pairs=n_pairs,
            seed=seed,
            fit=SubspaceFit(rank=rank),
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


def circuit(
    run: RunPath,
    *,
    ops: tuple[str, ...] = (),
    freezes: bool = False,
    measure: tuple[
        Literal["roles", "edges", "dissociation", "evidence", "approximations", "positions", "routes"], ...
    ] = (
        "roles",
        "edges",
        "dissociation",
    ),
    levels: tuple[Literal["node", "neuron", "subspace"], ...] = ("node", "neuron", "subspace"),
    ablations: tuple[Literal["resample", "mean", "zero"], ...] = ("resample",),
    along: bool = False,
    paths: tuple[str, ...] = (),
    n_pairs: int = 128,
    n_exact_pairs: int = 16,
    n_search_pairs: int = 6,
    seed: int = 5,
    fresh: bool = False,
    threads: int = 2,
) -> None:
    """Find the circuit of each instruction, into RUN/circuits.parquet and RUN/circuits/.

    What is measured already, with the same settings, is kept: the same command continues.

    Args:
        run: the run folder.
        ops: opcodes and ways to freeze, such as INC VALUE_OVERFLOW (default: all opcodes of the machine).
        freezes: also every way to freeze.
        measure: beside the circuits: roles of their heads; their strongest edges pair by pair; dissociation of own and
            shared parts; evidence (hundreds of random circuits, spread over examples, other ablations, completeness,
            minimality, stability); approximations against exact patching of every edge; positions that edges work at;
            routes of edges, from the place where a message is read to the place where what comes of it is written.
            Without a name after it: none.
        levels: of dissociation.
        ablations: of dissociation.
        along: also at every checkpoint that the run kept, beside the final circuits.
        paths: patch these paths, such as "input->a0.h1<v>->logits".
        n_pairs: clean and corrupted pairs an opcode, at least ten.
        n_exact_pairs: of approximations, positions, routes and paths, where every edge is patched.
        n_search_pairs: of the ACDC-style search among the approximations (0: no search).
        seed: of the pairs.
        fresh: measure again what the folder already holds.
        threads: PyTorch threads.
    """
    from interp.studies.circuit_stage import circuit_stage
    from interp.studies.circuit_study import summary_of
    from probes.evaluation import MIN_GROUPS

    at_least("--n-pairs", n_pairs, MIN_GROUPS)
    at_least("--n-exact-pairs", n_exact_pairs, 1)
    at_least("--n-search-pairs", n_search_pairs, 0)
    use_threads(threads)
    opened = load(run)
    writes(opened.path, *CIRCUITS)
    with stage_display("finding circuits") as progress:
        rows = circuit_stage(
            opened,
            ops=ops,
            freezes=freezes,
            measure=measure,
            levels=levels,
            ablations=ablations,
            along=along,
            paths=paths,
            n_exact_pairs=n_exact_pairs,
            n_search_pairs=n_search_pairs,
            n_pairs=n_pairs,
            seed=seed,
            fresh=fresh,
            progress=progress,
        )
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
