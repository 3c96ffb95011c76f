"""States that are matrices, advanced chunk by chunk as matrix products.

A head's state is S [d_key, d_value], 0 at first; `q_t`, `k_t`, `v_t` are its query, key and value at position t, and
`g_t` <= 0 the logarithm of its decay, one number a head and position.

    linear attention   S_t = exp(g_t) S_{t-1} + k_t v_tᵀ                                  read: S_tᵀ q_t
    delta rule         S_t = exp(g_t) S_{t-1} + k_t u_tᵀ,  u_t = β_t (v_t - exp(g_t) S_{t-1}ᵀ k_t)

1. Positions are cut into chunks. With G_i the sum of g from the chunk's start to i and S the state before the chunk,
   S_i = exp(G_i) S + Σ_{j <= i} exp(G_i - G_j) k_j u_jᵀ  (u = v in linear attention).
2. Delta rule: putting this into u_i gives a unit lower triangular system for all u of the chunk, (I + L) u =
   β (v - exp(G) K S), with L_ij = β_i exp(G_i - G_j) k_i·k_j. It is solved for [β v, β exp(G) K] at once, for all
   chunks side by side; only what depends on S is left for the loop over chunks.
3. What a chunk reads is attention inside the chunk plus a read of S. Differences G_i - G_j are taken before exp, never
   a quotient of exps, so that strong decay stays finite.

(Yang et al. 2024, Parallelizing linear transformers with the delta rule; Yang et al. 2025, Gated delta networks; Dao
and Gu 2024 for the scalar decay.) Several delta steps a position (DeltaProduct, Siems et al. 2025) are steps of their
own, the decay on the first, read after the last.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 25  # positions; of 8 to 64 the fastest, or near it, at lengths 148 and 1,184, forward and backward


def linear_attention(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, start: Tensor | None = None, *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor]:
    """What is read at each position, and the last state.

    Args:
        q, k: [batch, head, pos, d_key]; head may be 1, shared by all.
        v: [batch, head, pos, d_value].
        log_decay: [batch, head, pos].
        start: the state before the first position, [batch, head, d_key, d_value]; zeros if None.
        chunk: positions in a chunk.

    Returns:
        [batch, head, pos, d_value] and [batch, head, d_key, d_value].
    """
    n_pos = v.shape[2]
    q, k, v, log_decay = (_cut(x, chunk, 2) for x in (q, k, v, log_decay))  # [batch, head, chunk, pos, …]
    total = log_decay.cumsum(-1)
    read = ((q @ k.mT) * _decay_between(total, total)) @ v
    written = (k * (total[..., -1:] - total).exp()[..., None]).mT @ v  # [batch, head, chunk, d_key, d_value]
    state = torch.zeros_like(written[:, :, 0]) if start is None else start
    before = []
    for kept, added in zip(total[..., -1].exp().unbind(2), written.unbind(2), strict=True):
        before.append(state)
        state = kept[..., None, None] * state + added
    read = read + (q * total.exp()[..., None]) @ torch.stack(before, dim=2)
    return read.flatten(2, 3)[:, :, :n_pos], state


def delta_rule(
    q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor, start: Tensor | None = None, *, chunk: int = CHUNK
) -> tuple[Tensor, Tensor, Tensor]:
    """What is read at each position, the last state, and what was written, `u`.

    Args:
        q: [batch, head, pos, d_key].
        k: [batch, head, pos * steps, d_key], several steps a position one after the other.
        v: [batch, head, pos * steps, d_value].
        beta: [batch, head, pos * steps]; with unit keys, 0 leaves the state, 1 overwrites what the key reads, 2
            reflects it.
        log_decay: [batch, head, pos]; before the position's first step.
        start: the state before the first position, [batch, head, d_key, d_value]; zeros if None.
        chunk: positions in a chunk.

    Returns:
        [batch, head, pos, d_value], [batch, head, d_key, d_value] and [batch, head, pos * steps, d_value].
    """
    n_pos, n_steps = q.shape[2], k.shape[2]
    steps = n_steps // n_pos
    q, log_decay = (_cut(x, chunk, 2) for x in (q, log_decay))
    k, v, beta = (_cut(x, chunk * steps, 2) for x in (k, v, beta))
    total = log_decay.cumsum(-1)  # [batch, head, chunk, pos]
    at_step = total.repeat_interleave(steps, dim=-1)
    # the triangular system of step 2; solve_triangular takes the diagonal as ones and reads only what is below
    beta_k = beta[..., None] * k
    system = (beta_k @ k.mT) * _decay_between(at_step, at_step)
    sides = torch.cat([beta[..., None] * v, beta_k * at_step.exp()[..., None]], dim=-1)
    solved = torch.linalg.solve_triangular(system, sides, upper=False, unitriangular=True)
    from_values, from_state = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    # what the loop multiplies: [batch, head, chunk, …], one chunk at a time
    inside = (q @ k.mT) * _decay_between(total, at_step, steps)
    reads = q * total.exp()[..., None]
    writes = (k * (total[..., -1:] - at_step).exp()[..., None]).mT
    state = k.new_zeros(*k.shape[:2], k.shape[-1], v.shape[-1]) if start is None else start
    read, written = [], []
    parts = (x.unbind(2) for x in (from_values, from_state, inside, reads, writes, total[..., -1].exp()))
    for values, keys, attention, query, write, kept in zip(*parts, strict=True):
        u = values - keys @ state
        read.append(query @ state + attention @ u)
        written.append(u)
        state = kept[..., None, None] * state + write @ u
    return torch.cat(read, dim=2)[:, :, :n_pos], state, torch.cat(written, dim=2)[:, :, :n_steps]


def delta_step(state: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor) -> Tensor:
    """The state after one position, [batch, head, d_key, d_value], as the recurrence says it.

    Args:
        state: [batch, head, d_key, d_value].
        k: [batch, head, steps, d_key].
        v: [batch, head, steps, d_value].
        beta: [batch, head, steps].
        log_decay: [batch, head].
    """
    state = log_decay.exp()[..., None, None] * state
    for key, value, strength in zip(k.unbind(2), v.unbind(2), beta.unbind(2), strict=True):
        error = value - (key[..., None, :] @ state)[..., 0, :]
        state = state + key[..., None] * (strength[..., None] * error)[..., None, :]
    return state


def _cut(x: Tensor, size: int, axis: int) -> Tensor:
    """Cut an axis into chunks, padded with zeros: no decay, nothing written."""
    missing = -x.shape[axis] % size
    if missing:
        x = F.pad(x, (0, 0) * (x.ndim - axis - 1) + (0, missing))
    return x.unflatten(axis, (-1, size))


def _decay_between(at: Tensor, since: Tensor, steps: int = 1) -> Tensor:
    """exp(at_i - since_j) where step j is not after position i, else 0; [..., i, j]."""
    i = torch.arange(at.shape[-1], device=at.device)[:, None]
    j = torch.arange(since.shape[-1], device=at.device) // steps
    return (at[..., :, None] - since[..., None, :]).masked_fill(j > i, float("-inf")).exp()
