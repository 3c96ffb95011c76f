"""Activations as they come: real numbers in any byte order and layout, as a tensor that probes compute in."""

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor

LIMITS = {torch.float32: 1e15, torch.float64: 1e150}  # squares and their sums over rows stay within the precision


def as_activations(X: Array) -> Tensor:
    """X as a float32 or float64 tensor [*batch, n, d] on its own device, never written to.

    Half precision, booleans and integers of up to 16 bits become float32, wider integers and floats float64.

    Raises:
        ValueError: X holds no real numbers, has another shape, is empty, or has values that are NaN, infinite or so
            large that their squares overflow.
    """
    x = X.detach() if isinstance(X, Tensor) else _from_numpy(X)
    if x.is_complex() or x.layout != torch.strided:
        raise ValueError(f"X must be a dense array of real numbers, got dtype {x.dtype}, layout {x.layout}")
    if x.dtype not in LIMITS:
        x = x.to(torch.float64 if x.dtype in (torch.int32, torch.int64) else torch.float32)
    if x.ndim < 2:
        raise ValueError(f"X must have shape [n, d] or [*batch, n, d], got {list(x.shape)}")
    if 0 in x.shape:
        raise ValueError(f"X must not be empty, got shape {list(x.shape)}")
    least, most = float(x.amin()), float(x.amax())  # NaN wherever one stands; some ten times as fast as aminmax
    largest = max(-least, most)
    if not largest <= LIMITS[x.dtype]:
        if wild := int((~torch.isfinite(x)).sum()):
            raise ValueError(f"X must be finite, got {wild} NaN or infinite values")
        raise ValueError(
            f"X must lie within ±{LIMITS[x.dtype]:g}, or its squares overflow {x.dtype}, got {largest:g}: rescale it"
        )
    return x


def refuse_underflow(x: Tensor) -> None:
    """Raise ValueError where all numbers of a site of x [s, n, d] are so small, yet not 0, that squares vanish."""
    flat = x.flatten(1)
    largest = torch.maximum(-flat.amin(1), flat.amax(1))
    limit = 1 / LIMITS[x.dtype]
    faint = (largest > 0) & (largest < limit)
    if bool(faint.any()):
        raise ValueError(
            f"X must reach beyond ±{limit:g} somewhere, or its squares vanish in {x.dtype}, "
            f"got at most {float(largest[faint][0]):g}: rescale it"
        )


def _from_numpy(X: np.ndarray) -> Tensor:
    array = np.asarray(X)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"X must hold real numbers, got dtype {array.dtype}")
    if array.dtype.kind == "f":
        wanted = np.float32 if array.itemsize <= 4 else np.float64
    else:
        wanted = np.float32 if array.itemsize <= 2 else np.float64
    # Torch takes neither foreign byte orders nor negative or fractional strides, and warns of read-only memory.
    fits = array.dtype == wanted and array.dtype.isnative and array.flags.writeable
    fits = fits and all(stride >= 0 and stride % array.itemsize == 0 for stride in array.strides)
    return torch.from_numpy(array if fits else array.astype(wanted, order="C"))
