"""ALiBi: scores fall linearly with the distance, at a slope of each head's own (Press et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Alibi(nn.Module):
    """What is added to the score of query i and key j: `-slope * |i - j|`.

    Of a power of two of heads the slopes are 2 ** (-8 h / n_heads), h from 1; of other numbers those of the power of
    two below, then every second of the one above, as the paper's code has it. Nothing is learned, and no position is
    too far. In a bidirectional model distances count the same to both sides.
    """

    slopes: Tensor

    def __init__(self, n_heads: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("slopes", torch.tensor(_slopes(n_heads), dtype=torch.float64).to(dtype), persistent=False)

    def forward(self, n_queries: int, n_keys: int) -> Tensor:
        """[head, query_pos, key_pos]; the queries are the last of the keys' positions."""
        key_pos = torch.arange(n_keys, device=self.slopes.device)
        distance = (torch.arange(n_keys - n_queries, n_keys, device=key_pos.device)[:, None] - key_pos).abs()
        return -self.slopes[:, None, None] * distance


def _slopes(n_heads: int) -> list[float]:
    below = 2 ** int(math.log2(n_heads))
    slopes = [2.0 ** (-8 * h / below) for h in range(1, below + 1)]
    return slopes if below == n_heads else slopes + _slopes(2 * below)[::2][: n_heads - below]
