"""The stage `patch`: interchange interventions → interventions.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch

from interp.interventions import (
    Site,
    deepen,
    jobs_done,
    named_sites,
    run_interventions,
    site_column,
    stratum_sweep,
)
from interp.interventions.declared import residual_hooks, stream_hooks
from interp.reading import read_tensors, reading
from interp.results import Method, Metric, records, rows_frame
from interp.runs import Run, RunError
from interp.stage_options import PatchOptions
from interp.studies.holding import Progress, held, quiet
from interp.tasks.counterfactual import PairDesign

SUBSPACES = "probes.safetensors"


def probe_subspaces(run: Run, variables: Sequence[str]) -> dict[tuple[str, Site], torch.Tensor]:
    """Probe directions on disk, for variables that can be set, after the embedding; {} where none were fitted."""
    file = run.path / SUBSPACES
    if not file.exists():
        return {}
    found, world, places = {}, run.task.world, set(run.task.position_sets())
    first = residual_hooks(run.model)[:1]
    for key, basis in read_tensors(file, "pt")[0].items():
        with reading(file, "a file of probe directions"):
            name, hook, positions = key.split("|")
        # Where swaps are made anyway, at pointed slots: a variable's own place, which moves with the pointer.
        wanted = name in variables and "[@" in positions and positions in places
        if wanted and world.variable(name).settable and hook not in first:
            found[name, Site(hook, positions)] = basis
    return found


def patch_stage(
    run: Run,
    options: PatchOptions = PatchOptions(),  # noqa: B008 (frozen)
    *,
    fresh: bool = False,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Interchange interventions, saved after every sweep, so that an interrupted stage goes on where it stopped.

    After the sweep of whole vectors and probe subspaces come the best `places` of each variable by the world's strata.
    `methods` (of `interp.interventions.METHODS`) and `pairs_of` go on from the sweep of whole vectors, at the `places`
    best places of each variable. `hooks` and `positions` sweep further sites, and the best places are then taken among
    those.

    Raises:
        RunError: the run's world cannot be asked what would come out; or the run holds swaps with another `n_pairs` or
            `seed`, and not `fresh`.
        ValueError: an unknown variable, hook or set of positions.
    """
    task, asked = run.task, _Asked.of(run, options)
    settings = {"n_pairs": options.n_pairs, "seed": options.seed}
    frame = None if fresh else held(run, "interventions", settings)
    rows = [] if frame is None else records(frame)
    done = {(row["variable"], row["pair_design"]) for row in rows if row["metric"] == Metric.REDRAW_RATE}
    untrained, subspaces = run.untrained_model(), probe_subspaces(run, asked.swept)

    def save(new: list[dict[str, Any]]) -> None:
        rows.extend(new)
        run.write_frame("interventions", rows_frame(rows), settings=settings)

    swap = partial(
        run_interventions,
        run.model,
        task,
        variables=asked.swept,
        n_pairs=options.n_pairs,
        seed=options.seed,
        untrained=untrained,
        progress=progress,
    )
    swap(designs=asked.designs, subspaces=subspaces, done=done, save=save)
    for some in _unswept(asked.sites, asked.swept, rows):
        swap(
            sites=some,
            designs=("independent",),
            save=lambda new: save([row for row in new if row["metric"] != Metric.REDRAW_RATE]),
        )
    at_best: dict[str, Any] = {"variables": asked.names, "sites": asked.sites, "places": options.places}
    at_best |= {"seed": options.seed, "save": save, "progress": progress}
    stratum_sweep(run.model, task, rows, subspaces=subspaces, **at_best)
    if asked.further:
        deepen(
            run.model,
            task,
            rows,
            methods=options.methods,
            pairs_of=asked.groups,
            rank=options.rank,
            n_pairs=options.n_pairs,
            untrained=untrained,
            done=jobs_done(rows),
            **at_best,
        )
    return run.frame("interventions")


@dataclass(frozen=True)
class _Asked:
    """What the options ask of a run."""

    names: list[str]  # the variables
    groups: list[tuple[str, ...]]  # variables to swap together
    swept: list[str]  # all of these
    sites: list[Site]  # beside the residual stream's
    designs: tuple[PairDesign, ...]
    further: bool  # whether anything goes on from the sweep of whole vectors

    @classmethod
    def of(cls, run: Run, options: PatchOptions) -> _Asked:
        """Raises what `patch_stage` says of the run's world, variables, hooks and positions."""
        task, sites = run.task, []
        if "do" not in task.world.capabilities:
            raise RunError(f"interchange cannot judge {run.path}: {task.world.lacks('do')}")
        if options.hooks or options.positions:
            hooks = options.hooks or stream_hooks(run.model)
            sites = named_sites(run.model, hooks, options.positions or task.position_sets())
        groups = [tuple(group.split("+")) for group in options.pairs_of]
        grouped = [name for group in groups for name in group]
        for name in set(grouped):
            task.world.settable(name)
        names = list(options.variables) or task.swappable()
        further = bool(options.methods or groups)
        designs: list[PairDesign] = ["independent", *options.designs] if further else [*options.designs]
        return cls(
            names, groups, list(dict.fromkeys([*names, *grouped])), sites, tuple(dict.fromkeys(designs)), further
        )


def _unswept(sites: Sequence[Site], variables: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[list[Site]]:
    """The sites at which some variable was not swapped, hook by hook."""
    seen = {(row["variable"], row["site"], row["position"]) for row in rows if row.get("method") == Method.FULL_VECTOR}
    groups: dict[str, list[Site]] = {}
    for site in sites:
        if any((name, site_column(site), site.positions) not in seen for name in variables):
            groups.setdefault(site.hook, []).append(site)
    return list(groups.values())
