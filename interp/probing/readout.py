"""What a linear probe reads of an activation, and three ways of writing another value there.

For a probe with class weights W (centred over its C classes), B orthonormal rows that span them, and m_c the mean
activation of class c in the fit:

    mean     h' = h + (m_target - h) BᵀB         the part that the probe reads becomes the target class's mean
    shift    h' = h + (m_target - m_present) BᵀB  the difference of class means is added (Nanda et al. 2023)
    logits   h' = h + W⁺ (z' - z)                the smallest change that exchanges the logits of the two classes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

Edit = Literal["mean", "shift", "logits"]
EDITS: tuple[Edit, ...] = get_args(Edit)


@dataclass(frozen=True, eq=False)
class Readout:
    """A probe of one variable at one place, as an intervention needs it."""

    classes: np.ndarray  # int64 [C], ascending
    weights: Tensor  # [C, d], centred over classes
    offsets: Tensor  # [C], the intercepts
    basis: Tensor  # [rank, d], orthonormal rows that span the weights
    means: Tensor  # [C, d], mean activation of each class in the fit

    @classmethod
    def of(cls, coef: np.ndarray, intercept: np.ndarray, classes: np.ndarray, x: Tensor, labels: np.ndarray) -> Readout:
        """From a probe's coef [K, d], intercept [K] and classes [K], with its fit: x [m, d], labels [m].

        Classes that the probe never saw (intercept -inf) are left out.
        """
        seen = np.isfinite(intercept) & np.isin(classes, labels)
        weights = torch.from_numpy(np.ascontiguousarray(coef[seen])).float()
        weights = weights - weights.mean(0)
        _, sizes, directions = torch.linalg.svd(weights, full_matrices=False)
        rank = int((sizes > 1e-6 * sizes[0]).sum())
        places = torch.from_numpy(np.searchsorted(classes[seen], labels.clip(min=0)))
        known = torch.from_numpy(labels >= 0)
        count = int(seen.sum())
        sums = x.new_zeros(count, x.shape[1]).index_add_(0, places[known], x[known])
        means = sums / torch.bincount(places[known], minlength=count)[:, None]
        offsets = torch.from_numpy(np.ascontiguousarray(intercept[seen])).float()
        return cls(classes[seen], weights, offsets, directions[:rank].contiguous(), means)

    def place(self, values: np.ndarray) -> np.ndarray:
        """Where each value [*any] stands among the classes, -1 for one that the probe never saw."""
        found = np.searchsorted(self.classes, values).clip(max=len(self.classes) - 1)
        return np.where(self.classes[found] == values, found, -1)

    def edited(self, h: Tensor, present: np.ndarray, target: np.ndarray, *, how: Edit = "mean") -> Tensor:
        """h [k, d] with the value `present` [k] exchanged for `target` [k].

        Raises:
            ValueError: a value that the probe never saw, or no such way of editing.
        """
        now, then = self.place(present), self.place(target)
        if (now < 0).any() or (then < 0).any():
            unseen = np.concatenate([present[now < 0], target[then < 0]])[0]
            raise ValueError(f"the probe saw the values {self.classes.tolist()}, not {unseen}")
        rows = torch.arange(len(h))
        i, j = torch.from_numpy(now), torch.from_numpy(then)
        if how == "mean":
            return h + (self.means[j] - h) @ self.basis.T @ self.basis
        if how == "shift":
            return h + (self.means[j] - self.means[i]) @ self.basis.T @ self.basis
        if how == "logits":
            change = torch.zeros(len(h), len(self.classes))
            z = h @ self.weights.T + self.offsets
            gap = z[rows, i] - z[rows, j]
            change[rows, i] -= gap
            change[rows, j] += gap
            return h + change @ torch.linalg.pinv(self.weights).T
        raise ValueError(f"how must be one of {', '.join(EDITS)}, got {how!r}")
