"""A logistic probe that says it converged lies within tol of the minimum, on activations of a trained model.

The minimum is scikit-learn's, by Newton's method in float64; both objectives are evaluated in float64, in the caller's
units, whatever the precision of the fit.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

import interp
from interp.interventions import Site, collect
from probes import LogisticPathProbe, LogisticProbe

torch.set_num_threads(1)

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
SITES = [
    ("quickstart", "blocks.2.hook_resid_post", "cells[@array_ptr]"),
    ("step_inplace", "blocks.2.hook_resid_post", "cells[@array_ptr]"),
    ("step_inplace", "blocks.2.hook_resid_post", "array_ptr"),
]


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


@cache
def activations(name: str, hook: str, positions: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """X [2000, d] float32 and labels of three variables."""
    run = interp.load(CHECKPOINTS / name)
    batch = run.task.sample(2000, seed=0, split="train")
    site = Site(hook, positions)
    x = collect(run.model, batch, [site], task=run.task)[site][:, 0]
    return x.numpy(), {variable: run.task.labels(batch, variable) for variable in ("outcome", "op", "array_ptr")}


def objective(x: np.ndarray, y: np.ndarray, probe: Any, C: float) -> float:
    """Mean cross-entropy plus penalty in nats a row, float64, of a probe or of scikit-learn's estimator."""
    coef, intercept = (np.asarray(part, np.float64) for part in (probe.coef_, probe.intercept_))
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    z = torch.from_numpy(x.astype(np.float64) @ coef.T + intercept)
    right = torch.from_numpy(np.searchsorted(np.unique(y), y))
    penalty = (2 if len(coef) == 2 else 1) * 0.5 * (coef**2).sum() / (C * len(y))
    return float(torch.nn.functional.cross_entropy(z, right)) + penalty


@cache
def minimum(site: tuple[str, str, str], variable: str, C: float) -> float:
    x, labels = activations(*site)
    peer = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-9, max_iter=500)
    return objective(x, labels[variable], peer.fit(x.astype(np.float64), labels[variable]), C)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("C", [1.0, 0.1])
@pytest.mark.parametrize("standardized", [False, True])
def test_converged_means_within_tol_of_scikit_learns_minimum(site, C, standardized):
    x, labels = activations(*site)
    y = labels["outcome"]
    if standardized:
        x = (x - x.mean(0)) / x.std(0)
        peer = LogisticRegression(C=C, solver="newton-cholesky", tol=1e-9, max_iter=500)
        least = objective(x, y, peer.fit(x.astype(np.float64), y), C)
    else:
        least = minimum(site, "outcome", C)
    for tol in (3e-5, 1e-7):
        for dtype in (np.float32, np.float64):
            probe = LogisticProbe(C=C, tol=tol).fit(x.astype(dtype), y)
            assert probe.converged_ and probe.gap_ <= tol
            excess = objective(x, y, probe, C) - least
            assert -1e-9 <= excess <= probe.gap_ + 1e-9 <= tol + 1e-9


@pytest.mark.parametrize("C", [1.0, 0.1])
def test_every_probe_of_a_stack_lies_within_tol_of_its_own_minimum(C):
    parts = [activations(*site) for site in SITES[1:]]
    x = np.stack([part[0] for part in parts])
    variables = ("outcome", "op", "array_ptr")
    y = np.stack([parts[0][1][variable] for variable in variables])  # one run's: the rows are the same
    probe = LogisticProbe(C=C).fit(x[:, None], y)
    assert probe.converged_.shape == probe.gap_.shape == (2, 3)
    for s in range(2):
        for v, variable in enumerate(variables):
            one = LogisticProbe(C=C)
            seen = np.isfinite(probe.intercept_[s, v])
            one.coef_, one.intercept_ = probe.coef_[s, v][seen], probe.intercept_[s, v][seen]
            excess = objective(x[s], y[v], one, C) - minimum(SITES[1 + s], variable, C)
            assert probe.converged_[s, v]
            assert -1e-9 <= excess <= probe.gap_[s, v] + 1e-9 <= probe.tol + 1e-9


def test_the_flag_is_down_where_steps_ran_out():
    x, labels = activations(*SITES[2])
    y = np.stack([labels["outcome"], labels["op"]])
    least = [minimum(SITES[2], variable, 1.0) for variable in ("outcome", "op")]
    flags = []
    for max_iter in (1, 4, 8, 12, 16, 40):
        probe = LogisticProbe(max_iter=max_iter).fit(x, y)
        for v in range(2):
            one = LogisticProbe()
            seen = np.isfinite(probe.intercept_[v])
            one.coef_, one.intercept_ = probe.coef_[v][seen], probe.intercept_[v][seen]
            excess = objective(x, y[v], one, 1.0) - least[v]
            assert excess <= probe.gap_[v] + 1e-9
            assert bool(probe.converged_[v]) == (probe.gap_[v] <= probe.tol)
            flags.append(bool(probe.converged_[v]))
            if max_iter == 1:
                assert excess > probe.tol and not probe.converged_[v]
    assert flags[-2:] == [True, True]


def test_predictions_are_those_of_the_minimum():
    x, labels = activations(*SITES[2])
    y = labels["outcome"]
    peer = LogisticRegression(C=0.1, solver="newton-cholesky", tol=1e-9, max_iter=500)
    theirs = peer.fit(x.astype(np.float64)[:1500], y[:1500]).predict(x[1500:].astype(np.float64))
    assert np.mean(LogisticProbe(C=0.1).fit(x[:1500], y[:1500]).predict(x[1500:]) == theirs) >= 0.996


def test_the_path_ends_within_tol_too():
    x, labels = activations(*SITES[0])
    probe = LogisticPathProbe(Cs=(0.1, 1.0)).fit(x, labels["outcome"])
    assert probe.converged_
    excess = objective(x, labels["outcome"], probe, float(probe.C_)) - minimum(SITES[0], "outcome", float(probe.C_))
    assert -1e-9 <= excess <= LogisticProbe().tol
