"""Probing: what can be read from a model's activations, with controls, and whether the model uses what is read."""

from interp.probing.estimators import PROBES
from interp.probing.examples import Examples, HookResult, SweepConfig, residual_hooks
from interp.probing.readout import Readout
from interp.probing.steps import ProbeSweep, default_positions, default_variables, probe_sweep, step_sweep
from interp.probing.stream_data import StreamTokens, draw_tokens, stream_variables
from interp.probing.streams import stream_sweep, token_activations

__all__ = [
    "PROBES",
    "Examples",
    "HookResult",
    "ProbeSweep",
    "Readout",
    "StreamTokens",
    "SweepConfig",
    "default_positions",
    "default_variables",
    "draw_tokens",
    "probe_sweep",
    "residual_hooks",
    "step_sweep",
    "stream_sweep",
    "stream_variables",
    "token_activations",
]
