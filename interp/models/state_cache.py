"""The state that a model has reached after the tokens it has read, so that the next token costs one position."""

from __future__ import annotations

import torch
from torch import Tensor


class StateCache:
    """What `model(tokens, past_kv_cache=cache)` goes on from and brings up to date: one dict of tensors a layer.

    It begins empty, which every layer reads as its initial state. Its size does not depend on how much was read. Unlike
    keys and values a state cannot be set back to an earlier length; `copy` the cache before reading on. Gradients flow
    through it.
    """

    def __init__(self, n_layers: int, batch: int) -> None:
        self.layers: list[dict[str, Tensor]] = [{} for _ in range(n_layers)]  # values [batch, …]
        self.batch = batch
        self.length = 0  # tokens read

    def require_rows(self, batch: int) -> None:
        """Raise ValueError where a batch of another size would go on from this state."""
        if batch != self.batch:
            raise ValueError(f"past_kv_cache was made for a batch of {self.batch}; got {batch} rows")

    def convert(self, dtype: torch.dtype, device: torch.device) -> None:
        """Bring what is held to a dtype and a device: the model may have been moved since."""
        self.layers = [{name: value.to(device, dtype) for name, value in layer.items()} for layer in self.layers]

    def keep(self, rows: Tensor) -> None:
        """Forget all rows of the batch but these, a bool [batch] or indices."""
        self.layers = [{name: value[rows] for name, value in layer.items()} for layer in self.layers]
        self.batch = int(rows.sum()) if rows.dtype == torch.bool else len(rows)

    def copy(self) -> StateCache:
        """A cache of its own that has read the same tokens."""
        other = StateCache(len(self.layers), self.batch)
        other.layers = [dict(layer) for layer in self.layers]  # tensors are replaced, never written into
        other.length = self.length
        return other

    def size(self) -> int:
        """Floats held for one row."""
        return sum(value[0].numel() for layer in self.layers for value in layer.values())
