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
from torch import Tensor

from probes.activations import Array, as_activations
from probes.base import SoftmaxProbe
from probes.labels import encode, read_labels
from probes.stack import MIN_ROWS

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
_ROWS = 4096  # rows whose class probabilities are held at once


@dataclass(frozen=True)
class CodeLength:
    """Bits to send the labels with the probe's help; numbers for one probe, arrays for a stack."""

    bits: Any
    uniform_bits: Any  # n · log2 K
    compression: Any  # uniform_bits / bits: 1 = no help, higher is better


def online_code_length(
    probe: SoftmaxProbe,
    X: Array,
    y: Array,
    *,
    seed: int,
    groups: ArrayLike | None = None,
    n_classes: int | ArrayLike | None = None,
    fractions: tuple[float, ...] = FRACTIONS,
) -> CodeLength:
    """Online code length of labels y [n] or [v, n] given activations X [n, d] or a stack of sites [*batch, n, d].

    A class that no row has shown yet would cost infinitely many bits, so after t rows every class keeps the share
    1 / (t + K): p' = (t p + 1) / (t + K). A block before which fewer than ten rows or two classes were seen is sent
    like the first. Several variables share the order of rows and, where the same rows are labelled, each refit.

    Args:
        probe: an unfitted probe with probabilities; it is cloned, never changed.
        X: activations.
        y: labels, as probes take them; rows of -1 are left out.
        seed: of the order of rows.
        groups: group of each row [n]; rows of a group then stay together, and in one block but for those at its ends.
        n_classes: K, the number of values that the variable can take, or one number a variable; by default those that
            occur.
        fractions: ends of the blocks, rising to 1.

    Returns:
        Numbers for one site and variable, else arrays [*batch] for y [n] and [*batch, v] for y [v, n] (uniform_bits: a
        number or [v]).
    """
    if not isinstance(probe, SoftmaxProbe):
        raise TypeError(f"probe must give probabilities, as LogisticProbe does, got {type(probe).__name__}")
    if not len(fractions) or fractions[-1] != 1 or not all(a < b for a, b in pairwise((0, *fractions))):
        raise ValueError(f"fractions must rise from above 0 to 1, got {fractions}")
    x = as_activations(X)
    given, _ = encode(read_labels(y, n=x.shape[-2]))
    if given.ndim > 2:
        raise ValueError(f"y must have shape [{x.shape[-2]}] or [v, {x.shape[-2]}], got {list(given.shape)}")
    order = _order(x.shape[-2], groups, np.random.default_rng(seed))
    labels = np.atleast_2d(given)[:, order]
    known = labels >= 0
    counts = known.sum(1)
    occur = np.array([len(np.unique(row[row >= 0])) for row in labels])
    k = _n_classes(occur, n_classes)
    for rows, classes, most in zip(counts, occur, k, strict=True):
        if classes < 2 or rows < MIN_ROWS or most < classes:
            raise ValueError(
                f"y must have at least {MIN_ROWS} labelled rows and from 2 to {most} classes (n_classes), "
                f"got {rows} rows and {classes} classes"
            )
    rank = np.where(known, known.cumsum(1) - 1, -1)  # of each labelled row among those of its variable
    ends = np.ceil(np.array(fractions)[:, None] * counts).astype(int)
    bits = np.broadcast_to(ends[0] * np.log2(k), (*x.shape[:-2], len(k))).copy()
    for start, end in pairwise(ends):
        past = known & (rank < start[:, None])
        block = known & ~past & (rank < end[:, None])
        ready = np.array([len(np.unique(row[mask])) > 1 for row, mask in zip(labels, past, strict=True)])
        ready &= start >= MIN_ROWS
        bits[..., ~ready] += ((end - start) * np.log2(k))[~ready]
        if ready.any():
            seen, wanted = (np.where(mask, labels, -1)[ready] for mask in (past, block))
            bits[..., ready] += _bits(probe, x, order, seen, wanted, k[ready])
    uniform = counts * np.log2(k)
    compression = uniform / bits
    if given.ndim == 1:
        bits, compression, uniform = bits[..., 0], compression[..., 0], uniform[0]
    plain = [part.item() if part.ndim == 0 else part for part in (bits, np.asarray(uniform), compression)]
    return CodeLength(bits=plain[0], uniform_bits=plain[1], compression=plain[2])


def _bits(
    probe: SoftmaxProbe, x: Tensor, order: np.ndarray, seen: np.ndarray, wanted: np.ndarray, k: np.ndarray
) -> np.ndarray:
    """Bits [*batch, v] that the labels `wanted` cost by probes fitted on the labels `seen`.

    Both are [v, n], -1 where they do not count; column i is about row order[i] of x.
    """
    last = int(np.flatnonzero((seen >= 0).any(0))[-1]) + 1
    fitted: Any = clone(probe)
    fitted.fit(x[..., order[:last], :][..., None, :, :], seen[:, :last])
    n_seen = (seen >= 0).sum(1)[:, None]
    total = np.zeros((*x.shape[:-2], len(k)))
    rows = np.flatnonzero((wanted >= 0).any(0))
    for part in np.split(rows, range(_ROWS, len(rows), _ROWS)):
        p = fitted.predict_proba(x[..., order[part], :][..., None, :, :])
        truth = wanted[:, part]
        place = np.searchsorted(fitted.classes_, truth.clip(min=0)).clip(max=len(fitted.classes_) - 1)
        index = np.broadcast_to(place, p.shape[:-1])[..., None]
        right = np.take_along_axis(p, index, -1)[..., 0] * (fitted.classes_[place] == truth)
        total -= np.where(truth >= 0, np.log2((n_seen * right + 1) / (n_seen + k[:, None])), 0).sum(-1)
    return total


def _n_classes(occur: np.ndarray, given: int | ArrayLike | None) -> np.ndarray:
    """K of each variable: int64 like occur [v], the classes that occur."""
    if given is None:
        return occur
    k = np.asarray(given)
    if k.dtype.kind not in "iu" or k.shape not in ((), occur.shape) or (k < 1).any():
        raise ValueError(f"n_classes must be a positive integer, or one for each variable, got {given!r}")
    return np.broadcast_to(k, occur.shape)


def _order(n: int, groups: ArrayLike | None, rng: np.random.Generator) -> np.ndarray:
    """Random order of rows [n], groups together."""
    if groups is None:
        return rng.permutation(n)
    ids = np.asarray(groups)
    if ids.shape != (n,):
        raise ValueError(f"groups must have shape [{n}], one a row of X, got {list(ids.shape)}")
    unique, ids = np.unique(ids, return_inverse=True)
    return np.argsort(rng.permutation(len(unique))[ids], kind="stable")
