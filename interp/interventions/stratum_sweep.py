"""What a finished sweep found, broken down by stratum: each variable at its best places, whole and in its subspace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from interp.interventions.by_stratum import DESIGN, Swap, stratum_rows
from interp.interventions.deepening import best_places, inner_hooks
from interp.interventions.interchange import Subspaces
from interp.interventions.scores import place_columns
from interp.ranges import counted
from interp.results import Method, Metric
from interp.stage_options import PatchOptions
from interp.tasks import Task
from interp.tasks.sites import Site

Rows = list[dict[str, Any]]
_HEADLINE = {"metric": Metric.IIA, "pair_design": "independent", "stratum": "changes", "control": None}


def best_swaps(
    model: Any,
    rows: Sequence[dict[str, Any]],
    variable: str,
    *,
    sites: Sequence[Site] = (),
    subspaces: Subspaces | None = None,
    places: int = PatchOptions.places,
) -> list[Swap]:
    """The swaps of a finished sweep that moved a variable most where the answer should change.

    Args:
        model: the hooked model.
        rows: of the sweep over independent pairs.
        variable: which.
        sites: the places to choose among; the residual stream's inner ones where empty.
        subspaces: the bases that were swept, of which the best `places` are taken as well.
        places: how many of either.
    """
    whole = [Swap(site) for site, _ in best_places(rows, variable, inner_hooks(model), sites=sites)[:places]]
    own = {
        tuple(place_columns(site).values()): Swap(site, basis, {"method": Method.PROBE_SUBSPACE})
        for (name, site), basis in (subspaces or {}).items()
        if name == variable
    }
    wanted = _HEADLINE | {"variable": variable, "method": Method.PROBE_SUBSPACE}
    found = [
        (row["estimate"], own[row["site"], row["position"]])
        for row in rows
        if all(row.get(key) == value for key, value in wanted.items()) and (row["site"], row["position"]) in own
    ]
    return whole + [swap for _, swap in sorted(found, key=lambda each: -each[0])[:places]]


@counted(n=1)
def stratum_sweep(
    model: Any,
    task: Task,
    rows: Sequence[dict[str, Any]],
    *,
    variables: Sequence[str],
    sites: Sequence[Site] = (),
    subspaces: Subspaces | None = None,
    places: int = 1,
    n: int = 64,
    seed: int = PatchOptions.seed,
    save: Callable[[Rows], None] | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> Rows:
    """The three numbers of each variable's best swaps by stratum, as rows; swaps that `rows` hold are left out.

    Args:
        model: the hooked model, in eval mode.
        task: draws the pairs and knows the world.
        rows: of the sweep over independent pairs, and of this one as far as it came.
        variables: which.
        sites: see `best_swaps`, as are subspaces and places.
        subspaces: see sites.
        places: see sites.
        n: pairs a stratum, at most.
        seed: of everything random.
        save: called with new rows as they come.
        progress: called with (variables done, of how many, what is going on).
    """
    done = {_job(row) for row in rows if row.get("pair_design") == DESIGN}
    jobs: dict[str, list[Swap]] = {}
    for name in variables:
        swaps = best_swaps(model, rows, name, sites=sites, subspaces=subspaces, places=places)
        left = [
            swap for swap in swaps if _job({"variable": name, **place_columns(swap.site), **swap.columns}) not in done
        ]
        if left:
            jobs[name] = left
    found: Rows = []
    for index, (name, swaps) in enumerate(jobs.items()):

        def report(share: float, index: int = index, name: str = name) -> None:
            if progress is not None:
                progress(index + share, len(jobs), f"{name}, by stratum")

        new = stratum_rows(model, task, name, swaps, n=n, seed=seed, progress=report)
        found += new
        if save is not None:
            save(new)
    return found


def _job(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[column]) for column in ("variable", "site", "position", "method"))
