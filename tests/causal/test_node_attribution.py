"""Attribution patching by node: by hand, against EAP, against finite differences."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import Graph, attribution_patching, draw_pairs, eap, eap_ig, node_effects
from interp.circuits.edges import written

from .conftest import random_model
from .test_edges import by_hand, two_numbers  # noqa: F401  # fixtures
from .test_patching import n_hooks


@pytest.fixture(scope="module")
def pairs(task):
    return draw_pairs(task, "INC", 9, seed=0)


def test_nodes_by_hand(by_hand, two_numbers):  # noqa: F811
    """Where the way on is linear the estimate is the effect; the input's also bends through head 1's attention."""
    scores = attribution_patching(by_hand, two_numbers)[:, 0]
    effects = node_effects(by_hand, two_numbers)[:, 0]
    names = [writer.name for writer in Graph(2, 1).writers]
    by_name = dict(zip(names, scores, strict=True))
    # head 0: + 1 to the logits, + 1 through head 1's values, + 1 through MLP 0 and these
    assert by_name["a0.h0"] == pytest.approx(3, abs=1e-5)
    assert by_name["m0"] == pytest.approx(1, abs=1e-5)
    assert by_name["a1.h0"] == pytest.approx(3, abs=1e-5)
    assert by_name["m1"] == 0
    np.testing.assert_allclose(scores[1:], effects[1:], atol=1e-5)
    # head 0 by way of the input is 3; values 2/3; keys - 1/3 * 2/3 * 2 ln 2
    assert by_name["input"] == pytest.approx(3 + 2 / 3 - 4 / 9 * np.log(2), abs=1e-5)
    assert effects[0] == pytest.approx(4, abs=1e-5)


def test_a_node_s_score_is_the_sum_of_its_edges(model, pairs):
    np.testing.assert_allclose(attribution_patching(model, pairs).mean(1), eap(model, pairs).sum(0), atol=1e-4)
    ours = attribution_patching(model, pairs, steps=3).mean(1)
    np.testing.assert_allclose(ours, eap_ig(model, pairs, steps=3).sum(0), atol=1e-4)
    assert np.abs(ours).max() > 0.01
    assert n_hooks(model) == 0


def test_it_is_the_derivative(inplace):
    """Move what a head or an MLP writes a little way towards its corrupted value: m moves by the score's share."""
    model: Any = random_model(inplace).double()
    pairs = draw_pairs(inplace, "NEXT", 5, seed=1)
    pairs = replace(pairs, weights=pairs.weights.double())
    graph = Graph.of(model)
    clean, logits = written(model, graph, pairs.clean.tokens)
    corrupted, _ = written(model, graph, pairs.corrupted.tokens)
    scores = attribution_patching(model, pairs)
    step = 1e-5
    for name, column in (("blocks.0.hook_mlp_out", 3), ("blocks.1.hook_mlp_out", 6), ("blocks.0.hook_resid_pre", 0)):
        moved = clean[column] + step * (corrupted[column] - clean[column])
        with torch.no_grad(), model.hooks(fwd_hooks=[(name, lambda act, hook, moved=moved: moved)]):
            m = pairs.logit_difference(model(pairs.clean.tokens))
        difference = (m - pairs.logit_difference(logits)) / step
        np.testing.assert_allclose(scores[column], difference, rtol=1e-3, atol=1e-5)


def test_batches_and_steps(model, pairs):
    whole = attribution_patching(model, pairs)
    np.testing.assert_allclose(attribution_patching(model, pairs, batch_size=4), whole, atol=1e-5)
    gap = node_effects(model, pairs)[0].mean()  # the input's effect is the whole gap
    errors = [abs(attribution_patching(model, pairs, steps=steps)[0].mean() - gap) for steps in (1, 32)]
    assert errors[1] < 0.05 * abs(gap)
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1"):
        attribution_patching(model, pairs, steps=0)
