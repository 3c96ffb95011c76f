"""Calibration models of a tiny machine, compiled once, and settings that take seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pandas as pd
import pytest
import torch

from interp.calibration.registry import CALIBRATIONS
from interp.calibration.settings import QUICK, CalibrationSettings
from interp.calibration.subjects import Subject, compile_subject
from interp.compiled.key import AnswerKey
from interp.results import rows_frame

torch.set_num_threads(1)
Measure = Callable[..., pd.DataFrame]


@pytest.fixture(scope="session")
def settings() -> CalibrationSettings:
    return replace(QUICK, ops=("INC",), n_pairs=4, n_swaps=16, n_mutants=2)


@pytest.fixture(scope="session")
def subject() -> Callable[[str], Subject]:
    """A calibration model by name."""
    return cache(lambda name: compile_subject(name, QUICK.spec))


@pytest.fixture(scope="session")
def measure(subject, settings) -> Measure:
    """Rows of an entry on a model, with its own key or another, and its own settings or others."""

    def run(
        entry: str, name: str, *, key: AnswerKey | None = None, settings: CalibrationSettings = settings
    ) -> pd.DataFrame:
        compiled = subject(name).compiled
        calibrate = CALIBRATIONS[entry].calibrate
        rows = calibrate(compiled.model, key or compiled.key, compiled.form.task, settings, lambda share: None)
        return rows_frame([{"run": name, **row} for row in rows])

    return run
