"""One battery of checks that every probe passes."""

from typing import Any

import numpy as np
import probe_cases
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from probes import PROBES as REGISTRY
from probes import LinearProbe, LogisticProbe, MLPProbe

torch.set_num_threads(1)

PROBES: dict[str, Any] = {name: probe_cases.fresh(name) for name in REGISTRY}
PROBES["logistic_standardized"] = LogisticProbe(standardize=True)
LINEAR = [name for name, probe in PROBES.items() if isinstance(probe, LinearProbe)]


def fresh(probe: Any) -> Any:
    return clone(probe)


@pytest.fixture(params=PROBES)
def probe(request) -> Any:
    return fresh(PROBES[request.param])


def planted(n: int = 1200, d: int = 12, c: int = 3, sites: int = 2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Activations [sites, n, d] in which each of two variables y [2, n] has a direction a class, plus noise."""
    rng = np.random.default_rng(seed)
    y = np.stack([rng.integers(0, c, n), rng.integers(0, 2, n)])
    x = rng.normal(size=(sites, n, d)) * 0.5 + rng.normal(size=(sites, 1, d))
    for site in x:
        for labels in y:
            site += rng.normal(size=(c, d))[labels]
    return x.astype(np.float32), y


def test_learns_a_planted_direction_and_nothing_from_noise(probe):
    x, y = planted()
    probe.fit(x[0, :800], y[0, :800])
    assert probe.score(x[0, 800:], y[0, 800:]) > 0.9
    noise = np.random.default_rng(1).normal(size=(2000, 12)).astype(np.float32)
    labels = np.random.default_rng(2).integers(0, 4, 2000)
    assert abs(fresh(probe).fit(noise[:1000], labels[:1000]).score(noise[1000:], labels[1000:]) - 0.25) < 0.06


def test_shapes_follow_numpy_broadcasting(probe):
    x, y = planted()
    for X, Y, batch in (
        (x[0], y[0], ()),
        (x, y[0], (2,)),
        (x[0], y, (2,)),
        (x, y, (2,)),
        (x[:, None], y, (2, 2)),
        (x[None, :1], y[:, None], (2, 1)),
    ):
        fitted = fresh(probe).fit(X, Y)
        assert fitted.predict(X).shape == (*batch, 1200)
        assert fitted.decision_function(X).shape == (*batch, 1200, len(fitted.classes_))
        assert np.shape(fitted.score(X, Y)) == batch
        assert fitted.predict(x[0, :7]).shape == (*batch, 7)


def test_a_stack_is_the_same_as_one_by_one(probe):
    x, y = planted()
    y = y.copy()
    y[1, ::3] = -1
    x = x.astype(np.float64)
    stacked = fresh(probe).fit(x[:, None], y)
    predicted = stacked.predict(x[:, None])
    for site in range(2):
        for variable in range(2):
            alone = fresh(probe).fit(x[site], y[variable])
            assert np.mean(alone.predict(x[site]) == predicted[site, variable]) > 0.999
            np.testing.assert_allclose(
                alone.decision_function(x[site]),
                stacked.decision_function(x[:, None])[site, variable][:, alone.classes_],
                rtol=0.02,
                atol=0.02,
            )


def test_undefined_rows_are_left_out(probe):
    x, y = planted()
    labels = y[0].copy()
    labels[600:] = -1
    wild = x[0].copy()
    wild[600:] += 5.0
    if isinstance(probe, MLPProbe):  # its standardisation and validation part see every row, so only the score is held
        assert fresh(probe).fit(x[0], labels).score(x[0, :600], y[0, :600]) > 0.9
        return
    masked, dropped = fresh(probe).fit(wild, labels), fresh(probe).fit(wild[:600], labels[:600])
    np.testing.assert_allclose(masked.coef_, dropped.coef_, rtol=1e-3, atol=1e-4)


def test_labels_need_not_be_consecutive(probe):
    x, y = planted()
    names = np.array([2, 7, 40])
    fitted = probe.fit(x[0], names[y[0]])
    assert fitted.classes_.tolist() == [2, 7, 40]
    assert set(np.unique(fitted.predict(x[0]))) <= {2, 7, 40}
    assert fitted.score(x[0], names[y[0]]) > 0.9


def test_undefined_rows_of_a_variable_that_never_takes_the_first_label(probe):
    """The stack counts labels together, so a row that is left out points to a class that this variable has not."""
    x, y = planted()
    some = np.where(np.arange(y.shape[1]) % 3 == 0, -1, y[0] + 1)  # labels 1, 2, 3, a third of the rows undefined
    stacked = probe.fit(x[0], np.stack([y[1], some]))  # the other variable has the label 0
    alone = fresh(probe).fit(x[0], some)
    defined = some >= 0
    assert alone.score(x[0][defined], some[defined]) > 0.9
    assert (stacked.predict(x[0])[1] == alone.predict(x[0]))[defined].mean() > 0.99


def test_a_class_that_one_probe_of_the_stack_never_saw_is_never_predicted_by_it(probe):
    x, y = planted()
    fitted = probe.fit(x[0], y)
    assert fitted.classes_.tolist() == [0, 1, 2]
    assert 2 not in fitted.predict(x[0])[1]
    assert np.all(fitted.decision_function(x[0])[1, :, 2] == -np.inf)


def test_probabilities_sum_to_one_and_agree_with_predict(probe):
    x, y = planted()
    if not hasattr(probe, "predict_proba"):
        with pytest.raises(AttributeError, match="gives no probabilities"):
            probe.predict_log_proba(x[0])
        return
    p = probe.fit(x[:, None], y).predict_proba(x[:, None])
    np.testing.assert_allclose(p.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(np.exp(probe.predict_log_proba(x[:, None])), p, atol=1e-6)
    assert np.array_equal(probe.classes_[p.argmax(-1)], probe.predict(x[:, None]))


def test_same_seed_same_probe_and_clone_keeps_parameters(probe):
    x, y = planted()
    twin = fresh(probe)
    assert twin.get_params() == probe.get_params()
    a, b = probe.fit(x, y[0]).decision_function(x), twin.fit(x, y[0]).decision_function(x)
    assert np.array_equal(a, b)


def test_takes_tensors_and_integers_and_leaves_its_input_alone(probe):
    x, y = planted()
    frozen = x.copy()
    frozen.flags.writeable = False
    from_numpy = fresh(probe).fit(frozen, y[0].astype(np.uint8)).predict(frozen)
    from_torch = fresh(probe).fit(torch.from_numpy(x), torch.from_numpy(y[0])).predict(torch.from_numpy(x))
    assert np.array_equal(from_numpy, from_torch)
    assert np.array_equal(x, frozen)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.ones((20, 3), np.float32), np.zeros(20, int), "at least 2 classes, got 1"),
        (np.ones((6, 3), np.float32), np.arange(6) % 2, "at least 10 labelled rows, got 6"),
        (np.full((20, 3), np.nan, np.float32), np.arange(20) % 2, "X must be finite, got 60"),
        (np.ones(20, np.float32), np.arange(20) % 2, r"shape \[n, d\]"),
        (np.ones((20, 3), np.float32), np.arange(19) % 2, "one label a row"),
        (np.ones((20, 3), np.float32), np.arange(20) % 2 - 2, "labels >= 0, or -1"),
        (np.ones((3, 20, 3), np.float32), np.ones((2, 20), int), "broadcast"),
        (np.ones((20, 0), np.float32), np.arange(20) % 2, "must not be empty"),
    ],
)
def test_refuses_bad_input_in_one_sentence(probe, X, y, message):
    with pytest.raises(ValueError, match=message) as caught:
        probe.fit(X, y)
    assert "\n" not in str(caught.value)


def test_names_the_probe_of_the_stack_that_cannot_be_fitted(probe):
    x, y = planted()
    y = y.copy()
    y[1] = 1
    with pytest.raises(ValueError, match=r"of probe \[0, 1\] must have at least 2 classes, got 1"):
        probe.fit(x[:, None], y)


def test_refuses_to_predict_unfitted_or_other_widths(probe):
    x, y = planted()
    with pytest.raises(NotFittedError, match="call fit"):
        probe.predict(x[0])
    with pytest.raises(ValueError, match="12 features, as in fit, got 5"):
        probe.fit(x[0], y[0]).predict(x[0, :, :5])


@pytest.mark.parametrize("name", LINEAR)
def test_directions_are_orthonormal_and_hold_all_that_the_probe_reads(name):
    x, y = planted()
    probe = fresh(PROBES[name]).fit(x, y[0])
    basis = probe.directions()
    assert basis.shape == (2, 2, 12)
    np.testing.assert_allclose(basis @ np.swapaxes(basis, -1, -2), np.broadcast_to(np.eye(2), (2, 2, 2)), atol=1e-5)
    np.testing.assert_allclose(probe.subspace_, basis)
    other = x[:, ::-1]
    moved = x + (other - x) @ np.swapaxes(basis, -1, -2) @ basis  # interchange within the subspace
    gap = probe.decision_function(moved) - probe.decision_function(other)
    assert np.ptp(gap, axis=-1).max() < 2e-3 * max(1, np.abs(probe.decision_function(x)).max())
    assert probe.directions(1).shape == (2, 1, 12)
    with pytest.raises(ValueError, match="rank must lie in 1 … 2"):
        probe.directions(3)


def test_only_the_hidden_layer_reads_xor():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3000, 6)).astype(np.float32)
    y = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).astype(int)
    for name in LINEAR:
        assert fresh(PROBES[name]).fit(x[:2000], y[:2000]).score(x[2000:], y[2000:]) < 0.6
    mlp = MLPProbe(hidden=32, batch_size=64, lr=1e-2).fit(x[:2000], y[:2000], groups=np.arange(2000) // 4)
    assert mlp.score(x[2000:], y[2000:]) > 0.93


def test_mlp_refuses_groups_it_cannot_split():
    x, y = planted()
    with pytest.raises(ValueError, match=r"hold out 0\.1 of 2 groups"):
        MLPProbe().fit(x[0], y[0], groups=np.arange(1200) % 2)
    with pytest.raises(ValueError, match=r"groups must have shape \[1200\]"):
        MLPProbe().fit(x[0], y[0], groups=np.arange(5))
