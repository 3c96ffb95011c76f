"""Keys and values of the tokens that a causal model has read, so that the next token costs one position."""

from __future__ import annotations

import torch
from torch import Tensor

from interp.models.config import TransformerConfig


class KeyValueCache:
    """What `model(tokens, past_kv_cache=cache)` reads and extends; its dtype and device are those of what it is given.

    Set `length` back to forget the last tokens.

    Raises:
        ValueError: the model is not causal.
    """

    keys: Tensor  # [layer, batch, head, n_ctx, d_head], as attention uses them: rotated; from the first `extend` on
    values: Tensor  # the same; keys under PaTH are wider: with their transitions, 2 * d_head + 1

    def __init__(self, cfg: TransformerConfig, batch: int) -> None:
        if cfg.attention_dir != "causal":
            raise ValueError("a key-value cache needs attention_dir='causal'; this model is bidirectional")
        self.batch = batch
        self.length = 0  # tokens read
        self._size = (cfg.n_layers, batch, cfg.n_heads, cfg.n_ctx)
        self._empty = True

    def require_room(self, cfg: TransformerConfig, tokens: Tensor) -> None:
        """Raise ValueError where these tokens [batch, pos] cannot follow."""
        if torch.is_grad_enabled():
            raise ValueError("past_kv_cache keeps no gradients: use it under torch.no_grad()")
        if tokens.shape[0] != self.batch:
            raise ValueError(f"past_kv_cache was made for a batch of {self.batch}; got {tokens.shape[0]} rows")
        if self.length + tokens.shape[1] > cfg.n_ctx:
            raise ValueError(
                f"tokens must be at most n_ctx = {cfg.n_ctx} long; got {self.length} read and {tokens.shape[1]} new"
            )

    def keep(self, rows: Tensor) -> None:
        """Forget all rows of the batch but these, a bool [batch] or indices; something must have been read."""
        with torch.inference_mode(False):
            rows = rows.clone()  # where it was made in inference mode
            self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.batch = self.keys.shape[1]

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Store a layer's new keys and values [batch, head, pos, d_head]; all of the layer's up to them."""
        if self._empty:
            with torch.inference_mode(False):  # what is made there could not be written to after it
                self.keys = torch.empty((*self._size, k.shape[-1]), dtype=k.dtype, device=k.device)
                self.values = torch.empty((*self._size, v.shape[-1]), dtype=v.dtype, device=v.device)
            self._empty = False
        elif self.keys.dtype != k.dtype:  # the model has been moved since
            with torch.inference_mode(False):
                self.keys, self.values = self.keys.to(k.dtype), self.values.to(v.dtype)
        stop = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : stop] = k
        self.values[layer, :, :, self.length : stop] = v
        return self.keys[layer, :, :, :stop], self.values[layer, :, :, :stop]
