"""Tokens and positions into the residual stream, and the residual stream out to logits.

Positions by `cfg.positional_embedding_type`; all that is added to the stream enters through hook_pos_embed:

    learned       one free vector a position
    sinusoidal    fixed waves (Vaswani et al. 2017)
    block         the block's vector + the vector of the slot's index inside the block
    block_rotary  the block's vector; the slot's index turns queries and keys (rotary.py)
    rotary        queries and keys are turned by the position (rotary.py), nothing is added
    randomised    one free vector a position, of a range longer than any sequence; see RandomisedPositions
    alibi         nothing is added to the stream: scores fall with the distance (alibi.py)
    path          nothing is added: what stands between two tokens turns keys (householder_positions.py)
    none          nothing; a causal model can still count (Kazemnejad et al. 2023)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models.config import TransformerConfig

_PRIME = 2**31 - 1  # hashes are taken modulo this one; products of two stay below 2 ** 62


class Embed(nn.Module):
    """Token embedding, W_E [d_vocab, d_model]."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(cfg.d_vocab, cfg.d_model))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, pos] to vectors [batch, pos, d_model]."""
        return F.embedding(tokens, self.W_E)


class PositionEmbedding(nn.Module):
    """What is added for the position: a table W_pos [n_ctx, d_model], the same for every row unless said otherwise."""

    W_pos: Tensor

    def forward(self, tokens: Tensor, *, start: int = 0) -> Tensor:
        """The vectors of tokens [batch, pos], which stand at positions from `start` on, [1 or batch, pos, d_model]."""
        return self.W_pos[None, start : start + tokens.shape[1]]


class LearnedPositions(PositionEmbedding):
    """One free vector a position, W_pos [n_ctx, d_model]."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.W_pos = nn.Parameter(torch.empty(cfg.n_ctx, cfg.d_model))


class SinusoidalPositions(PositionEmbedding):
    """Sines and cosines of geometric wavelengths (Vaswani et al. 2017), W_pos [n_ctx, d_model], fixed.

    They are scaled to the root mean square `init_range` of the initial token embeddings, where the paper scales the
    token embeddings up.
    """

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        pos = torch.arange(cfg.n_ctx, dtype=torch.float64)[:, None]
        dims = torch.arange(cfg.d_model)
        angles = pos / 10_000.0 ** (2 * (dims // 2) / cfg.d_model)
        table = torch.where(dims % 2 == 0, angles.sin(), angles.cos()) * (2**0.5 * cfg.init_range)
        self.register_buffer("W_pos", table.to(getattr(torch, cfg.dtype)), persistent=False)


class RandomisedPositions(PositionEmbedding):
    """One free vector for each of `position_range` positions, of which a sequence uses some, in order.

    In train mode each row of n tokens has a random subset of n, sorted, so that all are learned and the model hears of
    order, not of distances (Ruoss et al. 2023). It is drawn from a hash of the row's own tokens: the same whatever the
    batch, the process or the step at which training resumes. In eval mode, where the paper draws too, positions are
    fixed: n_ctx of them spread evenly over the range, of which the first are used; so a token's place is the same
    read alone, in pieces or with what follows. A longer model (`resize`) has the same range, more closely spaced.
    """

    places: Tensor  # [n_ctx], those of eval mode
    hash_weights: Tensor  # [n_ctx]
    factors: Tensor  # [position_range]
    terms: Tensor  # [position_range]

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        size = cfg.position_range
        self.W_range = nn.Parameter(torch.empty(size, cfg.d_model))
        generator = torch.Generator().manual_seed(cfg.seed)
        for name, n in (("hash_weights", cfg.n_ctx), ("factors", size), ("terms", size)):
            self.register_buffer(name, torch.randint(1, _PRIME, (n,), generator=generator), persistent=False)
        places = (2 * torch.arange(cfg.n_ctx) + 1) * size // (2 * cfg.n_ctx)
        self.register_buffer("places", places, persistent=False)

    @property
    def W_pos(self) -> Tensor:
        """As in eval mode, [n_ctx, d_model]; computed, so writing to it changes nothing."""
        return F.embedding(self.places, self.W_range)

    def drawn(self, tokens: Tensor) -> Tensor:
        """The places of tokens [batch, pos] in train mode, ascending, [batch, pos]."""
        pos = tokens.shape[1]
        row = (tokens.long() * self.hash_weights[:pos] % _PRIME).sum(-1, keepdim=True) % _PRIME  # [batch, 1]
        keys = (row * self.factors + self.terms) % _PRIME  # [batch, position_range]: in an order of the row's own
        return keys.topk(pos, dim=-1).indices.sort(dim=-1).values

    def forward(self, tokens: Tensor, *, start: int = 0) -> Tensor:
        """As in PositionEmbedding; in train mode a row of its own for every example."""
        if not self.training:
            return super().forward(tokens, start=start)
        if start:
            raise ValueError("positions are drawn at random in train mode; decode in eval mode: call model.eval()")
        return F.embedding(self.drawn(tokens), self.W_range)


class RolePositions(PositionEmbedding):
    """The block's vector alone, W_role [n_roles, d_model]; inside a block the rotation tells slots apart."""

    roles: Tensor

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.W_role = nn.Parameter(torch.empty(max(cfg.position_roles) + 1, cfg.d_model))
        self.register_buffer("roles", torch.tensor(cfg.position_roles), persistent=False)

    @property
    def W_pos(self) -> Tensor:
        """[n_ctx, d_model]; computed, so writing to it changes nothing."""
        return F.embedding(self.roles, self.W_role)


class BlockPositions(RolePositions):
    """A slot is the sum of its block's vector, its index's vector and a flat one that starts at zero.

    Slots of equal index in different blocks then share a direction, so that a pointer's one-hot and the cells that it
    points to are aligned from the first step. With `index_init="sinusoidal"` the vectors of the indices begin as waves
    of 3 to 60 slots (and are learned from there), which makes the neighbour of a slot a fixed rotation away.

    With `index_table_size`, for machines larger than any in training (Ruoss et al. 2023, randomised positions): there
    is no flat part, and in train mode each block's indices are shifted by an offset, so that every row of the table is
    learned. Blocks of one length share their offset, as a pointer must stay aligned with what it points to; lone slots
    and brackets are not shifted. The offsets are a hash of the row's own tokens: random across rows, and the same
    whatever the batch, the process or the step at which training resumes. In eval mode every block starts at index
    `offset`, 0 unless set.
    """

    indices: Tensor
    room: Tensor  # [n_lengths], the largest offset of the blocks of each length
    length_of: Tensor  # [n_ctx], which entry of `room` a position's block has
    hash_weights: Tensor  # [n_lengths, n_ctx]

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__(cfg)
        self.shifted = cfg.index_table_size > 0
        self.W_index = nn.Parameter(torch.empty(cfg.index_table_size or max(cfg.position_indices) + 1, cfg.d_model))
        if not self.shifted:
            self.W_flat = nn.Parameter(torch.empty(cfg.n_ctx, cfg.d_model))
        self.register_buffer("indices", torch.tensor(cfg.position_indices), persistent=False)
        self._offset = 0
        if self.shifted:
            self._prepare_offsets(cfg)

    def reset_waves(self, std: float) -> None:
        """Set W_index to sines and cosines of geometric wavelengths, of root mean square `std`."""
        index = torch.arange(len(self.W_index))[:, None]
        wavelengths = torch.logspace(math.log10(3), math.log10(60), self.W_index.shape[1] // 2)
        angles = 2 * math.pi * index / wavelengths
        odd = self.W_index[:, 2 * len(wavelengths) :]  # of an odd d_model the last dimension stays as it is
        self.W_index.copy_(torch.cat([2**0.5 * std * angles.sin(), 2**0.5 * std * angles.cos(), odd], dim=1))

    def _prepare_offsets(self, cfg: TransformerConfig) -> None:
        last: dict[int, int] = {}  # the largest index of each role
        for role, index in zip(cfg.position_roles, cfg.position_indices, strict=True):
            last[role] = max(last.get(role, 0), index)
        lengths = sorted(set(last.values()))
        room = [cfg.index_table_size - 1 - each if each else 0 for each in lengths]
        generator = torch.Generator().manual_seed(cfg.seed)
        weights = torch.randint(2**31, (len(lengths), cfg.n_ctx), generator=generator)
        length_of = [lengths.index(last[role]) for role in cfg.position_roles]
        self.register_buffer("room", torch.tensor(room), persistent=False)
        self.register_buffer("length_of", torch.tensor(length_of), persistent=False)
        self.register_buffer("hash_weights", weights, persistent=False)

    @property
    def offset(self) -> int:
        """The index at which every block of several slots starts in eval mode; from 0 to `room.min()`."""
        return self._offset

    @property
    def most_offset(self) -> int:
        """The largest offset that the table has room for."""
        return int(self.room[self.room > 0].min()) if self.shifted and (self.room > 0).any() else 0

    @offset.setter
    def offset(self, offset: int) -> None:
        most = self.most_offset
        if not 0 <= offset <= most:
            raise ValueError(f"offset must be from 0 to {most} with this index_table_size; got {offset}")
        self._offset = offset

    @property
    def W_pos(self) -> Tensor:
        """The parts summed, as in eval mode, [n_ctx, d_model]; computed, so writing to it changes nothing."""
        indices = self.indices
        if self._offset:
            indices = indices + self._offset * (self.room[self.length_of] > 0)
        table = F.embedding(self.roles, self.W_role) + F.embedding(indices, self.W_index)
        return table if self.shifted else table + self.W_flat

    def offsets(self, tokens: Tensor) -> Tensor:
        """The offset of each position in train mode, a hash of the row's tokens, [batch, pos]."""
        pos = tokens.shape[1]
        mixed = (tokens[:, None, :] * self.hash_weights[:, :pos]).sum(-1) % (2**31 - 1)  # [batch, n_lengths]
        return (mixed % (self.room + 1))[:, self.length_of[:pos]]

    def forward(self, tokens: Tensor, *, start: int = 0) -> Tensor:
        """As in PositionEmbedding; a row of its own for every example where indices are shifted at random."""
        if not (self.shifted and self.training):
            return super().forward(tokens, start=start)
        if start:
            raise ValueError("indices are shifted at random in train mode; decode in eval mode: call model.eval()")
        pos = tokens.shape[1]
        indices = self.indices[:pos] + self.offsets(tokens)
        return F.embedding(self.roles[:pos], self.W_role) + F.embedding(indices, self.W_index)


POSITIONS: dict[str, type[PositionEmbedding]] = {
    "learned": LearnedPositions,
    "sinusoidal": SinusoidalPositions,
    "randomised": RandomisedPositions,
    "block": BlockPositions,
    "block_rotary": RolePositions,
}


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


class EndWeights:
    """TransformerLens's names for the weights at both ends of a model with `embed` and `unembed`."""

    embed: Embed
    unembed: Unembed

    @property
    def W_E(self) -> Tensor:
        """[d_vocab, d_model]."""
        return self.embed.W_E

    @property
    def W_U(self) -> Tensor:
        """[d_model, d_vocab], a view."""
        return self.unembed.W_U

    @property
    def b_U(self) -> Tensor:
        """[d_vocab]."""
        return self.unembed.b_U
