"""Completeness and minimality on a model with twins, worked by hand.

Tokens are numbers x in dimension 0. Heads 0 and 1 attend evenly and write the mean of x to dimensions 1 and 2: twins.
Head 2 does so to dimension 4, which nobody reads. MLP 0 writes min(1, dim 1 + dim 2) to dimension 3, the metric. Clean
x = (1, 1), corrupted (0, 0): the metric is 1 as long as one twin is there, and 0 without both.
"""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import Graph, Pairs, completeness, minimality, run_circuits
from interp.circuits.criteria import circuit_nodes, without
from interp.models import TransformerConfig, build_model
from interp.tasks import Batch

GRAPH = Graph(1, 3)


@pytest.fixture(scope="module")
def twins():
    config = TransformerConfig(
        d_vocab=2,
        n_ctx=2,
        n_layers=1,
        n_heads=3,
        d_model=5,
        d_head=1,
        d_mlp=2,
        act_fn="relu",
        normalization_type=None,
        attention_dir="bidirectional",
        positional_embedding_type="none",
    )
    model: Any = build_model(config).eval()
    (block,) = model.blocks
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.W_E[1, 0] = 1.0
        for head, dim in enumerate((1, 2, 4)):
            block.attn.W_V[head, 0, 0] = block.attn.W_O[head, 0, dim] = 1.0
        block.mlp.W_in[[1, 2]] = 1.0
        block.mlp.fc_in.bias[1] = -1.0
        block.mlp.W_out[:, 3] = torch.tensor([1.0, -1.0])
        model.unembed.weight[0, 3] = 1.0
    return model


@pytest.fixture(scope="module")
def pairs():
    def batch(token: int) -> Batch:
        tokens = torch.full((1, 2), token)
        return Batch(tokens, tokens, torch.ones(1, 2, dtype=torch.bool), range(1))  # type: ignore[arg-type]

    return Pairs(
        task=SimpleNamespace(),  # type: ignore[arg-type]
        contrast="first token",
        clean=batch(1),
        corrupted=batch(0),
        positions=torch.tensor([[0, 1]]),
        clean_answer=torch.tensor([[0, 0]]),
        corrupted_answer=torch.tensor([[1, 1]]),
        weights=torch.tensor([[1.0, 0.0]]),
        groups=np.zeros(1, np.int64),
        redraw_rate=0.0,
    )


def circuit(*edges: str) -> np.ndarray:
    members = np.zeros_like(GRAPH.mask)
    for row, column in np.argwhere(GRAPH.mask):
        members[row, column] = GRAPH.edge(row, column).name in edges
    assert members.sum() == len(edges)
    return members


ONE = ("input->a0.h0<v>", "a0.h0->m0", "m0->logits")
BOTH = (*ONE, "input->a0.h1<v>", "a0.h1->m0")


def test_removing_nodes():
    left = without(GRAPH, circuit(*BOTH), ["a0.h0"])
    assert (left == circuit("input->a0.h1<v>", "a0.h1->m0", "m0->logits")).all()
    assert circuit_nodes(GRAPH, circuit(*ONE, "input->a0.h1<v>")) == ["a0.h0", "m0"]  # head 1 leads nowhere
    with pytest.raises(ValueError, match=r"the graph has no node 'a9.h0'"):
        without(GRAPH, GRAPH.mask, ["a9.h0"])


def test_one_twin_is_faithful_and_incomplete(twins, pairs):
    runs = run_circuits(twins, pairs, np.stack([circuit(*ONE), GRAPH.mask, np.zeros_like(GRAPH.mask)]))
    assert runs.m[:, 0] == pytest.approx([1, 1, 0])
    found = completeness(twins, pairs, circuit(*ONE), n_random=0, n_greedy=1)
    assert found.score == pytest.approx(1)
    assert found.nodes == ("a0.h0",)
    assert (found.circuit, found.model) == pytest.approx((0, 1))
    assert found.kinds[0] == "empty"
    assert found.differences[0] == pytest.approx(0)  # as faithful as can be


@pytest.mark.parametrize("edges", [BOTH, (*BOTH, "input->a0.h2<v>", "a0.h2->m0")])
def test_both_twins_are_complete(twins, pairs, edges):
    found = completeness(twins, pairs, circuit(*edges), n_random=6, n_greedy=2)
    assert found.score == pytest.approx(0, abs=1e-6)
    assert {"empty", "random", "greedy"} == set(found.kinds)


def test_minimality_sees_twins_and_idlers(twins, pairs):
    needs = {need.node: need for need in minimality(twins, pairs, GRAPH.mask, n_random=0)}
    assert set(needs) == {"a0.h0", "a0.h1", "a0.h2", "m0"}
    assert needs["m0"].score == needs["m0"].alone == pytest.approx(1)
    assert needs["m0"].given == ()
    for twin, other in (("a0.h0", "a0.h1"), ("a0.h1", "a0.h0")):
        assert needs[twin].alone == pytest.approx(0, abs=1e-6)
        assert needs[twin].score == pytest.approx(1)
        assert needs[twin].given == (other,)
    assert needs["a0.h2"].score == pytest.approx(0, abs=1e-6)
    assert minimality(twins, pairs, GRAPH.mask)[0].node == "a0.h2"  # the least needed first


def test_bad_input_is_refused(twins, pairs):
    with pytest.raises(ValueError, match=r"a circuit must be bool \[11, 5\], got bool \[1, 11, 5\]"):
        completeness(twins, pairs, GRAPH.mask[None])
    with pytest.raises(ValueError, match=r"a circuit must be bool \[11, 5\], got float64 \[11, 5\]"):
        completeness(twins, pairs, GRAPH.mask.astype(float))  # scores are no circuit
    same = Pairs(**{**vars(pairs), "corrupted": pairs.clean})
    with pytest.raises(ValueError, match="the same mean logit difference"):
        minimality(twins, same, GRAPH.mask)
