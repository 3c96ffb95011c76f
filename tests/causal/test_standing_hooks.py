"""Every method measures the model as it stands: a head switched off by a hook is a head switched off by its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import (
    Graph,
    acdc,
    acdc_scores,
    attention_patterns,
    attribution_patching,
    completeness,
    draw_pairs,
    eap,
    eap_ig,
    eap_ig_by_position,
    exact_by_position,
    exact_effects,
    head_roles,
    minimality,
    node_effects,
    parse_path,
    path_effects,
    run_circuits,
    stability,
)
from interp.circuits.parts import Ablator, attribution_matrices, level_hooks, mean_activations, node_losses
from interp.circuits.positions import PlacedEdge
from interp.studies.dissociation import DissociationConfig, dissociate

from .conftest import random_model
from .test_patching import n_hooks

GRAPH = Graph(2, 2)
HEAD = [writer.name for writer in GRAPH.writers].index("a1.h0")
EDGES = [GRAPH.edge(row, column) for row, column in np.argwhere(GRAPH.mask)]
OF_HEAD = [edge for edge in EDGES if edge.source == GRAPH.writers[HEAD]]
CIRCUIT = GRAPH.random(18, n=3, rng=np.random.default_rng(0)) | GRAPH.random_paths(
    18, n=3, rng=np.random.default_rng(0)
)
Measure = Callable[[Any, Any], Any]


def paths(model: Any, pairs: Any) -> list[np.ndarray]:
    names = ("input->a0.h1<v>->logits", "input->a1.h0<q>->logits", "m0->a1.h1<k>->m1->logits")
    return [path_effects(model, pairs, [parse_path(GRAPH, name)]) for name in names]


def placed(model: Any, pairs: Any) -> np.ndarray:
    return exact_by_position(model, pairs, [PlacedEdge(edge, "cells") for edge in EDGES[::4]])


def parts(model: Any, pairs: Any) -> list[Any]:
    found = []
    for level in ("neuron", "subspace"):
        hooks = level_hooks(model, level)
        ablator = Ablator(model, pairs, hooks, ablation="resample")
        found += list(attribution_matrices(ablator, hooks, steps=2).values())
        found += [ablator.m_clean, ablator.m_corrupted]
    nodes = level_hooks(model, "node")
    means = mean_activations(model, pairs.clean.tokens, nodes)
    return [*found, node_losses(Ablator(model, pairs, nodes, ablation="mean", means=means))]


METHODS: dict[str, Measure] = {
    "eap": eap,
    "eap_ig": lambda model, pairs: eap_ig(model, pairs, steps=3),
    "exact_effects": lambda model, pairs: exact_effects(model, pairs, EDGES),
    "attribution_patching": lambda model, pairs: attribution_patching(model, pairs, steps=2),
    "node_effects": node_effects,
    "run_circuits": lambda model, pairs: run_circuits(model, pairs, CIRCUIT, ablation="zero").m,
    "acdc": lambda model, pairs: acdc(model, pairs, tau=0.1).change,
    "acdc_scores": lambda model, pairs: acdc_scores(model, pairs, taus=[0.01, 0.03, 0.1, 0.3, 1.0]),
    "path_effects": paths,
    "eap_ig_by_position": lambda model, pairs: eap_ig_by_position(model, pairs, steps=2)[0],
    "exact_by_position": placed,
    "stability": lambda model, pairs: stability(model, pairs, size=9, steps=1, n_resamples=3, group=2).kept,
    "completeness": lambda model, pairs: completeness(model, pairs, CIRCUIT[0], n_random=2, n_greedy=0).differences,
    "minimality": lambda model, pairs: sorted(
        (need.node, need.score) for need in minimality(model, pairs, CIRCUIT[0], n_random=0)
    ),
}
OF_PARTS: dict[str, Measure] = {
    "parts": parts,
    "attention_patterns": lambda model, pairs: attention_patterns(model, pairs.task, ops=["INC"], n=12).pattern,
    "dissociate": lambda model, pairs: dissociate(
        model, pairs.task, ops=["INC", "PUT"], level="neuron",
        config=DissociationConfig(n_neurons=4, n_pairs=4, steps=1, n_null=2),
    ).null_loss,
    "head_roles": lambda model, pairs: [
        role.score for role in head_roles(model, pairs.task, "INC", heads=[(1, 0), (1, 1)], n=10, variables=["operand"])
    ],
}  # fmt: skip


@contextmanager
def standing(model: Any, name: str, hook: Callable) -> Iterator[None]:
    model.add_perma_hook(name, hook)
    try:
        yield
    finally:
        model.reset_hooks(including_permanent=True)


def switch_off(z: torch.Tensor, hook: Any) -> torch.Tensor:
    z = z.clone()
    z[:, :, 0] = 0
    return z


@pytest.fixture(scope="module")
def hooked(inplace):
    return random_model(inplace)


@pytest.fixture(scope="module")
def by_weights(hooked):
    without = copy.deepcopy(hooked)
    with torch.no_grad():
        without.blocks[1].attn.W_O[0] = 0
    return without


@pytest.fixture(scope="module")
def pairs(inplace):
    return draw_pairs(inplace, "INC", 6, seed=0)


def assert_same(ours: Any, theirs: Any) -> None:
    if isinstance(ours, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_same(one, other)
    elif isinstance(ours, str):
        assert ours == theirs
    else:
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("name", [*METHODS, *OF_PARTS])
def test_a_hooked_model_is_measured_with_its_hook(hooked, by_weights, pairs, name, monkeypatch):
    monkeypatch.setattr("interp.circuits.head_swaps._LEADING", 0.0)  # an untrained model leads with no answer
    measure = {**METHODS, **OF_PARTS}[name]
    before, theirs = measure(hooked, pairs), measure(by_weights, pairs)
    with standing(hooked, "blocks.1.attn.hook_z", switch_off):
        ours = measure(hooked, pairs)
    assert_same(ours, theirs)
    if name not in ("attention_patterns", "stability"):  # the hook is felt: else nothing would be tested
        with pytest.raises(AssertionError):
            assert_same(ours, before)
    assert n_hooks(hooked) == 0
    assert_same(measure(hooked, pairs), before)


def test_edges_of_a_head_that_is_switched_off_carry_nothing(hooked, pairs):
    with standing(hooked, "blocks.1.attn.hook_z", switch_off):
        assert np.abs(eap(hooked, pairs)[:, HEAD]).max() == 0
        assert np.abs(exact_effects(hooked, pairs, OF_HEAD)).max() == 0
        assert np.abs(attribution_patching(hooked, pairs)[HEAD]).max() == 0


def test_what_a_hook_replaces_passes_no_gradient_on(hooked, pairs):
    """An MLP that a hook makes a constant: edges into it are worth nothing, and edges out of it carry nothing."""
    rows = [row for row, reader in enumerate(GRAPH.readers) if reader.node == "m0"]
    column = [writer.name for writer in GRAPH.writers].index("m0")
    with standing(hooked, "blocks.0.hook_mlp_out", lambda out, hook: torch.ones_like(out)):
        scores = eap_ig(hooked, pairs, steps=2)
        nodes = attribution_patching(hooked, pairs)
        exact = exact_effects(hooked, pairs, [GRAPH.edge(rows[0], 0)])
    assert np.abs(scores[rows]).max() == 0 and np.abs(scores[:, column]).max() == 0
    assert np.abs(nodes[column]).max() == 0
    assert np.abs(exact).max() < 1e-5
    assert np.abs(scores).max() > 0.01


@pytest.mark.parametrize("point", ["hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out"])
@pytest.mark.parametrize("name", list(METHODS))
def test_a_hook_between_nodes_is_refused(hooked, pairs, name, point):
    with (
        standing(hooked, f"blocks.1.{point}", lambda activation, hook: 2 * activation),
        pytest.raises(ValueError, match=rf"a hook stands on blocks\.1\.{point}, between the nodes of the graph"),
    ):
        METHODS[name](hooked, pairs)


def test_pytorch_s_own_hooks_count_too(hooked, by_weights, pairs):
    """A hook at an MLP is part of that node; one on a whole block stands between nodes."""
    handle = hooked.blocks[0].mlp.register_forward_hook(lambda module, args, out: 0 * out)
    without = copy.deepcopy(by_weights)
    without.load_state_dict(hooked.state_dict())
    with torch.no_grad():
        without.blocks[0].mlp.fc_out.weight.zero_()
        without.blocks[0].mlp.fc_out.bias.zero_()
    try:
        assert hooked.fast_pass() is None
        assert_same(exact_effects(hooked, pairs, EDGES), exact_effects(without, pairs, EDGES))
        assert_same(eap_ig(hooked, pairs, steps=2), eap_ig(without, pairs, steps=2))
    finally:
        handle.remove()
    assert hooked.fast_pass() is not None
    handle = hooked.blocks[0].register_forward_hook(lambda module, args, out: 2 * out)
    try:
        with pytest.raises(ValueError, match=r"a hook stands on blocks\.0, between the nodes"):
            eap(hooked, pairs)
    finally:
        handle.remove()


@pytest.mark.parametrize("name", ["eap", "eap_ig", "attribution_patching", "eap_ig_by_position", "stability", "parts"])
def test_gradients_are_switched_on_where_they_are_needed(hooked, pairs, name):
    measure = {**METHODS, **OF_PARTS}[name]
    expected = measure(hooked, pairs)
    with torch.set_grad_enabled(False):
        assert_same(measure(hooked, pairs), expected)
        with standing(hooked, "blocks.1.mlp.hook_post", lambda post, hook: post + 0):
            assert_same(measure(hooked, pairs), expected)
        assert not torch.is_grad_enabled()
