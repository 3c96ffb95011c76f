"""The estimators that sweeps fit, by name, and predictions that are made a slice of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from interp.results import Method
from probes import LogisticPathProbe, LogisticProbe, MeanDifferenceProbe, MLPProbe, Probe, RidgeProbe

# Many activations separate the classes perfectly: ten times scikit-learn's default regularisation keeps weights small.
PROBES: dict[str, Callable[[], Probe]] = {
    Method.LOGISTIC: partial(LogisticProbe, C=0.1),
    Method.LOGISTIC_PATH: LogisticPathProbe,
    Method.RIDGE: RidgeProbe,
    Method.MEAN_DIFFERENCE: MeanDifferenceProbe,
    Method.MLP: MLPProbe,
}
_ROWS = 4096  # rows whose class scores are held at once


def check_methods(methods: Sequence[str]) -> None:
    """Raise ValueError unless every method is a key of `PROBES`."""
    if unknown := [method for method in methods if method not in PROBES]:
        raise ValueError(f"no probe {unknown[0]!r}; there are {', '.join(PROBES)}")


def predict_in_parts(probe: Probe, x: Tensor) -> np.ndarray:
    """`probe.predict` of x [n, d], [*batch, n], without holding the class scores of all rows at once."""
    return np.concatenate([probe.predict(part) for part in x.split(_ROWS)], axis=-1)
