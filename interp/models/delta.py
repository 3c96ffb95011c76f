"""The gated delta rule: each head holds a matrix in which a key's value is overwritten, not added to.

`S_t = exp(g_t) S_{t-1} + k_t u_tᵀ` with `u_t = β_t (v_t - exp(g_t) S_{t-1}ᵀ k_t)`, read `S_tᵀ q_t` (chunks.py): what
the unit key k_t reads moves from what it was by the part β_t towards v_t. β in (0, 1) makes each write a partial
replacement; β in (0, 2) gives the transition `I - β k kᵀ` an eigenvalue down to -1, so that a write can flip a sign,
and parity can be kept (Grazzi et al. 2025). With `n_householder` of 2 or more, several writes a position follow one
another: two make a rotation, and counting modulo 3 can be kept (DeltaProduct, Siems et al. 2025). Neither is possible
with β <= 1, or for Mamba, whose transitions have eigenvalues from 0 to 1 alone.

(Schlag et al. 2021; Yang et al. 2025, Gated delta networks.) Keys and queries are divided by their length. Hook points
are those of linear_attention.py, without hook_ssm_write (what is written depends on the state), and

    blocks.{l}.linear_attn.hook_beta    [batch, pos, head], from 0 to beta_max

With n_householder above 1, hook_k, hook_v and hook_beta have an axis `householder` after pos.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models import chunks
from interp.models.architecture import Architecture, causal_only
from interp.models.hooks import live
from interp.models.linear_attention import MatrixStateLayer, MatrixStateModel
from interp.models.propagation import Edit, ask, propagate
from interp.models.scans import linear_scan
from interp.models.state_configs import DeltaConfig


class DeltaLayer(MatrixStateLayer):
    """See this module's docstring."""

    def __init__(self, cfg: DeltaConfig) -> None:
        self.n_steps = cfg.n_householder
        super().__init__(cfg)
        self.beta_max = cfg.beta_max
        for step in self.step_names():
            self.register_parameter(f"W_beta{step}", nn.Parameter(torch.empty(cfg.n_heads, cfg.d_model)))
        self.hook_beta = HookPoint()  # [batch, pos, head]

    def feature(self, x: Tensor) -> Tensor:
        """Of unit length."""
        return F.normalize(x, dim=-1)

    def project_strength(self, x: Tensor) -> Tensor:
        """See MatrixStateLayer; [batch, pos, head] or [batch, pos, householder, head]."""
        logits = [F.linear(x, getattr(self, f"W_beta{step}")) for step in self.step_names()]
        stacked = logits[0] if self.n_steps == 1 else torch.stack(logits, dim=2)
        return self.beta_max * torch.sigmoid(stacked.to(torch.promote_types(self.W_O.dtype, torch.float32)))

    def recur(
        self, q: Tensor, k: Tensor, v: Tensor, strength: Tensor | None, log_decay: Tensor, past: dict[str, Tensor]
    ) -> Tensor:
        """See MatrixStateLayer."""
        assert strength is not None
        beta = self.hook_beta(strength)
        if self.n_steps == 1:  # one write is a sequence of one
            k, v, beta = (each[:, :, None] for each in (k, v, beta))
        writes = Writes(k, v, beta, log_decay)
        if live(self.hook_ssm_state):
            states = self._hooked(writes, past.get("state"))
            past["state"] = states[:, -1]
            return (q[..., None, :] @ states)[..., 0, :]
        read, past["state"], _ = chunks.delta_rule(q.transpose(1, 2), *writes.by_head(), past.get("state"))
        return read.transpose(1, 2)

    def _hooked(self, writes: Writes, start: Tensor | None) -> Tensor:
        """All states, [batch, pos, head, d_key, d_value], with what a hook made of them."""
        states = writes.states(start)
        edit = ask(self.hook_ssm_state, states)
        if edit.in_graph:
            return writes.states_by_loop(start, edit)
        if edit.empty:
            return states
        return propagate(lambda rows, pos, state: writes.at(rows, pos).states(state), edit)


class Writes(NamedTuple):
    """What is written at each position, several times one after the other."""

    k: Tensor  # [batch, pos, householder, head, d_key]
    v: Tensor  # [batch, pos, householder, head, d_value]
    beta: Tensor  # [batch, pos, householder, head]
    log_decay: Tensor  # [batch, pos, head]

    def at(self, rows: Tensor, positions: Tensor) -> Writes:
        """Those of rows [n] at positions [n, pos]."""
        return Writes(*(each[rows[:, None], positions] for each in self))

    def by_head(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """As chunks.py takes them, [batch, head, pos * householder, …], and [batch, head, pos] of the decay."""
        k, v, beta = (each.movedim(3, 1).flatten(2, 3) for each in (self.k, self.v, self.beta))
        return k, v, beta, self.log_decay.transpose(1, 2)

    def states(self, start: Tensor | None) -> Tensor:
        """The states after each position, [batch, pos, head, d_key, d_value].

        Chunks give what is written; given that, states are a linear recurrence.
        """
        k, v, beta, log_decay = self.by_head()
        n_householder = self.k.shape[2]
        _, _, written = chunks.delta_rule(k[:, :, ::n_householder], k, v, beta, log_decay, start)
        # a position's writes together: [batch, head, pos, householder, …]
        written, k = (each.unflatten(2, (-1, n_householder)) for each in (written, k))
        return linear_scan(self.log_decay.exp()[..., None, None], (k.mT @ written).transpose(1, 2), start)

    def states_by_loop(self, start: Tensor | None, edit: Edit) -> Tensor:
        """The same position by position, with an edit, so that gradients at it are a state's whole effect."""
        k, v, beta = (each.transpose(2, 3) for each in (self.k, self.v, self.beta))  # [batch, pos, head, step, …]
        state = torch.zeros_like(edit.given[:, 0]) if start is None else start
        states = []
        inputs = zip(k.unbind(1), v.unbind(1), beta.unbind(1), self.log_decay.unbind(1), strict=True)
        for (key, value, strength, decay), set_state in zip(inputs, edit.steps(), strict=True):
            state = set_state(chunks.delta_step(state, key, value, strength, decay))
            states.append(state)
        return torch.stack(states, dim=1)


class Delta(MatrixStateModel):
    """Gated DeltaNet and DeltaProduct; see this module's docstring."""

    effective_parts = (*MatrixStateModel.effective_parts, "hook_beta")

    def _mixer(self, cfg: Any) -> DeltaLayer:
        return DeltaLayer(cfg)

    def axes(self, hook: str) -> tuple[str, ...]:
        """As in ModelFacts; keys, values and strengths have an axis of their own for several writes a position."""
        axes = super().axes(hook)
        several = self.cfg.n_householder > 1 and hook.endswith(("hook_k", "hook_v", "hook_beta"))
        return (*axes[:2], "householder", *axes[2:]) if several else axes


DELTA_ARCHITECTURE = Architecture(
    config=DeltaConfig,
    build=Delta,
    words="Gated DeltaNet: each head holds a matrix in which writing to a key replaces what was there.",
    suits=causal_only,
)
