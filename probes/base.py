"""What every probe shares: prediction, scoring and refusals, over whatever class scores it computes."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from torch import Tensor

from probes.activations import Array, as_activations
from probes.labels import defined, equal, read_labels
from probes.row_weights import as_sample_weight
from probes.stack import Axes


class Probe(ClassifierMixin, BaseEstimator):
    """A stack of classifiers. Subclasses learn `classes_` and `n_features_in_` in fit and implement `_scores`.

    Labels are integers, whole floats, booleans or strings; `classes_` and predictions are in the caller's labels.
    """

    classes_: np.ndarray
    n_features_in_: int

    def fit(self, X: Array, y: Array, sample_weight: ArrayLike | None = None) -> Self:
        """Fit every probe of the stack: X [*batch, n, d], y [*batch, n] with -1 where undefined; returns self."""
        raise NotImplementedError

    def decision_function(self, X: Array) -> np.ndarray:
        """Class scores [*batch, n, C] of X [*batch, n, d]; minus infinity for a class that a probe never saw."""
        axes, scores = self._checked(X)
        return axes.join(torch.stack(list(scores)))

    def predict(self, X: Array) -> np.ndarray:
        """The best class a row: labels [*batch, n] for X [*batch, n, d]."""
        axes, scores = self._checked(X)
        return self.classes_[axes.join(torch.stack([site.argmax(-1) for site in scores]))]

    def score(self, X: Array, y: Array, sample_weight: ArrayLike | None = None) -> Any:
        """Accuracy over the rows where y is defined, weighted if weights [n] or [*batch, n] are given.

        A float, or an array [*batch]; NaN where no row is defined or all weigh nothing.
        """
        return accuracy_of(self.predict(X), y, sample_weight)

    def __getattr__(self, name: str) -> Any:
        if name in ("predict_proba", "predict_log_proba"):
            raise AttributeError(
                f"{type(self).__name__} gives no probabilities, its scores are no log probabilities: "
                f"LogisticProbe has {name}"
            )
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _batch(self) -> tuple[int, ...]:
        """Batch shape of the fitted stack."""
        raise NotImplementedError

    def _scores(self, x: Tensor, axes: Axes) -> Iterator[Tensor]:
        """Class scores [v, n, C] of each site of x [s, n, d]."""
        raise NotImplementedError

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit(X, y) first")

    def _activations(self, X: Array) -> Tensor:
        x = as_activations(X)
        if x.shape[-1] != self.n_features_in_:
            raise ValueError(f"X must have {self.n_features_in_} features, as in fit, got {x.shape[-1]}")
        return x

    def _checked(self, X: Array) -> tuple[Axes, Iterator[Tensor]]:
        self._check_fitted()
        x = self._activations(X)
        axes = Axes.of(tuple(x.shape[:-2]), self._batch(), what="the fitted probes")
        return axes, self._scores(x.reshape(axes.n_sites, *x.shape[-2:]), axes)


class SoftmaxProbe(Probe):
    """A probe whose class scores are log probabilities up to a constant."""

    def predict_proba(self, X: Array) -> np.ndarray:
        """Class probabilities [*batch, n, C] of X [*batch, n, d]."""
        axes, scores = self._checked(X)
        return axes.join(torch.stack([site.softmax(-1) for site in scores]))

    def predict_log_proba(self, X: Array) -> np.ndarray:
        """Their logarithms [*batch, n, C], minus infinity for a class that a probe never saw."""
        axes, scores = self._checked(X)
        return axes.join(torch.stack([site.log_softmax(-1) for site in scores]))


def accuracy_of(predicted: np.ndarray, y: Array, sample_weight: ArrayLike | None) -> Any:
    """Share of the defined rows of y that predictions [*batch, n] have right; see `Probe.score`."""
    n = predicted.shape[-1]
    labels = read_labels(y, n=n)
    weights = np.ones(n) if sample_weight is None else as_sample_weight(sample_weight, n=n)
    counted = defined(labels) * weights
    right = (equal(predicted, labels) * counted).sum(-1)
    with np.errstate(invalid="ignore"):
        accuracy = right / np.broadcast_to(counted.sum(-1), right.shape)
    return float(accuracy) if accuracy.ndim == 0 else accuracy
