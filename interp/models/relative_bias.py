"""Relative position bias: scores have a learned number by distance, in buckets (Raffel et al. 2020, T5)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RelativeBias(nn.Module):
    """What is added to the score of query i and key j, by the bucket of j - i; a table of each attention's own.

    Half of the buckets hold one distance each, the other half ever wider ranges up to `max_distance`, and the last all
    beyond. Both ways, buckets are shared out evenly between keys before and keys after the query.
    """

    def __init__(self, n_buckets: int, n_heads: int, *, both_ways: bool, max_distance: int = 128) -> None:
        super().__init__()
        self.n_buckets, self.both_ways, self.max_distance = n_buckets, both_ways, max_distance
        self.W_rel = nn.Parameter(torch.empty(n_buckets, n_heads))

    def buckets(self, offset: Tensor) -> Tensor:
        """The bucket of each offset j - i, long, of its shape."""
        n = self.n_buckets // 2 if self.both_ways else self.n_buckets
        first = (offset > 0) * n if self.both_ways else torch.zeros_like(offset)
        distance = offset.abs() if self.both_ways else (-offset).clamp(min=0)
        exact = n // 2
        wider = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact) * (n - exact)
        return first + torch.where(distance < exact, distance, (exact + wider.long()).clamp(max=n - 1))

    def forward(self, n_queries: int, n_keys: int) -> Tensor:
        """[head, query_pos, key_pos]; the queries are the last of the keys' positions."""
        key_pos = torch.arange(n_keys, device=self.W_rel.device)
        offset = key_pos - torch.arange(n_keys - n_queries, n_keys, device=key_pos.device)[:, None]
        return F.embedding(self.buckets(offset), self.W_rel).permute(2, 0, 1)
