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

from probes.activations import Array
from probes.base import SoftmaxProbe
from probes.linear import LinearProbe
from probes.logistic import LogisticProbe
from probes.parameters import check_real, check_share, check_whole
from probes.row_weights import ClassWeight
from probes.stack import MIN_ROWS, Stack

CS = (0.001, 0.01, 0.1, 1.0, 10.0)
_ROWS = 8192  # rows whose class scores are held at once


class LogisticPathProbe(LinearProbe, SoftmaxProbe):
    """Multinomial logistic regression whose penalty is chosen on a validation part, each probe its own.

    Args:
        Cs: inverse strengths to choose from, as in `LogisticProbe`.
        validation: share of the groups that choose.
        seed: of the split.
        class_weight: as in `LogisticProbe`; of fits and validation alike.

    Learned besides coef_, intercept_, classes_: C_ [*batch], validation_loss_ [len(Cs), *batch] in nats a row,
    converged_ bool [*batch] of the fits at C_, as in `LogisticProbe`.
    """

    def __init__(
        self,
        *,
        Cs: tuple[float, ...] = CS,
        validation: float = 0.2,
        seed: int = 0,
        class_weight: ClassWeight = None,
    ):
        self.Cs = Cs
        self.validation = validation
        self.seed = seed
        self.class_weight = class_weight

    @torch.no_grad()
    def fit(
        self, X: Array, y: Array, sample_weight: ArrayLike | None = None, *, groups: ArrayLike | None = None
    ) -> Self:
        """As `LinearProbe.fit`; groups [n], such as programs, stay whole on either side of the split.

        Raises ValueError, besides, where one part has too few labelled rows of a probe.
        """
        self._check_parameters()
        # One check for all fits; weights stay with their rows, so a class weighs the same in every part.
        stack = Stack.of(X, y, sample_weight, self.class_weight)
        s, v = len(stack.x), stack.y.shape[1]
        x = stack.x[:, None]  # [s, 1, n, d] beside labels [1 or s, v, n]
        codes = stack.y.cpu().numpy()
        weights = None if stack.weights is None else stack.weights.cpu().numpy()
        held_out = self._held_out(x.shape[-2], groups)
        train, rest = np.flatnonzero(~held_out), np.flatnonzero(held_out)
        if not (codes[..., rest] >= 0).any(-1).all():
            raise ValueError("y must have labelled rows of every probe in the validation part, one has none there")
        parts = [None if weights is None else weights[..., rows] for rows in (train, rest)]
        strengths = sorted(float(C) for C in self.Cs)
        losses = []
        for strength in strengths:
            probe = LogisticProbe(C=strength).fit(x[..., train, :], codes[..., train], parts[0])
            losses.append(_loss(probe, x[..., rest, :], codes[..., rest], parts[1]))
        loss = np.stack(losses)  # [strengths, s, v]
        choice = loss.argmin(0)  # the first of equals: the strongest penalty
        self.classes_, self.n_features_in_ = stack.labels, int(x.shape[-1])
        coef = x.new_zeros(s, v, len(stack.labels), x.shape[-1], device="cpu").numpy()
        intercept = np.full(coef.shape[:-1], -np.inf, dtype=coef.dtype)
        converged = np.zeros((s, v), dtype=bool)
        for i in np.unique(choice):
            chosen = LogisticProbe(C=strengths[i]).fit(x, codes, weights)
            at = np.broadcast_to(choice == i, (s, v))
            coef[at], intercept[at], converged[at] = chosen.coef_[at], chosen.intercept_[at], chosen.converged_[at]
        join = stack.axes.join
        self.coef_, self.intercept_ = join(torch.from_numpy(coef)), join(torch.from_numpy(intercept))
        self.converged_ = join(torch.from_numpy(converged))
        self.C_ = join(torch.from_numpy(np.asarray(strengths)[choice]))
        self.validation_loss_ = np.stack([join(torch.from_numpy(row)) for row in loss])
        return self

    def _check_parameters(self) -> None:
        if isinstance(self.Cs, str) or not np.iterable(self.Cs) or not len(self.Cs):
            raise ValueError(f"Cs must name at least one strength, got {self.Cs!r}")
        for strength in self.Cs:
            check_real("each of Cs", strength, above=0)
        check_share("validation", self.validation)
        check_whole("seed", self.seed, least=0)

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


def _loss(probe: LogisticProbe, x: torch.Tensor, y: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """Mean cross-entropy [*batch] in nats of labels y [*batch, n]; a class never seen counts as 1e-9."""
    total, count = 0.0, 0.0
    for start in range(0, x.shape[-2], _ROWS):
        rows = slice(start, start + _ROWS)
        p = probe.predict_proba(x[..., rows, :])
        labels = np.broadcast_to(y[..., rows], p.shape[:-1])
        counted = (labels >= 0) * (1.0 if weights is None else weights[..., rows])
        at = np.searchsorted(probe.classes_, labels.clip(min=0)).clip(max=p.shape[-1] - 1)
        right = np.take_along_axis(p, at[..., None], -1)[..., 0] * (probe.classes_[at] == labels)
        total = total - (np.log(right.clip(min=1e-9)) * counted).sum(-1)
        count = count + counted.sum(-1)
    return np.asarray(total / count)
