"""Rotary positions: queries and keys are turned by an angle that grows with the position (Su et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from interp.models.config import TransformerConfig


class Rotary(nn.Module):
    """Turns pairs (i, i + rotary_dim / 2) of the first `rotary_dim` dimensions by `place * base ** (-2i / rotary_dim)`.

    The part of a query's product with a key that these dimensions make then depends on the difference of their places
    alone; the other dimensions are left as they are (GPT-J; Wang & Komatsuzaki 2021). The place is the position, or
    with block-wise positions the slot's index inside its block, so that a pointer's one-hot and the cells it points to
    turn together.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        places = torch.tensor(cfg.position_indices) if cfg.position_indices else torch.arange(cfg.n_ctx)
        self.dim = cfg.rotary_dim or cfg.d_head
        rates = float(cfg.rotary_base) ** (-torch.arange(0, self.dim, 2, dtype=torch.float64) / self.dim)
        angles = places[:, None] * rates  # [n_ctx, rotary_dim / 2]
        dtype = getattr(torch, cfg.dtype)
        self.register_buffer("cos", angles.cos().to(dtype), persistent=False)
        self.register_buffer("sin", angles.sin().to(dtype), persistent=False)

    def forward(self, x: Tensor, *, start: int = 0, positions: Tensor | None = None) -> Tensor:
        """Turn [batch, pos, head, d_head], at positions from `start` on, or at `positions` [batch, pos]."""
        where = slice(start, start + x.shape[1]) if positions is None else positions
        cos, sin = self.cos[where].unsqueeze(-2).to(x.dtype), self.sin[where].unsqueeze(-2).to(x.dtype)
        a, b = x[..., : self.dim].chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, a * sin + b * cos, x[..., self.dim :]], dim=-1)
