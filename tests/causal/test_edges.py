"""Edge methods on a two-head model worked by hand, and against each other on random ones.

The hand-set model has two layers of one head and works on two positions that hold numbers x. Dimension 0 of the stream
is x. Head 0 attends evenly and writes the mean of x to dimension 1; MLP 0 writes relu(dim 1 - 1) to dimension 3; head 1
attends in proportion to 2^x and writes the mean of dim 0 + dim 1 + dim 3 to dimension 2; MLP 1 writes nothing. The
metric is dim 1 + dim 2 at position 0.

    clean     x = (1, 2): head 0 = 1.5, MLP 0 = .5, head 1 = (1 (1 + 2) + 2 (2 + 2)) / 3 = 11/3, m = 31/6
    corrupted x = (3, 2): head 0 = 2.5, MLP 0 = 1.5, head 1 = (2 (3 + 4) + 1 (2 + 4)) / 3 = 20/3, m = 55/6
"""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import Graph, Pairs, draw_pairs, eap, eap_ig, exact_effects, node_effects, run_circuits
from interp.circuits.edges import edge_hooks, written
from interp.circuits.faithfulness import _run
from interp.models import TransformerConfig, build_model
from interp.tasks import Batch

from .conftest import random_model
from .test_patching import n_hooks

BY_HAND = {
    "input->a0.h0<v>": 3.0,  # head 0 = 2.5, so MLP 0 = 1.5 and head 1 = 17/3
    "input->a1.h0<k>": -1 / 3,  # attention 2/3, 1/3
    "input->a1.h0<v>": 2 / 3,  # values 5, 4
    "a0.h0->m0": 1.0,
    "a0.h0->a1.h0<v>": 1.0,
    "a0.h0->logits": 1.0,
    "m0->a1.h0<v>": 1.0,
    "a1.h0->logits": 3.0,
}


@pytest.fixture(scope="module")
def by_hand():
    config = TransformerConfig(
        d_vocab=4,
        n_ctx=2,
        n_layers=2,
        n_heads=1,
        d_model=4,
        d_head=1,
        d_mlp=1,
        act_fn="relu",
        normalization_type=None,
        attention_dir="bidirectional",
        positional_embedding_type="none",
    )
    model: Any = build_model(config).eval()
    first, second = model.blocks
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.W_E[:, 0] = torch.arange(4.0)  # token t is the number t
        first.attn.W_V[0, 0, 0] = first.attn.W_O[0, 0, 1] = 1.0
        first.mlp.W_in[1, 0] = first.mlp.W_out[0, 3] = 1.0
        first.mlp.fc_in.bias[0] = -1.0
        second.attn.b_Q[0, 0] = 1.0
        second.attn.W_K[0, 0, 0] = np.log(2.0)
        second.attn.W_V[0, [0, 1, 3], 0] = 1.0
        second.attn.W_O[0, 0, 2] = 1.0
        model.unembed.weight[0, [1, 2]] = 1.0
    return model


@pytest.fixture(scope="module")
def two_numbers():
    def batch(*tokens: int) -> Batch:
        return Batch(torch.tensor([tokens]), torch.tensor([tokens]), torch.ones(1, 2, dtype=torch.bool), range(1))  # type: ignore[arg-type]

    return Pairs(
        task=SimpleNamespace(),  # type: ignore[arg-type]
        contrast="first token",
        clean=batch(1, 2),
        corrupted=batch(3, 2),
        positions=torch.tensor([[0, 1]]),
        clean_answer=torch.tensor([[0, 0]]),
        corrupted_answer=torch.tensor([[1, 1]]),
        weights=torch.tensor([[1.0, 0.0]]),
        groups=np.zeros(1, np.int64),
        redraw_rate=0.0,
    )


def all_edges(graph):
    return [graph.edge(row, column) for row, column in np.argwhere(graph.mask)]


def test_metric_by_hand(by_hand, two_numbers):
    assert two_numbers.logit_difference(by_hand(two_numbers.clean.tokens)).item() == pytest.approx(31 / 6)
    assert two_numbers.logit_difference(by_hand(two_numbers.corrupted.tokens)).item() == pytest.approx(55 / 6)


def test_exact_effects_by_hand(by_hand, two_numbers):
    edges = all_edges(Graph(2, 1))
    effects = exact_effects(by_hand, two_numbers, edges)[:, 0]
    for edge, effect in zip(edges, effects, strict=True):
        assert effect == pytest.approx(BY_HAND.get(edge.name, 0.0), abs=1e-5), edge.name


def test_attribution_by_hand(by_hand, two_numbers):
    """Gradients at clean: all edges here are linear but relu (slope 1 between) and the softmax."""
    graph = Graph(2, 1)
    scores = eap(by_hand, two_numbers)
    for row, column in np.argwhere(graph.mask):
        edge = graph.edge(row, column)
        if edge.name != "input->a1.h0<k>":
            assert scores[row, column] == pytest.approx(BY_HAND.get(edge.name, 0.0), abs=1e-5), edge.name
        else:  # d/ds of the mean of values 3, 4 under weights 1/3, 2/3, times the change of the score, 2 ln 2
            assert scores[row, column] == pytest.approx(-(1 / 3) * (2 / 3) * 2 * np.log(2), abs=1e-5)


def test_circuit_runs_by_hand(by_hand, two_numbers):
    """The way through head 0 alone: head 1 and MLP 0 corrupted. m = 1.5 + 20/3; without the way to the logits, 55/6."""
    graph = Graph(2, 1)
    names = {graph.edge(row, column).name: (row, column) for row, column in np.argwhere(graph.mask)}
    circuit = np.zeros_like(graph.mask)
    for name in ("input->a0.h0<v>", "a0.h0->logits"):
        circuit[names[name]] = True
    dead_end = circuit.copy()
    dead_end[names["a0.h0->logits"]] = False
    runs = run_circuits(by_hand, two_numbers, np.stack([circuit, dead_end]))
    assert runs.m[:, 0] == pytest.approx([1.5 + 20 / 3, 55 / 6])


@pytest.fixture(scope="module")
def pairs(task):
    return draw_pairs(task, "INC", 12, seed=0)


def test_exact_effects_equal_circuit_runs_without_the_edge(model, pairs):
    """Two ways to the same number; only the second knows of whole circuits."""
    graph = Graph.of(model)
    edges = all_edges(graph)
    effects = exact_effects(model, pairs, edges, batch_size=40)
    without = np.repeat(graph.mask[None], len(edges) + 1, axis=0)
    for index, (row, column) in enumerate(np.argwhere(graph.mask)):
        without[index, row, column] = False
    runs = run_circuits(model, pairs, without)
    np.testing.assert_allclose(effects, runs.m[:-1] - runs.m[-1], atol=2e-4)
    assert np.abs(effects).max() > 0.01
    assert n_hooks(model) == 0


def test_full_empty_and_pruned_circuits(model, pairs):
    graph = Graph.of(model)
    rng = np.random.default_rng(0)
    some = graph.random(graph.n_edges // 3, n=5, rng=rng)
    ends = np.stack([np.zeros_like(graph.mask), graph.mask])
    runs = run_circuits(model, pairs, np.concatenate([some, ends]), batch_size=30)
    clean = pairs.logit_difference(model(pairs.clean.tokens)).detach().numpy()
    corrupted = pairs.logit_difference(model(pairs.corrupted.tokens)).detach().numpy()
    np.testing.assert_allclose(runs.m[-1], clean, atol=1e-4)
    np.testing.assert_allclose(runs.m[-2], corrupted, atol=1e-4)
    # what is pruned carries its corrupted value in any case: pruning changes nothing
    ablated, _ = written(model, graph, pairs.corrupted.tokens)
    excluded = torch.from_numpy(graph.mask & ~some).float()
    with torch.no_grad():
        unpruned = pairs.logit_difference(_run(model, graph, pairs.clean.tokens, excluded, ablated))
    assert (graph.prune(some).sum((1, 2)) < some.sum((1, 2))).any()
    np.testing.assert_allclose(runs.m[:5], unpruned, atol=2e-4)
    assert len(np.unique(runs.m[:5].mean(1).round(4))) > 1


def test_patching_every_writer_is_the_corrupted_run(model, pairs):
    graph = Graph.of(model)
    effects = node_effects(model, pairs)
    clean, logits = written(model, graph, pairs.clean.tokens)
    corrupted, logits_corrupted = written(model, graph, pairs.corrupted.tokens)
    gap = pairs.logit_difference(logits_corrupted) - pairs.logit_difference(logits)
    np.testing.assert_allclose(effects[0], gap.numpy(), atol=2e-4)  # all that differs comes in by the input
    # the stream is the sum of what was written, plus biases that cancel
    last = f"blocks.{graph.n_layers - 1}.hook_resid_post"
    streams = [model.run_with_cache(b.tokens)[1][last] for b in (pairs.clean, pairs.corrupted)]
    torch.testing.assert_close((corrupted - clean).sum(0), streams[1] - streams[0], atol=1e-4, rtol=1e-4)
    # a node at a time equals patching its output where it is written
    site = "blocks.0.hook_mlp_out"
    column = 1 + graph.n_heads
    with model.hooks(fwd_hooks=[(site, lambda act, hook: corrupted[column])]):
        by_hook = pairs.logit_difference(model(pairs.clean.tokens)) - pairs.logit_difference(logits)
    np.testing.assert_allclose(effects[column], by_hook.detach().numpy(), atol=2e-4)


def test_eap_ig_is_complete_in_the_limit(model, pairs):
    """Scores of the edges out of the input sum to m(corrupted) - m(clean), ever closer as steps grow."""
    graph = Graph.of(model)
    corrupted = pairs.logit_difference(model(pairs.corrupted.tokens)).mean().item()
    gap = corrupted - pairs.logit_difference(model(pairs.clean.tokens)).mean().item()
    sums = [eap_ig(model, pairs, steps=steps)[:, 0].sum() for steps in (1, 4, 64)]
    errors = np.abs(np.array(sums) - gap)
    assert errors[2] < 0.02 * abs(gap)
    assert errors[2] < errors[0]
    assert np.abs(eap(model, pairs)[~graph.mask]).max() == 0


def test_attribution_predicts_small_exact_effects(inplace):
    """Predicted against measured: with clean and corrupted a hair apart, EAP is exact."""
    model: Any = random_model(inplace)
    pairs = draw_pairs(inplace, "NEXT", 6, seed=1)
    graph = Graph.of(model)
    with torch.no_grad():  # the two states differ in tokens "0" and "1" alone: bring these together
        zero, one = (inplace.spec.token_id(name) for name in "01")
        model.embed.W_E[one] = model.embed.W_E[zero] + 1e-2 * (model.embed.W_E[one] - model.embed.W_E[zero])
    model.double()
    pairs = replace(pairs, weights=pairs.weights.double())
    scores = eap(model, pairs)[graph.mask]
    effects = exact_effects(model, pairs, all_edges(graph)).mean(1)
    assert np.abs(scores - effects).max() < 0.05 * np.abs(effects).max()
    assert np.corrcoef(scores, effects)[0, 1] > 0.999


def test_bad_input_is_refused(model, pairs):
    graph = Graph.of(model)
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        eap_ig(model, pairs, steps=0)
    with pytest.raises(ValueError, match="circuits must be bool"):
        run_circuits(model, pairs, graph.mask)
    with pytest.raises(ValueError, match="ablation must be one of resample, mean, zero; got 'noise'"):
        run_circuits(model, pairs, graph.mask[None], ablation="noise")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="mean ablation needs reference tokens"):
        run_circuits(model, pairs, graph.mask[None], ablation="mean")


def test_switches_and_hooks_are_put_back_after_an_error(model, pairs):
    switches = ("use_split_qkv_input", "use_attn_result", "use_hook_mlp_in")
    with edge_hooks(model):
        assert all(getattr(model.cfg, name) for name in switches)
    with pytest.raises(ValueError, match="tokens must be"), edge_hooks(model):
        model(torch.zeros(2, 3))
    assert not any(getattr(model.cfg, name) for name in switches)
    assert n_hooks(model) == 0
