"""Probing: what can be read from a model's activations, with controls, and whether the model uses what is read."""

from interp.probing.estimators import PROBES
from interp.probing.readout import Readout
from interp.probing.steps import ProbeSweep, default_positions, default_variables, probe_sweep, residual_hooks
from interp.probing.stream_data import StreamTokens, draw_tokens, stream_variables
from interp.probing.streams import HookResult, StreamSweepConfig, stream_sweep, token_activations

__all__ = [
    "PROBES",
    "HookResult",
    "ProbeSweep",
    "Readout",
    "StreamSweepConfig",
    "StreamTokens",
    "default_positions",
    "default_variables",
    "draw_tokens",
    "probe_sweep",
    "residual_hooks",
    "stream_sweep",
    "stream_variables",
    "token_activations",
]
