"""Online code length: by hand for a known coder, then as a ranking of codes."""

import numpy as np
import pytest
import torch

from probes import LogisticProbe, RidgeProbe, SoftmaxProbe, online_code_length

torch.set_num_threads(1)


class HalfSure(SoftmaxProbe):
    """Gives class 0 the probability 1/2 and shares the rest among the other three."""

    def fit(self, X, y):
        self.classes_ = np.arange(4)
        return self

    def predict_proba(self, X):
        return np.broadcast_to([1 / 2, 1 / 6, 1 / 6, 1 / 6], (*X.shape[:-1], 4))


def test_equals_the_formula_for_a_known_coder():
    y = np.random.default_rng(0).choice(4, 100, p=[0.7, 0.1, 0.1, 0.1])
    order = np.random.default_rng(5).permutation(100)  # the order that seed 5 draws
    found = online_code_length(HalfSure(), np.zeros((100, 3)), y, seed=5, fractions=(0.2, 0.5, 1.0))
    bits = 20 * 2.0
    for start, end in ((20, 50), (50, 100)):
        for label in y[order[start:end]]:
            bits -= np.log2((start * (1 / 2 if label == 0 else 1 / 6) + 1) / (start + 4))
    assert found.bits == pytest.approx(bits)
    assert found.uniform_bits == 200
    assert found.compression == pytest.approx(200 / bits)


def test_clear_codes_compress_more_and_noise_not_at_all():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 4, 3000)
    code = rng.normal(size=(4, 8))
    x = np.stack([code[y] * strength + rng.normal(size=(3000, 8)) * 0.3 for strength in (0.0, 0.3, 1.0)])
    noise, faint, clear = online_code_length(LogisticProbe(), x, y, seed=0, groups=np.arange(3000) // 3).compression
    assert 0.9 < noise < 1.0
    assert 1.2 < faint < clear
    assert clear > 5
    alone = online_code_length(LogisticProbe(), x[1], y, seed=0, groups=np.arange(3000) // 3).compression
    assert alone == pytest.approx(faint, rel=1e-3)


def test_more_possible_classes_and_undefined_rows():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 500)
    y[::5] = -1
    found = online_code_length(LogisticProbe(), rng.normal(size=(500, 3)), y, seed=0, n_classes=8)
    assert found.uniform_bits == 400 * 3
    assert 400 < found.bits < 700  # one bit a label is learned from, three are not


def test_a_stack_of_variables_costs_what_each_costs_alone():
    rng = np.random.default_rng(1)
    labels = np.stack([rng.integers(0, 3, 700), rng.integers(0, 2, 700), rng.integers(0, 4, 700)])
    x = np.stack([np.eye(4)[labels[2]] * s + rng.normal(size=(700, 4)) for s in (0.5, 2.0)])
    labels[1, ::3] = -1
    groups = np.arange(700) // 2
    together = online_code_length(LogisticProbe(), x, labels, seed=3, groups=groups, n_classes=[3, 2, 5])
    assert together.bits.shape == together.compression.shape == (2, 3)
    for v, k in enumerate((3, 2, 5)):
        alone = online_code_length(LogisticProbe(), x, labels[v], seed=3, groups=groups, n_classes=k)
        assert together.bits[:, v] == pytest.approx(alone.bits, rel=1e-3)
        assert together.uniform_bits[v] == pytest.approx(alone.uniform_bits)


def test_refusals():
    x, y = np.zeros((50, 3)), np.arange(50) % 2
    with pytest.raises(TypeError, match="must give probabilities"):
        online_code_length(RidgeProbe(), x, y, seed=0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="fractions must rise"):
        online_code_length(LogisticProbe(), x, y, seed=0, fractions=(0.5, 0.2, 1.0))
    with pytest.raises(ValueError, match="got 50 rows and 1 classes"):
        online_code_length(LogisticProbe(), x, y * 0, seed=0)
    with pytest.raises(ValueError, match=r"y must have shape \[50\] or \[v, 50\]"):
        online_code_length(LogisticProbe(), x, np.stack([[y, y]]), seed=0)
    with pytest.raises(ValueError, match=r"groups must have shape \[50\]"):
        online_code_length(LogisticProbe(), x, y, seed=0, groups=np.arange(3))
