"""Interchange interventions, judged by the world (Geiger et al. 2021; subspaces as in Geiger et al. 2024).

For a variable X and a site s, over pairs of a base and a source example:

    IIA(X, s) = mean of 1[ model(base with s <- the model's s on source) = world(base, do X <- X(source)) ]

on the whole answer, wherever the world has one. In a subspace with orthonormal rows R,
h' = h_base + (h_source - h_base) R^T R.

Read the number in the stratum "changes", where the world's counterfactual answer differs from its answer on base:
elsewhere a patch that does nothing is right. Beside it stand, on the same pairs: the unpatched model, an untrained
model, a random subspace of the same rank, and the wrong site, as many random positions outside the set (in the same
subspace). At layer 0
swapping the positions that hold a stored variable edits the input: a ceiling, not evidence. Swapping all positions
gives model(source) at any layer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.interventions.activations import check_sites
from interp.interventions.declared import stream_hooks
from interp.interventions.pairs import SharedPairs
from interp.interventions.patching import check_basis
from interp.interventions.scores import Scores
from interp.interventions.sweep import Interchange, interchange_answers
from interp.ranges import counted
from interp.results import Aggregation, Control, Method, Metric
from interp.tasks import Batch, Task
from interp.tasks.counterfactual import PairDesign
from interp.tasks.sites import Site

log = logging.getLogger(__name__)

Subspaces = Mapping[tuple[str, Site], Tensor]  # (variable, site) -> orthonormal rows [rank, d]


def interchange(
    task: Task,
    sites: Sequence[Site],
    base: Batch,
    source: Batch,
    *,
    bases: Sequence[Tensor | None] | None = None,
    edit_time: int | np.ndarray = 0,
    source_time: int | np.ndarray = 0,
) -> list[Interchange]:
    """Sites resolved in base and in source; `bases` gives each a subspace.

    Pointers are read at executed step `edit_time` of base and `source_time` of source, one for all or one each.

    Raises:
        ValueError: a position set cannot be resolved, or does not have the same size in base and source.
    """
    resolved = {
        name: (task.resolve(name, base, edit_time), task.resolve(name, source, source_time))
        for name in {site.positions for site in sites}
    }
    bases = [None] * len(sites) if bases is None else bases
    return [
        Interchange(site.hook, *resolved[site.positions], head=site.head, basis=basis)
        for site, basis in zip(sites, bases, strict=True)
    ]


def swaps_of(
    task: Task,
    sites: Sequence[Site],
    pairs: SharedPairs,
    rows: np.ndarray | None = None,
    *,
    bases: Sequence[Tensor | None] | None = None,
) -> list[Interchange]:
    """Sites resolved in pairs, or in some rows of them."""
    every = np.arange(len(pairs)) if rows is None else rows
    times = {"edit_time": pairs.edit_time[every], "source_time": pairs.source_time[every]}
    return interchange(task, sites, pairs.base[every], pairs.source[every], bases=bases, **times)


@counted(variables=1, n_pairs=1, n_changing=0, n_bootstrap=1, batch_size=1)
def iia_sweep(
    model: Any,
    task: Task,
    variables: Sequence[str],
    sites: Sequence[Site],
    *,
    n_pairs: int = 256,
    n_changing: int | None = None,
    seed: int = 0,
    design: PairDesign = "independent",
    subspaces: Subspaces | None = None,
    subspace_method: Method = Method.PROBE_SUBSPACE,
    n_random_subspaces: int = 2,
    untrained: Any | None = None,
    wrong_site: bool = True,
    n_bootstrap: int = 500,
    batch_size: int = 256,
    progress: Callable[[float], None] | None = None,
) -> list[dict[str, Any]]:
    """IIA of each variable at each site, with its controls, as rows of the tidy frame.

    Full-vector swaps do not depend on the variable, so one patched sweep serves all variables that share pairs.

    Args:
        model: the hooked model, in eval mode.
        task: draws the pairs and knows the world.
        variables: names of settable variables.
        sites: where to swap the full vector.
        n_pairs: pairs a variable.
        n_changing: how many of them should change the answer, at least; further ones are looked for where it is rare
            (a quarter of `n_pairs` by default).
        seed: of pairs, random subspaces, wrong sites and bootstrap.
        design: "independent" draws base and source apart; "minimal" makes source from base by one edit.
        subspaces: for (variable, site), a basis [rank, d] of orthonormal rows to swap alone; the site need not be
            among `sites`. Pass the probe's, for example.
        subspace_method: how these were found.
        n_random_subspaces: random subspaces of the same rank, averaged, that control each of these.
        untrained: a model of the same shape with initial weights, for the control; None leaves it out.
        wrong_site: whether to run the wrong-site control.
        n_bootstrap: bootstrap samples of units for the intervals.
        batch_size: rows a forward pass.
        progress: called with the share done, 0 to 1.

    Returns:
        Rows of IIA (in the stratum "changes" also effect_accuracy and side_accuracy), and one a variable with the share
        of pairs that were redrawn. A row and its controls share every key but `control`. Strata without pairs have no
        row.

    Raises:
        ValueError: an unknown variable, hook or position set, or a basis of the wrong shape.
    """
    report = progress or (lambda share: None)
    subspaces = subspaces or {}
    check_sites(model, [*sites, *(site for _, site in subspaces)])
    for basis in subspaces.values():
        check_basis(basis, model)
    n_changing = n_pairs // 4 if n_changing is None else n_changing
    pairs = SharedPairs.draw(task, variables, n_pairs=n_pairs, n_changing=n_changing, seed=seed, design=design)
    log.info("interchange, %s pairs: %d distinct pairs serve %d variables", design, len(pairs), len(variables))

    swaps = swaps_of(task, sites, pairs)
    wrong = wrong_sites(swaps, task.n_ctx, seed=seed) if wrong_site else {}
    n_own = sum(name in pairs.members for name, _ in subspaces)
    n_models = 2 if untrained is not None else 1
    total = len(swaps) * n_models + len(wrong) + n_own * (1 + n_random_subspaces + wrong_site)
    scores = Scores(task, pairs, design=design, seed=seed, n_bootstrap=n_bootstrap)
    sweep = _Sweep(task, pairs, scores, total, seed=seed, batch_size=batch_size, report=report)
    unpatched = sweep.whole_vectors(model, sites, swaps, wrong, untrained)
    base_right = {name: answers_base(model, task, pairs, name, unpatched, batch_size=batch_size) for name in variables}
    for name in variables:  # subspaces are a variable's own: one sweep for all its sites
        own = [(site, basis) for (owner, site), basis in subspaces.items() if owner == name]
        if own:
            sweep.subspaces(model, name, own, subspace_method, n_random=n_random_subspaces, wrong_site=wrong_site)
    rates = [
        {
            "variable": name,
            "pair_design": design,
            "metric": Metric.REDRAW_RATE,
            "aggregation": Aggregation.MEAN,
            "estimate": rate,
            "n": len(pairs.members[name]),
        }
        for name, rate in pairs.redraw_rate.items()
    ]
    return scores.rows(base_right) + rates


@dataclass
class _Sweep:
    """The patched passes of a sweep over shared pairs: what comes out goes to `scores`, with its controls."""

    task: Task
    pairs: SharedPairs
    scores: Scores
    total: int  # interchanges in all
    _: KW_ONLY
    seed: int
    batch_size: int
    report: Callable[[float], None]
    done: int = 0  # interchanges so far

    def whole_vectors(
        self,
        model: Any,
        sites: Sequence[Site],
        swaps: Sequence[Interchange],
        wrong: Mapping[int, Interchange],
        untrained: Any | None,
    ) -> Tensor:
        """Swap the whole vector at each site, and elsewhere where `wrong` has an interchange by the site's number.

        Returns the model's own answers to all bases, [n, k].
        """
        full = self._run(model, [*swaps, *wrong.values()])
        blank = None if untrained is None else self._run(untrained, swaps)
        wrong_place = {index: len(swaps) + place for place, index in enumerate(wrong)}
        key = {"method": Method.FULL_VECTOR}
        for index, site in enumerate(sites):
            for name, rows in self.pairs.members.items():
                self.scores.add(name, site, key, full[index, rows])
                self.scores.add(name, site, key, full[-1, rows], control=Control.UNPATCHED)
                if blank is not None:
                    self.scores.add(name, site, key, blank[index, rows], control=Control.UNTRAINED_MODEL)
                if index in wrong_place:
                    self.scores.add(name, site, key, full[wrong_place[index], rows], control=Control.WRONG_SITE)
        return full[-1]

    def subspaces(
        self,
        model: Any,
        name: str,
        own: Sequence[tuple[Site, Tensor]],
        method: Method,
        *,
        n_random: int,
        wrong_site: bool,
    ) -> None:
        """Swap the variable's subspaces, each beside `n_random` random ones of its rank and one place elsewhere."""
        repeated, bases, each = [], [], 1 + n_random
        for site, basis in own:
            generator = torch.Generator().manual_seed(self.seed)
            bases += [basis, *(random_basis(*basis.shape, generator=generator) for _ in range(n_random))]
            repeated += [site] * each
        rows = self.pairs.members[name]
        some = swaps_of(self.task, repeated, self.pairs, rows, bases=bases)
        elsewhere = wrong_sites(some[::each], self.task.n_ctx, seed=self.seed) if wrong_site else {}
        answers = self._run(model, [*some, *elsewhere.values()], rows)
        for place, (site, basis) in enumerate(own):
            first = place * each
            key = {"method": method, "rank": len(basis)}
            self.scores.add(name, site, key, answers[first])
            self.scores.add(name, site, key, answers[-1], control=Control.UNPATCHED)
            if n_random:
                random = answers[first + 1 : first + each]
                self.scores.add(name, site, key, random, control=Control.RANDOM_SUBSPACE)
            if place in elsewhere:
                moved = answers[len(some) + list(elsewhere).index(place)]
                self.scores.add(name, site, key, moved, control=Control.WRONG_SITE)

    def _run(self, model: Any, some: Sequence[Interchange], rows: np.ndarray | None = None) -> Tensor:
        done, total = self.done, max(self.total, 1)
        self.done += len(some)
        return swapped_answers(
            model,
            self.pairs,
            some,
            rows,
            batch_size=self.batch_size,
            progress=lambda share: self.report((done + share * len(some)) / total),
        )


@counted(batch_size=1)
def swapped_answers(
    model: Any,
    pairs: SharedPairs,
    swaps: Sequence[Interchange],
    rows: np.ndarray | None = None,
    *,
    batch_size: int = 256,
    progress: Callable[[float], None] | None = None,
) -> Tensor:
    """Answers to bases under each swap, and last to the bases left alone, [swaps + 1, n, k]; of some rows of pairs."""
    chosen = slice(None) if rows is None else torch.from_numpy(rows)
    return interchange_answers(
        model,
        pairs.base.tokens[chosen],
        pairs.source.tokens[chosen],
        swaps,
        positions=pairs.positions[chosen],
        batch_size=batch_size,
        progress=progress,
    )


def answers_base(
    model: Any, task: Task, pairs: SharedPairs, name: str, unpatched: Tensor, *, batch_size: int = 256
) -> np.ndarray:
    """Whether the model, left alone, answers the base of each of the variable's pairs right, bool [m].

    Args:
        model: the hooked model.
        task: shows the bases.
        pairs: of the variable, among others.
        name: the variable.
        unpatched: the model's answers to all bases as the pairs show them, [n, k].
        batch_size: rows a forward pass.
    """
    rows, unedited = pairs.members[name], pairs.unedited[name]
    answers = own_answers(
        model, task, pairs.base.examples[rows], unedited, pairs.positions[rows], batch_size=batch_size
    )
    return (
        ((unpatched[rows] if answers is None else answers) == unedited).logical_or(~pairs.valid[name]).all(-1).numpy()
    )


def own_answers(
    model: Any, task: Task, bases: Any, answers: Tensor, positions: Tensor, *, batch_size: int = 256
) -> Tensor | None:
    """The model's answers [n, k] to bases that are shown with their own answer; None where tasks show none.

    Pairs of a task that shows the answer show the counterfactual one, behind which the model's own cannot be read.
    """
    if not task.shows_answer:
        return None
    tokens = task.render(bases, answers.numpy()).tokens
    return interchange_answers(model, tokens, tokens, [], positions=positions, batch_size=batch_size)[-1]


@counted(rank=1, size=1)
def random_basis(rank: int, size: int, *, generator: torch.Generator) -> Tensor:
    """Orthonormal rows [rank, size] of a uniformly random subspace."""
    if not 1 <= rank <= size:
        raise ValueError(f"rank must be from 1 to {size}, got {rank}")
    return torch.linalg.qr(torch.randn(size, rank, generator=generator)).Q.T.contiguous()


def wrong_sites(swaps: Sequence[Interchange], n_ctx: int, *, seed: int) -> dict[int, Interchange]:
    """For each interchange whose complement is large enough, one at as many random positions outside its set."""
    rng = np.random.default_rng(seed)
    wrong = {}
    for index, swap in enumerate(swaps):
        n, k = swap.base_positions.shape
        taken = torch.zeros(n, n_ctx, dtype=torch.bool)
        taken.scatter_(1, swap.base_positions, True).scatter_(1, swap.source_positions, True)
        if int(taken.sum(1).max()) + k > n_ctx:
            continue
        order = torch.from_numpy(rng.random((n, n_ctx))) + taken  # taken positions come last
        positions = order.argsort(dim=1)[:, :k].sort(dim=1).values
        wrong[index] = Interchange(swap.hook, positions, positions, head=swap.head, basis=swap.basis)
    return wrong


def residual_sites(model: Any, position_sets: Sequence[str]) -> list[Site]:
    """The residual stream before the first layer and after each, or the carry of each loop step, at each position set.

    Raises:
        ValueError: the model has no residual stream.
    """
    hooks = stream_hooks(model)
    if not hooks:
        raise ValueError("the model declares no residual stream: name the hooks to swap at")
    return [Site(hook, positions) for hook in hooks for positions in position_sets]
