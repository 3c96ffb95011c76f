"""A sweep that trains in seconds, and what two frames of it must share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from interp.results import read_frame
from interp.studies.sweep_gather import lasting

TINY = Path(__file__).resolve().parents[1] / "examples" / "sweep_tiny.toml"
MACHINE = {"n_instructions": 8, "n_cells": 3, "n_input": 2, "n_output": 2, "bits": 2}


def spec_values(*, steps: int = 20, **tables: Any) -> dict[str, Any]:
    """What the file of a tiny sweep holds: two seeds of a GRU of width 16, trained and evaluated."""
    common = {
        "preset": "trace_gru",
        **{f"machine.{name}": value for name, value in MACHINE.items()},
        "options.n_steps": 6,
        "model.n_layers": 1,
        "model.d_model": 16,
        "training.steps": steps,
        "training.batch_size": 8,
        "training.steps_along": 0,
        "training.eval_every": steps,
        "training.eval_states": 100,
        "training.checkpoint_every": 10,
    }
    values: dict[str, Any] = {
        "verbs": ["train", "eval"],
        "grid": {"seed": [0, 1]},
        "set": common,
        "options": {"eval": {"n": 128, "programs": 0}},
    }
    return values | tables


def toml(values: dict[str, Any]) -> str:
    """The file that says so."""
    lines = [f"{name} = {_toml(value)}" for name, value in values.items() if not isinstance(value, dict)]
    for table, found in values.items():
        if isinstance(found, dict) and table == "options":
            for verb, options in found.items():
                lines += [f"[options.{verb}]", *(f"{name} = {_toml(value)}" for name, value in options.items())]
        elif isinstance(found, dict):
            lines += [f"[{table}]", *(f'"{name}" = {_toml(value)}' for name, value in found.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def results(out: Path) -> pd.DataFrame:
    """The gathered rows that another run of the sweep must have too, each number to the last bit."""
    return lasting(read_frame(out / "results.parquet"))


def until(holds: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """Wait for something to hold, and give what it gave."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, f"after {seconds} s: still not {what}"
        time.sleep(0.05)
    return found
