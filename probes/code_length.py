"""Online code length (Voita & Titov 2020): how many bits the labels cost when a probe, refitted as it goes, helps.

1. Rows in random order, cut at 0.1, 0.2, 0.4 … 100 %; block 1 ends at t₁.
2. Block 1 is sent with log2 K bits a label.
3. Block i + 1 is sent with the probe fitted on all rows before it.
4. L = t₁ log2 K - Σᵢ log2 p_θᵢ(labels of block i + 1); compression = n log2 K / L.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from probes.base import SoftmaxProbe
from probes.stack import MIN_ROWS, Array, as_activations, as_labels

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)


@dataclass(frozen=True)
class CodeLength:
    """Bits to send the labels with the probe's help; numbers for one site, arrays [*batch] for a stack of sites."""

    bits: Any
    uniform_bits: float  # n · log2 K
    compression: Any  # uniform_bits / bits: 1 = no help, higher is better


def online_code_length(
    probe: SoftmaxProbe,
    X: Array,
    y: Array,
    *,
    seed: int,
    groups: ArrayLike | None = None,
    n_classes: int | None = None,
    fractions: tuple[float, ...] = FRACTIONS,
) -> CodeLength:
    """Online code length of labels y [n] given activations X [n, d] or a stack of sites [*batch, n, d].

    A class that no row has shown yet would cost infinitely many bits, so after t rows every class keeps the share
    1 / (t + K): p' = (t p + 1) / (t + K). A block before which fewer than ten rows or two classes were seen is sent
    like the first.

    Args:
        probe: an unfitted probe with probabilities; it is cloned, never changed.
        X: activations.
        y: labels; rows of -1 are left out.
        seed: of the order of rows.
        groups: group of each row [n]; rows of a group then stay together, and in one block but for those at its ends.
        n_classes: K, the number of values that the variable can take; by default those that occur.
        fractions: ends of the blocks, rising to 1.
    """
    if not isinstance(probe, SoftmaxProbe):
        raise TypeError(f"probe must give probabilities, as LogisticProbe does, got {type(probe).__name__}")
    if fractions[-1] != 1 or any(a >= b for a, b in pairwise(fractions)) or fractions[0] <= 0:
        raise ValueError(f"fractions must rise from above 0 to 1, got {fractions}")
    x = as_activations(X)
    labels = as_labels(y, n=x.shape[-2]).cpu().numpy()
    if labels.ndim != 1:
        raise ValueError(f"y must have shape [{x.shape[-2]}], one variable a call, got {list(labels.shape)}")
    order = _order(len(labels), groups, np.random.default_rng(seed))
    order = order[labels[order] >= 0]
    classes, target = np.unique(labels[order], return_inverse=True)
    k = len(classes) if n_classes is None else n_classes
    if len(classes) < 2 or len(order) < MIN_ROWS or k < len(classes):
        raise ValueError(
            f"y must have at least {MIN_ROWS} labelled rows and from 2 to {k} classes (n_classes), "
            f"got {len(order)} rows and {len(classes)} classes"
        )
    ends = np.ceil(np.array(fractions) * len(order)).astype(int)
    bits = np.full(x.shape[:-2], ends[0] * np.log2(k))
    for start, end in pairwise(ends.tolist()):
        if start < MIN_ROWS or len(np.unique(target[:start])) < 2:
            bits += (end - start) * np.log2(k)
            continue
        fitted: Any = clone(probe)
        fitted.fit(x[..., order[:start], :], labels[order[:start]])
        p = np.zeros((*x.shape[:-2], end - start, len(classes)))
        p[..., np.searchsorted(classes, fitted.classes_)] = fitted.predict_proba(x[..., order[start:end], :])
        right = np.take_along_axis(p, target[start:end].reshape(*[1] * (p.ndim - 2), -1, 1), -1)[..., 0]
        bits -= np.log2((start * right + 1) / (start + k)).sum(-1)
    uniform = len(order) * np.log2(k)
    plain = bits.item() if bits.ndim == 0 else bits
    return CodeLength(bits=plain, uniform_bits=float(uniform), compression=uniform / plain)


def _order(n: int, groups: ArrayLike | None, rng: np.random.Generator) -> np.ndarray:
    """Random order of rows [n], groups together."""
    if groups is None:
        return rng.permutation(n)
    ids = np.asarray(groups)
    if ids.shape != (n,):
        raise ValueError(f"groups must have shape [{n}], one a row of X, got {list(ids.shape)}")
    unique, ids = np.unique(ids, return_inverse=True)
    return np.argsort(rng.permutation(len(unique))[ids], kind="stable")
