"""Scores, splits, intervals and controls, each against a case worked by hand or a known answer."""

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from probes import (
    LogisticProbe,
    MajorityProbe,
    MLPProbe,
    accuracy,
    balanced_accuracy,
    bootstrap_mean,
    confusion_matrix,
    control_labels,
    joint_exactness,
    majority_label,
    score_predictions,
    selectivity,
    shuffled_labels,
    split_groups,
)

torch.set_num_threads(1)


def test_split_never_puts_a_group_in_two_parts():
    rng = np.random.default_rng(0)
    for seed in range(20):
        groups = rng.integers(0, 2**63, 40, dtype=np.uint64)[rng.integers(0, 40, 500)]
        parts = split_groups(groups, fractions=(0.6, 0.2, 0.2), seed=seed)
        assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(500))
        owners = [set(groups[part].tolist()) for part in parts]
        assert len(set.union(*owners)) == sum(len(o) for o in owners)
        assert [len(o) for o in owners][1:] == [len(set(groups.tolist())) // 5] * 2
    assert all(
        np.array_equal(a, b) for a, b in zip(split_groups(groups, seed=1), split_groups(groups, seed=1), strict=True)
    )


def test_split_refuses_too_few_groups_and_bad_fractions():
    with pytest.raises(ValueError, match=r"enough for 2 parts.*got 1 groups"):
        split_groups(np.zeros(50, int), seed=0)
    with pytest.raises(ValueError, match="fractions must be positive"):
        split_groups(np.arange(50), fractions=(0.9, 0.2), seed=0)


def test_accuracy_and_joint_exactness_by_hand():
    y = np.array([[0, 1, 2, -1], [1, 1, -1, -1]])
    predicted = np.array([[0, 1, 0, 0], [1, 0, 0, 0]])
    assert accuracy(predicted, y).tolist() == [2 / 3, 1 / 2]
    assert joint_exactness(predicted, y) == pytest.approx(1 / 3)  # row 0 right, 1 and 2 wrong, 3 asks nothing
    assert accuracy(predicted[0], y[0]) == pytest.approx(2 / 3)
    assert np.isnan(accuracy(np.zeros(3, int), np.full(3, -1)))


def test_balanced_accuracy_and_confusion_equal_sklearn():
    rng = np.random.default_rng(0)
    y = rng.choice(4, (3, 400), p=[0.7, 0.1, 0.1, 0.1])
    predicted = np.where(rng.random((3, 400)) < 0.6, y, rng.integers(0, 4, (3, 400)))
    y[1, :50] = -1
    for i in range(3):
        keep = y[i] >= 0
        assert balanced_accuracy(predicted, y)[i] == pytest.approx(
            balanced_accuracy_score(y[i][keep], predicted[i][keep])
        )
        assert np.array_equal(confusion_matrix(predicted, y)[i], sklearn_confusion(y[i][keep], predicted[i][keep]))
    with pytest.raises(ValueError, match="n_classes must be at least 4"):
        confusion_matrix(predicted, y, n_classes=3)


def test_bootstrap_covers_the_truth_with_clustered_rows_where_row_resampling_does_not():
    rng = np.random.default_rng(0)
    n_groups, per_group, truth, trials = 60, 10, 0.7, 200
    groups = np.repeat(np.arange(n_groups), per_group)
    # Every row of a group is right or wrong together: the sample size is the number of groups.
    values = np.repeat(rng.random((trials, n_groups)) < truth, per_group, axis=1)
    clustered = bootstrap_mean(values, groups, seed=1, n_resamples=400)
    by_row = bootstrap_mean(values, np.arange(len(groups)), seed=1, n_resamples=400)
    coverage = np.mean((clustered.low <= truth) & (truth <= clustered.high))
    assert 0.90 <= coverage <= 0.99
    assert np.mean((by_row.low <= truth) & (truth <= by_row.high)) < 0.6
    width = np.mean(np.asarray(clustered.high) - clustered.low)
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / n_groups), rel=0.08)


def test_bootstrap_is_seeded_same_in_a_stack_and_skips_undefined_rows():
    rng = np.random.default_rng(0)
    values, groups = rng.random((3, 300)), rng.integers(0, 30, 300)
    defined = rng.random((3, 300)) < 0.8
    defined[2] = False
    stacked = bootstrap_mean(values, groups, seed=7, defined=defined)
    alone = bootstrap_mean(values[1], groups, seed=7, defined=defined[1])
    assert alone.estimate == pytest.approx(values[1][defined[1]].mean())
    assert (stacked.low[1], stacked.high[1]) == pytest.approx((alone.low, alone.high))
    assert np.isnan([part[2] for part in stacked]).all()
    with pytest.raises(ValueError, match="at least 10 for an interval, got 3"):
        bootstrap_mean(values, groups % 3, seed=0)


def test_score_predictions_gathers_what_a_row_of_results_needs():
    rng = np.random.default_rng(0)
    y = rng.choice(3, (2, 500), p=[0.6, 0.3, 0.1])
    predicted = np.where(rng.random((2, 500)) < 0.8, y, 0)
    y[1, :100] = -1
    groups = np.arange(500) // 5
    score = score_predictions(predicted, y, groups, seed=0, train_y=np.array([[0, 0, 1], [1, 1, 2]]))
    assert score.n.tolist() == [500, 400]
    assert score.n_groups.tolist() == [100, 80]
    assert score.accuracy.tolist() == accuracy(predicted, y).tolist()
    assert score.majority_accuracy[0] == np.mean(y[0] == 0)
    assert score.majority_accuracy[1] == np.mean(y[1, 100:] == 1)
    one = score[0]
    assert one.ci_low < one.accuracy < one.ci_high
    alone = score_predictions(predicted[0], y[0], groups, seed=0, train_y=np.array([0, 0, 1]))
    assert vars(alone) == pytest.approx(vars(one))


def test_majority():
    y = np.array([[0, 2, 2, -1, -1], [1, -1, -1, 0, 0]])
    assert majority_label(y).tolist() == [2, 0]
    probe = MajorityProbe().fit(np.zeros((5, 3)), y)
    assert probe.predict(np.zeros((4, 3))).tolist() == [[2] * 4, [0] * 4]
    assert probe.score(np.zeros((5, 3)), y).tolist() == [2 / 3, 2 / 3]
    with pytest.raises(ValueError, match="at least one label"):
        majority_label(np.array([-1, -1]))


def test_control_labels_are_a_function_of_the_type_drawn_from_the_labels_distribution():
    rng = np.random.default_rng(0)
    y = rng.choice(4, 40_000, p=[0.4, 0.3, 0.2, 0.1])
    types = rng.integers(-(2**62), 2**62, 10_000)[rng.integers(0, 10_000, 40_000)]
    y[:100] = -1
    control = control_labels(y, types, seed=0)
    assert np.array_equal(control < 0, y < 0)
    table: dict[int, int] = {}
    assert all(table.setdefault(t, c) == c for t, c in zip(types[100:].tolist(), control[100:].tolist(), strict=True))
    shares = np.bincount(list(table.values())) / len(table)
    np.testing.assert_allclose(shares, [0.4, 0.3, 0.2, 0.1], atol=0.02)
    assert np.mean(control_labels(y, types, seed=1) == control) < 0.4
    again = control_labels(y[200:300], types[200:300], seed=0, reference=y)  # a part alone: the same labels
    assert np.array_equal(again, control[200:300])
    both = control_labels(np.stack([y, y]), types, seed=0)  # variables of a stack get tasks of their own
    assert np.array_equal(both[0], control)
    assert np.mean(both[1] == both[0]) < 0.4
    with pytest.raises(ValueError, match="one id a row"):
        control_labels(y, types[:5], seed=0)
    with pytest.raises(TypeError, match="integer ids"):
        control_labels(y, types * 0.5, seed=0)


def test_shuffled_labels_keep_counts_and_undefined_rows():
    y = np.random.default_rng(0).integers(-1, 3, (2, 500))
    shuffled = shuffled_labels(y, seed=0)
    assert np.array_equal(shuffled < 0, y < 0)
    for a, b in zip(shuffled, y, strict=True):
        assert np.array_equal(np.bincount(a[a >= 0]), np.bincount(b[b >= 0]))
    assert np.mean(shuffled[y >= 0] == y[y >= 0]) < 0.45


def test_selectivity_tells_a_code_that_is_read_from_one_that_is_memorised():
    rng = np.random.default_rng(0)
    n, n_types = 4000, 120
    types = rng.integers(0, n_types, n)
    meaning = rng.integers(0, 2, n_types)
    y = meaning[types]
    identity = rng.normal(size=(n_types, 160))  # every type has its own vector: any labelling of types can be memorised
    direction = rng.normal(size=12)
    memorised = identity[types] + rng.normal(size=(n, 160)) * 0.1
    encoded = np.outer(y * 2.0 - 1, direction) + rng.normal(size=(n, 12))  # only the meaning is there
    train, test = split_groups(np.arange(n), seed=0)
    control = control_labels(y, types, seed=0)
    found = {}
    for name, x in (("memorised", memorised), ("encoded", encoded)):
        task, controlled = (
            LogisticProbe().fit(x[train], labels[train]).score(x[test], labels[test]) for labels in (y, control)
        )
        assert task > 0.97
        found[name] = float(selectivity(task, controlled))
    assert found["memorised"] < 0.03
    assert found["encoded"] > 0.3


def test_a_probe_with_capacity_is_less_selective():
    rng = np.random.default_rng(0)
    types = rng.integers(0, 40, 2000)
    x = rng.normal(size=(40, 6))[types] + rng.normal(size=(2000, 6)) * 0.05
    control = control_labels(types % 2, types, seed=0)
    linear = LogisticProbe().fit(x[:1500], control[:1500]).score(x[1500:], control[1500:])
    mlp = MLPProbe(batch_size=64, lr=1e-2).fit(x[:1500], control[:1500]).score(x[1500:], control[1500:])
    assert mlp > linear + 0.1
