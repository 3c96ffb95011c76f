"""Arrays as callers hold them, made tensors: torch reads neither another byte order nor negative strides."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def integers(values: Any, *, name: str = "tokens", device: torch.device | None = None) -> Tensor:
    """values (a tensor, an array, a list) of any integer type as a LongTensor of the same shape.

    Raises:
        ValueError: numbers of another kind, no numbers, or rows of unequal length.
    """
    if not isinstance(values, Tensor):
        try:
            values = np.asarray(values)
        except ValueError:
            raise ValueError(f"{name} must be integers in rows of one length") from None
        if values.dtype.kind not in "iu" and values.size:
            raise ValueError(f"{name} must be integers; got {values.dtype} {list(values.shape)}")
        values = torch.from_numpy(np.array(values, dtype=np.int64))
    if values.dtype.is_floating_point or values.dtype.is_complex or values.dtype == torch.bool:
        raise ValueError(f"{name} must be integers; got {values.dtype} {list(values.shape)}")
    return values.to(device=device, dtype=torch.int64)
