"""The greedy search: worked by hand on the model of test_edges, and against a slow sequential one on random models."""

from typing import Any

import numpy as np
import pytest

from interp.circuits import Graph, acdc, acdc_scores, draw_pairs, exact_effects, run_circuits
from interp.circuits.search import Search

from .conftest import random_model
from .test_edges import BY_HAND, by_hand, two_numbers  # noqa: F401  # fixtures
from .test_patching import n_hooks

CLEAN_M = 31 / 6


def names(graph: Graph, kept: np.ndarray) -> set[str]:
    return {graph.edge(row, column).name for row, column in np.argwhere(kept)}


@pytest.mark.parametrize(
    ("tau", "dropped", "m"),
    [
        (0.1, set(), CLEAN_M),
        (0.5, {"input->a1.h0<k>"}, CLEAN_M - 1 / 3),
        # without its own x, head 1 has values 5 and 4 to weigh, so that the key edge, tried next, is worth + 1/3
        (0.8, {"input->a1.h0<v>", "input->a1.h0<k>"}, CLEAN_M + 2 / 3 + 1 / 3),
        (1.5, set(BY_HAND), 55 / 6),  # only head 1 -> logits moves m by more, and nothing reaches head 1 then
    ],
)
def test_search_by_hand(by_hand, two_numbers, tau, dropped, m):  # noqa: F811
    graph = Graph(2, 1)
    found = acdc(by_hand, two_numbers, tau=tau)
    assert names(graph, found.kept) == set(BY_HAND) - dropped
    assert found.m[0] == pytest.approx(m, abs=1e-5)
    changes = {graph.edge(r, c).name: found.change[r, c] for r, c in np.argwhere(~np.isnan(found.change))}
    assert changes["a1.h0->logits"] == pytest.approx(3, abs=1e-5)
    assert changes["m0->logits"] == pytest.approx(0, abs=1e-5)
    assert "input->m1" not in changes  # MLP 1 writes nothing that is kept: its edges go untried


def test_scores_are_the_largest_tau_survived(by_hand, two_numbers):  # noqa: F811
    graph = Graph(2, 1)
    scores = acdc_scores(by_hand, two_numbers, taus=[0.8, 0.1, 0.5])
    expected = dict.fromkeys(BY_HAND, 0.8) | {"input->a1.h0<k>": 0.1, "input->a1.h0<v>": 0.5}
    for row, column in np.argwhere(graph.mask):
        edge = graph.edge(row, column).name
        assert scores[row, column] == expected.get(edge, 0.0), edge


def sequential(model: Any, pairs: Any, tau: float, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """The procedure as it is told: one whole run an edge, nothing batched, nothing skipped."""
    graph = Graph.of(model)
    kept = graph.mask.copy()
    m = run_circuits(model, pairs, kept[None], **options).m[0]
    for row in reversed(range(len(graph.readers))):
        for column in reversed(range(graph.n_sources(graph.readers[row]))):
            trial = kept.copy()
            trial[row, column] = False
            found = run_circuits(model, pairs, trial[None], **options).m[0]
            if np.abs(found - m).mean() < tau:
                kept, m = trial, found
    return graph.prune(kept), m


@pytest.mark.parametrize(("ablation", "batch_size", "factor"), [("resample", 3, 1), ("mean", 64, 10), ("zero", 64, 50)])
def test_batched_guesses_decide_as_the_sequential_search_does(inplace, ablation, batch_size, factor):
    model = random_model(inplace)
    pairs = draw_pairs(inplace, "INC", 4, seed=3)
    options: dict[str, Any] = {"ablation": ablation, "reference": inplace.sample(20, seed=1).tokens}
    graph = Graph.of(model)
    edges = [graph.edge(row, column) for row, column in np.argwhere(graph.mask)]
    tau = factor * float(np.median(np.abs(exact_effects(model, pairs, edges)).mean(1)))
    kept, m = sequential(model, pairs, tau, **options)
    found: Search = acdc(model, pairs, tau=tau, batch_size=batch_size, **options)
    assert names(graph, found.kept) == names(graph, kept)
    assert 3 < kept.sum() < graph.n_edges - 3
    np.testing.assert_allclose(found.m, m, atol=1e-4)
    np.testing.assert_allclose(found.m, run_circuits(model, pairs, found.kept[None], **options).m[0], atol=1e-4)
    assert (found.change[found.kept] > tau * 0.999).all()
    assert n_hooks(model) == 0


def test_bad_input_is_refused(by_hand, two_numbers):  # noqa: F811
    with pytest.raises(ValueError, match="tau must be above 0, in logits; got 0"):
        acdc(by_hand, two_numbers, tau=0)
    with pytest.raises(ValueError, match="taus must name at least one threshold"):
        acdc_scores(by_hand, two_numbers, taus=[])
    with pytest.raises(ValueError, match="ablation must be one of resample, mean, zero; got 'noise'"):
        acdc(by_hand, two_numbers, tau=1.0, ablation="noise")  # type: ignore[arg-type]
