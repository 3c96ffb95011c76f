"""The penalty is chosen on a part that is neither fitted on nor evaluated on."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from probes import LogisticPathProbe, LogisticProbe


def noisy(n: int = 300, d: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Few rows, many features, a weak direction: a weak penalty overfits."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return (0.4 * rng.normal(size=(3, d))[y] + rng.normal(size=(n, d))).astype(np.float32), y


def test_each_probe_of_a_stack_takes_the_strength_that_scikit_learn_finds_best() -> None:
    x, y = noisy()
    easy = np.tile(np.eye(60, dtype=np.float32)[y] * 20, (1, 1)) + x  # separable: weak penalties win
    probe = LogisticPathProbe(seed=3).fit(np.stack([x, easy]), y)
    held_out = probe._held_out(len(y), None)
    for site, features in enumerate((x, easy)):
        losses = []
        for strength in probe.Cs:
            peer = LogisticRegression(C=strength, max_iter=3000).fit(features[~held_out], y[~held_out])
            p = peer.predict_proba(features[held_out])
            losses.append(-np.log(p[np.arange(held_out.sum()), y[held_out]]).mean())
        np.testing.assert_allclose(probe.validation_loss_[:, site], losses, atol=0.02)
        assert probe.C_[site] == probe.Cs[int(np.argmin(losses))]
        whole = LogisticProbe(C=float(probe.C_[site])).fit(features, y)
        stacked = probe.predict_proba(np.stack([x, easy]))[site]
        np.testing.assert_allclose(stacked, whole.predict_proba(features), atol=0.02)  # both stop within tol
    assert probe.C_[0] < probe.C_[1]


def test_groups_stay_whole_and_bad_strengths_are_refused() -> None:
    x, y = noisy()
    programs = np.arange(300) // 10
    held_out = LogisticPathProbe()._held_out(300, programs)
    assert len(set(programs[held_out]) & set(programs[~held_out])) == 0
    assert held_out.sum() == 60
    with pytest.raises(ValueError, match="each of Cs must be a finite number above 0"):
        LogisticPathProbe(Cs=(0.0, 1.0)).fit(x, y)
    with pytest.raises(ValueError, match="groups must have shape"):
        LogisticPathProbe().fit(x, y, groups=programs[:5])
