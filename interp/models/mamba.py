"""Mamba: selective state spaces (Gu and Dao 2023).

Each of d_inner channels holds d_state numbers, `h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t`, and reads `C_t · h_t`; the
step sizes dt, what is written along, B, and what is read along, C, are made from the input at the position. Transitions
have eigenvalues from 0 to 1 alone: parity of sequences of any length is out of reach (Grazzi et al. 2025).

Hook points of a layer beside those of every model with a state (state_model.py), in the order of the computation:

    blocks.{l}.mixer.hook_gate_input                        [batch, pos, d_inner], before silu
    blocks.{l}.mixer.conv.hook_window (with conv_size)      [batch, pos, d_inner, d_window]
    blocks.{l}.mixer.hook_conv                              [batch, pos, d_inner], x: after convolution and silu
    blocks.{l}.mixer.hook_ssm_dt                            [batch, pos, d_inner], step sizes above 0
    blocks.{l}.mixer.hook_ssm_B, hook_ssm_C                 [batch, pos, d_state]
    blocks.{l}.mixer.hook_ssm_write                         [batch, pos, d_inner, d_state], dt x B
    blocks.{l}.mixer.hook_ssm_state                         [batch, pos, d_inner, d_state], after the position
    blocks.{l}.mixer.hook_recurrence_out                    [batch, pos, d_inner], C · h, what is read

States are computed only while hook_ssm_state or hook_ssm_write is listened to; else selective_scan.py runs, which keeps
none. hook_ssm_state and the convolution's window are the carrier: what is set there goes on into later positions
(propagation.py), and a state that is set is also what its own position reads. (TransformerLens's own hook_ssm_state
changes that position's read-out alone; here hook_recurrence_out does.)
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.architecture import Architecture, causal_only
from interp.models.hooks import live
from interp.models.linear_attention import reset_steps
from interp.models.scans import Scan, hooked_scan
from interp.models.selective_scan import selective_scan
from interp.models.short_convolution import ShortConvolution
from interp.models.state_configs import MambaConfig
from interp.models.state_model import Mixer, StateModel


class MambaLayer(Mixer):
    """One selective state space layer. Its input maps are parameters of their own, not one stacked matrix."""

    matrices = ("W_in", "W_gate", "W_dt_down", "W_dt_up", "W_B", "W_C", "W_O")

    def __init__(self, cfg: MambaConfig) -> None:
        super().__init__()
        self.scan: Scan = cfg.scan
        self.W_in = nn.Parameter(torch.empty(cfg.d_inner, cfg.d_model))
        self.W_gate = nn.Parameter(torch.empty(cfg.d_inner, cfg.d_model))
        self.conv = ShortConvolution(cfg.d_inner, cfg.conv_size, bias=True) if cfg.conv_size else None
        self.W_dt_down = nn.Parameter(torch.empty(cfg.dt_rank, cfg.d_inner))
        self.W_dt_up = nn.Parameter(torch.empty(cfg.d_inner, cfg.dt_rank))
        self.b_dt = nn.Parameter(torch.empty(cfg.d_inner))
        self.W_B = nn.Parameter(torch.empty(cfg.d_state, cfg.d_inner))
        self.W_C = nn.Parameter(torch.empty(cfg.d_state, cfg.d_inner))
        self.A_log = nn.Parameter(torch.empty(cfg.d_inner, cfg.d_state))
        self.D = nn.Parameter(torch.empty(cfg.d_inner))
        self.W_O = nn.Parameter(torch.empty(cfg.d_model, cfg.d_inner))
        self.hook_gate_input = HookPoint()  # [batch, pos, d_inner]
        self.hook_conv = HookPoint()  # [batch, pos, d_inner]
        self.hook_ssm_dt = HookPoint()  # [batch, pos, d_inner]
        self.hook_ssm_B = HookPoint()  # [batch, pos, d_state]
        self.hook_ssm_C = HookPoint()  # [batch, pos, d_state]
        self.hook_ssm_write = HookPoint()  # [batch, pos, d_inner, d_state]
        self.hook_ssm_state = HookPoint()  # [batch, pos, d_inner, d_state]
        self.hook_recurrence_out = HookPoint()  # [batch, pos, d_inner]

    @property
    def carriers(self) -> tuple[str, ...]:  # type: ignore[override]
        """See Mixer."""
        return ("hook_ssm_state",) if self.conv is None else ("conv.hook_window", "hook_ssm_state")

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator, *, n_layers: int) -> None:
        """As Mamba's own: A from -1 to -d_state, step sizes log-uniform from .001 to .1 at input 0, D 1.

        Matrices are uniform in ±1 / sqrt(inputs), W_O divided by sqrt(2 * n_layers).
        """
        for name in self.matrices:
            parameter = self.get_parameter(name)
            bound = parameter.shape[1] ** -0.5
            parameter.uniform_(-bound, bound, generator=generator)
        self.W_O /= math.sqrt(2 * n_layers)
        self.A_log.copy_(torch.arange(1, self.A_log.shape[1] + 1).log().expand_as(self.A_log))
        self.D.fill_(1.0)
        reset_steps(self.b_dt, generator)
        if self.conv is not None:
            self.conv.reset_parameters(generator)

    def forward(self, x: Tensor, past: dict[str, Tensor]) -> Tensor:
        """See Mixer. The recurrence runs in float32 at least, under autocast too."""
        low = self.W_O.dtype
        dtype = torch.promote_types(low, torch.float32)
        gate = self.hook_gate_input(F.linear(x, self.W_gate))
        x = F.linear(x, self.W_in).to(dtype)
        if self.conv is not None:
            with torch.autocast(x.device.type, enabled=False):
                x = self.conv(x, past)
        x = self.hook_conv(F.silu(x))
        step, B, C = (F.linear(x.to(low), each) for each in (self.W_dt_down, self.W_B, self.W_C))
        dt = self.hook_ssm_dt(F.softplus(F.linear(step, self.W_dt_up).to(dtype) + self.b_dt))
        B, C = self.hook_ssm_B(B.to(dtype)), self.hook_ssm_C(C.to(dtype))
        with torch.autocast(x.device.type, enabled=False):
            read = self.hook_recurrence_out(self._read(x, dt, B, C, past).to(low))
            out = (read + self.D * x.to(low)) * F.silu(gate.to(low))
        return F.linear(out, self.W_O)

    def _read(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, past: dict[str, Tensor]) -> Tensor:
        """What is read, [batch, pos, d_inner]; `past["state"]` [batch, d_inner, d_state] is brought up to date."""
        A = -self.A_log.to(x.dtype).exp()
        if self.scan == "sequential" and not live(self.hook_ssm_write, self.hook_ssm_state):
            read, past["state"] = selective_scan(x, dt, A, B, C, past.get("state"))
            return read
        decays = (dt[..., None] * A).exp()
        writes = self.hook_ssm_write((dt * x)[..., None] * B[:, :, None, :])
        states = hooked_scan(self.hook_ssm_state, decays, writes, past.get("state"), kernel=self.scan)
        past["state"] = states[:, -1]
        return (states @ C[..., None])[..., 0]


class Mamba(StateModel):
    """Selective state spaces; see this module's docstring."""

    mixer_name = "mixer"

    declared_axes = StateModel.declared_axes | {
        **dict.fromkeys(
            (f"mixer.hook_{name}" for name in ("gate_input", "conv", "ssm_dt", "recurrence_out")),
            ("batch", "pos", "d_inner"),
        ),
        **dict.fromkeys(("mixer.hook_ssm_B", "mixer.hook_ssm_C"), ("batch", "pos", "d_state")),
        **dict.fromkeys(("mixer.hook_ssm_write", "mixer.hook_ssm_state"), ("batch", "pos", "d_inner", "d_state")),
        "mixer.conv.hook_window": ("batch", "pos", "d_inner", "d_window"),
    }

    def _mixer(self, cfg: Any) -> MambaLayer:
        return MambaLayer(cfg)


MAMBA_ARCHITECTURE = Architecture(
    config=MambaConfig,
    build=Mamba,
    words="Mamba: channels whose states fade and take up input at rates that the input itself sets.",
    suits=causal_only,
)
