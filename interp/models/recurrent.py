"""Recurrent nets: Elman's net, the GRU and the LSTM, inside pre-norm residual blocks (state_model.py).

Hook points of a layer beside those of every model with a state, with d = d_hidden:

    blocks.{l}.rnn.hook_carry                          [batch, pos, d]; lstm [batch, pos, 2 * d]: state, then cell
    blocks.{l}.rnn.hook_state                          [batch, pos, d], what is read out
    gru   .hook_reset, hook_update, hook_cand          [batch, pos, d]
    lstm  .hook_i, hook_f, hook_g, hook_o, hook_cell   [batch, pos, d]

hook_carry is all that goes on to later positions: what is set there propagates, as recurrent_layer.py says. hook_cell
is the cell before it is read: set, it changes that position's state and goes on, while an edit of the cell's half of
the carry leaves the position's state as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models.architecture import Architecture, causal_only
from interp.models.recurrent_layer import RecurrentLayer, Replace
from interp.models.scans import linear_scan
from interp.models.state_configs import GRUConfig, LSTMConfig, RecurrentConfig, RNNConfig
from interp.models.state_model import StateModel

_HIDDEN = ("batch", "pos", "d_hidden")


class ElmanLayer(RecurrentLayer):
    """`h = tanh(W_ih x + W_hh h + b_h)` (Elman 1990)."""

    blocks = ("h",)

    def fused(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """See RecurrentLayer."""
        return _call(torch._VF.rnn_tanh, x, before[None], self.flat_weights())

    def step(self, inputs: Tensor, carry: Tensor, weights: tuple[Tensor, Tensor], replace: Replace) -> Tensor:
        """See RecurrentLayer."""
        return torch.tanh(inputs + F.linear(carry, *weights))


class GRULayer(RecurrentLayer):
    """Gated recurrent unit (Cho et al. 2014), as torch has it: the reset gate acts after the product with the state.

    `reset = σ(W_ir x + W_hr h + b_r)`, `update = σ(W_iz x + W_hz h + b_z)`,
    `cand = tanh(W_in x + b_n + reset * (W_hn h + b_hn))`, `h = (1 - update) * cand + update * h`.
    """

    blocks = ("r", "z", "n")
    gates = ("reset", "update", "cand")

    def __init__(self, cfg: GRUConfig) -> None:
        super().__init__(cfg)
        self.remember_bias = cfg.remember_bias
        self.b_hn = nn.Parameter(torch.empty(cfg.d_hidden))

    def reset_parameters(self, generator: torch.Generator, *, n_layers: int) -> None:
        """As torch's modules, but for biases: 0, and `remember_bias` for the update gate."""
        super().reset_parameters(generator, n_layers=n_layers)
        self.get_parameter("b_z").fill_(self.remember_bias)

    def recurrent_bias(self) -> Tensor:
        """See RecurrentLayer: b_hn, which the reset gate acts on."""
        return self.raised(F.pad(self.b_hn, (2 * self.d_hidden, 0)))

    def fused(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """See RecurrentLayer."""
        return _call(torch._VF.gru, x, before[None], self.flat_weights())

    def step(self, inputs: Tensor, carry: Tensor, weights: tuple[Tensor, Tensor], replace: Replace) -> Tensor:
        """See RecurrentLayer."""
        reset_in, update_in, cand_in = inputs.chunk(3, dim=-1)
        reset_state, update_state, cand_state = F.linear(carry, *weights).chunk(3, dim=-1)
        reset = replace("reset", torch.sigmoid(reset_in + reset_state))
        update = replace("update", torch.sigmoid(update_in + update_state))
        cand = replace("cand", torch.tanh(cand_in + reset * cand_state))
        return (1 - update) * cand + update * carry


class LSTMLayer(RecurrentLayer):
    """Long short-term memory with a forget gate (Gers et al. 2000).

    `i, f, o = σ(W_i· x + W_h· h + b_·)`, `g = tanh(W_ig x + W_hg h + b_g)`, `cell = f * cell + i * g`,
    `h = o * tanh(cell)`. The carry is h, then the cell.
    """

    blocks = ("i", "f", "g", "o")
    gates = ("i", "f", "g", "o", "cell")

    def __init__(self, cfg: LSTMConfig) -> None:
        super().__init__(cfg)
        self.remember_bias = cfg.remember_bias

    def reset_parameters(self, generator: torch.Generator, *, n_layers: int) -> None:
        """As torch's modules, but for biases: 0, and `remember_bias` for the forget gate (Jozefowicz et al. 2015)."""
        super().reset_parameters(generator, n_layers=n_layers)
        self.get_parameter("b_f").fill_(self.remember_bias)

    def fused(self, x: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """See RecurrentLayer."""
        state, cell = (part.contiguous()[None] for part in before.chunk(2, dim=-1))
        read, *last = torch._VF.lstm(x, (state, cell), self.flat_weights(), *_options())
        return read, torch.cat([part[0] for part in last], dim=-1)

    def trace(self, x: Tensor, before: Tensor, *, gates: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """See RecurrentLayer. The kernel hides its cells: they are made again from the gates, by one linear scan."""
        read, _ = self.fused(x, before)
        first_state, cell = before.chunk(2, dim=-1)
        shifted = torch.cat([first_state[:, None], read[:, :-1]], dim=1)
        i, f, g, o = self._computed(self.project(x), shifted, self.recurrent_weights())
        cells = linear_scan(f, i * g, cell)
        return torch.cat([read, cells], dim=-1), {"i": i, "f": f, "g": g, "o": o, "cell": cells}

    def step(self, inputs: Tensor, carry: Tensor, weights: tuple[Tensor, Tensor], replace: Replace) -> Tensor:
        """See RecurrentLayer."""
        state, cell = carry.chunk(2, dim=-1)
        computed = self._computed(inputs, state, weights)
        i, f, g, o = (replace(name, value) for name, value in zip("ifgo", computed, strict=True))
        cell = replace("cell", f * cell + i * g)
        return torch.cat([o * torch.tanh(cell), cell], dim=-1)

    @staticmethod
    def _computed(inputs: Tensor, state: Tensor, weights: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        i, f, g, o = (inputs + F.linear(state, *weights)).chunk(4, dim=-1)
        return torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)


class Recurrent(StateModel):
    """What the recurrent nets share; see this module's docstring for hook points."""

    mixer_name = "rnn"
    layer: type[RecurrentLayer]

    declared_axes = StateModel.declared_axes | {  # a constant of the class
        **dict.fromkeys((f"rnn.hook_{gate}" for gate in ("state", *GRULayer.gates, *LSTMLayer.gates)), _HIDDEN),
        "rnn.hook_carry": ("batch", "pos", "d_carry"),
    }

    def _mixer(self, cfg: RecurrentConfig) -> RecurrentLayer:
        return self.layer(cfg)


class RNN(Recurrent):
    """Elman's net."""

    layer = ElmanLayer


class GRU(Recurrent):
    """Gated recurrent units."""

    layer = GRULayer  # type: ignore[assignment]  # its own config


class LSTM(Recurrent):
    """Long short-term memories."""

    layer = LSTMLayer  # type: ignore[assignment]  # its own config


RNN_ARCHITECTURE = Architecture(
    config=RNNConfig,
    build=RNN,
    words="A plain recurrent net: each layer's new state is a tanh of its last and the input.",
    suits=causal_only,
)
GRU_ARCHITECTURE = Architecture(
    config=GRUConfig,
    build=GRU,
    words="Gated recurrent units: a gate says how much of each layer's state is kept.",
    suits=causal_only,
)
LSTM_ARCHITECTURE = Architecture(
    config=LSTMConfig,
    build=LSTM,
    words="Long short-term memory: each layer keeps a cell behind gates that write, keep and read it.",
    suits=causal_only,
)


def _call(kernel: Callable, x: Tensor, before: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    read, last = kernel(x, before.contiguous(), weights, *_options())
    return read, last[0]


def _options() -> tuple[bool, int, float, bool, bool, bool]:
    """For torch's kernels: with biases, one layer, no dropout, a backward pass or none, one direction, batch first."""
    return True, 1, 0.0, torch.is_grad_enabled(), False, True
