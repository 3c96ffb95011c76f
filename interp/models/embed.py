"""Tokens and positions into the residual stream, and the residual stream out to logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models.config import TransformerConfig


class Embed(nn.Module):
    """Token embedding, W_E [d_vocab, d_model]."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(cfg.d_vocab, cfg.d_model))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, pos] to vectors [batch, pos, d_model]."""
        return F.embedding(tokens, self.W_E)


class LearnedPositions(nn.Module):
    """One free vector a position, W_pos [n_ctx, d_model]."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.W_pos = nn.Parameter(torch.empty(cfg.n_ctx, cfg.d_model))

    def forward(self, length: int) -> Tensor:
        """The vectors of the first `length` positions, [length, d_model]."""
        return self.W_pos[:length]


class BlockPositions(nn.Module):
    """A slot is the sum of its block's vector, its index's vector and a flat one that starts at zero.

    Slots of equal index in different blocks then share a direction, so that a pointer's one-hot and the cells that it
    points to are aligned from the first step.
    """

    roles: Tensor
    indices: Tensor

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.W_role = nn.Parameter(torch.empty(max(cfg.position_roles) + 1, cfg.d_model))
        self.W_index = nn.Parameter(torch.empty(max(cfg.position_indices) + 1, cfg.d_model))
        self.W_flat = nn.Parameter(torch.empty(cfg.n_ctx, cfg.d_model))
        self.register_buffer("roles", torch.tensor(cfg.position_roles), persistent=False)
        self.register_buffer("indices", torch.tensor(cfg.position_indices), persistent=False)

    @property
    def W_pos(self) -> Tensor:
        """The three parts summed, [n_ctx, d_model]; computed, so writing to it changes nothing."""
        return self(len(self.roles))

    def forward(self, length: int) -> Tensor:
        """The vectors of the first `length` positions, [length, d_model]."""
        role = F.embedding(self.roles[:length], self.W_role)
        index = F.embedding(self.indices[:length], self.W_index)
        return role + index + self.W_flat[:length]


POSITIONS = {"learned": LearnedPositions, "block": BlockPositions}


class Unembed(nn.Module):
    """`x @ W_U + b_U`. Stored as weight [d_vocab, d_model], or borrowed from `embed` where the two are tied."""

    def __init__(self, cfg: TransformerConfig, *, embed: Embed) -> None:
        super().__init__()
        self._tied = (embed,) if cfg.tie_word_embeddings else ()  # in a tuple: not a submodule a second time
        if not self._tied:
            self.weight = nn.Parameter(torch.empty(cfg.d_vocab, cfg.d_model))
        self.bias = nn.Parameter(torch.zeros(cfg.d_vocab)) if cfg.use_bias else None

    @property
    def matrix(self) -> Tensor:
        """The matrix in use, [d_vocab, d_model]."""
        return self._tied[0].W_E if self._tied else self.weight

    @property
    def W_U(self) -> Tensor:
        """[d_model, d_vocab], a view."""
        return self.matrix.T

    @property
    def b_U(self) -> Tensor:
        """[d_vocab]; zeros where the model has no biases."""
        return self.matrix.new_zeros(len(self.matrix)) if self.bias is None else self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Residual stream [batch, pos, d_model] to logits [batch, pos, d_vocab]."""
        return F.linear(x, self.matrix, self.bias)
