"""Beside scikit-learn: labels of every kind, row and class weights, cross-validation, cloning."""

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from probe_cases import fresh
from sklearn.base import clone as sklearn_clone
from sklearn.base import is_classifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_sample_weight
from threadpoolctl import threadpool_limits

from probes import (
    PROBES,
    LogisticProbe,
    MajorityProbe,
    MeanDifferenceProbe,
    RidgeProbe,
    online_code_length,
)

torch.set_num_threads(1)

NAMES = [*PROBES, "majority"]
SOFTMAX = [name for name in PROBES if hasattr(PROBES[name](), "predict_proba")]
WORDS = np.array(["no", "maybe", "yes"])


@pytest.fixture(autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def clone(probe: Any) -> Any:
    return sklearn_clone(probe)


def make(name: str) -> Any:
    return MajorityProbe() if name == "majority" else fresh(name)


def rows(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three overlapping classes of unequal size."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=[0.2, 0.3, 0.5])
    return rng.normal(size=(3, 6))[y] * 0.7 + rng.normal(size=(n, 6)), y


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "named",
    [
        lambda y: np.array(["a", "bb", "c"])[y],
        lambda y: np.array(["a", "bb", "c"], dtype=object)[y],
        lambda y: np.array(["a", "bb", "c"])[y].tolist(),
        lambda y: y * 2.0,
        lambda y: y.astype(np.float32),
        lambda y: y.astype(">f8"),
        lambda y: y > 0,
        lambda y: y.astype(np.uint8),
        lambda y: torch.from_numpy(y * 1.0),
    ],
)
def test_predictions_are_in_the_callers_labels(name, named):
    x, y = rows()
    labels = named(y)
    wanted = np.asarray(labels)
    wanted = wanted.astype(str) if wanted.dtype.kind == "O" else wanted
    codes = np.unique(wanted, return_inverse=True)[1]
    plain, fitted = make(name).fit(x, codes), make(name).fit(x, labels)
    assert fitted.classes_.tolist() == np.unique(wanted).tolist()
    assert fitted.classes_.dtype.kind == ("i" if wanted.dtype.kind == "u" else wanted.dtype.kind)
    predicted = fitted.predict(x)
    assert predicted.dtype.kind == fitted.classes_.dtype.kind
    assert np.array_equal(predicted, fitted.classes_[plain.predict(x)])
    assert fitted.score(x, labels) == plain.score(x, codes) == np.mean(predicted == wanted)


def test_a_stack_of_variables_shares_its_strings():
    x, y = rows()
    other = np.where(y == 0, "no", "perhaps")
    probe = LogisticProbe().fit(x, np.stack([WORDS[y], other]))
    assert probe.classes_.tolist() == ["maybe", "no", "perhaps", "yes"]
    assert set(probe.predict(x)[0]) <= set(WORDS) and set(probe.predict(x)[1]) <= {"no", "perhaps"}
    alone = LogisticProbe().fit(x, other)
    assert np.array_equal(probe.predict(x)[1], alone.predict(x))


def test_undefined_rows_of_float_labels_are_minus_one_too():
    x, y = rows()
    some = np.where(np.arange(300) % 4 == 0, -1, y)
    for name in NAMES:
        a, b = make(name).fit(x, some), make(name).fit(x, some * 1.0)
        assert np.array_equal(a.predict(x), b.predict(x))
        assert a.score(x, some) == b.score(x, some * 1.0)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.linspace(0, 1, 300), "whole numbers where they are floats: it has fractions"),
        (np.full(300, np.nan), "whole numbers where they are floats"),
        (np.array([0, "a", None] * 100, dtype=object), "numbers or strings of one kind, got dtype object"),
        (np.ones(300, complex), "numbers or strings of one kind, got dtype complex128"),
        (np.arange(300) % 3 - 2.0, "labels >= 0, or -1"),
        (np.full(300, 2**63, np.uint64), "labels below 2"),
    ],
)
def test_labels_that_are_none_are_refused(y, message):
    x, _ = rows()
    for name in NAMES:
        with pytest.raises(ValueError, match=message) as caught:
            make(name).fit(x, y)
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="labels of the kind of fit's"):
        RidgeProbe().fit(x, rows()[1]).score(x, WORDS[rows()[1]])


def coefficients(probe: Any) -> np.ndarray:
    """coef_ as scikit-learn writes it: one row where there are two classes."""
    return probe.coef_ if len(probe.classes_) > 2 else probe.coef_[1:] - probe.coef_[:1]


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced", {"maybe": 5.0, "no": 0.2}, {"no": 3}])
@pytest.mark.parametrize("weighted", [False, True])
def test_logistic_equals_scikit_learn_under_weights(classes, class_weight, weighted):
    x, y = rows()
    y = np.minimum(y, classes - 1)
    weights = np.random.default_rng(1).choice([0.0, 0.5, 1.0, 3.0], 300) if weighted else None
    ours = LogisticProbe(C=0.3, tol=1e-12, class_weight=class_weight).fit(x, WORDS[y], weights)
    theirs = LogisticRegression(C=0.3, solver="newton-cholesky", tol=1e-10, class_weight=class_weight)
    theirs.fit(x, WORDS[y], weights)
    assert ours.converged_
    assert ours.classes_.tolist() == theirs.classes_.tolist()
    np.testing.assert_allclose(coefficients(ours), theirs.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-5)
    np.testing.assert_allclose(ours.predict_log_proba(x), theirs.predict_log_proba(x), atol=1e-4)
    assert np.array_equal(ours.predict(x), theirs.predict(x))
    assert ours.score(x, WORDS[y], weights) == pytest.approx(theirs.score(x, WORDS[y], weights))


def test_a_stack_weighs_every_variable_by_its_own_classes():
    x, y = rows()
    labels = np.stack([y, np.minimum(y, 1), np.where(np.arange(300) % 3 == 0, -1, y)])
    sites = np.stack([x, x[:, ::-1] * 2 + 1])
    weights = np.random.default_rng(1).random(300)
    for name in ("logistic", "ridge", "discriminant"):
        probe = fresh(name).set_params(class_weight="balanced")
        stack = clone(probe).fit(sites[:, None], labels, weights)
        for s in range(2):
            for v in range(3):
                alone = clone(probe).fit(sites[s], labels[v], weights)
                got = stack.coef_[s, v][: len(alone.classes_)]
                np.testing.assert_allclose(got, alone.coef_, rtol=2e-2, atol=2e-3)
        each = np.random.default_rng(2).random((3, 300))  # weights of every variable's own
        own = clone(probe).fit(x, labels, each)
        alone = clone(probe).fit(x, labels[2], each[2])
        np.testing.assert_allclose(own.coef_[2], alone.coef_, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("mlp", "logistic_path")])
def test_an_integer_weight_is_so_many_copies_and_zero_leaves_the_row_out(name):
    """Not the MLP, which shuffles rows into batches, nor the path, which splits them."""
    x, y = rows()
    copies = np.random.default_rng(3).integers(0, 4, 300)
    weighted = make(name).fit(x, y, copies)
    repeated = make(name).fit(np.repeat(x, copies, axis=0), np.repeat(y, copies))
    np.testing.assert_allclose(weighted.predict(x), repeated.predict(x))
    if name != "majority":
        scores = repeated.decision_function(x)
        np.testing.assert_allclose(weighted.decision_function(x), scores, atol=2e-3 * np.abs(scores).max())
    assert weighted.score(x, y, copies) == pytest.approx(repeated.score(np.repeat(x, copies, 0), np.repeat(y, copies)))


@pytest.mark.parametrize("name", NAMES)
def test_weight_moves_the_answer_towards_the_rows_that_have_it(name):
    """Two halves of the rows contradict each other: the heavy half is believed."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 4))
    y = (x[:, 0] > 0).astype(int)
    first = np.arange(400) < 200
    contrary = np.where(first, y, 1 - y) if name != "majority" else np.where(first, 0, 1)
    for heavy in (first, ~first):
        probe = make(name).fit(x, contrary, np.where(heavy, 100.0, 1.0))
        assert probe.score(x[heavy], contrary[heavy]) > 0.8


@pytest.mark.parametrize("name", ["logistic", "logistic_path", "ridge", "discriminant", "mlp"])
def test_class_weights_are_row_weights_and_favour_the_class(name):
    x, y = rows(600)
    table = {0: 20.0, 1: 0.5}
    favoured = fresh(name).set_params(class_weight=table).fit(x, y)
    by_row = fresh(name).fit(x, y, compute_sample_weight(table, y))
    np.testing.assert_allclose(favoured.decision_function(x), by_row.decision_function(x), atol=0.02)
    assert (favoured.predict(x) == 0).sum() > 1.2 * (fresh(name).fit(x, y).predict(x) == 0).sum()
    balanced = fresh(name).set_params(class_weight="balanced").fit(x, y)
    by_row = fresh(name).fit(x, y, compute_sample_weight("balanced", y))
    np.testing.assert_allclose(balanced.decision_function(x), by_row.decision_function(x), atol=0.02)


def test_class_weights_have_no_meaning_for_class_means():
    x, y = rows()
    with pytest.raises(ValueError, match="class_weight must be None: weighing a class does not move its mean"):
        MeanDifferenceProbe(class_weight="balanced").fit(x, y)  # pyright: ignore[reportArgumentType]


def test_ridge_equals_scikit_learn_under_weights():
    x, y = rows()
    weights = np.random.default_rng(1).random(300) + 0.1
    ours, theirs = RidgeProbe(alpha=3.0).fit(x, y, weights), Ridge(alpha=3.0).fit(x, np.eye(3)[y], weights)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-8)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-8)


def test_weighted_means_equal_scikit_learns_naive_bayes():
    x, y = rows()
    weights = np.random.default_rng(1).random(300) + 0.1
    means = MeanDifferenceProbe().fit(x, y, weights).coef_ + weights @ x / weights.sum()
    np.testing.assert_allclose(means, GaussianNB().fit(x, y, weights).theta_)


@pytest.mark.parametrize("name", NAMES)
def test_is_a_classifier_that_scikit_learn_can_use(name):
    x, y = rows()
    order = np.argsort(y)  # sorted by class: folds that are not stratified would miss one
    x, labels = x[order], WORDS[y[order]]
    probe = make(name)
    assert is_classifier(probe)
    scores = cross_val_score(probe, x, labels, cv=3)
    folds = [*StratifiedKFold(3).split(x, labels)]
    wanted = [clone(probe).fit(x[a], labels[a]).score(x[b], labels[b]) for a, b in folds]
    np.testing.assert_allclose(scores, wanted)
    assert scores.min() > (0.4 if name == "majority" else 0.5)
    assert make_pipeline(StandardScaler(), clone(probe)).fit(x, labels).score(x, labels) > 0.4


@pytest.mark.parametrize("name", NAMES)
def test_parameters_are_kept_set_cloned_and_stored(name):
    probe = make(name)
    for parameter, value in probe.get_params().items():
        assert getattr(clone(probe).set_params(**{parameter: value}), parameter) is value
    with pytest.raises(ValueError, match="Invalid parameter"):
        probe.set_params(no_such_parameter=1)
    x, y = rows()
    fitted = probe.fit(x, WORDS[y])
    assert not hasattr(clone(fitted), "classes_")
    assert clone(fitted).get_params() == fitted.get_params()
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(x), fitted.predict(x))
    assert repr(fitted).startswith(type(fitted).__name__)


def test_a_grid_of_strengths_is_searched_by_log_loss():
    x, y = rows()
    search = GridSearchCV(LogisticProbe(), {"C": [1e-4, 1.0]}, scoring="neg_log_loss", cv=3).fit(x, WORDS[y])
    assert search.best_params_ == {"C": 1.0}
    assert search.predict(x[:4]).tolist() == LogisticProbe(C=1.0).fit(x, WORDS[y]).predict(x[:4]).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_log_probabilities_or_a_sentence(name):
    x, y = rows()
    probe = make(name).fit(x, y)
    if name in SOFTMAX:
        np.testing.assert_allclose(np.exp(probe.predict_log_proba(x)).sum(-1), 1, atol=1e-5)
        far = 1e6 * x  # where probabilities are 0 in every precision
        assert np.isfinite(probe.predict_log_proba(far)).all() and probe.predict_proba(far).min() == 0
        return
    for method in ("predict_proba", "predict_log_proba"):
        with pytest.raises(AttributeError, match="gives no probabilities, its scores are no log probabilities"):
            getattr(probe, method)
    assert not hasattr(probe, "predict_proba")


def test_code_lengths_of_strings_are_those_of_their_codes():
    x, y = rows()
    by_code = online_code_length(LogisticProbe(), x, np.argsort(np.argsort(WORDS))[y], seed=0)
    assert online_code_length(LogisticProbe(), x, WORDS[y], seed=0).bits == pytest.approx(by_code.bits)
