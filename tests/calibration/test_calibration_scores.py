"""AUROC and precision at true size, against scikit-learn and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from interp.calibration.scores import auroc, precision_at_size, share_found


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=40))
def test_auroc_is_that_of_scikit_learn_ties_included(parts) -> None:
    scores, true = np.array([float(score) for score, _ in parts]), np.array([flag for _, flag in parts])
    if true.all() or not true.any():
        assert np.isnan(auroc(scores, true))
    else:
        assert auroc(scores, true) == pytest.approx(roc_auc_score(true, scores))


@pytest.mark.parametrize(
    ("scores", "true", "expected"),
    [
        ([3, 2, 1, 0], [1, 1, 0, 0], 1.0),
        ([0, 1, 2, 3], [1, 1, 0, 0], 0.0),
        ([3, 0, 2, 0], [1, 1, 0, 0], 0.5),
        ([1, 1, 1, 1], [1, 0, 0, 0], 0.25),  # all tied: any of four may be on top
        ([5, 1, 1, 0], [1, 1, 0, 0], 0.75),  # the second place goes to either of two
    ],
)
def test_precision_at_true_size(scores, true, expected) -> None:
    assert precision_at_size(np.array(scores, float), np.array(true, bool)) == pytest.approx(expected)


def test_chances_of_being_found_sum_to_the_true_size() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, true = rng.integers(0, 4, 30).astype(float), rng.random(30) < 0.3
        assert share_found(scores, true).sum() == pytest.approx(true.sum())
