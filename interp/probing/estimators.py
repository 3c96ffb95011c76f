"""The estimators that sweeps fit, by their names in `probes.PROBES`, and predictions made a slice of rows at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from probes import PROBES, Probe

# Many activations separate the classes perfectly: ten times scikit-learn's default regularisation keeps weights small.
_SETTINGS: Mapping[str, Mapping[str, Any]] = {"logistic": {"C": 0.1}}
_ROWS = 4096  # rows whose class scores are held at once


def make_probe(method: str) -> Probe:
    """An unfitted probe of that name, with the settings that sweeps use.

    Raises:
        ValueError: there is no such probe.
    """
    check_methods([method])
    return PROBES[method](**_SETTINGS.get(method, {}))


def check_methods(methods: Sequence[str]) -> None:
    """Raise ValueError unless every method is a key of `probes.PROBES`."""
    if unknown := [method for method in methods if method not in PROBES]:
        raise ValueError(f"no probe {unknown[0]!r}; there are {', '.join(PROBES)}")


def predict_in_parts(probe: Probe, x: Tensor) -> np.ndarray:
    """`probe.predict` of x [n, d], [*batch, n], without holding the class scores of all rows at once."""
    return np.concatenate([probe.predict(part) for part in x.split(_ROWS)], axis=-1)
