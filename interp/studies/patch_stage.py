"""The stage `patch`: interchange interventions → interventions.parquet."""

from __future__ import annotations

from collections.abc import Sequence
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
    task, asked = run.task, options
    if "do" not in task.world.capabilities:
        raise RunError(f"interchange cannot judge {run.path}: {task.world.lacks('do')}")
    sites: list[Site] = []
    if asked.hooks or asked.positions:
        sites = named_sites(run.model, asked.hooks or stream_hooks(run.model), asked.positions or task.position_sets())
    groups = [tuple(group.split("+")) for group in asked.pairs_of]
    for name in {name for group in groups for name in group}:
        task.world.settable(name)
    further = bool(asked.methods or groups)
    names = list(asked.variables) or task.swappable()
    swept = list(dict.fromkeys([*names, *(name for group in groups for name in group)]))
    settings = {"n_pairs": asked.n_pairs, "seed": asked.seed}
    frame = None if fresh else held(run, "interventions", settings)
    rows = [] if frame is None else records(frame)
    done = {(row["variable"], row["pair_design"]) for row in rows if row["metric"] == Metric.REDRAW_RATE}
    untrained, subspaces = run.untrained_model(), probe_subspaces(run, swept)

    def save(new: list[dict[str, Any]]) -> None:
        rows.extend(new)
        run.write_frame("interventions", rows_frame(rows), settings=settings)

    run_interventions(
        run.model,
        task,
        variables=swept,
        designs=asked.designs if not further else tuple(dict.fromkeys(["independent", *asked.designs])),
        n_pairs=asked.n_pairs,
        seed=asked.seed,
        subspaces=subspaces,
        untrained=untrained,
        done=done,
        save=save,
        progress=progress,
    )
    for some in _unswept(sites, swept, rows):
        run_interventions(
            run.model,
            task,
            variables=swept,
            sites=some,
            designs=("independent",),
            n_pairs=asked.n_pairs,
            seed=asked.seed,
            untrained=untrained,
            save=lambda new: save([row for row in new if row["metric"] != Metric.REDRAW_RATE]),
            progress=progress,
        )
    stratum_sweep(
        run.model,
        task,
        rows,
        variables=names,
        sites=sites,
        subspaces=subspaces,
        places=asked.places,
        seed=asked.seed,
        save=save,
        progress=progress,
    )
    if further:
        deepen(
            run.model,
            task,
            rows,
            variables=names,
            methods=asked.methods,
            pairs_of=groups,
            sites=sites,
            places=asked.places,
            rank=asked.rank,
            n_pairs=asked.n_pairs,
            untrained=untrained,
            done=jobs_done(rows),
            seed=asked.seed,
            save=save,
            progress=progress,
        )
    return run.frame("interventions")


def _unswept(sites: Sequence[Site], variables: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[list[Site]]:
    """The sites at which some variable was not swapped, hook by hook."""
    seen = {(row["variable"], row["site"], row["position"]) for row in rows if row.get("method") == Method.FULL_VECTOR}
    groups: dict[str, list[Site]] = {}
    for site in sites:
        if any((name, site_column(site), site.positions) not in seen for name in variables):
            groups.setdefault(site.hook, []).append(site)
    return list(groups.values())
