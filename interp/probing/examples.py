"""What a sweep asks, what its probes are fitted and scored on, and what it finds; activations aside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cython_vm import States
from interp.probing.readout import Readout
from interp.results import Method


@dataclass(frozen=True)
class SweepConfig:
    """What a sweep asks, of single steps or of streams."""

    variables: tuple[str, ...] = ()  # (): the task's default
    places: tuple[str, ...] = ()  # positions by name, of streams also sets of tokens; (): the task's default
    hooks: tuple[str, ...] = ()  # (): the residual stream before the first layer and after each
    methods: tuple[str, ...] = (Method.LOGISTIC,)
    n: int = 16_000  # states, or tokens of streams, half to fit and half to score
    per_stream: int = 16  # tokens of one stream at most
    seed: int = 3
    controls: bool = True  # all that need fits of their own, and the code length


@dataclass(frozen=True, eq=False)
class Examples:
    """One half of what a place is probed on: m states, or tokens of streams."""

    labels: np.ndarray  # int64 [variables, m], -1 where the variable is undefined
    altered: np.ndarray  # int64 [variables, m]: the same variables, had opcodes other meanings (`semantics`)
    types: np.ndarray  # int64 [m] or [variables, m]: input types of the control task
    programs: np.ndarray  # int64 [m]: a hash of the program
    starts: States  # where runs of the machine begin
    row: np.ndarray  # int64 [m]: the run of each example
    step: np.ndarray  # int64 [m]: the machine's step in that run, from 0
    ages: np.ndarray | None  # int64 [n_cells, m]: steps since a stream last revealed each cell, -1: never

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class HookResult:
    """What was found at one hook with one method, at one place or several."""

    hook: str
    places: tuple[str, ...]
    method: str
    rows: list[dict[str, Any]]
    errors: list[dict[str, Any]]  # confusion counts and worst examples (`interp.runs.probe_errors`)
    readouts: dict[tuple[str, str], Readout] = field(default_factory=dict)  # by (variable, place), of linear probes


def residual_hooks(n_layers: int) -> list[str]:
    """The residual stream before the first layer and after each."""
    return ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(n_layers))]


def check_hooks(model: Any, hooks: tuple[str, ...]) -> None:
    """Raise ValueError unless the model has every hook."""
    if missing := [hook for hook in hooks if hook not in model.hook_dict]:
        raise ValueError(f"the model has no hook {missing[0]!r}")


def to_fit(x: Tensor) -> Tensor:
    """Activations where probes are fitted: on a GPU where there is one."""
    return x.cuda() if torch.cuda.is_available() else x
