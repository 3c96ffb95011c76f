"""What a sweep asks, what its probes are fitted and scored on, and what it finds; activations aside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.probing.readout import Readout
from interp.ranges import require_fields
from interp.stage_options import ProbeOptions


@dataclass(frozen=True)
class SweepConfig:
    """What a sweep asks of a model about its task."""

    variables: tuple[str, ...] = ()  # (): the task's default
    places: tuple[str, ...] = ()  # positions by name, or the task's sets of tokens; (): the task's default
    hooks: tuple[str, ...] = ()  # (): the residual stream before the first layer and after each
    methods: tuple[str, ...] = ProbeOptions.methods
    n: int = field(kw_only=True)  # examples, or tokens of a set, half to fit and half to score
    per_stream: int = 16  # tokens of one example at most, where a set of tokens is pooled
    seed: int = ProbeOptions.seed
    controls: bool = ProbeOptions.controls  # all that need fits of their own, and the code length

    def __post_init__(self) -> None:
        require_fields(self, n=2, per_stream=1, methods=1, seed=0)


@dataclass(frozen=True, eq=False)
class Examples:
    """One half of what a place is probed on: m tokens, each of one example of the world."""

    labels: np.ndarray  # int64 [variables, m], -1 where the variable is undefined
    altered: np.ndarray | None  # int64 [variables, m]: the same variables of the altered world; None: there is none
    types: np.ndarray  # int64 [variables, m]: input types of the control task
    groups: np.ndarray  # int64 [m]: a hash of the example's unit
    starts: Any  # the examples
    row: np.ndarray  # int64 [m]: the example of each token, rising
    position: np.ndarray  # int64 [m]: the token's position
    time: np.ndarray  # int64 [m]: the executed step that the token is about, from 0
    ages: dict[str, np.ndarray]  # family -> int64 [members, m]: steps since the tokens last revealed it, -1: never
    unit: str  # the world's word for what a group is: "program"

    def __len__(self) -> int:
        return len(self.row)


@dataclass(frozen=True)
class HookResult:
    """What was found at one hook with one method, at all places."""

    hook: str
    places: tuple[str, ...]
    method: str
    rows: list[dict[str, Any]]
    errors: list[dict[str, Any]]  # confusion counts and worst examples (`interp.runs.probe_errors`)
    readouts: dict[tuple[str, str], Readout] = field(default_factory=dict)  # by (variable, place), of linear probes


def check_hooks(model: Any, hooks: tuple[str, ...]) -> None:
    """Raise ValueError unless the model has every hook."""
    if missing := [hook for hook in hooks if hook not in model.hook_dict]:
        raise ValueError(f"the model has no hook {missing[0]!r}")


def to_fit(x: Tensor) -> Tensor:
    """Activations where probes are fitted: on a GPU where there is one."""
    return x.cuda() if torch.cuda.is_available() else x
