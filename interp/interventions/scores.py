"""From answers to rows: whether the whole answer is right, whether what should change changed, what should stay stayed.

For a pair whose counterfactual answer has k places, of which some are judged (`valid`):

    iia               1 where every judged place holds the expected token
    effect_accuracy   of the judged places whose expected token is not the one of the world's answer on base, the share
                      that hold it
    side_accuracy     of the other judged places, punctuation left out, the share that hold the token of base's answer

A row is the mean over pairs; a pair without a place to count is left out of that mean, and a row without pairs is
absent. Intervals are over the units of the bases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from interp.interventions.pairs import SharedPairs
from interp.results import Aggregation, Control, IntervalKind, Metric
from interp.tasks import Task
from interp.tasks.sites import Site
from probes.scores import MIN_GROUPS, bootstrap_mean

STRATA = ("changes", "same", "all")
BASE_RIGHT = "changes, base right"  # the pairs of "changes" whose base the model answers right when left alone
THREE = (Metric.IIA, Metric.EFFECT_ACCURACY, Metric.SIDE_ACCURACY)


@dataclass(frozen=True)
class Stratum:
    """Some of the pairs, the columns that their rows have in common, and what is said of them."""

    columns: dict[str, Any]
    chosen: np.ndarray  # bool [m]
    metrics: tuple[Metric, ...] = THREE


def judge(
    answers: Tensor, *, expected: Tensor, unedited: Tensor, valid: Tensor, content: Tensor
) -> dict[Metric, np.ndarray]:
    """The three numbers of each pair.

    Args:
        answers: the model's, long [m, k]; or [runs, m, k], over whose runs the mean is taken.
        expected: the world's counterfactual answer, long [m, k].
        unedited: the world's answer on base, long [m, k].
        valid: whether a place is judged, bool [m, k].
        content: whether a place is no punctuation, bool [m, k].

    Returns:
        By metric float [m]; NaN where the pair has no such place.
    """
    hits, changed = answers == expected, expected != unedited
    found = {
        Metric.IIA: (hits | ~valid).all(-1).float(),
        Metric.EFFECT_ACCURACY: _share(hits, valid & changed),
        Metric.SIDE_ACCURACY: _share(hits, valid & ~changed & content),
    }
    return {metric: (each if each.ndim == 1 else each.mean(0)).numpy() for metric, each in found.items()}


def judge_pairs(pairs: SharedPairs, name: str, answers: Tensor) -> dict[Metric, np.ndarray]:
    """The three numbers of the pairs of one variable, from answers [m, k] or [runs, m, k]."""
    return judge(
        answers,
        expected=pairs.targets[name],
        unedited=pairs.unedited[name],
        valid=pairs.valid[name],
        content=pairs.content[name],
    )


def _share(hits: Tensor, counted: Tensor) -> Tensor:
    """The share of the counted places [m, k] that are hit, [..., m]; NaN where none is counted."""
    return (hits & counted).sum(-1).float() / counted.sum(-1)


def score_rows(
    keys: Sequence[dict[str, Any]],
    judged: Sequence[dict[Metric, np.ndarray]],
    groups: np.ndarray,
    strata: Sequence[Stratum],
    *,
    seed: int,
    n_bootstrap: int,
) -> list[dict[str, Any]]:
    """A row for each stratum, metric and key; an interval is absent where a stratum has too few units for one.

    Args:
        keys: the columns of each run of the model.
        judged: what each run did on the same m pairs, as `judge` says.
        groups: the unit of each pair's base, int64 [m].
        strata: which pairs rows are about.
        seed: of the bootstrap.
        n_bootstrap: bootstrap samples of units.
    """
    rows: list[dict[str, Any]] = []
    for stratum in strata:
        for metric in stratum.metrics:
            values = np.array([each[metric] for each in judged])  # [key, m]
            # Whether a pair has places to count does not depend on the answers: NaN stands in all rows alike.
            chosen = stratum.chosen & ~np.isnan(values).any(axis=0)
            if not chosen.any():
                continue
            few = len(np.unique(groups[chosen])) < MIN_GROUPS
            ends = np.full((2, len(keys)), np.nan)
            if not few:
                ends[:] = bootstrap_mean(values[:, chosen], groups[chosen], seed=seed, n_resamples=n_bootstrap)[1:]
            for place, key in enumerate(keys):
                rows.append(
                    {
                        **key,
                        **stratum.columns,
                        "metric": metric,
                        "aggregation": Aggregation.MEAN,
                        "estimate": float(values[place, chosen].mean()),
                        "ci_low": None if few else float(ends[0, place]),
                        "ci_high": None if few else float(ends[1, place]),
                        "interval_kind": None if few else IntervalKind.BOOTSTRAP_PROGRAMS,
                        "n": int(chosen.sum()),
                    }
                )
    return rows


class Scores:
    """Collects the runs of a sweep over shared pairs, variable by variable, and turns them into rows."""

    def __init__(self, task: Task, pairs: SharedPairs, *, design: str, seed: int, n_bootstrap: int):
        self._pairs, self._design, self._seed, self._n_bootstrap = pairs, design, seed, n_bootstrap
        self._groups = task.groups(pairs.base.examples).astype(np.int64)
        self._keys: dict[str, list[dict[str, Any]]] = {name: [] for name in pairs.members}
        self._judged: dict[str, list[dict[Metric, np.ndarray]]] = {name: [] for name in pairs.members}

    def add(
        self, name: str, site: Site, key: dict[str, Any], answers: Tensor, *, control: Control | None = None
    ) -> None:
        """Judge answers [m, k] to the variable's pairs, or several runs of them [runs, m, k], whose mean is taken."""
        self._judged[name].append(judge_pairs(self._pairs, name, answers))
        self._keys[name].append({**place_columns(site), "variable": name, **key, "control": control})

    def rows(self, base_right: dict[str, np.ndarray]) -> list[dict[str, Any]]:
        """All rows; base_right: of each variable's pairs, whether the model answers base right, bool [m]."""
        rows = []
        for name, keys in self._keys.items():
            if not keys:
                continue
            changes = self._pairs.changes[name]
            plain = np.arange(len(changes)) < self._pairs.n_plain
            parts: list[tuple[str, np.ndarray, tuple[Metric, ...]]] = [
                ("changes", changes, THREE),
                ("same", ~changes, (Metric.IIA,)),
                ("all", plain, (Metric.IIA,)),
                (BASE_RIGHT, changes & base_right[name], (Metric.IIA,)),
            ]
            strata = [
                Stratum({"pair_design": self._design, "stratum": stratum}, chosen, metrics)
                for stratum, chosen, metrics in parts
            ]
            groups = self._groups[self._pairs.members[name]]
            rows += score_rows(keys, self._judged[name], groups, strata, seed=self._seed, n_bootstrap=self._n_bootstrap)
        return rows


def place_columns(site: Site) -> dict[str, str]:
    """How the tidy frame spells a site."""
    return {"site": site_column(site), "position": site.positions}


def site_column(site: Site) -> str:
    """How the tidy frame spells a site's hook and head: "blocks.1.attn.hook_z[2]" for head 2."""
    return site.hook if site.head is None else f"{site.hook}[{site.head}]"
