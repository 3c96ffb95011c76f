"""Circuits of an encoder–decoder: its graph counted and held against what its blocks compute, edges by brute force."""

from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import Graph, draw_pairs, eap_ig, exact_effects, incompleteness, run_circuits
from interp.circuits.edges import edge_hooks, written
from interp.circuits.paths import all_paths, path_effects
from interp.circuits.search import acdc
from interp.models import build_model
from interp.models.encoder_decoder_config import EncoderDecoderConfig
from interp.models.two_sided_graph import TwoSidedGraph
from interp.tasks import TASKS
from tests.causal.conftest import SPEC


def two_sided(**sizes: Any) -> Any:
    task = TASKS["step"](SPEC)
    fields = {"n_layers": 3, "n_encoder": 1, "n_heads": 2, "d_model": 16, "use_bias": False} | sizes
    cfg = EncoderDecoderConfig(
        d_vocab=SPEC.d_vocab,
        n_ctx=task.n_ctx,
        n_prompt=SPEC.state_length,
        qk_norm=True,
        positional_embedding_type="block",
        position_roles=task.position_roles,
        position_indices=task.position_indices,
        init_range=0.5,
        dtype="float64",
        **fields,
    )
    return build_model(cfg).eval()


@pytest.fixture(scope="module")
def sides():
    return two_sided()


@pytest.fixture(scope="module")
def pairs():
    return draw_pairs(TASKS["step"](SPEC), "INC", 6, seed=0)


@pytest.mark.parametrize(("n_encoder", "n_decoder", "n_heads"), [(1, 1, 1), (1, 2, 2), (3, 2, 4)])
def test_counts(n_encoder, n_decoder, n_heads):
    """The formulas of two_sided_graph.py; of (1, 1, 1) by hand: 6 writers, 4 + 7 + 1 readers; edges, reader by reader:
    a0 q k v 1 each, m0 2; a1 q k v 1 each, c1 q 2 and k v 3 each, m1 3, logits 4."""
    graph = TwoSidedGraph(n_encoder + n_decoder, n_heads, n_encoder=n_encoder, n_prompt=5)
    assert len(graph.writers) == 1 + n_encoder * (n_heads + 1) + n_decoder * (2 * n_heads + 1)
    assert len(graph.readers) == n_encoder * (3 * n_heads + 1) + n_decoder * (6 * n_heads + 1) + 1
    memory, edges = 1 + n_encoder * (n_heads + 1), 0
    for layer in range(n_encoder):
        before = 1 + layer * (n_heads + 1)
        edges += 3 * n_heads * before + before + n_heads
    for layer in range(n_decoder):
        before = 1 + layer * (2 * n_heads + 1)
        edges += 3 * n_heads * before + n_heads * (before + n_heads) + 2 * n_heads * memory + before + 2 * n_heads
    edges += 1 + n_decoder * (2 * n_heads + 1)
    assert graph.n_edges == edges
    if (n_encoder, n_decoder, n_heads) == (1, 1, 1):
        assert (len(graph.writers), len(graph.readers), edges) == (6, 12, 3 + 2 + 3 + 2 + 6 + 3 + 4)
    if (n_encoder, n_decoder, n_heads) == (3, 2, 4):  # step_encoder_decoder
        assert (len(graph.writers), len(graph.readers), edges) == (34, 90, 756)
    assert len({writer.name for writer in graph.writers}) == len(graph.writers)
    assert len({reader.name for reader in graph.readers}) == len(graph.readers)


def test_what_a_reader_reads_is_what_its_sources_write(sides, pairs):
    """Every reader's input, caught at its hook, is the sum of what the writers that feed it by the graph write."""
    graph, tokens, caught = Graph.of(sides), pairs.clean.tokens, {}
    writes, _ = written(sides, graph, tokens)
    names = [place.hook for place in graph.reader_places]
    with (
        edge_hooks(sides),
        sides.hooks(fwd_hooks=[(n, lambda act, hook: caught.__setitem__(hook.name, act)) for n in names]),
    ):
        sides(tokens)
    for place in graph.reader_places:
        for row in range(place.nodes.start, place.nodes.stop):
            read = caught[place.hook]
            read = read[:, :, row - place.nodes.start] if read.ndim == 4 else read
            expected = writes[torch.from_numpy(graph.mask[row])].sum(0)[:, place.positions]
            torch.testing.assert_close(read, expected, atol=1e-12, rtol=0)
            assert writes[torch.from_numpy(graph.mask[row])][:, :, place.positions].flatten(1).any(1).all()


def brute_force(model, graph, pairs, edge) -> np.ndarray:
    """The metric of one whole pass in which one reader reads one writer's corrupted value in place of its own."""
    place, column = graph.reader_place(edge.target), graph.writers.index(edge.source)
    change = (written(model, graph, pairs.corrupted.tokens)[0] - written(model, graph, pairs.clean.tokens)[0])[column]

    def move(activation, hook):
        target = activation if edge.target.head is None else activation[:, :, edge.target.head]
        target += change[:, place.positions]
        return activation

    with edge_hooks(model), torch.no_grad():
        logits = model.run_with_hooks(pairs.clean.tokens, fwd_hooks=[(place.hook, move)])
    return pairs.logit_difference(logits).numpy()


def test_exact_effects_and_circuits_equal_brute_force(sides, pairs):
    graph = Graph.of(sides)
    edges = [graph.edge(row, column) for row, column in np.argwhere(graph.mask)]
    clean = pairs.logit_difference(sides(pairs.clean.tokens).detach()).numpy()
    effects = exact_effects(sides, pairs, edges)
    for edge, effect in list(zip(edges, effects, strict=True))[::5]:
        np.testing.assert_allclose(effect, brute_force(sides, graph, pairs, edge) - clean, atol=1e-6)
    crossing = [i for i, edge in enumerate(edges) if edge.target.kind == "cross_v" and edge.source.name == "m0"]
    assert crossing and (np.abs(effects[crossing]).max(axis=1) > 1e-4).all()
    some = [i for i, edge in enumerate(edges) if edge.target.kind in ("logits", "cross_k", "cross_v", "q")][::3]
    without = np.repeat(graph.mask[None], len(some), axis=0)
    for row, i in enumerate(some):
        without[row, graph.readers.index(edges[i].target), graph.writers.index(edges[i].source)] = False
    m = run_circuits(sides, pairs, without).m
    np.testing.assert_allclose(m - clean, effects[some], atol=1e-5)


def test_no_edge_is_the_corrupted_run_and_every_path_too(sides, pairs):
    graph = Graph.of(sides)
    with torch.no_grad():
        clean, corrupted = (pairs.logit_difference(sides(b.tokens)).numpy() for b in (pairs.clean, pairs.corrupted))
    m = run_circuits(sides, pairs, np.stack([np.zeros_like(graph.mask), graph.mask])).m
    np.testing.assert_allclose(m, [corrupted, clean], atol=1e-9)
    small = two_sided(n_layers=2, n_heads=1)
    with torch.no_grad():
        gap = [pairs.logit_difference(small(b.tokens)).numpy() for b in (pairs.corrupted, pairs.clean)]
    paths = list(all_paths(Graph.of(small), Graph.of(small).writers[0]))
    np.testing.assert_allclose(path_effects(small, pairs, paths), gap[0] - gap[1], atol=1e-9)
    mean = run_circuits(sides, pairs, graph.mask[None], ablation="mean", reference=pairs.corrupted.tokens).m[0]
    np.testing.assert_allclose(mean, clean, atol=1e-9)
    zero = run_circuits(sides, pairs, np.zeros_like(graph.mask)[None], ablation="zero").m[0]
    assert np.isfinite(zero).all() and np.abs(zero - clean).max() > 1e-3


def test_integrated_gradients_account_for_the_gap(sides, pairs):
    graph, scores = Graph.of(sides), eap_ig(sides, pairs, steps=24)
    assert not scores[~graph.mask].any()
    assert incompleteness(sides, pairs, scores) < 0.02
    coarse = eap_ig(sides, pairs, steps=2)
    assert incompleteness(sides, pairs, scores) < incompleteness(sides, pairs, coarse)


def test_acdc_drops_what_does_nothing(sides, pairs):
    found = acdc(sides, pairs, tau=0.002)
    m = run_circuits(sides, pairs, found.kept[None]).m[0]
    np.testing.assert_allclose(m, found.m, atol=1e-9)
    assert 0 < found.kept.sum() < Graph.of(sides).n_edges
