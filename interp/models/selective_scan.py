"""Mamba's selective scan, from step sizes to what is read, block by block and without keeping its states.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t,   y_t = C_t · h_t

for each channel, whose state h has d_state numbers; dt, B and C depend on the position (Gu and Dao 2023). A block of
positions fits in the processor's cache: all that is not the recurrence is computed for a whole block at once, and only
`h = a h + b` steps through it. The forward pass keeps the state at the start of each block; the backward pass makes the
states of a block again from there, as Mamba's own kernel does.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 16  # positions


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, start: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What is read at each position, and the last state.

    Args:
        x: [batch, pos, d_inner].
        dt: step sizes above 0, [batch, pos, d_inner].
        A: below 0, [d_inner, d_state].
        B, C: [batch, pos, d_state].
        start: the state before the first position, [batch, d_inner, d_state]; zeros if None.

    Returns:
        [batch, pos, d_inner] and [batch, d_inner, d_state].
    """
    if start is None:
        start = x.new_zeros(len(x), *A.shape)
    return _scan(x, dt, A, B, C, start)


def _apply(*inputs: Tensor) -> tuple[Tensor, Tensor]:
    return _SelectiveScan.apply(*inputs)  # type: ignore[return-value]


_scan: Any = torch.compiler.disable(_apply)  # its loops over positions would be unrolled


class _SelectiveScan(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, start: Tensor
    ) -> tuple[Tensor, Tensor]:
        y, state, starts = torch.empty_like(x), start, []
        for block in _blocks(x.shape[1]):
            starts.append(state)
            _, states = _states(x[:, block], dt[:, block], A, B[:, block], state)
            y[:, block] = (states[:, 1:] @ C[:, block, :, None])[..., 0]
            state = states[:, -1].clone()
        ctx.save_for_backward(x, dt, A, B, C, *starts)
        return y, state

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_state: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        x, dt, A, B, C, *starts = ctx.saved_tensors
        grad_x, grad_dt, grad_B, grad_C = (torch.empty_like(each) for each in (x, dt, B, C))
        grad_A = torch.zeros_like(A)
        coming = grad_state  # what the positions after the block ask of its last state
        for block, start in zip(reversed(_blocks(x.shape[1])), reversed(starts), strict=True):
            x_, dt_, B_, dy = x[:, block], dt[:, block], B[:, block], grad_y[:, block]
            a, states = _states(x_, dt_, A, B_, start)
            g = dy[..., None] * C[:, block, None, :]  # [batch, pos, d_inner, d_state], the gradient of each state
            g[:, -1] += coming
            for t in range(g.shape[1] - 2, -1, -1):
                g[:, t].addcmul_(a[:, t + 1], g[:, t + 1])
            coming = a[:, 0] * g[:, 0]
            grad_C[:, block] = (dy[:, :, None] @ states[:, 1:])[:, :, 0]
            grad_B[:, block] = ((dt_ * x_)[:, :, None] @ g)[:, :, 0]
            grad_write = (g @ B_[..., None])[..., 0]  # of dt x
            grad_exponent = g.mul_(states[:, :-1]).mul_(a)  # of dt A
            grad_x[:, block] = grad_write * dt_
            grad_dt[:, block] = grad_write * x_ + torch.einsum("bpds,ds->bpd", grad_exponent, A)
            grad_A += torch.einsum("bpds,bpd->ds", grad_exponent, dt_)
        return grad_x, grad_dt, grad_A, grad_B, grad_C, coming


def _blocks(n_pos: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, n_pos)) for start in range(0, n_pos, BLOCK)]


def _states(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Decays [batch, pos, d_inner, d_state], and the states before the block and after each of its positions."""
    a = (dt[..., None] * A).exp_()
    states = torch.empty(len(x), x.shape[1] + 1, *A.shape, dtype=x.dtype, device=x.device)
    states[:, 0] = start
    torch.mul((dt * x)[..., None], B[:, :, None, :], out=states[:, 1:])
    for t in range(x.shape[1]):
        states[:, t + 1].addcmul_(a[:, t], states[:, t])
    return a, states
