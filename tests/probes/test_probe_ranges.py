"""Numbers out of range, one battery for every probe: refused in one sentence, or answered right; never in silence."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from probe_cases import fresh

from probes import (
    PROBES,
    Bootstrap,
    LogisticPathProbe,
    LogisticProbe,
    MajorityProbe,
    MLPProbe,
    accuracy,
    balanced_accuracy,
    confusion_matrix,
    joint_exactness,
    online_code_length,
    split_groups,
)

torch.set_num_threads(1)

ALL: dict[str, Any] = {**PROBES, "majority": MajorityProbe}
NAN, INF = float("nan"), float("inf")

# What each parameter may not be. A probe's parameter without an entry fails the test below.
POSITIVE = (0, -1.0, NAN, INF, -INF, None, "1", True)
NOT_NEGATIVE = (-1e-9, NAN, INF, None, "1")
COUNT = (0, -1, 1.5, NAN, INF, None, "1", True)
SHARE = (0, 1, -0.1, 1.1, NAN, INF, None, "1")
CLASS_WEIGHT = ("even", 3.0, {0: NAN}, {0: -1.0}, {0: 0.0}, {0: INF}, {9: 1.0}, {0: "1"})
OUTSIDE: dict[str, tuple[Any, ...]] = {
    "C": POSITIVE,
    "Cs": ((), (1.0, 0.0), (NAN,), (1.0, INF), ("1",), "1", 1.0, None),
    "alpha": NOT_NEGATIVE,
    "tol": NOT_NEGATIVE,
    "max_iter": COUNT,
    "standardize": (None, 2, "yes", NAN),
    "hidden": COUNT,
    "lr": (*POSITIVE, 1.1, 1e300),
    "weight_decay": (*NOT_NEGATIVE, 1e6, 1e300),
    "batch_size": COUNT,
    "max_epochs": COUNT,
    "patience": COUNT,
    "validation": SHARE,
    "seed": (-1, 1.5, NAN, None, "1"),
    "class_weight": CLASS_WEIGHT,
}


def rows(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).normal(size=(n, 6))
    return x, (x[:, 0] > 0).astype(int)


def quick(name: str) -> Any:
    return fresh(name) if name in PROBES else ALL[name]()


@pytest.mark.parametrize("name", ALL)
def test_every_parameter_outside_its_interval_is_refused_by_name(name):
    x, y = rows()
    for parameter in inspect.signature(ALL[name]).parameters:
        for value in OUTSIDE[parameter]:
            probe = quick(name).set_params(**{parameter: value})  # stored as given, checked in fit
            with pytest.raises(ValueError, match=parameter) as caught:
                probe.fit(x, y)
            assert "\n" not in str(caught.value), (parameter, value)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [1e-300, 1e300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_smallest_and_largest_numbers_are_taken_or_refused(name, value, dtype):
    """Strengths and rates: nothing overflows on the way."""
    x, y = rows()
    x = x.astype(dtype)
    for parameter in {"C", "alpha", "tol", "lr", "weight_decay"} & set(quick(name).get_params()):
        probe = quick(name).set_params(**{parameter: value})
        if parameter in ("lr", "weight_decay") and value > 1:
            with pytest.raises(ValueError, match=parameter):
                probe.fit(x, y)
        else:
            assert np.isfinite(probe.fit(x, y).decision_function(x)).all()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(("scale", "dtype"), [(1e30, np.float32), (1e300, np.float64), (1e16, np.float32)])
def test_features_whose_squares_overflow_are_refused(name, scale, dtype):
    x, y = rows()
    with pytest.raises(ValueError, match=r"X must lie within ±1e\+?\d+, or its squares overflow"):
        quick(name).fit((x * scale).astype(dtype), y)
    fitted = quick(name).fit(x, y)
    with pytest.raises(ValueError, match="its squares overflow"):
        fitted.predict((x * scale).astype(dtype))


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(("scale", "dtype"), [(1e14, np.float32), (1e149, np.float64), (1e-5, np.float32)])
def test_features_as_large_as_is_allowed_are_read_right(name, scale, dtype):
    x, y = rows()
    probe, plain = quick(name), quick(name).fit(x, y).score(x, y)
    if scale < 1:  # a penalty in the caller's units would rightly leave nothing of so small features
        parameters = {"C": 1e12, "Cs": (1e12,), "alpha": 1e-12}
        probe.set_params(**{k: v for k, v in parameters.items() if k in probe.get_params()})
    x = (x * scale).astype(dtype)
    assert probe.fit(x, y).score(x, y) > max(0.7, plain - 0.05)


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(("scale", "dtype"), [(1e-30, np.float32), (1e-300, np.float64)])
def test_features_whose_squares_vanish_are_refused(name, scale, dtype):
    x, y = rows()
    with pytest.raises(ValueError, match="its squares vanish"):
        quick(name).fit((x * scale).astype(dtype), y)
    with pytest.raises(ValueError, match="its squares vanish"):  # in one site of a stack
        quick(name).fit(np.stack([x, x * scale]).astype(dtype), y)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_features_that_are_not_numbers_are_refused_in_fit_and_after(name, value):
    x, y = rows()
    fitted = quick(name).fit(x, y)
    x[3, 2] = x[7, 1] = value
    for call in (lambda: quick(name).fit(x, y), lambda: fitted.predict(x), lambda: fitted.score(x, y)):
        with pytest.raises(ValueError, match="X must be finite, got 2 NaN or infinite values"):
            call()


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_neither_fitted_nor_scored(name):
    x, y = rows()
    fitted = quick(name).fit(x, y)
    for empty, labels in ((x[:0], y[:0]), (x[:, :0], y), (np.empty((0, 200, 6)), y)):
        for call in (quick(name).fit, fitted.score):
            with pytest.raises(ValueError, match="X must not be empty"):
                call(empty, labels)
    with pytest.raises(ValueError, match="y must not be empty"):
        quick(name).fit(x, np.empty((0, 200), int))
    assert np.isnan(fitted.score(x, np.full(200, -1)))
    assert np.isnan(fitted.score(x, y, np.zeros(200)))
    with pytest.raises(ValueError, match="y must have at least"):
        quick(name).fit(x, np.full(200, -1))
    with pytest.raises(ValueError, match="y must have at least"):
        quick(name).fit(x, y, sample_weight=np.zeros(200))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("value", [NAN, INF, -1.0])
def test_sample_weights_that_are_no_weights_are_refused(name, value):
    x, y = rows()
    weights = np.ones(200)
    weights[5] = value
    for call in (quick(name).fit, quick(name).fit(x, y).score):
        with pytest.raises(ValueError, match="sample_weight must be finite and not negative"):
            call(x, y, weights)
        with pytest.raises(ValueError, match="sample_weight must have one weight a row"):
            call(x, y, np.ones(5))
        with pytest.raises(ValueError, match="sample_weight must hold real numbers"):
            call(x, y, np.full(200, "1"))


def test_training_that_diverges_is_said_to_have_diverged():
    """Noise cannot be learned: a step of one unit a weight, again and again, only loses."""
    x, _ = rows(2000)
    with pytest.raises(ValueError, match="lr 1 is too high for these rows: training diverged"):
        MLPProbe(lr=1, hidden=512, max_epochs=1).fit(x, np.random.default_rng(1).integers(0, 2, 2000))


def test_a_variable_without_validation_rows_is_trained_to_the_end_or_refused():
    x, y = rows()
    held_out = MLPProbe()._held_out(200, None, np.random.default_rng(0))
    mlp = MLPProbe(max_epochs=9, batch_size=32).fit(x, np.stack([y, np.where(held_out, -1, y)]))
    assert mlp.n_epochs_[1] == 9 and np.isnan(mlp.validation_loss_[1]) and np.isfinite(mlp.validation_loss_[0])
    path = LogisticPathProbe()
    with pytest.raises(ValueError, match="labelled rows of every probe in the validation part"):
        path.fit(x, np.where(path._held_out(200, None), -1, y))


def test_scores_and_code_lengths_refuse_numbers_out_of_range():
    x, y = rows()
    for score in (accuracy, balanced_accuracy, confusion_matrix, joint_exactness):
        with pytest.raises(ValueError, match="n > 0"):
            score(np.empty((2, 0), int), np.empty((2, 0), int))
    with pytest.raises(ValueError, match="predicted must hold labels >= 0, got -3"):
        confusion_matrix(np.array([0, -3]), np.array([0, 1]))
    for n_classes in (NAN, -1, 2.5, 0):
        with pytest.raises(ValueError, match="n_classes must be an integer of at least 1"):
            confusion_matrix(y, y, n_classes=n_classes)  # pyright: ignore[reportArgumentType]
        with pytest.raises(ValueError, match="n_classes must be a positive integer"):
            online_code_length(LogisticProbe(), x, y, seed=0, n_classes=n_classes)  # pyright: ignore[reportArgumentType]
    for fractions in ((), (NAN, 1.0), (0.0, 1.0), (0.5,), (0.5, 0.2, 1.0)):
        with pytest.raises(ValueError, match="fractions must rise"):
            online_code_length(LogisticProbe(), x, y, seed=0, fractions=fractions)
    for fractions in ((), (NAN, 0.5), (0.5, INF), (-0.5, 0.5)):
        with pytest.raises(ValueError, match="fractions must be positive"):
            split_groups(np.arange(20), fractions=fractions, seed=0)
    for n_resamples in (0, -1, 1.5, NAN):
        with pytest.raises(ValueError, match="n_resamples must be an integer"):
            Bootstrap(np.arange(20), seed=0, n_resamples=n_resamples)  # pyright: ignore[reportArgumentType]
    for level in (0, 1, NAN, -INF):
        with pytest.raises(ValueError, match="level must lie between 0 and 1"):
            Bootstrap(np.arange(20), seed=0).mean(np.ones(20), level=level)
