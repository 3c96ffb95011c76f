"""A slot machine's weights made to run hard or soft, at any size of the input, and shares with their intervals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np

from interp.models import build_model, resize
from interp.models.slot_machine_config import SlotMachineConfig
from interp.results import Aggregation, IntervalKind, wilson_interval
from interp.runs import Run

SEED = 20_017  # of the inputs that are drawn


def require_slots(run: Run) -> None:
    """ValueError where the run is of another architecture."""
    if not isinstance(run.config.model, SlotMachineConfig):
        raise ValueError(f"{run.name} is no slot machine: it is a {run.config.model.architecture}")


def executing(run: Run, cfg: SlotMachineConfig, execution: Literal["hard", "soft"]) -> Any:
    """The run's weights in a machine of this size that executes hard, or soft; in eval mode."""
    model = build_model(replace(cfg.as_written, execution=execution)).eval()
    model.load_state_dict(resize(run.model, cfg).state_dict())
    return model


def hardened(run: Run, cfg: SlotMachineConfig) -> Any:
    """`executing` hard."""
    return executing(run, cfg, "hard")


def share(right: np.ndarray) -> dict[str, Any]:
    """The share of what is right, with its interval, as columns of a row."""
    low, high = wilson_interval(int(right.sum()), len(right))
    interval = {"ci_low": low, "ci_high": high, "interval_kind": IntervalKind.WILSON}
    return {"estimate": float(right.mean()), **interval, "aggregation": Aggregation.MEAN, "n": len(right)}
