"""What a sweep of whole vectors leaves open, asked where it found most: subspaces, position sets, joint swaps.

In the residual stream a swap before the first layer edits the input, one after the last exchanges the output, and
swapping all positions gives the source's answer: these places are never chosen. At other hooks every place that was
swept may be.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from interp.interventions.das import DasConfig
from interp.interventions.declared import residual_hooks
from interp.interventions.joint import joint_rows
from interp.interventions.scores import site_column
from interp.interventions.search import smallest_set_rows
from interp.interventions.subspaces import subspace_rows
from interp.ranges import counted
from interp.results import Method, Metric
from interp.stage_options import PatchOptions
from interp.tasks import Task
from interp.tasks.sites import Site

METHODS = (Method.MEAN_DIFFERENCE, Method.DAS, Method.POSITION_SEARCH)  # beside the sweep of whole vectors
Rows = list[dict[str, Any]]
Job = tuple[str, str, int | None, str]  # variable or variables, method or "joint", rank of DAS, where


def best_places(
    rows: Sequence[dict[str, Any]], variable: str, inner: Sequence[str], *, sites: Sequence[Site] = ()
) -> list[tuple[Site, float]]:
    """Places of a finished sweep, with the variable's IIA where the answer should change.

    Highest first; of equals the earlier. `sites` are the places to choose among; without them the hooks `inner`, at
    every position set but all.
    """
    wanted = {(site_column(site), site.positions): site for site in sites}
    found = []
    for row in rows:
        if row["metric"] != Metric.IIA or row["method"] != Method.FULL_VECTOR or row.get("variable") != variable:
            continue
        if (row["pair_design"], row["stratum"], row["control"]) != ("independent", "changes", None):
            continue
        place = (row["site"], row["position"])
        if wanted and place in wanted:
            found.append((wanted[place], row["estimate"]))
        elif not wanted and row["site"] in inner and row["position"] != "all":
            found.append((Site(*place), row["estimate"]))
    order = [site.hook for site in sites] or inner
    return sorted(found, key=lambda place: (-place[1], order.index(place[0].hook)))


def inner_hooks(model: Any) -> list[str]:
    """The residual stream between layers: without its ends, where a swap edits the input or exchanges the output."""
    return list(residual_hooks(model)[1:-1])


def jobs_done(rows: Sequence[dict[str, Any]]) -> set[Job]:
    """The jobs that these rows come from."""
    own = [row for row in rows if row["metric"] == Metric.IIA]
    joint: set[Job] = {(row["variable"], "joint", None, "") for row in own if row["pair_design"] == "joint"}
    single = (row for row in own if row["method"] in METHODS)
    return joint | {
        (row["variable"], row["method"], _rank(row["method"], row["rank"]), _where(row["method"], row))
        for row in single
    }


def _spelled(site: Site) -> str:
    return f"{site_column(site)} at {site.positions}"


def _where(method: str, row: dict[str, Any]) -> str:
    """A search chooses the positions itself: its hook is the place."""
    return row["site"] if method == Method.POSITION_SEARCH else f"{row['site']} at {row['position']}"


def _rank(method: str, rank: int | None) -> int | None:
    return rank if method == Method.DAS else None


@counted(rank=1, n_pairs=1)
def deepen(
    model: Any,
    task: Task,
    rows: Sequence[dict[str, Any]],
    *,
    variables: Sequence[str],
    methods: Sequence[str] = (),
    pairs_of: Sequence[tuple[str, ...]] = (),
    sites: Sequence[Site] = (),
    places: int = PatchOptions.places,
    rank: int = PatchOptions.rank,
    n_pairs: int = PatchOptions.n_pairs,
    das: DasConfig = DasConfig(),  # noqa: B008 (frozen)
    untrained: Any | None = None,
    done: Collection[Job] = (),
    seed: int = PatchOptions.seed,
    save: Callable[[Rows], None] | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> Rows:
    """Measure each variable by each method at its best places, and groups of variables swapped together, as tidy rows.

    Joint swaps are made at every inner layer, each variable at its best position set there that shares no block
    with those of the variables before it.

    Args:
        model: the hooked model, in eval mode.
        task: draws the pairs and knows the world.
        rows: of a sweep of whole vectors over these variables, independent pairs.
        variables: which.
        methods: of `METHODS`.
        pairs_of: groups of variables to swap at once.
        sites: of these, which `rows` hold, the best places are taken; the residual stream's where empty.
        places: how many places a variable.
        rank: of DAS; mean differences have as many directions as the classes span.
        n_pairs: held-out pairs.
        das: how DAS is fitted.
        untrained: a model with initial weights, for the control.
        done: jobs to leave out, as `jobs_done` names them.
        seed: of everything random.
        save: called with new rows as they come.
        progress: called with (jobs done, of how many, what is going on).

    Raises:
        ValueError: an unknown method, a variable that `rows` lack, or as the methods do.
    """
    if unknown := [name for name in methods if name not in METHODS]:
        raise ValueError(f"no method {unknown[0]!r} beside full_vector; there are {', '.join(METHODS)}")
    grouped = [name for group in pairs_of for name in group]
    stream, found = inner_hooks(model), []
    best = {name: best_places(rows, name, stream, sites=sites)[:places] for name in {*variables, *grouped}}
    inner = {name: best_places(rows, name, stream) for name in grouped}
    jobs = _jobs_at(best, variables, methods, rank)
    jobs |= {(" & ".join(group), "joint", None, ""): None for group in pairs_of if all(inner[name] for name in group)}
    left = [(job, site) for job, site in jobs.items() if job not in done]
    for index, ((names, method, _, where), site) in enumerate(left):

        def report(share: float, index: int = index, label: str = f"{names}, {method}, {where}") -> None:
            if progress is not None:
                progress(index + share, len(left), label.removesuffix(", "))

        report(0.0)
        if site is None:
            new = _jointly(model, task, names.split(" & "), inner, n_pairs, untrained, seed)
        elif method == Method.POSITION_SEARCH:
            options: dict[str, Any] = {"n_pairs": n_pairs, "untrained": untrained, "seed": seed, "progress": report}
            new = smallest_set_rows(model, task, names, site.hook, **options)[1]
        else:
            new = subspace_rows(
                model,
                task,
                names,
                site,
                method=Method(method),
                rank=_rank(method, rank),
                n_pairs=n_pairs,
                das=das,
                untrained=untrained,
                seed=seed,
                progress=report,
            )
        found += new
        if save is not None:
            save(new)
    return found


def _jobs_at(
    best: dict[str, list[tuple[Site, float]]], variables: Sequence[str], methods: Sequence[str], rank: int
) -> dict[Job, Site | None]:
    """Each method at the best places of each variable; a search has one job a hook."""
    jobs: dict[Job, Site | None] = {}
    for name in variables:
        for method in methods:
            for site, _ in best[name]:
                where = site.hook if method == Method.POSITION_SEARCH else _spelled(site)
                jobs.setdefault((name, method, _rank(method, rank), where), site)
    return jobs


def _jointly(
    model: Any,
    task: Task,
    names: Sequence[str],
    places: dict[str, list[tuple[Site, float]]],
    n_pairs: int,
    untrained: Any | None,
    seed: int,
) -> Rows:
    """Joint swaps layer by layer, each variable at its best free position set there."""
    rows: Rows = []
    for hook in inner_hooks(model):
        sites: list[Site] = []
        for name in names:
            taken = [site.positions for site in sites]
            free = (s for s, _ in places[name] if s.hook == hook and not _share_a_block([*taken, s.positions]))
            sites += [site for site in (next(free, None),) if site is not None]
        if len(sites) == len(names):
            rows += joint_rows(model, task, names, sites, n_pairs=n_pairs, untrained=untrained, seed=seed)
    return rows


def _share_a_block(sets: Sequence[str]) -> bool:
    """Whether two sets may overlap, going by the blocks that they name."""
    blocks = [{part.split("[")[0] for part in each.split("+")} for each in sets]
    return any(blocks[i] & blocks[j] for i in range(len(blocks)) for j in range(i))
