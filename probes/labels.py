"""Labels as they come: integers, whole floats, booleans or strings; -1 among numbers means "undefined here"."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from probes.activations import Array


def as_labels(y: Array, *, n: int, device: torch.device | None = None) -> Tensor:
    """Integer y as an int64 tensor [*batch, n] with values >= -1; refuses other shapes, types and values."""
    array = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if array.dtype.kind not in "iub":
        raise TypeError(f"y must hold integer class labels, got dtype {array.dtype}")
    return torch.from_numpy(read_labels(array, n=n).astype(np.int64)).to(device)


def read_labels(y: Any, *, n: int) -> np.ndarray:
    """y as an array [*batch, n] of int64, bool, a float type (whole numbers) or strings.

    Raises:
        ValueError: another shape, numbers below -1, fractions, or what is neither numbers nor strings.
    """
    array = y.detach().cpu().numpy() if isinstance(y, Tensor) else np.asarray(y)
    if array.dtype.kind == "O" and all(isinstance(label, str) for label in array.flat):
        array = array.astype(str)
    if array.dtype.kind not in "iubfU":
        raise ValueError(f"y must hold class labels, numbers or strings of one kind, got dtype {array.dtype}")
    if array.ndim < 1 or array.shape[-1] != n:
        raise ValueError(f"y must have one label a row of X, shape [*batch, {n}], got {list(array.shape)}")
    if not array.size:
        raise ValueError(f"y must not be empty, got shape {list(array.shape)}")
    if array.dtype.kind == "f":
        array = array.astype(array.dtype.newbyteorder("="))
        if not (np.isfinite(array) & (array == np.round(array))).all():
            raise ValueError("y must hold class labels, whole numbers where they are floats: it has fractions or NaN")
    if array.dtype.kind == "u" and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"y must hold labels below 2^63, got {int(array.max())}")
    if array.dtype.kind in "iu":
        array = array.astype(np.int64)
    if array.dtype.kind in "if" and array.min() < -1:
        raise ValueError(f"y must hold labels >= 0, or -1 where undefined, got {array.min():g}")
    return array


def defined(labels: np.ndarray) -> np.ndarray:
    """bool of the same shape: where labels (as read) are labels at all."""
    return labels >= 0 if labels.dtype.kind in "if" else np.ones(labels.shape, dtype=bool)


def encode(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """(int64 codes, -1 where undefined; the label of each code, ascending, or None where codes are the labels)."""
    if labels.dtype.kind == "i":
        return labels, None
    known = defined(labels)
    codes = np.full(labels.shape, -1, dtype=np.int64)
    names, codes[known] = np.unique(labels[known], return_inverse=True)
    return codes, names


def equal(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Where predictions are the labels (as read). ValueError where one are strings and the others numbers."""
    if (predicted.dtype.kind == "U") != (labels.dtype.kind == "U"):
        raise ValueError(f"y must hold labels of the kind of fit's, {predicted.dtype}, got {labels.dtype}")
    return predicted == labels
