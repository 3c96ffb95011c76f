"""The linear recurrence `h_t = a_t * h_{t-1} + b_t`, elementwise, at all positions, with its backward pass.

Two kernels compute the same numbers:

sequential  A loop over positions on whole slices, outside autograd. On processors nothing is faster, since each step is
            one pass over memory; under autograd the same loop pays for a graph node and a full-size gradient a step.
chunked     A parallel scan of two levels. Chunks of about sqrt(pos) positions are scanned side by side, each from 0;
            then the chunks' last states are scanned one after the other; then what came into a chunk is added, times
            the product of a since its start. So 2 * sqrt(pos) steps follow one another in place of pos.

The gradient is the same recurrence backwards, `g_t = dh_t + a_{t+1} g_{t+1}`; then `db = g`, `da_t = g_t h_{t-1}`.
(Blelloch 1990; Martin and Cundy 2018 for linear recurrences.)

An edit of the state that propagates is one more scan: where h is set, `a_t = 0` and `b_t` is the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from transformer_lens.hook_points import HookPoint

from interp.models.hooks import live
from interp.models.propagation import Edit, ask

Scan = Literal["sequential", "chunked"]


def linear_scan(a: Tensor, b: Tensor, start: Tensor | None = None, *, kernel: Scan = "sequential") -> Tensor:
    """All states of `h_t = a_t * h_{t-1} + b_t`.

    Args:
        a: [batch, pos, …], or what broadcasts to b.
        b: [batch, pos, …].
        start: the state before the first position, [batch, …]; zeros if None.
        kernel: which of the two; the same numbers but for rounding.

    Returns:
        [batch, pos, …].
    """
    if start is None:
        start = torch.zeros_like(b[:, 0])
    return _scan(a.expand_as(b), b, start.expand_as(b[:, 0]), KERNELS[kernel])


def edited_scan(
    edit: Edit, a: Tensor, b: Tensor, start: Tensor | None = None, *, kernel: Scan = "sequential"
) -> Tensor:
    """The states of `linear_scan` where some are set by a hook: they go on into every later position."""
    a = torch.where(edit.mask, torch.zeros_like(edit.given), a.expand_as(b))
    return linear_scan(a, edit.apply(b), start, kernel=kernel)


def hooked_scan(
    hook_point: HookPoint, a: Tensor, b: Tensor, start: Tensor | None = None, *, kernel: Scan = "sequential"
) -> Tensor:
    """`linear_scan` whose states pass a hook point once, all together; what a hook sets there propagates."""
    states = linear_scan(a, b, start, kernel=kernel)
    if not live(hook_point):
        return states
    edit = ask(hook_point, states)
    if edit.empty and not edit.in_graph:
        return states
    return edited_scan(edit, a, b, start, kernel=kernel)


def _apply(a: Tensor, b: Tensor, start: Tensor, kernel: Callable) -> Tensor:
    return _LinearScan.apply(a, b, start, kernel)  # type: ignore[return-value]


_scan: Any = torch.compiler.disable(_apply)  # its loops over positions would be unrolled


class _LinearScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, start: Tensor, kernel: Callable) -> Tensor:
        states = kernel(a, b, start)
        ctx.save_for_backward(a, start, states)
        ctx.kernel = kernel
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, start, states = ctx.saved_tensors
        g = ctx.kernel(a, grad, start, reverse=True)
        grad_a = grad_start = None
        if ctx.needs_input_grad[0]:
            grad_a = torch.empty_like(g)
            torch.mul(g[:, 1:], states[:, :-1], out=grad_a[:, 1:])
            torch.mul(g[:, 0], start, out=grad_a[:, 0])
        if ctx.needs_input_grad[2]:
            grad_start = g[:, 0] * a[:, 0]
        return grad_a, g, grad_start, None


def _sequential(a: Tensor, b: Tensor, start: Tensor, *, reverse: bool = False) -> Tensor:
    """The scan, or with `reverse` `h_t = a_{t+1} * h_{t+1} + b_t` from the last position, whose h is its b.

    `start` has no part in the reverse scan.
    """
    h = torch.empty_like(b, memory_format=torch.contiguous_format)
    n_pos = b.shape[1]
    if reverse:
        h[:, -1] = b[:, -1]
        for t in range(n_pos - 2, -1, -1):
            torch.addcmul(b[:, t], a[:, t + 1], h[:, t + 1], out=h[:, t])
    else:
        state = start
        for t in range(n_pos):
            torch.addcmul(b[:, t], a[:, t], state, out=h[:, t])
            state = h[:, t]
    return h


def _chunked(a: Tensor, b: Tensor, start: Tensor, *, reverse: bool = False) -> Tensor:
    """As `_sequential`, in two levels. Positions that fill no chunk are scanned after the others."""
    batch, n_pos = b.shape[:2]
    size = max(1, math.isqrt(n_pos))
    whole = n_pos - n_pos % size
    h = torch.empty_like(b, memory_format=torch.contiguous_format)

    def chunks(x: Tensor) -> Tensor:  # [batch, chunk, position in the chunk, …], a view where x allows one
        return x[:, :whole].reshape(batch, whole // size, size, *x.shape[2:])

    a_chunks, b_chunks = chunks(a), chunks(b)
    local, decay = torch.empty_like(b_chunks), torch.empty_like(b_chunks)
    if reverse:
        # the last positions first; `coming` is the gradient that enters the last whole chunk from behind
        coming = torch.zeros_like(b[:, 0])
        if whole < n_pos:
            h[:, whole:] = _sequential(a[:, whole:], b[:, whole:], start, reverse=True)
            coming = a[:, whole] * h[:, whole]
        local[:, :, -1] = b_chunks[:, :, -1]
        decay[:, :, -1] = 1
        for j in range(size - 2, -1, -1):
            torch.addcmul(b_chunks[:, :, j], a_chunks[:, :, j + 1], local[:, :, j + 1], out=local[:, :, j])
            torch.mul(decay[:, :, j + 1], a_chunks[:, :, j + 1], out=decay[:, :, j])
        into = torch.empty_like(local[:, :, 0])  # [batch, chunk, …], what enters each chunk
        for n in range(into.shape[1] - 1, -1, -1):
            into[:, n] = coming
            coming = a_chunks[:, n, 0] * torch.addcmul(local[:, n, 0], decay[:, n, 0], coming)
    else:
        local[:, :, 0] = b_chunks[:, :, 0]
        decay[:, :, 0] = a_chunks[:, :, 0]
        for j in range(1, size):
            torch.addcmul(b_chunks[:, :, j], a_chunks[:, :, j], local[:, :, j - 1], out=local[:, :, j])
            torch.mul(decay[:, :, j - 1], a_chunks[:, :, j], out=decay[:, :, j])
        into = torch.empty_like(local[:, :, 0])
        for n in range(into.shape[1]):
            into[:, n] = start
            start = torch.addcmul(local[:, n, -1], decay[:, n, -1], into[:, n])
    chunks(h).copy_(local.addcmul_(decay, into[:, :, None]))
    if not reverse and whole < n_pos:
        h[:, whole:] = _sequential(a[:, whole:], b[:, whole:], start)
    return h


KERNELS: dict[Scan, Callable] = {"sequential": _sequential, "chunked": _chunked}
