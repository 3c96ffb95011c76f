"""Multi-head self-attention: one fused matrix, one fused kernel, every intermediate value on a hook point."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.alibi import Alibi
from interp.models.config import TransformerConfig
from interp.models.hooks import live
from interp.models.householder_positions import HouseholderPositions, path_scores
from interp.models.kv_cache import KeyValueCache
from interp.models.local_attention import local_attention
from interp.models.norms import make_norm
from interp.models.rotary import Rotary


class Attention(nn.Module):
    """Self-attention over [batch, pos, d_model], causal or bidirectional.

    Parameters are two matrices, `qkv.weight` [3 * n_heads * d_head, d_model] and `out.weight`
    [d_model, n_heads * d_head]; W_Q, W_K, W_V, W_O and their biases are views of them, so `W_Q.copy_(...)` under
    `torch.no_grad()` sets the weights.

    With `qk_norm`, queries and keys are normalised over d_head before hook_q and hook_k, so that always
    `attn_scores = q @ k / sqrt(d_head)`; under rotary positions of hook_rot_q and hook_rot_k, which come after the
    rotation. ALiBi adds its fall with the distance; under PaTH a key is first carried to the query through hook_w and
    hook_beta of what lies between (householder_positions.py), which read what the head's keys read. Scores and pattern
    exist only while somebody listens to them; otherwise `F.scaled_dot_product_attention` computes z, chunk by chunk
    where `attention_chunk` is set. PaTH has no such kernel.
    """

    def __init__(self, cfg: TransformerConfig, *, layer: int = 0) -> None:
        super().__init__()
        self.layer = layer  # its place in a KeyValueCache
        self.n_heads, self.d_head = cfg.n_heads, cfg.d_head
        self.causal, self.chunk = cfg.attention_dir == "causal", cfg.attention_chunk
        width = cfg.n_heads * cfg.d_head
        self.qkv = nn.Linear(cfg.d_model, 3 * width, bias=cfg.use_bias)
        self.out = nn.Linear(width, cfg.d_model, bias=cfg.use_bias)
        self.q_norm = make_norm(cfg.d_head, kind="RMS" if cfg.qk_norm else None, eps=cfg.eps)
        self.k_norm = make_norm(cfg.d_head, kind="RMS" if cfg.qk_norm else None, eps=cfg.eps)
        self.rotary = Rotary(cfg) if cfg.rotary else None
        if self.rotary is not None:
            self.hook_rot_q = HookPoint()  # [batch, pos, head, d_head]
            self.hook_rot_k = HookPoint()  # [batch, pos, head, d_head]
        self.distance_bias: nn.Module | None = None  # (n_queries, n_keys) -> what scores have besides, by distance
        if cfg.positional_embedding_type == "alibi":
            self.distance_bias = Alibi(cfg.n_heads, getattr(torch, cfg.dtype))
        self.path = HouseholderPositions(cfg) if cfg.positional_embedding_type == "path" else None
        if self.path is not None:
            self.hook_w = HookPoint()  # [batch, pos, head, d_head], of unit length
            self.hook_beta = HookPoint()  # [batch, pos, head], from 0 to 2
        self.hook_attn_in = HookPoint()  # [batch, pos, head, d_model], this and the next three fired by the block
        self.hook_q_input = HookPoint()  # [batch, pos, head, d_model]
        self.hook_k_input = HookPoint()  # [batch, pos, head, d_model]
        self.hook_v_input = HookPoint()  # [batch, pos, head, d_model]
        self.hook_q = HookPoint()  # [batch, pos, head, d_head]
        self.hook_k = HookPoint()  # [batch, pos, head, d_head]
        self.hook_v = HookPoint()  # [batch, pos, head, d_head]
        self.hook_attn_scores = HookPoint()  # [batch, head, query_pos, key_pos], masked entries -inf, before softmax
        self.hook_pattern = HookPoint()  # [batch, head, query_pos, key_pos], rows sum to 1
        self.hook_z = HookPoint()  # [batch, pos, head, d_head]
        self.hook_result = HookPoint()  # [batch, pos, head, d_model]: z @ W_O of each head, without b_O

    def forward(self, x: Tensor, *, past: KeyValueCache | None = None) -> Tensor:
        """Attend from the normalised residual stream to it, and to what `past` has read.

        Args:
            x: [batch, pos, d_model]; or an input of its own for each head's query, key and value,
                [batch, pos, 3 * head, d_model]: the heads' query inputs, then key inputs, then value inputs.
            past: keys and values of earlier tokens.
        """
        if x.ndim == 4:
            return self._attend_from_inputs(x, past)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, self.d_head)).unbind(2)
        return self.attend(q, k, v, x, past=past)

    def _attend_from_inputs(self, x: Tensor, past: KeyValueCache | None) -> Tensor:
        weight = self.qkv.weight.unflatten(0, (3 * self.n_heads, self.d_head))
        qkv = torch.einsum("bphm,hdm->bphd", x, weight)
        if self.qkv.bias is not None:
            qkv = qkv + self.qkv.bias.view(3 * self.n_heads, self.d_head)
        q, k, v = qkv.chunk(3, dim=2)
        return self.attend(q, k, v, x.chunk(3, dim=2)[1], past=past)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, key_input: Tensor, *, past: KeyValueCache | None = None
    ) -> Tensor:
        """From queries, keys and values [batch, pos, head, d_head] to the block's write [batch, pos, d_model].

        `key_input` is what keys were made of, [batch, pos, d_model] or each head's own [batch, pos, head, d_model].
        """
        if live(self.hook_q, self.hook_k, self.hook_v):  # slices of one tensor: hooks may edit in place
            q, k, v = q.clone(), k.clone(), v.clone()
        q, k, v = self.hook_q(self.q_norm(q)), self.hook_k(self.k_norm(k)), self.hook_v(v)
        if self.rotary is not None:
            q, k = self.turned(q, k, start=0 if past is None else past.length)
            q, k = self.hook_rot_q(q), self.hook_rot_k(k)
        if self.path is not None:
            w, beta = self.path(key_input)
            # Keys go with their transitions from here on, [batch, pos, head, 2 * d_head + 1]; a cache keeps both.
            k = torch.cat([k, self.hook_w(w), self.hook_beta(beta)[..., None]], dim=-1)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if past is not None:
            k, v = past.extend(self.layer, k, v)
        if self.path is not None or live(self.hook_attn_scores, self.hook_pattern):
            z = self._pattern(q, k).to(v.dtype) @ v
        else:
            z = self.fused(q, k, v)
        z = self.hook_z(z.transpose(1, 2))
        if live(self.hook_result):
            result = self.hook_result(torch.einsum("bphd,hdm->bphm", z, self.W_O))
            return result.sum(2) if self.out.bias is None else result.sum(2) + self.out.bias
        return self.out(z.flatten(2))

    def turned(self, q: Tensor, k: Tensor, *, start: int) -> tuple[Tensor, Tensor]:
        """Queries and keys [batch, pos, head, d_head] turned by their places, from position `start` on."""
        assert self.rotary is not None
        return self.rotary(q, start=start), self.rotary(k, start=start)

    def _pattern(self, q: Tensor, k: Tensor) -> Tensor:
        if self.path is None:
            products = q @ k.transpose(-2, -1)
        else:
            key, w, beta = k.split([self.d_head, self.d_head, 1], dim=-1)
            products = path_scores(q, key, w, beta[..., 0], causal=self.causal).to(q.dtype)
        scores = products / math.sqrt(self.d_head)
        if self.distance_bias is not None:
            scores = scores + self.distance_bias(*scores.shape[-2:]).to(scores.dtype)
        if self.causal:
            scores = scores.masked_fill(~self.visible(*scores.shape[-2:], device=scores.device), -torch.inf)
        return self.hook_pattern(self.hook_attn_scores(scores).softmax(-1))

    def visible(self, n_queries: int, n_keys: int, *, first: int = 0, device: torch.device) -> Tensor:
        """Which keys from `first` to n_keys the last n_queries positions attend to, bool [query_pos, key_pos]."""
        query_pos = torch.arange(n_keys - n_queries, n_keys, device=device)[:, None]
        key_pos = torch.arange(first, n_keys, device=device)
        visible = key_pos <= query_pos
        return visible & (key_pos // self.chunk >= query_pos // self.chunk - 1) if self.chunk else visible

    def fused(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """z [batch, head, query_pos, d_head] without the pattern; the queries are the last of the keys' positions."""
        n_queries, n_keys = q.shape[2], k.shape[2]
        if self.distance_bias is not None:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=self.falling(n_queries, n_keys).to(q.dtype))
        if n_queries == n_keys:
            if self.chunk and n_keys > 2 * self.chunk:
                return local_attention(q, k, v, chunk=self.chunk)
            return F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        first = max(0, (n_keys - n_queries) // self.chunk - 1) * self.chunk if self.chunk else 0
        mask = None if n_queries == 1 else self.visible(n_queries, n_keys, first=first, device=q.device)
        return F.scaled_dot_product_attention(q, k[:, :, first:], v[:, :, first:], attn_mask=mask)

    def falling(self, n_queries: int, n_keys: int) -> Tensor:
        """What scores have by distance, -inf where a query does not attend, [head, query_pos, key_pos]."""
        assert self.distance_bias is not None
        bias = self.distance_bias(n_queries, n_keys)
        return (
            bias.masked_fill(~self.visible(n_queries, n_keys, device=bias.device), -torch.inf) if self.causal else bias
        )

    def _heads(self, part: int) -> Tensor:
        return self.qkv.weight.unflatten(0, (3, self.n_heads, self.d_head))[part].transpose(-2, -1)

    def _head_biases(self, part: int) -> Tensor:
        bias = self.qkv.weight.new_zeros(len(self.qkv.weight)) if self.qkv.bias is None else self.qkv.bias
        return bias.view(3, self.n_heads, self.d_head)[part]

    @property
    def W_Q(self) -> Tensor:
        """[n_heads, d_model, d_head], a view."""
        return self._heads(0)

    @property
    def W_K(self) -> Tensor:
        """[n_heads, d_model, d_head], a view."""
        return self._heads(1)

    @property
    def W_V(self) -> Tensor:
        """[n_heads, d_model, d_head], a view."""
        return self._heads(2)

    @property
    def W_O(self) -> Tensor:
        """[n_heads, d_head, d_model], a view."""
        return self.out.weight.T.unflatten(0, (self.n_heads, self.d_head))

    @property
    def b_Q(self) -> Tensor:
        """[n_heads, d_head]; zeros where the model has no biases."""
        return self._head_biases(0)

    @property
    def b_K(self) -> Tensor:
        """[n_heads, d_head]; zeros where the model has no biases."""
        return self._head_biases(1)

    @property
    def b_V(self) -> Tensor:
        """[n_heads, d_head]; zeros where the model has no biases."""
        return self._head_biases(2)

    @property
    def b_O(self) -> Tensor:
        """[d_model]; zeros where the model has no biases."""
        return self.out.weight.new_zeros(len(self.out.weight)) if self.out.bias is None else self.out.bias
