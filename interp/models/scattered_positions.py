"""Block positions whose indices are scattered in training: for arrays longer than any that is trained on.

As BlockPositions with a table of indices, but in train mode the slots of a block have a random increasing choice of the
table's indices (randomised positions, Ruoss et al. 2023) in place of neighbouring ones, from a random window, so that
any two that may stand in one long array have been told apart. Blocks of one length share their choice; lone slots have
none. The choice is a hash of the row's own tokens. In eval mode indices are as they are.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from interp.models.config import TransformerConfig
from interp.models.embed import BlockPositions

_PRIME = 2**31 - 1


class ScatteredPositions(BlockPositions):
    """See this module's docstring."""

    factors: Tensor  # [index_table_size]
    terms: Tensor  # [index_table_size]

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__(cfg)
        generator = torch.Generator().manual_seed(cfg.seed + 1)
        for name in ("factors", "terms"):
            drawn = torch.randint(1, _PRIME, (cfg.index_table_size,), generator=generator)
            self.register_buffer(name, drawn, persistent=False)

    def drawn(self, tokens: Tensor) -> Tensor:
        """The index of each position in train mode, [batch, pos]."""
        pos = tokens.shape[1]
        rows = (tokens[:, None, :] * self.hash_weights[:, :pos]).sum(-1) % _PRIME  # [batch, n_lengths]
        indices = self.indices[:pos].expand(len(tokens), -1)
        table = torch.arange(len(self.factors), device=tokens.device)
        for number, room in enumerate(self.room.tolist()):
            if not room:
                continue
            row, length = rows[:, number, None], len(table) - room
            width = length + row % (room + 1)  # of the window, [batch, 1]
            first = (row * 48_271 % _PRIME) % (len(table) - width + 1)
            keys = (row * self.factors + self.terms) % _PRIME
            keys = torch.where((table >= first) & (table < first + width), keys, -1)
            chosen = keys.topk(length, dim=-1).indices.sort(dim=-1).values  # [batch, length]
            inside = self.length_of[:pos] == number
            indices = torch.where(inside, chosen[:, self.indices[:pos].clamp(max=length - 1)], indices)
        return indices

    def forward(self, tokens: Tensor, *, start: int = 0) -> Tensor:
        """As in BlockPositions."""
        if not self.training:
            return super().forward(tokens, start=start)
        if start:
            raise ValueError("indices are scattered at random in train mode; decode in eval mode: call model.eval()")
        roles = F.embedding(self.roles[: tokens.shape[1]], self.W_role)
        return roles + F.embedding(self.drawn(tokens), self.W_index)
