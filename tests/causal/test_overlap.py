"""Overlap, stability and agreement across seeds, on cases whose answer is known."""

from typing import Any

import numpy as np
import pytest

from interp.circuits import Graph, attention_patterns, draw_pairs, find_circuit
from interp.circuits.attention import AttentionSummary
from interp.circuits.overlap import (
    chance_jaccard,
    jaccard,
    matrices,
    mean_pairwise_jaccard,
    sharing,
    sharing_rows,
    stability,
)
from interp.studies.seeds import agreement, match_heads, renamed

from .conftest import random_model
from .test_circuits import SMALL


def test_jaccard_by_hand():
    assert jaccard({1, 2, 3}, {2, 3, 4}) == 0.5
    assert jaccard([], []) == 1
    assert chance_jaccard(10, 10, 100) == pytest.approx(1 / 19)
    rng = np.random.default_rng(0)
    drawn = [jaccard(rng.choice(60, 20, replace=False), rng.choice(60, 30, replace=False)) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(chance_jaccard(20, 30, 60), abs=0.01)


def test_pairwise_jaccard_is_one_for_identical_resamples_and_as_counted_otherwise():
    same = np.ones((5, 3, 4), dtype=bool)
    assert mean_pairwise_jaccard(same) == (1, 1, 1)
    sets = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]], dtype=bool)
    mean, _, _ = mean_pairwise_jaccard(sets)
    assert mean == pytest.approx((1 / 3 + 1 + 1 / 3) / 3)
    with pytest.raises(ValueError, match="at least 2 sets, got 1"):
        mean_pairwise_jaccard(same[:1])


def test_stability_of_copies_of_one_pair_is_whole(inplace):
    model, pairs = random_model(inplace), draw_pairs(inplace, "INC", 16, seed=0)
    spread = stability(model, pairs, size=12, steps=2, n_resamples=8)
    assert 0 < spread.jaccard < 1
    assert spread.jaccard > spread.chance
    one = pairs[:4]
    copies = type(one)(**{**vars(one)})
    twice = stability(model, _repeated(copies, 3), size=12, steps=2, n_resamples=6)
    assert twice.jaccard == 1
    assert set(np.unique(twice.kept)) <= {0.0, 1.0}


def _repeated(pairs, times):
    """The same pairs again and again."""
    from dataclasses import replace

    import torch

    from cython_vm import States
    from interp.tasks import Batch

    def batch(part: Any) -> Any:
        tokens, targets, mask = (torch.cat([each] * times) for each in (part.tokens, part.targets, part.loss_mask))
        return Batch(tokens, targets, mask, States.concatenate([part.examples] * times))

    again: dict[str, Any] = {
        name: torch.cat([getattr(pairs, name)] * times)
        for name in ("positions", "clean_answer", "corrupted_answer", "weights")
    }
    groups = np.concatenate([pairs.groups] * times)
    return replace(pairs, clean=batch(pairs.clean), corrupted=batch(pairs.corrupted), groups=groups, **again)


def test_sharing_names_what_all_use_and_what_one_uses(inplace):
    model = random_model(inplace)
    circuits = [find_circuit(model, inplace, op, config=SMALL) for op in ("INC", "GET")]
    found = sharing(circuits)
    edges = [{f"{e.source}->{e.target}" for e in circuit.edges if e.in_circuit} for circuit in circuits]
    assert set(found.shared()) == edges[0] & edges[1]
    assert set(found.own("GET")) == edges[1] - edges[0]
    row = next(row for row in sharing_rows(found) if row["granularity"] == "edge" and "control" not in row)
    assert row["estimate"] == pytest.approx(len(edges[0] & edges[1]) / len(edges[0] | edges[1]))


def shuffled(summary: AttentionSummary, heads: np.ndarray) -> AttentionSummary:
    """A model whose head h of layer l is the first one's head heads[l, h]."""
    layers = np.arange(len(heads))[:, None]
    assert summary.pattern is not None
    return AttentionSummary(
        summary.ops, summary.n, summary.position_names, summary.role_names,
        summary.pattern[:, layers, heads], summary.roles[:, layers, heads],
    )  # fmt: skip


def test_matching_recovers_a_permutation_of_heads(inplace):
    model = random_model(inplace, n_heads=4)
    summary = attention_patterns(model, inplace, ops=["INC", "GET"], n=8)
    heads = np.array([[2, 0, 3, 1], [1, 3, 2, 0]])
    matching = match_heads(summary, shuffled(summary, heads))
    assert (matching.heads == heads).all()
    np.testing.assert_allclose(matching.similarity, 1, atol=1e-6)

    circuit = find_circuit(model, inplace, "INC", config=SMALL)
    graph, members = Graph(2, 4), matrices(circuit)[1]
    back = np.argsort(heads, axis=1)
    other = renamed(graph, members, back)  # the second model's own names
    assert (renamed(graph, other, heads) == members).all()
    edges = tuple(
        _member(edge, bool(other[row, column]))
        for (row, column), edge in zip(np.argwhere(graph.mask), circuit.edges, strict=True)
    )
    from dataclasses import replace

    found = agreement(circuit, replace(circuit, edges=edges), matching, n_null=40)
    assert found.jaccard == 1
    assert found.null_mean < 1


def _member(edge, inside):
    from dataclasses import replace

    return replace(edge, in_circuit=inside)


def test_models_of_other_shapes_are_not_matched(inplace):
    two, four = (attention_patterns(random_model(inplace, n_heads=n), inplace, ops=["INC"], n=4) for n in (2, 4))
    with pytest.raises(ValueError, match="heads are matched between models of one shape"):
        match_heads(two, four)
