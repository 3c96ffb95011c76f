"""Row weights: what the caller gives a row (`sample_weight`) times what its class is given (`class_weight`)."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

ClassWeight = Mapping[Any, float] | str | None


def as_sample_weight(sample_weight: ArrayLike | Tensor, *, n: int) -> np.ndarray:
    """float64 [*batch, n], finite and not negative; ValueError otherwise."""
    given = sample_weight.detach().cpu().numpy() if isinstance(sample_weight, Tensor) else np.asarray(sample_weight)
    if given.dtype.kind not in "fiub":
        raise ValueError(f"sample_weight must hold real numbers, got dtype {given.dtype}")
    if given.ndim < 1 or given.shape[-1] != n:
        raise ValueError(f"sample_weight must have one weight a row of X, shape [{n}], got {list(given.shape)}")
    weights = given.astype(np.float64)
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise ValueError("sample_weight must be finite and not negative: it has negative, NaN or infinite weights")
    if not weights.max() <= 1e100:
        raise ValueError(f"sample_weight must be at most 1e100, got {weights.max():g}")
    return weights


def class_factors(y: Tensor, weights: Tensor | None, labels: np.ndarray, class_weight: ClassWeight) -> Tensor | None:
    """Factors [s, v, n] of rows with class positions y [s, v, n] (-1 undefined), or None: all alike.

    `balanced` gives every class of a probe the same summed weight, total / (classes · own), as scikit-learn does; a
    mapping gives each of the labels a factor, 1 if it names none.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(f"class_weight must be None, 'balanced' or a dict, got {class_weight!r}")
        own = torch.zeros(*y.shape[:2], len(labels) + 1, dtype=torch.float64, device=y.device)
        counted = torch.ones_like(y, dtype=torch.float64) if weights is None else weights.expand(y.shape)
        own.scatter_add_(-1, y + 1, counted)
        own = own[..., 1:]
        total, occur = own.sum(-1, keepdim=True), (own > 0).sum(-1, keepdim=True)
        table = torch.where(own > 0, total / (occur * own.clamp(min=1e-300)), 0.0)
        return table.gather(-1, y.clamp(min=0))
    if not isinstance(class_weight, Mapping):
        raise ValueError(f"class_weight must be None, 'balanced' or a dict, got {class_weight!r}")
    known = labels.tolist()
    if strangers := [label for label in class_weight if label not in known]:
        raise ValueError(f"class_weight must name labels of y, got {strangers[0]!r}")
    factors = []
    for label in known:
        factor = class_weight.get(label, 1.0)
        real = isinstance(factor, (int, float, np.integer, np.floating))
        if not real or not 0 < float(factor) <= 1e100:
            raise ValueError(f"class_weight must give finite factors above 0, got {factor!r}")
        factors.append(float(factor))
    return torch.tensor(factors, dtype=torch.float64, device=y.device)[y.clamp(min=0)]
