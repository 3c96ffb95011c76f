"""What a sweep of whole vectors leaves open, asked where it found most: subspaces, position sets, joint swaps.

A swap before the first layer edits the input, one after the last exchanges the output, and swapping all positions gives
the source's answer: these places are never chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from interp.interventions.das import DasConfig
from interp.interventions.joint import joint_rows
from interp.interventions.search import smallest_set_rows
from interp.interventions.sites import Site
from interp.interventions.subspaces import subspace_rows
from interp.results import Method, Metric
from interp.tasks import Task

METHODS = (Method.MEAN_DIFFERENCE, Method.DAS, Method.POSITION_SEARCH)  # beside the sweep of whole vectors
Rows = list[dict[str, Any]]
Job = tuple[str, str, int | None]  # variable or variables, method or "joint", rank of DAS


def best_places(rows: Sequence[dict[str, Any]], variable: str, n_layers: int) -> list[tuple[Site, float]]:
    """Places of a finished sweep that are no ceiling, with the variable's IIA where the answer should change.

    Highest first; of equals the earlier layer. Places whose hook is not a residual stream are left out.
    """
    inner = [f"blocks.{layer}.hook_resid_post" for layer in range(n_layers - 1)]
    found = [
        (Site(row["site"], row["position"]), row["estimate"])
        for row in rows
        if row.get("variable") == variable
        and row["metric"] == Metric.IIA
        and row["method"] == Method.FULL_VECTOR
        and (row["pair_design"], row["stratum"], row["control"]) == ("independent", "changes", None)
        and row["site"] in inner
        and row["position"] != "all"
    ]
    return sorted(found, key=lambda place: (-place[1], inner.index(place[0].hook)))


def jobs_done(rows: Sequence[dict[str, Any]]) -> set[Job]:
    """The jobs that these rows come from."""
    own = [row for row in rows if row["metric"] == Metric.IIA]
    joint: set[Job] = {(row["variable"], "joint", None) for row in own if row["pair_design"] == "joint"}
    single = (row for row in own if row["method"] in METHODS)
    return joint | {(row["variable"], row["method"], _rank(row["method"], row["rank"])) for row in single}


def _rank(method: str, rank: int | None) -> int | None:
    return rank if method == Method.DAS else None


def deepen(
    model: Any,
    task: Task,
    rows: Sequence[dict[str, Any]],
    *,
    variables: Sequence[str],
    methods: Sequence[str] = (),
    pairs_of: Sequence[tuple[str, ...]] = (),
    rank: int = 4,
    n_pairs: int = 256,
    das: DasConfig = DasConfig(),  # noqa: B008 (frozen)
    untrained: Any | None = None,
    done: Collection[Job] = (),
    seed: int = 0,
    save: Callable[[Rows], None] | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> Rows:
    """Measure each variable by each method at its best place, and groups of variables swapped together, as tidy rows.

    Joint swaps are made at every inner layer, each variable at its best position set there that shares no block
    with those of the variables before it.

    Args:
        model: the hooked transformer, in eval mode.
        task: draws the pairs and knows the machine.
        rows: of a sweep of whole vectors over these variables, independent pairs.
        variables: which.
        methods: of `METHODS`.
        pairs_of: groups of variables to swap at once.
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
    n_layers, found = model.cfg.n_layers, []
    jobs: list[Job] = [(name, method, _rank(method, rank)) for name in variables for method in methods]
    jobs += [(" & ".join(group), "joint", None) for group in pairs_of]
    jobs = [job for job in jobs if job not in done]
    places = {name: best_places(rows, name, n_layers) for job in jobs for name in job[0].split(" & ")}
    for index, (names, method, _) in enumerate(jobs):

        def report(share: float, index: int = index, label: str = f"{names}, {method}") -> None:
            if progress is not None:
                progress(index + share, len(jobs), label)

        report(0.0)
        if not all(places[name] for name in names.split(" & ")):
            continue  # nothing was measured at an inner layer
        if method == "joint":
            new = _jointly(model, task, names.split(" & "), places, n_pairs, untrained, seed)
        elif method == Method.POSITION_SEARCH:
            options: dict[str, Any] = {"n_pairs": n_pairs, "untrained": untrained, "seed": seed, "progress": report}
            new = smallest_set_rows(model, task, names, places[names][0][0].hook, **options)[1]
        else:
            new = subspace_rows(
                model,
                task,
                names,
                places[names][0][0],
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
    for layer in range(model.cfg.n_layers - 1):
        hook = f"blocks.{layer}.hook_resid_post"
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
