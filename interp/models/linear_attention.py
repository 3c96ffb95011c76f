"""Gated linear attention: each head holds a matrix that keys and values write to and queries read.

`S_t = exp(g_t) S_{t-1} + k_t v_tᵀ`, read `S_tᵀ q_t` (chunks.py). The decay exp(g_t) is one number a head and position,
as in RetNet and Mamba-2 (Yang et al. 2023 have one a key channel). By config: no decay is linear attention
(Katharopoulos et al. 2020), a fixed one a head RetNet's retention (Sun et al. 2023, without its rotations). As in
RetNet what is read is normalised by head, in place of attention's denominator.

Hook points of a layer beside those of every model with a state (state_model.py):

    blocks.{l}.linear_attn.hook_q, hook_k                      [batch, pos, head, d_key], as used
    blocks.{l}.linear_attn.hook_v                              [batch, pos, head, d_value], as used
    blocks.{l}.linear_attn.hook_log_decay                      [batch, pos, head], g <= 0
    blocks.{l}.linear_attn.hook_ssm_write                      [batch, pos, head, d_key, d_value], k vᵀ
    blocks.{l}.linear_attn.hook_ssm_state                      [batch, pos, head, d_key, d_value], after the position
    blocks.{l}.linear_attn.hook_recurrence_out                 [batch, pos, head, d_value], what is read
    blocks.{l}.linear_attn.norm.hook_scale, hook_normalized    [batch, pos, head, 1 or d_value]
    blocks.{l}.linear_attn.hook_gate_input                     [batch, pos, head, d_value], before silu
    blocks.{l}.linear_attn.conv.hook_window (with conv_size)   [batch, pos, d_conv, d_window]

States are computed only while hook_ssm_state or hook_ssm_write is listened to. hook_ssm_state and the convolution's
window are the carrier: what is set there goes on into later positions (propagation.py), and a state that is set is also
what its own position reads. hook_recurrence_out changes that position's read-out alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models import chunks
from interp.models.architecture import Architecture, causal_only
from interp.models.effective_attention import by_position, value_weights
from interp.models.hooks import live
from interp.models.norms import make_norm
from interp.models.propagation import fire
from interp.models.scans import hooked_scan
from interp.models.short_convolution import ShortConvolution
from interp.models.state_configs import LinearAttentionConfig, MatrixStateConfig
from interp.models.state_model import Mixer, StateModel


class MatrixStateLayer(Mixer):
    """Projections, convolution, decay, norm and gate around a recurrence of matrices, which a subclass defines."""

    n_steps = 1  # writes a position

    def __init__(self, cfg: MatrixStateConfig) -> None:
        super().__init__()
        self.n_heads, self.d_key, self.d_value, self.decay = cfg.n_heads, cfg.d_key, cfg.d_value, cfg.decay
        self.W_Q = nn.Parameter(torch.empty(cfg.n_heads * cfg.d_key, cfg.d_model))
        for name, size in (("W_K", cfg.d_key), ("W_V", cfg.d_value)):
            for step in self.step_names():
                self.register_parameter(name + step, nn.Parameter(torch.empty(cfg.n_heads * size, cfg.d_model)))
        self.conv = ShortConvolution(cfg.d_conv, cfg.conv_size) if cfg.conv_size else None
        if cfg.decay == "learned":
            self.W_decay = nn.Parameter(torch.empty(cfg.n_heads, cfg.d_model))
            self.b_decay = nn.Parameter(torch.empty(cfg.n_heads))
            self.A_log = nn.Parameter(torch.empty(cfg.n_heads))
        self.W_gate = None
        if cfg.output_gate:
            self.W_gate = nn.Parameter(torch.empty(cfg.n_heads * cfg.d_value, cfg.d_model))
            self.hook_gate_input = HookPoint()  # [batch, pos, head, d_value]
        self.norm = make_norm(cfg.d_value, kind=cfg.normalization_type, eps=cfg.eps, bias=cfg.use_bias)
        self.W_O = nn.Parameter(torch.empty(cfg.d_model, cfg.n_heads * cfg.d_value))
        self.hook_q = HookPoint()  # [batch, pos, head, d_key]
        self.hook_k = HookPoint()  # [batch, pos, head, d_key]
        self.hook_v = HookPoint()  # [batch, pos, head, d_value]
        self.hook_log_decay = HookPoint()  # [batch, pos, head]
        self.hook_ssm_state = HookPoint()  # [batch, pos, head, d_key, d_value]
        self.hook_recurrence_out = HookPoint()  # [batch, pos, head, d_value]

    def step_names(self) -> tuple[str, ...]:
        """What tells the weights of several writes a position apart."""
        return ("",) if self.n_steps == 1 else tuple(f"_{step}" for step in range(self.n_steps))

    @property
    def carriers(self) -> tuple[str, ...]:  # type: ignore[override]
        """See Mixer."""
        return ("hook_ssm_state",) if self.conv is None else ("conv.hook_window", "hook_ssm_state")

    @property
    def matrices(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the weights that are one linear map each."""
        return tuple(name for name, p in self.named_parameters() if p.ndim == 2 and name != "conv.weight")

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator, *, n_layers: int) -> None:
        """Uniform in ±1 / sqrt(inputs), W_O divided by sqrt(2 * n_layers); decays as Mamba-2's.

        The step of the decay is log-uniform from .001 to .1 at input 0, and A uniform from 1 to 16.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                bound = parameter.shape[1] ** -0.5
                parameter.uniform_(-bound, bound, generator=generator)
            elif name == "A_log":
                parameter.uniform_(1.0, 16.0, generator=generator).log_()
            elif name == "b_decay":
                reset_steps(parameter, generator)
            else:
                parameter.fill_(float(name.endswith(".w")))
        self.W_O /= math.sqrt(2 * n_layers)
        if self.conv is not None:
            self.conv.reset_parameters(generator)

    def forward(self, x: Tensor, past: dict[str, Tensor]) -> Tensor:
        """See Mixer. The recurrence runs in float32 at least, under autocast too."""
        low = self.W_O.dtype
        dtype = torch.promote_types(low, torch.float32)
        names = [name + step for name in ("W_K", "W_V") for step in self.step_names()]
        mixed = torch.cat([F.linear(x, getattr(self, name)) for name in ("W_Q", *names)], dim=-1).to(dtype)
        strength = self.project_strength(x)
        step = F.linear(x, self.W_decay).to(dtype) if self.decay == "learned" else None
        gate = None if self.W_gate is None else F.linear(x, self.W_gate).to(low)
        with torch.autocast(x.device.type, enabled=False):
            if self.conv is not None:
                mixed = F.silu(self.conv(mixed, past))
            q, k, v = self._split(mixed)
            q, k, v = fire(self.hook_q, self.feature(q)), fire(self.hook_k, self.feature(k)), fire(self.hook_v, v)
            log_decay = fire(self.hook_log_decay, self._log_decay(x, step))
            read = fire(self.hook_recurrence_out, self.recur(q, k, v, strength, log_decay, past).to(low))
            out = self.norm(read)
            if gate is not None:
                gate = fire(self.hook_gate_input, gate.unflatten(-1, (self.n_heads, self.d_value)))
                out = out * F.silu(gate)
        return F.linear(out.flatten(2), self.W_O)

    def _split(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values by head; with several writes a position [batch, pos, step, head, d]."""
        n = self.n_heads
        sizes = [n * self.d_key, self.n_steps * n * self.d_key, self.n_steps * n * self.d_value]
        q, k, v = mixed.split(sizes, dim=-1)
        steps = () if self.n_steps == 1 else (self.n_steps,)
        return (
            q.unflatten(-1, (n, self.d_key)),
            k.unflatten(-1, (*steps, n, self.d_key)),
            v.unflatten(-1, (*steps, n, self.d_value)),
        )

    def _log_decay(self, x: Tensor, step: Tensor | None) -> Tensor:
        """[batch, pos, head]."""
        if step is not None:
            return -self.A_log.to(step.dtype).exp() * F.softplus(step + self.b_decay)
        zeros = torch.zeros(
            *x.shape[:2], self.n_heads, dtype=torch.promote_types(self.W_O.dtype, torch.float32), device=x.device
        )
        if self.decay == "none":
            return zeros
        heads = torch.arange(self.n_heads, device=zeros.device, dtype=zeros.dtype)
        return zeros + torch.log1p(-(2.0 ** (-5 - heads)))

    def feature(self, x: Tensor) -> Tensor:
        """What queries and keys are made of before they are used."""
        return x

    def project_strength(self, x: Tensor) -> Tensor | None:
        """How strongly each write acts, where the recurrence asks for it."""
        return None

    def recur(
        self, q: Tensor, k: Tensor, v: Tensor, strength: Tensor | None, log_decay: Tensor, past: dict[str, Tensor]
    ) -> Tensor:
        """What is read, [batch, pos, head, d_value]; `past["state"]` is brought up to date."""
        raise NotImplementedError


class LinearAttentionLayer(MatrixStateLayer):
    """See this module's docstring."""

    def __init__(self, cfg: LinearAttentionConfig) -> None:
        super().__init__(cfg)
        self.feature_map = cfg.feature_map
        self.hook_ssm_write = HookPoint()  # [batch, pos, head, d_key, d_value]

    def feature(self, x: Tensor) -> Tensor:
        """See MatrixStateLayer."""
        return F.elu(x) + 1 if self.feature_map == "elu" else x

    def recur(
        self, q: Tensor, k: Tensor, v: Tensor, strength: Tensor | None, log_decay: Tensor, past: dict[str, Tensor]
    ) -> Tensor:
        """See MatrixStateLayer."""
        if live(self.hook_ssm_state, self.hook_ssm_write):
            writes = self.hook_ssm_write(k[..., :, None] * v[..., None, :])
            states = hooked_scan(self.hook_ssm_state, log_decay.exp()[..., None, None], writes, past.get("state"))
            past["state"] = states[:, -1]
            return (q[..., None, :] @ states)[..., 0, :]
        q, k, v, log_decay = (each.transpose(1, 2) for each in (q, k, v, log_decay))
        read, past["state"] = chunks.linear_attention(q, k, v, log_decay, past.get("state"))
        return read.transpose(1, 2)


class MatrixStateModel(StateModel):
    """What models share whose heads each hold a matrix; see the docstring of linear_attention.py."""

    mixer_name = "linear_attn"

    declared_axes = StateModel.declared_axes | {
        **dict.fromkeys(("linear_attn.hook_q", "linear_attn.hook_k"), ("batch", "pos", "head", "d_key")),
        **dict.fromkeys(
            (
                f"linear_attn.{name}"
                for name in ("hook_v", "hook_recurrence_out", "hook_gate_input", "norm.hook_normalized")
            ),
            ("batch", "pos", "head", "d_value"),
        ),
        "linear_attn.norm.hook_scale": ("batch", "pos", "head", "scale"),
        **dict.fromkeys(("linear_attn.hook_log_decay", "linear_attn.hook_beta"), ("batch", "pos", "head")),
        **dict.fromkeys(
            ("linear_attn.hook_ssm_write", "linear_attn.hook_ssm_state"), ("batch", "pos", "head", "d_key", "d_value")
        ),
        "linear_attn.conv.hook_window": ("batch", "pos", "d_conv", "d_window"),
    }

    effective_parts: tuple[str, ...] = ("hook_q", "hook_k", "hook_log_decay")

    def effective_attention_hooks(self, layer: int) -> tuple[str, ...]:
        """See ModelFacts."""
        return tuple(f"blocks.{layer}.{self.mixer_name}.{name}" for name in self.effective_parts)

    def effective_attention(self, layer: int, activations: Mapping[str, Tensor]) -> Tensor:
        """See ModelFacts."""
        q, k, log_decay, *beta = (activations[name] for name in self.effective_attention_hooks(layer))
        return by_position(value_weights(q, k, beta[0] if beta else None, log_decay), q.shape[1])


class LinearAttention(MatrixStateModel):
    """Gated linear attention, linear attention and retention; see this module's docstring."""

    def _mixer(self, cfg: Any) -> LinearAttentionLayer:
        return LinearAttentionLayer(cfg)


LINEAR_ATTENTION_ARCHITECTURE = Architecture(
    config=LinearAttentionConfig,
    build=LinearAttention,
    words="Linear attention: each head adds keys times values to a matrix that fades, and queries read it.",
    suits=causal_only,
)


def reset_steps(parameter: Tensor, generator: torch.Generator, low: float = 1e-3, high: float = 1e-1) -> None:
    """Biases whose softplus is log-uniform from low to high."""
    step = parameter.uniform_(math.log(low), math.log(high), generator=generator).exp()
    parameter.copy_(step + torch.log(-torch.expm1(-step)))  # the inverse of softplus
