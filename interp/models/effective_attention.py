"""Effective attention: how much of each position's value a read holds, in models whose states are matrices.

With queries, keys and gates held as they were, what a head reads at t is a weighted sum of the values written so far,

    read_t = Σ_j A_tj v_j,    A_tj = exp(G_t - G_j) q_tᵀ [(I - β_t k_t k_tᵀ) … (I - β_{j+1} k_{j+1} k_{j+1}ᵀ)] β_j k_j

without the brackets and β where nothing is overwritten (linear attention); G is the sum of the log decays. The sum is
exact, and yet A is a heuristic: weights have either sign and no common sum, and queries, keys and gates depend on the
tokens as much as the values do, so that a large weight shows where a value came from and not why. (Ali et al. 2024, The
hidden attention of Mamba models, for the same view of another family.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from interp.models.householder_positions import path_scores


def value_weights(q: Tensor, k: Tensor, beta: Tensor | None, log_decay: Tensor) -> Tensor:
    """A, float [batch, head, query_pos, write]; writes of one position stand one after the other, 0 after the query.

    Args:
        q: [batch, pos, head, d_key].
        k: [batch, pos, head, d_key], or with several writes a position [batch, pos, step, head, d_key].
        beta: [batch, pos, head] or [batch, pos, step, head]; None where nothing is overwritten.
        log_decay: [batch, pos, head]; before a position's first write.
    """
    steps = k.shape[2] if k.ndim == 5 else 1
    keys = k.flatten(1, 2) if k.ndim == 5 else k
    q, keys = q.transpose(1, 2), keys.transpose(1, 2)  # [batch, head, pos or write, d_key]
    total = log_decay.transpose(1, 2).cumsum(-1)  # [batch, head, pos]
    if beta is None:
        products = (q @ keys.mT).tril()
    else:
        strength = (beta.flatten(1, 2) if k.ndim == 5 else beta).transpose(1, 2)
        # A query reads after the last write of its position.
        at_writes = q.repeat_interleave(steps, dim=2)
        products = path_scores(at_writes, keys, keys, strength)[:, :, steps - 1 :: steps] * strength[..., None, :]
    since = total.repeat_interleave(steps, dim=-1)
    later = torch.arange(since.shape[-1], device=q.device) // steps > torch.arange(q.shape[2], device=q.device)[:, None]
    faded = (total[..., :, None] - since[..., None, :]).masked_fill(later, -torch.inf).exp()
    return products * faded


def by_position(weights: Tensor, n_pos: int) -> Tensor:
    """Of several writes a position the weight that is largest in magnitude, [batch, head, query_pos, key_pos]."""
    if weights.shape[-1] == n_pos:
        return weights
    steps = weights.unflatten(-1, (n_pos, -1))
    return steps.gather(-1, steps.abs().argmax(-1, keepdim=True))[..., 0]
