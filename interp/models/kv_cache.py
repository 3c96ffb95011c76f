"""Keys and values of the tokens that a causal model has read, so that the next token costs one position."""

from __future__ import annotations

import torch
from torch import Tensor

from interp.models.config import TransformerConfig


class KeyValueCache:
    """What `model(tokens, past_kv_cache=cache)` reads and extends.

    Set `length` back to forget the last tokens.

    Raises:
        ValueError: the model is not causal.
    """

    def __init__(self, cfg: TransformerConfig, batch: int, *, device: torch.device | str | None = None) -> None:
        if cfg.attention_dir != "causal":
            raise ValueError("a key-value cache needs attention_dir='causal'; this model is bidirectional")
        size = (cfg.n_layers, batch, cfg.n_heads, cfg.n_ctx, cfg.d_head)
        self.keys = torch.empty(size, dtype=getattr(torch, cfg.dtype), device=device)  # as attention uses them: rotated
        self.values = torch.empty_like(self.keys)
        self.length = 0  # tokens read

    def require_room(self, cfg: TransformerConfig, tokens: Tensor) -> None:
        """Raise ValueError where these tokens [batch, pos] cannot follow."""
        if torch.is_grad_enabled():
            raise ValueError("past_kv_cache keeps no gradients: use it under torch.no_grad()")
        if tokens.shape[0] != self.keys.shape[1]:
            raise ValueError(f"past_kv_cache was made for a batch of {self.keys.shape[1]}; got {tokens.shape[0]} rows")
        if self.length + tokens.shape[1] > cfg.n_ctx:
            raise ValueError(
                f"tokens must be at most n_ctx = {cfg.n_ctx} long; got {self.length} read and {tokens.shape[1]} new"
            )

    def keep(self, rows: Tensor) -> None:
        """Forget all rows of the batch but these, a bool [batch] or indices."""
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values [batch, head, pos, d_head]; all of the layer's up to them."""
        stop = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : stop] = k
        self.values[layer, :, :, self.length : stop] = v
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]
