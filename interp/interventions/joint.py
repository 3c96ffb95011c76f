"""Several swaps in one run: variables from sources of their own, or one variable at several places.

    IIA(X and Y) = mean of 1[ model(base, X's site <- source 1, Y's site <- source 2)
                              = world(base, do X <- X(source 1), Y <- Y(source 2)) ]

Read it in the stratum "both": the world's answer then differs from its answer when any one of the variables is left
as in base, so that no single swap can be right. Controls on the same triples: the model left alone, the better of the
single swaps, the sources exchanged between the sites, an untrained model. A second draw gives the same by stratum of
base (see by_stratum.py), with sources in which every variable has base's own value as one more control.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.activations import collect
from interp.interventions.interchange import own_answers
from interp.interventions.joint_pairs import JointPairs
from interp.interventions.patching import Patch, check_basis, patched
from interp.interventions.scores import THREE, Stratum, judge, score_rows, site_column
from interp.ranges import counted
from interp.results import Control, Method, Metric
from interp.tasks import Batch, Task
from interp.tasks.answers import read_answers
from interp.tasks.sites import Site


@counted(batch_size=1)
@torch.no_grad()
def swapped_answers(
    model: Any,
    task: Task,
    base: Batch,
    swaps: Sequence[tuple[Site, Batch]],
    *,
    positions: Tensor | None = None,
    edit_time: int | np.ndarray = 0,
    source_times: Sequence[int | np.ndarray] | None = None,
    bases: Sequence[Tensor | None] | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Greedy answers [n, k] on base with every site taken from its source in the same run.

    Args:
        model: the hooked model, in eval mode; hooks that stand on it count.
        task: names positions.
        base: n examples.
        swaps: (site, source) each; a source may stand at several sites, and sites at several layers. Where an earlier
            swap changes what reaches a later site, the later one still puts in what its own source had there.
        positions: long [n, k], where the answer is read; `task.answer_positions` where None.
        edit_time: the executed step of base at which pointers are read, for all or one each.
        source_times: the same of each swap's source; 0 where None.
        bases: for each swap orthonormal rows [rank, d], or None for the whole vector.
        batch_size: rows a forward pass.

    Raises:
        ValueError: an unknown hook or position, a basis that does not fit, or two whole-vector swaps that overlap at
            one hook.
    """
    bases = [None] * len(swaps) if bases is None else list(bases)
    times = [0] * len(swaps) if source_times is None else list(source_times)
    for basis in bases:
        check_basis(basis, model)
    values = [
        collect(model, source, [site], task=task, at=time)[site]
        for (site, source), time in zip(swaps, times, strict=True)
    ]
    where = [task.resolve(site.positions, base, edit_time) for site, _ in swaps]
    read = torch.from_numpy(np.tile(task.answer_positions, (len(base), 1))) if positions is None else positions
    _check_disjoint([site for site, _ in swaps], where, bases)
    parts = []
    for start in range(0, len(base), batch_size):
        rows = slice(start, start + batch_size)
        patches = [
            Patch(site.hook, there[rows], value[rows], head=site.head, basis=basis)
            for (site, _), there, value, basis in zip(swaps, where, values, bases, strict=True)
        ]
        with patched(model, patches):
            parts.append(read_answers(model(base.tokens[rows]), read[rows]).argmax(-1))
    return torch.cat(parts)


def _check_disjoint(sites: Sequence[Site], where: Sequence[Tensor], bases: Sequence[Tensor | None]) -> None:
    for first in range(len(sites)):
        for second in range(first):
            one_hook = sites[first].hook == sites[second].hook and sites[first].head == sites[second].head
            if not one_hook or bases[first] is not None or bases[second] is not None:
                continue
            if (where[first][:, :, None] == where[second][:, None, :]).any():
                raise ValueError(f"two whole vectors cannot be put in one place: {sites[second]} and {sites[first]}")


@counted(n_pairs=1, n_bootstrap=1)
def joint_rows(
    model: Any,
    task: Task,
    variables: Sequence[str],
    sites: Sequence[Site],
    *,
    n_pairs: int = 256,
    seed: int = 0,
    untrained: Any | None = None,
    n_bootstrap: int = 500,
) -> list[dict[str, Any]]:
    """The three numbers of several variables swapped at once, with controls, as rows; `sites[i]` holds `variables[i]`.

    Variables, sites and positions are joined by " & "; the pair design is "joint", by stratum "stratified joint".

    Raises:
        ValueError: as many sites as variables are needed; and as `JointPairs.draw` and `swapped_answers`.
    """
    if len(sites) != len(variables):
        raise ValueError(f"a joint swap needs a site for each variable: {len(variables)} variables, {len(sites)} sites")
    place = {
        "variable": " & ".join(variables),
        "site": " & ".join(dict.fromkeys(site_column(site) for site in sites)),
        "position": " & ".join(site.positions for site in sites),
        "method": Method.FULL_VECTOR,
    }
    options: dict[str, Any] = {"seed": seed, "n_bootstrap": n_bootstrap}
    pairs = JointPairs.draw(task, variables, n_pairs=n_pairs, seed=seed)
    runs = _controlled(model, task, pairs, sites)
    if untrained is not None:
        runs.together[Control.UNTRAINED_MODEL] = _judged(
            untrained, task, pairs, list(zip(sites, _order(sites), strict=True))
        )
    plain = np.arange(len(pairs)) < pairs.n_plain
    parts = (
        ("both", pairs.both, THREE),
        ("changes", pairs.changes & plain, THREE),
        ("all", plain, (Metric.IIA,)),
        ("both, base right", pairs.both & runs.base_right, (Metric.IIA,)),
    )
    strata = [Stratum({"pair_design": "joint", "stratum": name}, chosen, what) for name, chosen, what in parts]
    rows = _rows(task, pairs, runs, place, strata, **options)
    pairs, same = JointPairs.stratified(task, variables, seed=seed)
    if pairs is not None:
        runs = _controlled(model, task, pairs, sites)
        rows += _rows(task, pairs, runs, place, _by_stratum(task, pairs, "both", runs.base_right), **options)
    if same is not None:
        unpatched = _answers(model, task, same, [])
        together = _judged(model, task, same, list(zip(sites, _order(sites), strict=True)))
        runs = _Runs({Control.SAME_VALUE: together}, [], _base_right(model, task, same, unpatched))
        rows += _rows(task, same, runs, place, _by_stratum(task, same, "both", runs.base_right), **options)
    return rows


Judged = dict[Metric, np.ndarray]


@dataclass(frozen=True)
class _Runs:
    """What each run of the model did on the pairs; of the single swaps the better one is a control."""

    together: dict[Control | None, Judged]
    single: list[Judged]
    base_right: np.ndarray  # bool [n]


def _controlled(model: Any, task: Task, pairs: JointPairs, sites: Sequence[Site]) -> _Runs:
    """All variables at once, and the controls that need no other model."""
    order = _order(sites)
    unpatched = _answers(model, task, pairs, [])
    return _Runs(
        {
            None: _judged(model, task, pairs, list(zip(sites, order, strict=True))),
            Control.UNPATCHED: _judge(pairs, task, unpatched),
            Control.WRONG_SITE: _judged(model, task, pairs, list(zip(sites, [*order[1:], 0], strict=True))),
        },
        [_judged(model, task, pairs, [swap]) for swap in zip(sites, order, strict=True)],
        _base_right(model, task, pairs, unpatched),
    )


def _order(sites: Sequence[Site]) -> list[int]:
    return list(range(len(sites)))


def _answers(model: Any, task: Task, pairs: JointPairs, swaps: Sequence[tuple[Site, int]]) -> Tensor:
    """The answers with each site taken from the source of this number."""
    return swapped_answers(
        model,
        task,
        pairs.base,
        [(site, pairs.sources[index]) for site, index in swaps],
        positions=pairs.positions,
        edit_time=pairs.edit_time,
        source_times=[pairs.source_times[index] for _, index in swaps],
    )


def _judge(pairs: JointPairs, task: Task, answers: Tensor) -> Judged:
    content = torch.from_numpy(task.content)
    if content.shape[0] != pairs.targets.shape[1]:  # one answer of many: never punctuation
        content = torch.ones(pairs.targets.shape[1], dtype=torch.bool)
    return judge(answers, expected=pairs.targets, unedited=pairs.unedited, valid=pairs.valid, content=content)


def _judged(model: Any, task: Task, pairs: JointPairs, swaps: Sequence[tuple[Site, int]]) -> Judged:
    return _judge(pairs, task, _answers(model, task, pairs, swaps))


def _base_right(model: Any, task: Task, pairs: JointPairs, unpatched: Tensor) -> np.ndarray:
    own = own_answers(model, task, pairs.base.examples, pairs.unedited, pairs.positions)
    return ((unpatched if own is None else own) == pairs.unedited).logical_or(~pairs.valid).all(-1).numpy()


def _by_stratum(task: Task, pairs: JointPairs, stratum: str, right: np.ndarray) -> list[Stratum]:
    found = task.strata(pairs.base, pairs.edit_time)
    return [
        Stratum({"op": found.names[number], "pair_design": "stratified joint", "stratum": name}, inside & chosen)
        for number in np.unique(found.number)
        for inside in (found.number == number,)
        for name, chosen in ((stratum, np.ones(len(pairs), dtype=bool)), (f"{stratum}, base right", right))
    ]


def _rows(
    task: Task,
    pairs: JointPairs,
    runs: _Runs,
    place: dict[str, Any],
    strata: Sequence[Stratum],
    *,
    seed: int,
    n_bootstrap: int,
) -> list[dict[str, Any]]:
    units = task.groups(pairs.base.examples).astype(np.int64)
    rows: list[dict[str, Any]] = []
    for stratum in strata:
        if not stratum.chosen.any():
            continue
        every = dict(runs.together)
        if runs.single:
            every[Control.SINGLE_SWAP] = max(
                runs.single, key=lambda run, chosen=stratum.chosen: run[Metric.IIA][chosen].mean()
            )
        keys = [{**place, "control": control} for control in every]
        rows += score_rows(keys, list(every.values()), units, [stratum], seed=seed, n_bootstrap=n_bootstrap)
    return rows
