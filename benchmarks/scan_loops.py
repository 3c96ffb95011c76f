"""The recurrences of the models with a state as plain loops under autograd: what their kernels are measured against."""

from __future__ import annotations

import torch
from torch import Tensor


def linear_loop(a: Tensor, b: Tensor) -> Tensor:
    """`h = a h + b`, [batch, pos, …]."""
    state, states = torch.zeros_like(b[:, 0]), []
    for t in range(b.shape[1]):
        state = a[:, t] * state + b[:, t]
        states.append(state)
    return torch.stack(states, dim=1)


def selective_loop(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Mamba's selective scan, [batch, pos, d_inner]; arguments as in interp.models.selective_scan."""
    decays = (dt[..., None] * A).exp()
    writes = (dt * x)[..., None] * B[:, :, None, :]
    state, reads = torch.zeros_like(writes[:, 0]), []
    for t in range(x.shape[1]):
        state = decays[:, t] * state + writes[:, t]
        reads.append((state * C[:, t, None]).sum(-1))
    return torch.stack(reads, dim=1)


def linear_attention_loop(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
    """Linear attention and Mamba-2, [batch, head, pos, d_value]; arguments as in interp.models.chunks."""
    state, reads = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1]), []
    for t in range(v.shape[2]):
        state = log_decay[:, :, t, None, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None, :]
        reads.append((q[:, :, t, None] @ state)[:, :, 0])
    return torch.stack(reads, dim=2)


def delta_loop(q: Tensor, k: Tensor, v: Tensor, beta: Tensor, log_decay: Tensor) -> Tensor:
    """The gated delta rule, [batch, head, pos, d_value]; arguments as in interp.models.chunks."""
    state, reads = v.new_zeros(*v.shape[:2], k.shape[-1], v.shape[-1]), []
    for t in range(v.shape[2]):
        state = log_decay[:, :, t, None, None].exp() * state
        error = v[:, :, t] - (k[:, :, t, None] @ state)[:, :, 0]
        state = state + k[:, :, t, :, None] * (beta[:, :, t, None] * error)[:, :, None]
        reads.append((q[:, :, t, None] @ state)[:, :, 0])
    return torch.stack(reads, dim=2)
