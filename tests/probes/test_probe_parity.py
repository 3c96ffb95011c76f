"""The linear probes are scikit-learn's estimators, solved together: same coefficients, probabilities and accuracy."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from probes import DiscriminantProbe, LogisticProbe, MeanDifferenceProbe, RidgeProbe

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def activations(n: int, d: int, c: int, seed: int, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Correlated, off-centre activations [n, d] with overlapping classes y [n] of unequal frequency."""
    rng = np.random.default_rng(seed)
    y = rng.choice(c, n, p=np.arange(1, c + 1) / np.arange(1, c + 1).sum())
    noise = rng.normal(size=(n, d)) * (1 + np.arange(d)) ** -0.5 @ np.linalg.qr(rng.normal(size=(d, d)))[0]
    return (rng.normal(size=(c, d))[y] * 0.25 + noise + rng.normal(size=d) * 3).astype(dtype), y


@pytest.mark.parametrize("c", [2, 3, 5])
@pytest.mark.parametrize("C", [0.01, 1.0])
@pytest.mark.parametrize("standardize", [False, True])
def test_logistic_equals_sklearn(c, C, standardize):
    x, y = activations(800, 8, c, seed=c)
    x *= np.arange(1, 9)
    ours = LogisticProbe(C=C, standardize=standardize, tol=1e-13, max_iter=500).fit(x, y)
    scaler = StandardScaler(with_mean=standardize, with_std=standardize).fit(x)
    theirs = LogisticRegression(C=C, solver="newton-cg", tol=1e-9, max_iter=200).fit(scaler.transform(x), y)
    coef = ours.coef_ if c > 2 else ours.coef_[1:] - ours.coef_[:1]
    scale = scaler.scale_ if standardize else 1.0
    np.testing.assert_allclose(coef * scale, theirs.coef_, rtol=1e-4, atol=1e-4 * np.abs(theirs.coef_).max())
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(scaler.transform(x)), atol=1e-5)
    assert ours.converged_


def test_logistic_in_float32_scores_as_sklearn_on_held_out_rows():
    x, y = activations(6000, 32, 8, seed=3, dtype=np.float32)
    ours = LogisticProbe().fit(x[:4000], y[:4000])
    theirs = LogisticRegression(tol=1e-6, max_iter=2000).fit(x[:4000], y[:4000])
    assert ours.coef_.dtype == np.float32
    assert abs(ours.score(x[4000:], y[4000:]) - theirs.score(x[4000:], y[4000:])) <= 0.005
    difference = np.abs(ours.predict_proba(x[4000:]) - theirs.predict_proba(x[4000:]))
    assert difference.mean() < 2e-3
    assert difference.max() < 0.05


def test_logistic_survives_separable_classes_dead_features_and_huge_scales():
    x, y = activations(600, 10, 3, seed=5, dtype=np.float32)
    x[:, 0] = 0
    x[:, 1] = x[:, 2]
    x[:, 3] *= 1e4
    x[:, 4] = y * 100
    probe = LogisticProbe(standardize=True).fit(x, y)
    assert np.isfinite(probe.coef_).all()
    assert probe.score(x, y) == 1.0


@pytest.mark.parametrize(
    "case", ["few_distinct_rows", "tiny", "off_centre", "nearly_separable", "rare_class", "one_direction"]
)
def test_logistic_in_float32_reaches_sklearns_objective_on_hard_activations(case):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 6, 2000)
    vectors = rng.normal(size=(6, 24))
    x = {
        "few_distinct_rows": vectors[y],  # an embedding: no variance within a class at all
        "tiny": vectors[y] * 0.02,
        "off_centre": vectors[y] * 0.1 + 100,
        "nearly_separable": vectors[y] + 0.3 * rng.normal(size=(2000, 24)),
        "rare_class": vectors[y] + rng.normal(size=(2000, 24)),
        "one_direction": np.outer(y, vectors[0]),
    }[case].astype(np.float32)
    if case == "rare_class":
        y = (y == 2) & (rng.random(2000) < 0.05)
    y = y.astype(np.int64)

    def objective(coef: np.ndarray, intercept: np.ndarray) -> float:
        z = x.astype(float) @ coef.astype(float).T + intercept
        z -= z.max(1, keepdims=True)
        cross_entropy = np.log(np.exp(z).sum(1)) - z[np.arange(len(y)), y]
        return cross_entropy.mean() + 0.5 * (coef.astype(float) ** 2).sum() / len(y) * (2 if len(coef) == 2 else 1)

    theirs = LogisticRegression(tol=1e-6, max_iter=300).fit(x, y)
    coef, intercept = theirs.coef_, theirs.intercept_
    if len(coef) == 1:
        coef, intercept = np.concatenate([-coef, coef]) / 2, np.concatenate([-intercept, intercept]) / 2
    ours = LogisticProbe().fit(x, y)
    assert ours.converged_
    assert objective(ours.coef_, ours.intercept_) <= objective(coef, intercept) + 3e-4
    assert ours.score(x, y) >= theirs.score(x, y) - 0.005


def test_logistic_says_when_it_did_not_converge():
    x, y = activations(600, 10, 3, seed=5)
    probe = LogisticProbe(max_iter=1, tol=1e-12).fit(x, y)
    assert probe.n_iter_ == 1
    assert not probe.converged_


def test_ridge_equals_sklearn_on_one_hot_labels():
    x, y = activations(500, 8, 4, seed=1)
    for alpha in (0.0, 30.0):
        ours, theirs = RidgeProbe(alpha=alpha).fit(x, y), Ridge(alpha=alpha).fit(x, np.eye(4)[y])
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-8)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-8)


def test_discriminant_equals_sklearn():
    x, y = activations(500, 8, 4, seed=1)
    ours, theirs = DiscriminantProbe(alpha=0).fit(x, y), LinearDiscriminantAnalysis(solver="lsqr").fit(x, y)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-8)


def test_mean_difference_is_the_nearest_centroid_and_the_difference_of_means():
    x, y = activations(500, 8, 4, seed=1)
    assert np.array_equal(MeanDifferenceProbe().fit(x, y).predict(x), NearestCentroid().fit(x, y).predict(x))
    probe = MeanDifferenceProbe().fit(x, y % 2)
    difference = x[y % 2 == 1].mean(0) - x[y % 2 == 0].mean(0)
    np.testing.assert_allclose(np.abs(probe.directions(1)[0]), np.abs(difference / np.linalg.norm(difference)))


@pytest.mark.parametrize("seed", [0, 1])
def test_logistic_does_not_stop_early_on_heavy_tailed_rows(seed):
    """Row lengths are lognormal with sigma 2: a few rows make up nearly all of the covariance."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 5, 3000)
    x = rng.normal(size=(5, 24))[y] + 0.5 * rng.normal(size=(3000, 24))
    x = (x * np.exp(2 * rng.normal(size=(3000, 1)))).astype(np.float32)
    fitted = LogisticProbe(C=0.1).fit(x, y)
    exact = LogisticProbe(C=0.1, tol=1e-8, max_iter=2000).fit(x.astype(np.float64), y)

    def loss(probe):
        z = torch.from_numpy(probe.decision_function(x.astype(np.float64))).log_softmax(-1).numpy()
        return -z[np.arange(len(y)), y].mean() + 0.5 * (probe.coef_**2).sum() / (0.1 * len(y))

    assert loss(fitted) - loss(exact) < 0.015
    assert fitted.score(x, y) > exact.score(x, y) - 0.005
