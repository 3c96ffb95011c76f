"""The MLP, plain or gated."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.config import TransformerConfig

ACTIVATIONS = {"gelu": F.gelu, "relu": F.relu, "silu": F.silu}


class MLP(nn.Module):
    """`act_fn(x @ W_in + b_in) @ W_out + b_out`."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__()
        self.act_fn = ACTIVATIONS[cfg.act_fn]
        self.fc_in = nn.Linear(cfg.d_model, cfg.d_mlp, bias=cfg.use_bias)
        self.fc_out = nn.Linear(cfg.d_mlp, cfg.d_model, bias=cfg.use_bias)
        self.hook_pre = HookPoint()  # [batch, pos, d_mlp], what act_fn is applied to
        self.hook_post = HookPoint()  # [batch, pos, d_mlp], what W_out reads

    def forward(self, x: Tensor) -> Tensor:
        """[batch, pos, d_model] to [batch, pos, d_model]."""
        return self.fc_out(self.hook_post(self.act_fn(self.hook_pre(self.fc_in(x)))))

    @property
    def W_in(self) -> Tensor:
        """[d_model, d_mlp], a view."""
        return self.fc_in.weight.T

    @property
    def W_out(self) -> Tensor:
        """[d_mlp, d_model], a view."""
        return self.fc_out.weight.T

    @property
    def b_in(self) -> Tensor:
        """[d_mlp]; zeros where the model has no biases."""
        return self.W_in.new_zeros(self.W_in.shape[1]) if self.fc_in.bias is None else self.fc_in.bias

    @property
    def b_out(self) -> Tensor:
        """[d_model]; zeros where the model has no biases."""
        return self.W_out.new_zeros(self.W_out.shape[1]) if self.fc_out.bias is None else self.fc_out.bias


class GatedMLP(MLP):
    """`(act_fn(x @ W_gate + b_gate) * (x @ W_in + b_in)) @ W_out + b_out` (Shazeer 2020); SwiGLU where act_fn is silu.

    As in TransformerLens, hook_pre is the gate before act_fn, hook_pre_linear the other factor and hook_post their
    product.
    """

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__(cfg)
        self.fc_gate = nn.Linear(cfg.d_model, cfg.d_mlp, bias=cfg.use_bias)
        self.hook_pre_linear = HookPoint()  # [batch, pos, d_mlp]

    def forward(self, x: Tensor) -> Tensor:
        """[batch, pos, d_model] to [batch, pos, d_model]."""
        gate = self.act_fn(self.hook_pre(self.fc_gate(x)))
        return self.fc_out(self.hook_post(gate * self.hook_pre_linear(self.fc_in(x))))

    @property
    def W_gate(self) -> Tensor:
        """[d_model, d_mlp], a view."""
        return self.fc_gate.weight.T

    @property
    def b_gate(self) -> Tensor:
        """[d_mlp]; zeros where the model has no biases."""
        return self.W_gate.new_zeros(self.W_gate.shape[1]) if self.fc_gate.bias is None else self.fc_gate.bias
