"""Interchange by the world's stratum of base at the edited step: what a pooled IIA hides.

A fetched copy may live where its stored original lives. Swapping the whole vector then moves both, which is right under
one instruction and wrong under another, and the pooled number is a mean of the two. So, at a variable's best places:

1. Pairs are drawn with equal shares of all strata, and from a second, larger draw where a stratum has few whose answer
   should change; up to `n` of these are kept a stratum. Base and source are drawn apart, so that source belongs to any.
2. Beside the three numbers stand, on the same pairs: the model left alone, as many random positions elsewhere, and for
   a subspace a random one of its rank.
3. Same value: the same bases, each with a source in which the variable has the value that it has in base, and all else
   is as it was drawn. The answer must then stay. What a swap moves besides the variable shows here.
4. All is repeated for the pairs whose base the model answers right.

Rows have the stratum in `op` and the pair design "stratified".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.activations import check_sites
from interp.interventions.interchange import answers_base, random_basis, swapped_answers, swaps_of, wrong_sites
from interp.interventions.pairs import WIDER, SharedPairs
from interp.interventions.patching import check_basis
from interp.interventions.scores import BASE_RIGHT, Stratum, judge_pairs, place_columns, score_rows
from interp.ranges import counted
from interp.results import Control, Method
from interp.tasks import Task
from interp.tasks.counterfactual import Counterfactual
from interp.tasks.sites import Site
from interp.worlds.base import Split

DESIGN = "stratified"  # the pair design of these rows
_TRIES = 4  # pairs drawn at first, for each that is wanted


@dataclass(frozen=True)
class Swap:
    """What is swapped: a site's whole vector, or its part in a subspace, and the columns that say how it was found."""

    site: Site
    basis: Tensor | None = None  # [rank, d], orthonormal rows
    columns: dict[str, Any] = field(default_factory=lambda: {"method": Method.FULL_VECTOR})


@dataclass(frozen=True)
class StratifiedPairs:
    """Pairs of one variable whose answer should change, and the same bases with sources of the same value."""

    variable: str
    pairs: SharedPairs
    same_value: SharedPairs | None  # None where no source has the value of any base
    title: str  # the world's word for a stratum
    names: tuple[str, ...]  # of the strata that occur, in the world's order
    strata: np.ndarray  # int64 [m]: which of the names, of each pair
    same_strata: np.ndarray  # the same of the pairs of same_value

    @classmethod
    def draw(
        cls, task: Task, variable: str, *, n: int = 64, seed: int, split: Split = "evaluation"
    ) -> StratifiedPairs | None:
        """Up to `n` changing pairs a stratum; None where no pair changes the answer.

        Raises:
            ValueError: as `Task.counterfactual`.
        """
        weights = equal_shares(task.strata_weights("op_outcome"))
        size = _TRIES * n * max(1, len(task.world.stratum_names))
        drawn = task.counterfactual(size, variable, seed=seed, split=split, weights=weights)
        strata = task.strata(drawn.base, drawn.edit_time)
        counts = np.bincount(strata.number[drawn.changes], minlength=len(strata.names))
        # A stratum in which nothing was found to change is not looked at again.
        if ((counts > 0) & (counts < n)).any():
            drawn = task.counterfactual(WIDER * size, variable, seed=seed, split=split, weights=weights)
            strata = task.strata(drawn.base, drawn.edit_time)
        rows = np.concatenate(
            [np.flatnonzero(drawn.changes & (strata.number == each))[:n] for each in range(len(strata.names))]
        )
        if not len(rows):
            return None
        numbers, present = strata.number[rows], np.unique(strata.number[rows])
        same, bases = same_value(task, drawn, rows, seed=seed)
        return cls(
            variable=variable,
            pairs=_pairs(task, variable, drawn, rows),
            same_value=None if same is None else _pairs(task, variable, same, np.arange(len(same))),
            title=strata.title,
            names=tuple(strata.names[each] for each in present),
            strata=np.searchsorted(present, numbers),
            same_strata=np.searchsorted(present, numbers[bases]),
        )


def equal_shares(weights: np.ndarray | None) -> np.ndarray | None:
    """Weights [stratum, …] with the same sum for each stratum that has any."""
    if weights is None:
        return None
    own = weights.sum(axis=tuple(range(1, weights.ndim)), keepdims=True)
    shares = np.divide(weights, own, out=np.zeros_like(weights), where=own > 0)
    return shares / shares.sum()


def _pairs(task: Task, variable: str, drawn: Counterfactual, rows: np.ndarray) -> SharedPairs:
    return SharedPairs.of(task, {variable: (drawn, rows)}, n_plain=len(rows))


def same_value(
    task: Task, drawn: Counterfactual, rows: np.ndarray, *, seed: int
) -> tuple[Counterfactual | None, np.ndarray]:
    """The bases of these rows, each with one of the drawn sources that has base's own value, at random.

    The answer is then base's own. Bases whose value no source has are left out; returned are the pairs (None where all
    are) and which of `rows` they come from.
    """
    own = task.world.read(drawn.base.examples[rows], drawn.variable, drawn.edit_time[rows])
    matched = matching(own, drawn.values, np.random.default_rng([seed, 2]))
    found = np.flatnonzero(matched >= 0)
    if not len(found):
        return None, found
    sources = matched[found]
    bases, unedited = rows[found], drawn.unedited[rows[found]]
    pairs = Counterfactual(
        variable=drawn.variable,
        base=drawn.base[bases],
        source=drawn.source[sources],
        values=drawn.values[sources],
        positions=drawn.positions[bases],
        expected=unedited,
        unedited=unedited,
        valid=drawn.valid[bases],
        content=drawn.content[bases],
        edit_time=drawn.edit_time[bases],
        source_time=drawn.source_time[sources],
        judged_time=drawn.judged_time[bases],
        redraw_rate=1 - len(found) / len(rows),
    )
    return pairs, found


def matching(own: np.ndarray, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each own value [n] the index of one of `values` [m] that equals it, at random, int64 [n]; -1 where none."""
    order = np.argsort(values, kind="stable")
    first, end = (np.searchsorted(values[order], own, side=side) for side in ("left", "right"))
    there = (end > first) & (own >= 0)
    found = np.full(len(own), -1)
    found[there] = order[first[there] + rng.integers((end - first)[there])]
    return found


@counted(n=1, n_bootstrap=1, batch_size=1)
def stratum_rows(
    model: Any,
    task: Task,
    variable: str,
    swaps: Sequence[Swap],
    *,
    n: int = 64,
    seed: int = 0,
    n_bootstrap: int = 500,
    batch_size: int = 256,
    progress: Callable[[float], None] | None = None,
) -> list[dict[str, Any]]:
    """The three numbers of each swap by stratum, with controls, as rows of the tidy frame.

    Args:
        model: the hooked model, in eval mode.
        task: draws the pairs and knows the world.
        variable: a settable variable.
        swaps: what to swap.
        n: pairs a stratum, at most, whose answer should change.
        seed: of pairs, random subspaces, wrong sites and bootstrap.
        n_bootstrap: bootstrap samples of units.
        batch_size: rows a forward pass.
        progress: called with the share done, 0 to 1.

    Returns:
        Rows in the strata "changes" and "changes, base right"; [] where no pair changes the answer.

    Raises:
        ValueError: an unknown variable, hook or position set, or a basis that does not fit.
    """
    check_sites(model, [swap.site for swap in swaps])
    for swap in swaps:
        check_basis(swap.basis, model)
    drawn = StratifiedPairs.draw(task, variable, n=n, seed=seed) if swaps else None
    if drawn is None:
        return []
    report = progress or (lambda share: None)
    run = partial(swapped_answers, model, batch_size=batch_size)
    parts = [_changing_runs(task, drawn, swaps, seed, partial(run, progress=lambda share: report(0.7 * share)))]
    if drawn.same_value is not None:
        again = partial(run, progress=lambda share: report(0.7 + 0.3 * share))
        parts.append(_same_value_runs(task, drawn.same_value, drawn.same_strata, swaps, again))
    found = []
    for part in parts:
        pairs, rows = part.pairs, part.pairs.members[variable]
        right = answers_base(model, task, pairs, variable, part.unpatched, batch_size=batch_size)
        found += score_rows(
            [{**_columns(variable, swaps[place]), "control": control} for place, control, _ in part.runs],
            [judge_pairs(pairs, variable, answers[rows]) for _, _, answers in part.runs],
            task.groups(pairs.base.examples[rows]).astype(np.int64),
            _strata(drawn.names, part.strata, right),
            seed=seed,
            n_bootstrap=n_bootstrap,
        )
    report(1.0)
    return found


@dataclass(frozen=True)
class _Runs:
    """What came out on one set of pairs."""

    pairs: SharedPairs
    strata: np.ndarray  # of each pair, int64 [m]
    runs: list[tuple[int, Control | None, Tensor]]  # the number of the swap, its control, answers [n, k]
    unpatched: Tensor  # the model's own answers to bases, [n, k]


def _changing_runs(
    task: Task, drawn: StratifiedPairs, swaps: Sequence[Swap], seed: int, run: Callable[..., Tensor]
) -> _Runs:
    """Swaps on pairs whose answer should change: beside each the model alone, a random subspace, a place elsewhere."""
    sites, bases = [swap.site for swap in swaps], [swap.basis for swap in swaps]
    generator = torch.Generator().manual_seed(seed)
    random = [None if basis is None else random_basis(*basis.shape, generator=generator) for basis in bases]
    controls = [place for place, basis in enumerate(random) if basis is not None]
    own = swaps_of(task, sites, drawn.pairs, bases=bases)
    subspaces = swaps_of(
        task, [sites[place] for place in controls], drawn.pairs, bases=[random[place] for place in controls]
    )
    elsewhere = wrong_sites(own, task.n_ctx, seed=seed)
    answers = run(drawn.pairs, [*own, *subspaces, *elsewhere.values()])
    runs: list[tuple[int, Control | None, Tensor]] = [(place, None, answers[place]) for place in range(len(own))]
    runs += [(place, Control.UNPATCHED, answers[-1]) for place in range(len(own))]
    runs += [(place, Control.RANDOM_SUBSPACE, answers[len(own) + at]) for at, place in enumerate(controls)]
    begin = len(own) + len(subspaces)
    runs += [(place, Control.WRONG_SITE, answers[begin + at]) for at, place in enumerate(elsewhere)]
    return _Runs(drawn.pairs, drawn.strata, runs, answers[-1])


def _same_value_runs(
    task: Task, pairs: SharedPairs, strata: np.ndarray, swaps: Sequence[Swap], run: Callable[..., Tensor]
) -> _Runs:
    """Swaps from sources in which the variable has base's own value."""
    some = swaps_of(task, [swap.site for swap in swaps], pairs, bases=[swap.basis for swap in swaps])
    answers = run(pairs, some)
    return _Runs(
        pairs, strata, [(place, Control.SAME_VALUE, each) for place, each in enumerate(answers[:-1])], answers[-1]
    )


def _columns(variable: str, swap: Swap) -> dict[str, Any]:
    rank = None if swap.basis is None else len(swap.basis)
    return {**place_columns(swap.site), "variable": variable, "rank": rank} | swap.columns


def _strata(names: Sequence[str], strata: np.ndarray, right: np.ndarray) -> list[Stratum]:
    """Each stratum of pairs, whole and where the model answers base right."""
    return [
        Stratum({"op": name, "pair_design": DESIGN, "stratum": stratum}, (strata == number) & chosen)
        for number, name in enumerate(names)
        for stratum, chosen in (("changes", np.ones(len(strata), dtype=bool)), (BASE_RIGHT, right))
    ]
