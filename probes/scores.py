"""Scores of probes: splits by group, accuracy, bootstrap over groups, joint exactness, confusion.

Rows that come from one program are not independent, so a *group* (the program's hash) is the unit everywhere: it stands
in one part of a split, and the bootstrap redraws whole groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from probes.controls import majority_label
from probes.labels import as_labels
from probes.parameters import check_whole

Scalars = Any  # a Python number for one probe, an array [*batch] for a stack

MIN_GROUPS = 10  # fewer give no interval worth printing


class Interval(NamedTuple):
    """An estimate with the ends of its confidence interval; floats, or arrays [*batch] for a stack."""

    estimate: Scalars
    low: Scalars
    high: Scalars


@dataclass(frozen=True)
class ProbeScore:
    """How one probe did on its evaluation rows; for a stack every field is an array [*batch] and `score[i]` is one."""

    accuracy: Scalars
    ci_low: Scalars  # percentile bootstrap over groups, of accuracy
    ci_high: Scalars
    balanced_accuracy: Scalars  # mean recall over the classes that occur
    majority_accuracy: Scalars  # of the training rows' most frequent label, on the same rows
    n: Scalars  # evaluation rows where the variable is defined
    n_groups: Scalars  # programs among them

    def __getitem__(self, index: int | tuple[int, ...]) -> "ProbeScore":
        return ProbeScore(**{name: _plain(np.asarray(value)[index]) for name, value in vars(self).items()})


def split_groups(groups: ArrayLike, *, fractions: tuple[float, ...] = (0.8, 0.2), seed: int) -> list[np.ndarray]:
    """Row indices of each part, ascending, such that no group stands in two parts.

    Fractions count groups, not rows, and sum to at most 1. Every part gets at least one group, or ValueError.
    """
    ids = _group_ids(groups)
    if not len(fractions) or not (all(part > 0 for part in fractions) and sum(fractions) <= 1 + 1e-9):
        raise ValueError(f"fractions must be positive and sum to at most 1, got {fractions}")
    n_groups = int(ids.max()) + 1
    order = np.random.default_rng(seed).permutation(n_groups)
    ends = np.round(np.cumsum(fractions) * n_groups).astype(int)
    parts = [order[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    if any(len(part) == 0 for part in parts):
        raise ValueError(f"groups must be enough for {len(fractions)} parts of {fractions}, got {n_groups} groups")
    return [np.flatnonzero(np.isin(ids, part)) for part in parts]


def accuracy(predicted: ArrayLike, y: ArrayLike) -> Scalars:
    """Share of defined rows (y >= 0) predicted right: float, or [*batch] for [*batch, n]; NaN where none is defined."""
    correct, defined = _correct(predicted, y)
    with np.errstate(invalid="ignore"):
        return _plain(correct.sum(-1) / defined.sum(-1))


def balanced_accuracy(predicted: ArrayLike, y: ArrayLike) -> Scalars:
    """Mean over the classes that occur of their recall: float, or [*batch] for [*batch, n]."""
    counts = confusion_matrix(predicted, y)
    total = counts.sum(-1)
    with np.errstate(invalid="ignore"):
        recall = np.diagonal(counts, axis1=-2, axis2=-1) / total
        return _plain(np.where(total > 0, recall, 0).sum(-1) / (total > 0).sum(-1))


def confusion_matrix(predicted: ArrayLike, y: ArrayLike, *, n_classes: int | None = None) -> np.ndarray:
    """Counts int64 [*batch, n_classes, n_classes]: rows are true labels, columns predictions; -1 rows left out."""
    guess, labels = _pair(predicted, y)
    if ((guess < 0) & (labels >= 0)).any():
        raise ValueError(f"predicted must hold labels >= 0, got {int(guess.min())}")
    if n_classes is not None:
        check_whole("n_classes", n_classes, least=1)
    needed = int(max(guess.max(), labels.max())) + 1
    size = needed if n_classes is None else n_classes
    if needed > size:
        raise ValueError(f"n_classes must be at least {needed}, the labels' range, got {size}")
    batch, n = labels.shape[:-1], labels.shape[-1]
    labels, guess = labels.reshape(-1, n), guess.reshape(-1, n)
    probe = np.broadcast_to(np.arange(len(labels))[:, None], labels.shape)
    cell = (probe * size + labels) * size + guess
    return np.bincount(cell[labels >= 0], minlength=len(labels) * size * size).reshape(*batch, size, size)


def joint_exactness(predicted: ArrayLike, y: ArrayLike, *, axis: int = -2) -> Scalars:
    """Share of rows on which every probe along `axis` is right at once; undefined labels (-1) ask nothing.

    predicted and y are [*batch, v, n]; rows where none of the v variables is defined are left out.
    """
    correct, defined = _correct(predicted, y)
    exact = (correct | ~defined).all(axis) & defined.any(axis)
    with np.errstate(invalid="ignore"):
        return _plain(exact.sum(-1) / defined.any(axis).sum(-1))


def bootstrap_mean(
    values: ArrayLike,
    groups: ArrayLike,
    *,
    seed: int,
    defined: ArrayLike | None = None,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Mean of values [*batch, n], with a percentile interval over redrawn groups (Davison & Hinkley 1997).

    Groups are drawn with replacement, whole; each resample's mean weighs rows equally. All of a stack shares the draws,
    so differences of rows (task minus control) may be passed as values and are then paired.

    Args:
        values: numbers [*batch, n], booleans included.
        groups: group of each row, integers [n]; at least ten groups, or ValueError.
        seed: of the draws.
        defined: bool [*batch, n], rows that count; all by default.
        n_resamples: number of redraws.
        level: coverage aimed at.
    """
    drawn = Bootstrap(groups, seed=seed, n_resamples=n_resamples)
    return drawn.mean(values, defined=defined, level=level)


class Bootstrap:
    """Draws of groups, made once and used for many means; see `bootstrap_mean`."""

    def __init__(self, groups: ArrayLike, *, seed: int, n_resamples: int = 1000):
        check_whole("n_resamples", n_resamples, least=1)
        self._ids = _group_ids(groups)
        self._n = n_groups = int(self._ids.max()) + 1
        if n_groups < MIN_GROUPS:
            raise ValueError(f"groups must number at least {MIN_GROUPS} for an interval, got {n_groups}")
        rng = np.random.default_rng(seed)
        # How often each group stands in each resample, [n_groups, n_resamples].
        self._weights = np.empty((n_groups, n_resamples), np.uint16)
        for start, size in self._chunks():
            draws = rng.integers(n_groups, size=(size, n_groups)) + n_groups * np.arange(size)[:, None]
            counts = np.bincount(draws.ravel(), minlength=size * n_groups).reshape(size, n_groups)
            self._weights[:, start : start + size] = counts.T

    def mean(self, values: ArrayLike, *, defined: ArrayLike | None = None, level: float = 0.95) -> Interval:
        """Means of values [*batch, n] over the rows that are defined, with their intervals."""
        x = np.asarray(values)
        if x.shape[-1] != len(self._ids):
            raise ValueError(f"groups must have shape [{x.shape[-1]}], one a row, got [{len(self._ids)}]")
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        mask = np.ones(x.shape, bool) if defined is None else np.broadcast_to(np.asarray(defined, bool), x.shape)
        flat, flat_mask = x.reshape(-1, x.shape[-1]), mask.reshape(-1, x.shape[-1])
        sums, sizes = np.empty((2, len(flat), self._n))
        for i, (row, m) in enumerate(zip(flat, flat_mask, strict=True)):
            sums[i] = np.bincount(self._ids, np.where(m, row, 0), self._n)
            sizes[i] = np.bincount(self._ids, m, self._n)
        means = np.empty((len(flat), self._weights.shape[1]))
        with np.errstate(invalid="ignore"):
            for start, size in self._chunks():
                weights = self._weights[:, start : start + size].astype(np.float64)
                means[:, start : start + size] = (sums @ weights) / (sizes @ weights)
            estimate = sums.sum(1) / sizes.sum(1)
            tail = (1 - level) / 2
            known = np.isfinite(estimate)
            ends = np.full((2, len(flat)), np.nan)
            if known.any():
                ends[:, known] = np.nanquantile(means[known], [tail, 1 - tail], axis=1)
        batch = x.shape[:-1]
        return Interval(*(_plain(part.reshape(batch)) for part in (estimate, ends[0], ends[1])))

    def _chunks(self) -> Iterator[tuple[int, int]]:
        """(first, how many) of the resamples that are handled at once."""
        n_resamples, chunk = self._weights.shape[1], max(1, (1 << 22) // self._n)
        return ((start, min(chunk, n_resamples - start)) for start in range(0, n_resamples, chunk))


def score_predictions(
    predicted: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    *,
    seed: int,
    train_y: ArrayLike | None = None,
    n_resamples: int = 1000,
    level: float = 0.95,
) -> ProbeScore:
    """Score predictions [*batch, n] against labels y (broadcast; -1 undefined) from evaluation groups [n].

    train_y [*batch of y, m] are the labels that the probe was fitted on: the majority class is taken from them (from y
    when absent).
    """
    guess, labels = _pair(predicted, y)
    correct, defined = _correct(guess, labels)
    interval = bootstrap_mean(correct, groups, seed=seed, defined=defined, n_resamples=n_resamples, level=level)
    common = majority_label(np.asarray(y if train_y is None else train_y))
    ids = _group_ids(groups, n=labels.shape[-1])
    present = [len(np.unique(ids[row])) for row in defined.reshape(-1, defined.shape[-1])]
    return ProbeScore(
        accuracy=interval.estimate,
        ci_low=interval.low,
        ci_high=interval.high,
        balanced_accuracy=balanced_accuracy(guess, labels),
        majority_accuracy=accuracy(np.broadcast_to(common[..., None], labels.shape), labels),
        n=_plain(defined.sum(-1)),
        n_groups=_plain(np.reshape(present, defined.shape[:-1])),
    )


def _plain(value: np.ndarray):
    """A Python number for a single probe, the array for a stack."""
    array = np.asarray(value)
    return array.item() if array.ndim == 0 else array


def _pair(predicted: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    guess = np.asarray(predicted)
    if guess.dtype.kind not in "iu":
        raise TypeError(f"predicted must hold integer class labels, got dtype {guess.dtype}")
    if guess.ndim < 1 or not guess.size:
        raise ValueError(f"predicted must have shape [*batch, n] with n > 0, got {list(guess.shape)}")
    labels = as_labels(np.asarray(y), n=guess.shape[-1]).numpy()
    try:
        guess, labels = np.broadcast_arrays(guess, labels)
    except ValueError:
        raise ValueError(f"y {list(labels.shape)} must broadcast with predicted {list(guess.shape)}") from None
    return guess, labels


def _correct(predicted: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """bool [*batch, n]: right, and defined."""
    guess, labels = _pair(predicted, y)
    return (guess == labels) & (labels >= 0), labels >= 0


def _group_ids(groups: ArrayLike, n: int | None = None) -> np.ndarray:
    """Groups as consecutive ids from 0, int64 [n]."""
    array = np.asarray(groups)
    if array.ndim != 1 or len(array) == 0 or (n is not None and len(array) != n):
        raise ValueError(f"groups must have shape [{'n' if n is None else n}], one a row, got {list(array.shape)}")
    return np.unique(array, return_inverse=True)[1]
