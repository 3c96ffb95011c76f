"""Edge methods take the model apart: held against hooks on its per-head inputs, for every kind of transformer."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import Graph, draw_pairs, eap_ig, exact_effects
from interp.circuits.edges import edge_hooks, written
from interp.circuits.readout import Readout
from interp.models import build_model
from interp.models.fast_pass import spread, take

from .conftest import random_model
from .test_patching import n_hooks

_UNTURNED = {"index_init": "normal", "rotary_dim": 0}
VARIATIONS: dict[str, dict[str, Any]] = {
    "as trained": {},
    "LayerNorm": {"normalization_type": "LN"},
    "no norm, no biases": {"normalization_type": None, "use_bias": False, "qk_norm": False},
    "rotary": {"rotary_dim": 4},
    "rotary alone": {"positional_embedding_type": "block_rotary", "qk_norm": False},
    "ALiBi": {"positional_embedding_type": "alibi", "position_roles": (), "position_indices": (), **_UNTURNED},
    "PaTH": {"positional_embedding_type": "path", "position_roles": (), "position_indices": (), **_UNTURNED},
    "gated MLP, ReLU": {"gated_mlp": True, "act_fn": "relu"},
}


@pytest.fixture(scope="module", params=list(VARIATIONS))
def varied(request, task):
    changes = VARIATIONS[request.param]
    config = replace(random_model(task).cfg, **changes)
    model = build_model(config).eval()
    with torch.no_grad():  # gains and biases that matter
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name)))
    return model.double()


@pytest.fixture(scope="module")
def pairs(task):
    drawn = draw_pairs(task, "INC", 7, seed=0)
    return replace(drawn, weights=drawn.weights.double())


@torch.no_grad()
def hooked_effect(model, graph, pairs, edge, difference):
    """One full pass with one hook on the reader's own input."""

    def move(activation, hook):
        target = activation if edge.target.head is None else activation[:, :, edge.target.head]
        target += difference[graph.writers.index(edge.source)]
        return activation

    with edge_hooks(model):
        hook = graph.reader_place(edge.target).hook
        return pairs.logit_difference(model.run_with_hooks(pairs.clean.tokens, fwd_hooks=[(hook, move)]))


def hooked_gradients(model, graph, pairs, embedding):
    """dm/d(in_v) [reader, batch, pos, d_model] by backpropagation to hooks on every reader's input."""
    kept: dict[str, torch.Tensor] = {}
    names = [place.hook for place in graph.reader_places]
    with (
        edge_hooks(model),
        model.hooks(fwd_hooks=[(name, lambda act, hook: kept.__setitem__(hook.name, act)) for name in names]),
    ):
        m = pairs.logit_difference(model(embedding.requires_grad_(), start_at_layer=0)).sum()
        found = torch.autograd.grad(m, [kept[name] for name in names])
    return torch.cat([g.permute(2, 0, 1, 3) if g.ndim == 4 else g[None] for g in found])


def test_exact_effects_equal_one_hooked_pass_an_edge(varied, pairs):
    graph = Graph.of(varied)
    edges = [graph.edge(row, column) for row, column in np.argwhere(graph.mask)[::2]]
    clean, logits = written(varied, graph, pairs.clean.tokens)
    corrupted, _ = written(varied, graph, pairs.corrupted.tokens)
    before = pairs.logit_difference(logits)
    found = exact_effects(varied, pairs, edges, batch_size=10)
    for edge, ours in zip(edges, found, strict=True):
        theirs = hooked_effect(varied, graph, pairs, edge, corrupted - clean) - before
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-8, err_msg=edge.name)
    assert (np.abs(found).max(1) > 1e-4).mean() > 0.5
    assert n_hooks(varied) == 0


def test_scores_equal_gradients_at_hooked_inputs(varied, pairs):
    graph = Graph.of(varied)
    clean, _ = written(varied, graph, pairs.clean.tokens)
    corrupted, _ = written(varied, graph, pairs.corrupted.tokens)
    points = [corrupted[0] + fraction * (clean[0] - corrupted[0]) for fraction in (0.25, 0.75)]
    gradient = torch.stack([hooked_gradients(varied, graph, pairs, point) for point in points]).mean(0)
    theirs = (gradient.flatten(1) @ (corrupted - clean).flatten(1).T).numpy() / len(pairs) * graph.mask
    ours = eap_ig(varied, pairs, steps=2, batch_size=6)
    np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-9 * np.abs(theirs).max())
    assert (theirs[graph.mask] != 0).mean() > 0.9
    assert all(parameter.grad is None for parameter in varied.parameters())


def test_the_readout_is_the_metric(model, pairs):
    logits = model(pairs.clean.tokens).detach().double()
    readout = Readout.of(pairs)
    assert readout.positions.shape[1] < 8
    torch.testing.assert_close(readout.metric(take(logits, readout.positions)), pairs.logit_difference(logits))


def test_spread_is_the_adjoint_of_take():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(3, 5, 2, generator=generator), torch.randn(3, 4, 2, generator=generator)
    positions = torch.randint(5, (3, 4), generator=generator)
    torch.testing.assert_close((take(x, positions) * y).sum(), (x * spread(y, positions, 5)).sum())


def test_nothing_outlives_a_run_that_raises(inplace):
    model: Any = random_model(inplace)
    pairs = draw_pairs(inplace, "INC", 4, seed=0)

    def fail(*_):
        raise RuntimeError("stopped")

    handle = model.unembed.register_forward_pre_hook(fail)
    graph = Graph.of(model)
    with pytest.raises(RuntimeError, match="stopped"):
        exact_effects(model, pairs, [graph.edge(0, 0)])
    with pytest.raises(RuntimeError, match="stopped"):
        eap_ig(model, pairs)
    handle.remove()
    assert n_hooks(model) == 0
    assert not (model.cfg.use_split_qkv_input or model.cfg.use_attn_result or model.cfg.use_hook_mlp_in)
