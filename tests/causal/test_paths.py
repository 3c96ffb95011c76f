"""Path patching and edges resolved by position, against exact patching and against themselves."""

from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import Graph, draw_pairs, eap_ig, exact_effects
from interp.circuits.paths import Path, all_paths, parse_path, path_effects
from interp.circuits.positions import PlacedEdge, disjoint_sets, eap_ig_by_position, exact_by_position, position_rows

from .conftest import random_model
from .test_patching import n_hooks


@pytest.fixture(scope="module", params=["plain", "rotary"])
def model(request, inplace) -> Any:
    if request.param == "plain":
        return random_model(inplace, n_layers=2, n_heads=1)
    from interp.models import TransformerConfig, build_model

    config = TransformerConfig(
        d_vocab=inplace.spec.d_vocab,
        n_ctx=inplace.n_ctx,
        n_layers=2,
        n_heads=1,
        d_model=16,
        attention_dir="bidirectional",
        positional_embedding_type="block",
        position_roles=inplace.position_roles,
        position_indices=inplace.position_indices,
        rotary_dim=4,
        init_range=0.5,
    )
    return build_model(config).eval()


@pytest.fixture(scope="module")
def pairs(inplace):
    return draw_pairs(inplace, "PUT", 6, seed=1)


def m_of(model, pairs, batch):
    with torch.no_grad():
        return pairs.logit_difference(model(batch.tokens)).double().numpy()


def test_all_paths_from_the_input_are_the_corrupted_run(model, pairs):
    graph = Graph.of(model)
    paths = list(all_paths(graph, graph.writers[0]))
    found = path_effects(model, pairs, paths)
    expected = m_of(model, pairs, pairs.corrupted) - m_of(model, pairs, pairs.clean)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(expected).max() > 0.02
    assert n_hooks(model) == 0


def test_all_paths_from_a_node_are_the_node_patched(model, pairs):
    graph = Graph.of(model)
    head = graph.writers[1]
    with torch.no_grad():
        _, cache = model.run_with_cache(pairs.corrupted.tokens, return_cache_object=False)
        patch = ("blocks.0.attn.hook_z", lambda activation, hook: cache[hook.name])
        with model.hooks(fwd_hooks=[patch]):
            patched = pairs.logit_difference(model(pairs.clean.tokens)).double().numpy()
    found = path_effects(model, pairs, list(all_paths(graph, head)))
    np.testing.assert_allclose(found, patched - m_of(model, pairs, pairs.clean), atol=1e-5)


def test_one_edge_into_the_logits_is_exact_edge_patching(model, pairs):
    graph = Graph.of(model)
    last = len(graph.readers) - 1
    for column in range(len(graph.writers)):
        edge = graph.edge(last, column)
        found = path_effects(model, pairs, [Path(edge.source, (edge.target,))])
        np.testing.assert_allclose(found, exact_effects(model, pairs, [edge])[0], atol=1e-5)


def test_a_path_through_a_node_is_what_the_node_passes_on(model, pairs):
    """input->m1->logits by hand: the last MLP recomputed from an input with the embedding's part corrupted."""
    graph = Graph.of(model)
    path = parse_path(graph, "input->m1->logits")
    assert path.name == "input->m1->logits"
    with torch.no_grad():
        _, clean = model.run_with_cache(pairs.clean.tokens, return_cache_object=False)
        _, corrupted = model.run_with_cache(pairs.corrupted.tokens, return_cache_object=False)
        pre = "blocks.0.hook_resid_pre"
        block = model.blocks[1]
        out = block.mlp(block.ln2(clean["blocks.1.hook_resid_mid"] + corrupted[pre] - clean[pre]))
        final = clean["blocks.1.hook_resid_mid"] + out
        expected = pairs.logit_difference(model.unembed(model.ln_final(final))).double().numpy()
    np.testing.assert_allclose(
        path_effects(model, pairs, [path]), expected - m_of(model, pairs, pairs.clean), atol=1e-4
    )


def test_paths_are_parsed_or_refused():
    graph = Graph(2, 2)
    path = parse_path(graph, "input -> a0.h1<k> -> m1 -> logits")
    assert path.name == "input->a0.h1<k>->m1->logits"
    for text, message in {
        "a0.h1->m1": "a path ends at the logits",
        "nowhere->logits": "a path starts at a node",
        "input->a0.h1->logits": "such as a0.h1<q>",
        "m1->a0.h0<q>->logits": "m1 does not feed a0.h0<q>",
    }.items():
        with pytest.raises(ValueError, match=message):
            parse_path(graph, text)
    assert len(list(all_paths(Graph(1, 1), Graph(1, 1).writers[0]))) == 8
    with pytest.raises(ValueError, match="at least one path"):
        path_effects(None, None, [])  # type: ignore[arg-type]


def test_scores_by_position_add_up(model, pairs):
    by_position, sets = eap_ig_by_position(model, pairs, steps=2)
    assert by_position.shape[2] == len(sets)
    np.testing.assert_allclose(by_position.sum(-1), eap_ig(model, pairs, steps=2), atol=1e-5)


def test_position_sets_hold_each_position_once(task):
    slots = sorted(slot for some in disjoint_sets(task).values() for slot in some)
    assert slots == list(range(task.n_ctx))


def test_an_edge_into_the_logits_moves_the_answer_at_its_own_positions_alone(model, pairs):
    """The metric is a sum over positions, and the final norm works position by position, so effects add up there."""
    graph = Graph.of(model)
    edge = graph.edge(len(graph.readers) - 1, 2)
    placed = [PlacedEdge(edge, name) for name in disjoint_sets(pairs.task)]
    parts = exact_by_position(model, pairs, placed)
    np.testing.assert_allclose(parts.sum(0), exact_effects(model, pairs, [edge])[0], atol=1e-5)
    rows = position_rows(model, pairs, steps=2, n_exact=3)
    assert len(rows) == 6
    assert all(row["position"] in disjoint_sets(pairs.task) for row in rows)
