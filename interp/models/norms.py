"""LayerNorm and RMSNorm with their scale on a hook point."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.config import Norm
from interp.models.hooks import live


class HookedNorm(nn.Module):
    """`(x - mean) / scale * w + b` (LN), or `x / scale * w` (RMS), over the last dimension.

    hook_scale is sqrt(variance + eps) for LN and sqrt(mean square + eps) for RMS, and hook_normalized is the activation
    divided by it, before the gain and the bias: so TransformerLens 4 has them. The fused kernel runs when neither is
    listened to.
    """

    def __init__(self, size: int, *, kind: Norm, eps: float, bias: bool) -> None:
        super().__init__()
        self.kind, self.eps = kind, eps
        self.w = nn.Parameter(torch.ones(size))
        self.b = nn.Parameter(torch.zeros(size)) if bias and kind == "LN" else None
        self.hook_scale = HookPoint()  # [..., 1]
        self.hook_normalized = HookPoint()  # [..., size]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [..., size]."""
        if live(self.hook_scale, self.hook_normalized):
            return self._explicit(x)
        if self.kind == "LN":
            return F.layer_norm(x, self.w.shape, self.w, self.b, self.eps)
        return F.rms_norm(x, self.w.shape, self.w.to(x.dtype), self.eps)  # one dtype, or the kernel is not fused

    def _explicit(self, x: Tensor) -> Tensor:
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        if self.kind == "LN":
            y = y - y.mean(-1, keepdim=True)
        scale = self.hook_scale((y.square().mean(-1, keepdim=True) + self.eps).sqrt())
        y = self.hook_normalized(y / scale) * self.w
        return (y if self.b is None else y + self.b).to(x.dtype)


def make_norm(size: int, *, kind: Norm | None, eps: float, bias: bool = True) -> HookedNorm | nn.Identity:
    """A HookedNorm, or the identity, without hook points, where `kind` is None."""
    return nn.Identity() if kind is None else HookedNorm(size, kind=kind, eps=eps, bias=bias)
