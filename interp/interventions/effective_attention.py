"""Effective attention of models whose heads hold a matrix: how much of what was written at each position is read later.

Given a run's keys, strengths and decays, what a head reads is linear in the values that were written:

    read_t = sum over s <= t of A[t, s] v_s,    A[t, s] = q_t^T (product over r = t … s + 1 of T_r) k_s b_s

with T_r = decay_r for linear attention (b = 1), and T_r = decay_r (I - beta_r k_r k_r^T), b = beta for the delta rule.
The sum is exact; to call A attention is a heuristic. Rows do not sum to 1 and may be negative, and with the delta rule
a later write to the same key has already been taken off: A says what is left of a value, not where a head looks.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def effective_attention(model: Any, tokens: Tensor, layer: int) -> Tensor:
    """A of one layer, [batch, head, query_pos, key_pos]; 0 above the diagonal.

    Args:
        model: a linear-attention or delta model, with one write a position.
        tokens: long [batch, pos].
        layer: from 0.

    Raises:
        ValueError: the model's heads hold no matrix, or write several times a position.
    """
    stem = f"blocks.{layer}.linear_attn"
    if f"{stem}.hook_log_decay" not in model.hook_dict:
        raise ValueError(f"effective attention needs heads that hold a matrix; {stem}.hook_log_decay is not there")
    names = [f"{stem}.hook_{part}" for part in ("q", "k", "log_decay", "beta")]
    found: dict[str, Tensor] = {}

    def keep(activation: Tensor, hook: Any) -> None:
        found[hook.name] = activation

    with model.hooks(fwd_hooks=[(name, keep) for name in names if name in model.hook_dict]):
        model(tokens)
    q, k, log_decay = (found[name] for name in names[:3])
    if k.ndim != 4:
        raise ValueError(f"effective attention is of one write a position; this model writes {k.shape[2]}")
    query, keys = q.transpose(1, 2).clone(), k.transpose(1, 2)  # [batch, head, pos, d_key]
    decay = log_decay.exp().transpose(1, 2)  # [batch, head, pos]
    beta = found[names[3]].transpose(1, 2) if names[3] in found else None
    n_pos = query.shape[2]
    A = query.new_zeros(*query.shape[:2], n_pos, n_pos)
    for s in reversed(range(n_pos)):
        key, later = keys[:, :, s, :, None], query[:, :, s:]  # [batch, head, d_key, 1]; queries that come after s
        seen = (later @ key)[..., 0]  # [batch, head, pos - s]
        strength = 1.0 if beta is None else beta[:, :, s, None]
        A[:, :, s:, s] = seen * strength
        if beta is not None:  # what this write takes off earlier ones
            later = later - (seen * strength)[..., None] * key.transpose(-1, -2)
        query[:, :, s:] = later * decay[:, :, s, None, None]
    return A
