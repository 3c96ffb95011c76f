"""Causal attention local to chunks of a sequence, at a cost linear in its length."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def local_attention(q: Tensor, k: Tensor, v: Tensor, *, chunk: int) -> Tensor:
    """A token attends to its own chunk up to itself and to the whole chunk before: never to more than 2 * chunk keys.

    The first chunk is plain causal attention; each later one is a row of a batch that sees the 2 * chunk keys of the
    two chunks under one mask. So chains of states are read: a state from the one before it.

    Args:
        q, k, v: [batch, head, pos, d_head].
        chunk: tokens of a chunk; the last may be shorter.

    Returns:
        z [batch, head, pos, d_head].
    """
    n_heads, pos = q.shape[1], q.shape[2]
    n_chunks = -(-pos // chunk)
    # Padding stands at the end, so no token attends to it.
    q, k, v = (F.pad(x, (0, 0, 0, n_chunks * chunk - pos)).unflatten(2, (n_chunks, chunk)) for x in (q, k, v))
    first = F.scaled_dot_product_attention(q[:, :, 0], k[:, :, 0], v[:, :, 0], is_causal=True)
    keys, values = (torch.cat([x[:, :, :-1], x[:, :, 1:]], dim=3).flatten(1, 2) for x in (k, v))
    visible = torch.ones(chunk, 2 * chunk, dtype=torch.bool, device=q.device).tril(chunk)
    later = F.scaled_dot_product_attention(q[:, :, 1:].flatten(1, 2), keys, values, attn_mask=visible)
    z = torch.cat([first[:, :, None], later.unflatten(1, (n_heads, n_chunks - 1))], dim=2)
    return z.flatten(2, 3)[:, :, :pos]
