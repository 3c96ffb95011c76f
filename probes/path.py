"""The regularisation path: logistic probes at several strengths, each probe's strength chosen on a validation part.

1. Rows are split by group into a training and a validation part (all probes of a stack alike).
2. The stack is fitted on the training part at every C, from the strongest penalty to the weakest.
3. Each probe takes the C with the least cross-entropy on the validation part, ties going to the stronger penalty.
4. Each probe is fitted again at its C on all rows. Held-out rows for evaluation are never seen here.
"""

from typing import Self

import numpy as np
import torch
from numpy.typing import ArrayLike

from probes.base import SoftmaxProbe
from probes.linear import LinearProbe
from probes.logistic import LogisticProbe
from probes.stack import MIN_ROWS, Array, Stack, as_activations, as_labels

CS = (0.001, 0.01, 0.1, 1.0, 10.0)
_ROWS = 8192  # rows whose class scores are held at once


class LogisticPathProbe(LinearProbe, SoftmaxProbe):
    """Multinomial logistic regression whose penalty is chosen on a validation part, each probe its own.

    Args:
        Cs: inverse strengths to choose from, as in `LogisticProbe`.
        validation: share of the groups that choose.
        seed: of the split.

    Learned besides coef_, intercept_, classes_: C_ [*batch], validation_loss_ [len(Cs), *batch] in nats a row.
    """

    def __init__(self, *, Cs: tuple[float, ...] = CS, validation: float = 0.2, seed: int = 0):
        self.Cs = Cs
        self.validation = validation
        self.seed = seed

    def fit(self, X: Array, y: Array, groups: ArrayLike | None = None) -> Self:
        """As `LinearProbe.fit`; groups [n], such as programs, stay whole on either side of the split."""
        if not self.Cs or min(self.Cs) <= 0:
            raise ValueError(f"Cs must name positive strengths, got {self.Cs}")
        x = as_activations(X)
        labels = as_labels(y, n=x.shape[-2], device=x.device)
        Stack.of(x, labels)  # refuses what no probe can be fitted on, before any is
        held_out = self._held_out(x.shape[-2], groups)
        rest = np.flatnonzero(held_out)
        strengths = sorted(self.Cs)
        losses = []
        for strength in strengths:
            probe = LogisticProbe(C=strength).fit(x[..., np.flatnonzero(~held_out), :], labels[..., ~held_out])
            losses.append(_loss(probe, x[..., rest, :], labels[..., held_out].cpu().numpy()))
        self.validation_loss_ = np.stack(losses)
        choice = self.validation_loss_.argmin(0)  # the first of equals: the strongest penalty
        fits = {int(i): LogisticProbe(C=strengths[i]).fit(x, labels) for i in np.unique(choice)}
        whole = next(iter(fits.values()))
        self.classes_, self.n_features_in_ = whole.classes_, whole.n_features_in_
        picked = choice[..., None]
        self.intercept_ = np.select([picked == i for i in fits], [fit.intercept_ for fit in fits.values()])
        self.coef_ = np.select([picked[..., None] == i for i in fits], [fit.coef_ for fit in fits.values()])
        self.C_ = np.asarray(strengths)[choice]
        return self

    def _held_out(self, n: int, groups: ArrayLike | None) -> np.ndarray:
        """bool [n]: the validation rows, whole groups."""
        ids = np.arange(n) if groups is None else np.asarray(groups)
        if ids.shape != (n,):
            raise ValueError(f"groups must have shape [{n}], one a row of X, got {list(ids.shape)}")
        unique, ids = np.unique(ids, return_inverse=True)
        count = max(1, round(self.validation * len(unique)))
        held_out = np.isin(ids, np.random.default_rng(self.seed).permutation(len(unique))[:count])
        if (~held_out).sum() < MIN_ROWS:
            raise ValueError(f"X must leave at least {MIN_ROWS} rows to train on, got {int((~held_out).sum())} of {n}")
        return held_out


def _loss(probe: LogisticProbe, x: torch.Tensor, y: np.ndarray) -> np.ndarray:
    """Mean cross-entropy [*batch] in nats of labels y [*batch, n]; a class never seen counts as 1e-9."""
    total, count = 0.0, 0.0
    for start in range(0, x.shape[-2], _ROWS):
        p = probe.predict_proba(x[..., start : start + _ROWS, :])
        labels = np.broadcast_to(y[..., start : start + _ROWS], p.shape[:-1])
        at = np.searchsorted(probe.classes_, labels.clip(min=0)).clip(max=p.shape[-1] - 1)
        right = np.take_along_axis(p, at[..., None], -1)[..., 0] * (probe.classes_[at] == labels)
        total = total - (np.log(right.clip(min=1e-9)) * (labels >= 0)).sum(-1)
        count = count + (labels >= 0).sum(-1)
    return np.asarray(total) / np.maximum(count, 1)
