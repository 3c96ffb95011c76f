"""What every probe shares: prediction, scoring and refusals, over whatever class scores it computes."""

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from torch import Tensor

from probes.stack import Array, Axes, as_activations, as_labels


class Probe(BaseEstimator):
    """A stack of classifiers. Subclasses learn `classes_` and `n_features_in_` in fit and implement `_scores`."""

    classes_: np.ndarray
    n_features_in_: int

    def fit(self, X: Array, y: Array) -> Self:
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

    def score(self, X: Array, y: Array) -> Any:
        """Accuracy over the rows where y is defined: a float, or an array [*batch]; NaN where no row is."""
        predicted = self.predict(X)
        labels = as_labels(y, n=predicted.shape[-1]).cpu().numpy()
        defined = np.broadcast_to(labels >= 0, np.broadcast_shapes(labels.shape, predicted.shape))
        with np.errstate(invalid="ignore"):
            accuracy = ((predicted == labels) & defined).sum(-1) / defined.sum(-1)
        return float(accuracy) if accuracy.ndim == 0 else accuracy

    def _batch(self) -> tuple[int, ...]:
        """Batch shape of the fitted stack."""
        raise NotImplementedError

    def _scores(self, x: Tensor, axes: Axes) -> Iterator[Tensor]:
        """Class scores [v, n, C] of each site of x [s, n, d]."""
        raise NotImplementedError

    def _check_fitted(self) -> None:
        if not hasattr(self, "classes_"):
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit(X, y) first")

    def _checked(self, X: Array) -> tuple[Axes, Iterator[Tensor]]:
        self._check_fitted()
        x = as_activations(X)
        if x.shape[-1] != self.n_features_in_:
            raise ValueError(f"X must have {self.n_features_in_} features, as in fit, got {x.shape[-1]}")
        axes = Axes.of(tuple(x.shape[:-2]), self._batch(), what="the fitted probes")
        return axes, self._scores(x.reshape(axes.n_sites, *x.shape[-2:]), axes)


class SoftmaxProbe(Probe):
    """A probe whose class scores are log probabilities up to a constant."""

    def predict_proba(self, X: Array) -> np.ndarray:
        """Class probabilities [*batch, n, C] of X [*batch, n, d]."""
        axes, scores = self._checked(X)
        return axes.join(torch.stack([site.softmax(-1) for site in scores]))
