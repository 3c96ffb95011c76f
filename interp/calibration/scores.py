"""How well scores tell true parts from the others."""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, true: np.ndarray) -> float:
    """Chance that a true part outscores one that is not, ties counting half; nan where either kind is missing."""
    n_true, n_false = int(true.sum()), int((~true).sum())
    if not n_true or not n_false:
        return float("nan")
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    rank = (last - (count - 1) / 2)[place]  # ties share their mean rank, from 1
    return float((rank[true].sum() - n_true * (n_true + 1) / 2) / (n_true * n_false))


def precision_at_size(scores: np.ndarray, true: np.ndarray) -> float:
    """Share of true parts among the top `true.sum()`; where the cut splits a tie, its expectation."""
    return float(share_found(scores, true)[true].mean()) if true.any() else float("nan")


def share_found(scores: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Chance of each part to be among the top `true.sum()`, ties broken at random, [n]."""
    size = int(true.sum())
    if not size:
        return np.zeros(len(scores))
    cut = np.sort(scores)[::-1][size - 1]
    above, tied = scores > cut, scores == cut
    return np.where(above, 1.0, np.where(tied, (size - above.sum()) / tied.sum(), 0.0))
