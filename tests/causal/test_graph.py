"""Counts, names and paths of the graph."""

from dataclasses import replace

import numpy as np
import pytest

from interp.circuits import Edge, Graph, Reader, Writer
from interp.models import build_model
from interp.models.recurrent import GRU
from interp.models.state_configs import GRUConfig


@pytest.mark.parametrize(
    ("n_layers", "n_heads", "edges"), [(12, 12, 32491), (2, 4, 110), (4, 4, 479), (1, 1, 8), (2, 1, 23)]
)
def test_edge_counts(n_layers, n_heads, edges):
    graph = Graph(n_layers, n_heads)
    assert graph.n_edges == edges
    assert len(graph.writers) == 1 + n_layers * (n_heads + 1)
    assert len(graph.readers) == n_layers * (3 * n_heads + 1) + 1


def test_who_feeds_whom():
    graph = Graph(3, 2)
    for row, reader in enumerate(graph.readers):
        for column, writer in enumerate(graph.writers):
            written_in, read_in = -1 if writer.layer is None else writer.layer, reader.layer
            earlier = read_in is None or written_in < read_in
            same_layer = reader.kind == "mlp" and writer.kind == "head" and writer.layer == reader.layer
            assert graph.mask[row, column] == (earlier or same_layer), (reader, writer)


def test_names():
    edge = Edge(Writer("head", 0, 1), Reader("k", 2, 3))
    assert edge.name == "a0.h1->a2.h3<k>"
    assert Edge(Writer("mlp", 1), Reader("logits")).name == "m1->logits"
    with pytest.raises(ValueError, match=r"no edge m1->a0\.h0<q>"):
        Graph(2, 1).edge(0, 4)


def members(graph: Graph, *names: str) -> np.ndarray:
    edges = {graph.edge(r, c).name: (r, c) for r, c in np.argwhere(graph.mask)}
    mask = np.zeros_like(graph.mask)
    for name in names:
        mask[edges[name]] = True
    return mask


def test_pruning_keeps_paths_only():
    graph = Graph(2, 2)
    path = ["input->a0.h1<v>", "a0.h1->m0", "m0->a1.h0<q>", "a1.h0->logits"]
    unreached = ["a0.h0->m0", "a1.h1->m1", "m1->logits"]
    useless = ["input->a1.h1<k>", "input->m1"]
    circuits = np.stack([members(graph, *path, *unreached[:1], *useless[:1]), members(graph, *unreached, *path[:3])])
    pruned = graph.prune(circuits)
    assert (pruned[0] == members(graph, *path)).all()
    assert not pruned[1].any()
    assert (graph.prune(graph.mask) == graph.mask).all()


def test_top_and_random_have_the_size_asked_for():
    graph = Graph(2, 2)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=graph.mask.shape)
    for n_edges in (0, 1, 7, graph.n_edges):
        top = graph.top(scores, n_edges)
        assert top.sum() == n_edges
        assert not (top & ~graph.mask).any()
        if 0 < n_edges < graph.n_edges:
            assert scores[top].min() > scores[graph.mask & ~top].max()
    random = graph.random(10, n=400, rng=rng)
    assert (random.sum(axis=(1, 2)) == 10).all()
    frequency = random.mean(axis=0)[graph.mask]  # each edge in 10 of n_edges draws, within 5 standard deviations
    expected = 10 / graph.n_edges
    assert np.abs(frequency - expected).max() < 5 * np.sqrt(expected / 400)


def test_models_without_a_graph_are_refused(model):
    assert Graph.of(model) == Graph(2, 2)
    recurrent = GRU(GRUConfig(d_vocab=5, n_ctx=6))
    assert recurrent.graph() is None and recurrent.fast_pass() is None
    with pytest.raises(ValueError, match="attention heads and MLPs; this one, 'gru', has no graph"):
        Graph.of(recurrent)
    attention_only = build_model(replace(model.cfg, attn_only=True))
    with pytest.raises(ValueError, match="this one, 'transformer', has no graph"):
        Graph.of(attention_only)
