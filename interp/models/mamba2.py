"""Mamba-2: state spaces with one decay a head, computed as matrix products (Dao and Gu 2024).

A head's state is `h_t = exp(g_t) h_{t-1} + dt_t x_t B_tᵀ`, [d_head, d_state], with `g_t = dt_t A`, and reads `h_t C_t`:
it is the linear attention of chunks.py with C for queries, B for keys and dt x for values. B and C are shared by all
heads.

Hook points of a layer beside those of every model with a state (state_model.py), in the order of the computation:

    blocks.{l}.mixer.hook_gate_input                        [batch, pos, d_inner], before silu
    blocks.{l}.mixer.conv.hook_window (with conv_size)      [batch, pos, d_conv, d_window]
    blocks.{l}.mixer.hook_conv                              [batch, pos, d_conv], x, B, C: after convolution and silu
    blocks.{l}.mixer.hook_ssm_dt                            [batch, pos, head], step sizes above 0
    blocks.{l}.mixer.hook_log_decay                         [batch, pos, head], g < 0
    blocks.{l}.mixer.hook_ssm_B, hook_ssm_C                 [batch, pos, d_state]
    blocks.{l}.mixer.hook_ssm_write                         [batch, pos, head, d_head, d_state], dt x Bᵀ
    blocks.{l}.mixer.hook_ssm_state                         [batch, pos, head, d_head, d_state], after the position
    blocks.{l}.mixer.hook_recurrence_out                    [batch, pos, head, d_head], h C, what is read
    blocks.{l}.mixer.norm.hook_scale, hook_normalized       [batch, pos, 1 or d_inner]

States, carrier and edits are as in mamba.py.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models import chunks
from interp.models.architecture import Architecture, causal_only
from interp.models.hooks import live
from interp.models.linear_attention import reset_steps
from interp.models.norms import make_norm
from interp.models.propagation import fire
from interp.models.scans import hooked_scan
from interp.models.short_convolution import ShortConvolution
from interp.models.state_configs import Mamba2Config
from interp.models.state_model import Mixer, StateModel


class Mamba2Layer(Mixer):
    """One layer of heads with a decay each. Its input maps are parameters of their own, not one stacked matrix."""

    matrices = ("W_gate", "W_in", "W_B", "W_C", "W_dt", "W_O")

    def __init__(self, cfg: Mamba2Config) -> None:
        super().__init__()
        self.n_heads, self.d_head, self.d_state = cfg.n_heads, cfg.d_head, cfg.d_state
        self.W_gate = nn.Parameter(torch.empty(cfg.d_inner, cfg.d_model))
        self.W_in = nn.Parameter(torch.empty(cfg.d_inner, cfg.d_model))
        self.W_B = nn.Parameter(torch.empty(cfg.d_state, cfg.d_model))
        self.W_C = nn.Parameter(torch.empty(cfg.d_state, cfg.d_model))
        self.W_dt = nn.Parameter(torch.empty(cfg.n_heads, cfg.d_model))
        self.b_dt = nn.Parameter(torch.empty(cfg.n_heads))
        self.A_log = nn.Parameter(torch.empty(cfg.n_heads))
        self.D = nn.Parameter(torch.empty(cfg.n_heads))
        self.conv = ShortConvolution(cfg.d_conv, cfg.conv_size, bias=True) if cfg.conv_size else None
        self.norm = make_norm(cfg.d_inner, kind=cfg.normalization_type, eps=cfg.eps, bias=cfg.use_bias)
        self.W_O = nn.Parameter(torch.empty(cfg.d_model, cfg.d_inner))
        self.hook_gate_input = HookPoint()  # [batch, pos, d_inner]
        self.hook_conv = HookPoint()  # [batch, pos, d_conv]
        self.hook_ssm_dt = HookPoint()  # [batch, pos, head]
        self.hook_log_decay = HookPoint()  # [batch, pos, head]
        self.hook_ssm_B = HookPoint()  # [batch, pos, d_state]
        self.hook_ssm_C = HookPoint()  # [batch, pos, d_state]
        self.hook_ssm_write = HookPoint()  # [batch, pos, head, d_head, d_state]
        self.hook_ssm_state = HookPoint()  # [batch, pos, head, d_head, d_state]
        self.hook_recurrence_out = HookPoint()  # [batch, pos, head, d_head]

    @property
    def carriers(self) -> tuple[str, ...]:  # type: ignore[override]
        """See Mixer."""
        return ("hook_ssm_state",) if self.conv is None else ("conv.hook_window", "hook_ssm_state")

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator, *, n_layers: int) -> None:
        """As Mamba-2's own: A uniform from -16 to -1, step sizes log-uniform from .001 to .1 at input 0, D 1.

        Matrices are uniform in ±1 / sqrt(inputs), W_O divided by sqrt(2 * n_layers).
        """
        for name in self.matrices:
            parameter = self.get_parameter(name)
            bound = parameter.shape[1] ** -0.5
            parameter.uniform_(-bound, bound, generator=generator)
        self.W_O /= math.sqrt(2 * n_layers)
        self.A_log.uniform_(1.0, 16.0, generator=generator).log_()
        self.D.fill_(1.0)
        reset_steps(self.b_dt, generator)
        for name, parameter in self.norm.named_parameters():
            parameter.fill_(float(name == "w"))
        if self.conv is not None:
            self.conv.reset_parameters(generator)

    def forward(self, x: Tensor, past: dict[str, Tensor]) -> Tensor:
        """See Mixer. The recurrence runs in float32 at least, under autocast too."""
        low = self.W_O.dtype
        dtype = torch.promote_types(low, torch.float32)
        gate = self.hook_gate_input(F.linear(x, self.W_gate))
        mixed = torch.cat([F.linear(x, each) for each in (self.W_in, self.W_B, self.W_C)], dim=-1).to(dtype)
        step = F.linear(x, self.W_dt).to(dtype)
        with torch.autocast(x.device.type, enabled=False):
            mixed = self.hook_conv(F.silu(mixed if self.conv is None else self.conv(mixed, past)))
            x, B, C = mixed.split([self.n_heads * self.d_head, self.d_state, self.d_state], dim=-1)
            x = x.unflatten(-1, (self.n_heads, self.d_head))
            dt = self.hook_ssm_dt(F.softplus(step + self.b_dt))
            log_decay = self.hook_log_decay(-self.A_log.to(dtype).exp() * dt)
            read = self._read(dt[..., None] * x, log_decay, fire(self.hook_ssm_B, B), fire(self.hook_ssm_C, C), past)
            out = fire(self.hook_recurrence_out, read.to(low)) + self.D[:, None] * x.to(low)
            out = self.norm(out.flatten(2) * F.silu(gate.to(low)))
        return F.linear(out, self.W_O)

    def _read(self, v: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, past: dict[str, Tensor]) -> Tensor:
        """What is read, [batch, pos, head, d_head]; `past["state"]` [batch, head, d_head, d_state] is brought up."""
        start = past.get("state")
        if live(self.hook_ssm_write, self.hook_ssm_state):
            writes = self.hook_ssm_write(v[..., None] * B[:, :, None, None, :])
            states = hooked_scan(self.hook_ssm_state, log_decay.exp()[..., None, None], writes, start)
            past["state"] = states[:, -1]
            return (states @ C[:, :, None, :, None])[..., 0]
        read, last = chunks.linear_attention(
            C[:, None],  # one head of queries and keys for all heads of values
            B[:, None],
            v.transpose(1, 2),
            log_decay.transpose(1, 2),
            None if start is None else start.mT,
        )
        past["state"] = last.mT
        return read.transpose(1, 2)


class Mamba2(StateModel):
    """State spaces with one decay a head; see this module's docstring."""

    mixer_name = "mixer"

    declared_axes = StateModel.declared_axes | {
        "mixer.hook_gate_input": ("batch", "pos", "d_inner"),
        "mixer.norm.hook_normalized": ("batch", "pos", "d_inner"),
        "mixer.hook_conv": ("batch", "pos", "d_conv"),
        **dict.fromkeys(("mixer.hook_ssm_dt", "mixer.hook_log_decay"), ("batch", "pos", "head")),
        **dict.fromkeys(("mixer.hook_ssm_B", "mixer.hook_ssm_C"), ("batch", "pos", "d_state")),
        **dict.fromkeys(
            ("mixer.hook_ssm_write", "mixer.hook_ssm_state"), ("batch", "pos", "head", "d_head", "d_state")
        ),
        "mixer.hook_recurrence_out": ("batch", "pos", "head", "d_head"),
        "mixer.conv.hook_window": ("batch", "pos", "d_conv", "d_window"),
    }

    def _mixer(self, cfg: Any) -> Mamba2Layer:
        return Mamba2Layer(cfg)


MAMBA2_ARCHITECTURE = Architecture(
    config=Mamba2Config,
    build=Mamba2,
    words="Mamba-2: heads of channels whose states fade at one rate a head, set by the input.",
    suits=causal_only,
)
