"""Mamba's selective scan, from step sizes to what is read, block by block and without keeping its states.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t,   y_t = C_t · h_t

for each channel, whose state h has d_state numbers; dt, B and C depend on the position (Gu and Dao 2023). A block of
positions fits in the processor's cache: all that is not the recurrence is computed for a whole block at once, and only
`h = a h + b` steps through it. Inside, states are [d_state, d_inner], so that sums over the state are sums of long
rows; products of matrices this small are slower on processors. The forward pass keeps the state at the start of each
block; the backward pass makes the states of a block again from there, as Mamba's own kernel does.
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
        y, u, rates = torch.empty_like(x), dt * x, A.T.contiguous()
        state, starts = start.mT.contiguous(), []
        for block in _blocks(x.shape[1]):
            starts.append(state)
            _, states = _states(u[:, block], dt[:, block], rates, B[:, block], state)
            state = states[:, -1].clone()
            torch.sum(states[:, 1:].mul_(C[:, block, :, None]), 2, out=y[:, block])
        ctx.save_for_backward(x, dt, A, B, C, *starts)
        return y, state.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, grad_state: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        x, dt, A, B, C, *starts = ctx.saved_tensors
        u, rates = dt * x, A.T.contiguous()
        grad_u, grad_dt, grad_B, grad_C = (torch.empty_like(each) for each in (x, dt, B, C))
        grad_rates = torch.zeros_like(rates)
        coming = grad_state.mT  # what the positions after the block ask of its last state
        for block, start in zip(reversed(_blocks(x.shape[1])), reversed(starts), strict=True):
            u_, dt_, B_, dy = u[:, block], dt[:, block], B[:, block], grad_y[:, block]
            a, states = _states(u_, dt_, rates, B_, start)
            g = dy[:, :, None] * C[:, block, :, None]  # [batch, pos, d_state, d_inner], the gradient of each state
            g[:, -1] += coming
            for t in range(g.shape[1] - 2, -1, -1):
                g[:, t].addcmul_(a[:, t + 1], g[:, t + 1])
            coming = a[:, 0] * g[:, 0]
            room = states[:, 1:] * dy[:, :, None]  # written over by each product in turn
            torch.sum(room, -1, out=grad_C[:, block])
            torch.sum(torch.mul(g, u_[:, :, None], out=room), -1, out=grad_B[:, block])
            torch.sum(torch.mul(g, B_[..., None], out=room), 2, out=grad_u[:, block])
            exponent = g.mul_(states[:, :-1]).mul_(a)  # the gradient of dt A
            torch.sum(torch.mul(exponent, rates, out=room), 2, out=grad_dt[:, block])
            grad_rates += torch.mul(exponent, dt_[:, :, None], out=room).sum((0, 1))
        return grad_u * dt, grad_dt.addcmul_(grad_u, x), grad_rates.T, grad_B, grad_C, coming.mT


def _blocks(n_pos: int) -> list[slice]:
    return [slice(start, min(start + BLOCK, n_pos)) for start in range(0, n_pos, BLOCK)]


def _states(u: Tensor, dt: Tensor, rates: Tensor, B: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """Decays [batch, pos, d_state, d_inner], and the states before the block and after each of its positions.

    Args:
        u: dt x, [batch, pos, d_inner].
        dt: [batch, pos, d_inner].
        rates: A, [d_state, d_inner].
        B: [batch, pos, d_state].
        start: [batch, d_state, d_inner].
    """
    a = (dt[:, :, None] * rates).exp_()
    states = torch.empty(len(u), u.shape[1] + 1, *rates.shape, dtype=u.dtype, device=u.device)
    states[:, 0] = start
    torch.mul(u[:, :, None], B[..., None], out=states[:, 1:])
    for t in range(u.shape[1]):
        states[:, t + 1].addcmul_(a[:, t], states[:, t])
    return a, states
