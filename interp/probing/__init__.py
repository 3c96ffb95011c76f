"""Probing: what can be read from a model's activations, with controls, and whether the model uses what is read."""

from interp.probing.activations import read_tokens
from interp.probing.draw import draw_examples
from interp.probing.estimators import make_probe
from interp.probing.examples import Examples, HookResult, SweepConfig
from interp.probing.readout import Readout
from interp.probing.sweep import ProbeSweep, default_hooks, directions, probe_sweep, sweep_hooks

__all__ = [
    "Examples",
    "HookResult",
    "ProbeSweep",
    "Readout",
    "SweepConfig",
    "default_hooks",
    "directions",
    "draw_examples",
    "make_probe",
    "probe_sweep",
    "read_tokens",
    "sweep_hooks",
]
