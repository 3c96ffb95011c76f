"""What every architecture in MODELS must do; see conftest.py for the cases."""

import copy
import io
import json
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load, save

from interp.configuration import config_dict
from interp.models import MODELS, build_model

ATOL = 1e-5


def hook_count(model) -> int:
    return sum(len(p.fwd_hooks) + len(p.bwd_hooks) + len(p._forward_hooks) for p in model.hook_points())


def note(fired: Counter, act, hook) -> None:
    fired[hook.name] += 1


def look(act, hook) -> None:
    """Changes nothing; makes the hook point live."""


def test_every_architecture_has_a_case(cases):
    assert {cfg.architecture for cfg in cases.values()} == set(MODELS)


def test_every_hook_fires_once(case):
    for on in (False, True):
        case.switch(on)
        fired = Counter()
        count = partial(note, fired)
        case.model.run_with_hooks(case.tokens, fwd_hooks=[(lambda name: True, count)])
        switched_off = {name for name in case.model.hook_dict if case.model._switch_off(name)}
        assert fired == dict.fromkeys(case.model.hook_dict.keys() - switched_off, 1)
    assert all(name.endswith("hook_attn_in") for name in switched_off)  # excluded by the split inputs, has its own test


def test_every_backward_hook_fires_once(case):
    case.switch()
    fired = Counter()
    count = partial(note, fired)
    names = [name for name in case.model.hook_dict if not case.model._switch_off(name)]
    with case.model.hooks(bwd_hooks=[(name, count) for name in names]):
        case.model(case.tokens).square().sum().backward()
    assert fired == dict.fromkeys(names, 1)
    assert hook_count(case.model) == 0


def test_an_edit_at_every_hook_changes_the_output(case):
    case.switch()
    with torch.no_grad():
        clean = case.model(case.tokens)
        for name in case.model.hook_dict:
            if case.model._switch_off(name):
                continue
            generator = torch.Generator().manual_seed(1)

            def edit(act, hook, generator=generator):
                return act + 0.5 * torch.randn(act.shape, generator=generator).to(act)

            edited = case.model.run_with_hooks(case.tokens, fwd_hooks=[(name, edit)])
            assert (edited - clean).abs().max() > 1e-4, name


def test_an_edit_in_place_is_an_edit(case):
    """The patch setters of transformer_lens.patching write into the activation that they are given."""
    case.switch()

    def replaced(act, hook):
        return torch.cat([2 * act[:, :1], act[:, 1:]], dim=1)

    def in_place(act, hook):
        act[:, 0] *= 2
        return act

    for name in case.model.hook_dict:
        if case.model._switch_off(name):
            continue
        for grad in (False, True):
            if grad and not name.endswith(("_q", "_k", "_v", "_input", "_mlp_in", "pos_embed", "attn_out")):
                continue  # autograd forbids it wherever the next step keeps the value for the backward pass
            with torch.set_grad_enabled(grad):
                a = case.model.run_with_hooks(case.tokens, fwd_hooks=[(name, replaced)])
                b = case.model.run_with_hooks(case.tokens, fwd_hooks=[(name, in_place)])
            torch.testing.assert_close(a, b, msg=f"{name}, grad {grad}")


def test_watching_changes_nothing(case):
    """The fused path, the explicit path and the split one agree, in logits and in gradients."""
    results = []
    for on, watched in ((False, False), (False, True), (True, True)):
        case.switch(on)
        case.model.zero_grad()
        hooks = [(lambda name: True, look)] if watched else []
        logits = case.model.run_with_hooks(case.tokens, fwd_hooks=hooks)
        F.cross_entropy(logits.flatten(0, 1), case.tokens.flatten()).backward()
        grads = {n: p.grad.clone() for n, p in case.model.named_parameters() if p.grad is not None}  # of the first head
        results.append((logits.detach(), grads))
    for logits, grads in results[1:]:
        torch.testing.assert_close(logits, results[0][0], atol=ATOL, rtol=0)
        for name, grad in grads.items():
            torch.testing.assert_close(grad, results[0][1][name], atol=ATOL, rtol=0, msg=name)


def test_no_hook_outlives_a_run(case):
    def fail(act, hook):
        raise RuntimeError("in the hook")

    clean = case.model(case.tokens)
    case.model.run_with_cache(case.tokens)
    assert hook_count(case.model) == 0
    with pytest.raises(RuntimeError, match="in the hook"):
        case.model.run_with_hooks(case.tokens, fwd_hooks=[("hook_embed", fail)])
    assert hook_count(case.model) == 0
    with pytest.raises(ValueError, match="no hook point"):
        case.model.run_with_hooks(case.tokens, fwd_hooks=[("hook_embed", fail), ("hook_nothing", fail)])
    assert hook_count(case.model) == 0
    assert torch.equal(case.model(case.tokens), clean)


def test_gradients_reach_every_parameter(case):
    every = getattr(
        case.model, "all_heads", lambda tokens: case.model(tokens)[:, :, None]
    )  # [batch, pos, head, d_vocab]
    F.cross_entropy(every(case.tokens).mean(dim=2).flatten(0, 1), case.tokens.flatten()).backward()
    for name, parameter in case.model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


def test_causal_models_do_not_look_ahead(case):
    changed = case.tokens.clone()
    changed[:, 5] = (changed[:, 5] + 1) % case.model.cfg.d_vocab
    for names_filter in ([], None):  # the fused path, the explicit one
        a, _ = case.model.run_with_cache(case.tokens, names_filter=names_filter)
        b, _ = case.model.run_with_cache(changed, names_filter=names_filter)
        assert not torch.allclose(a[:, 5], b[:, 5])
        if case.model.carrier_hooks():
            torch.testing.assert_close(a[:, :5], b[:, :5], atol=0, rtol=0)
            shorter = case.model(case.tokens[:, :5])
            torch.testing.assert_close(a[:, :5], shorter, atol=ATOL, rtol=0)
        else:
            assert not torch.allclose(a[:, :5], b[:, :5])


def test_weights_round_trip(case):
    clean = case.model(case.tokens)
    other = build_model(case.model.cfg).eval()
    assert not torch.allclose(other(case.tokens), clean)
    other.load_state_dict(load(save(case.model.state_dict())))
    assert torch.equal(other(case.tokens), clean)
    buffer = io.BytesIO()
    torch.save(case.model.state_dict(), buffer)
    buffer.seek(0)
    another = build_model(case.model.cfg).eval()
    another.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(another(case.tokens), clean)


def test_the_configuration_is_json_and_seeds_the_weights(case):
    cfg = case.model.cfg
    again = type(cfg)(**json.loads(json.dumps(config_dict(cfg))))
    assert again == cfg
    assert hash(again) == hash(cfg)
    assert cfg.to_dict() == config_dict(cfg) == config_dict(again)
    stream = torch.get_rng_state()
    first, second = build_model(cfg).state_dict(), build_model(again).state_dict()
    assert torch.equal(torch.get_rng_state(), stream)  # the caller's random numbers are left alone
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = build_model(replace(cfg, seed=cfg.seed + 1)).state_dict()
    drawn = MODELS[cfg.architecture].fit is None  # what is fitted without gradients begins with nothing drawn
    assert drawn == any(not torch.equal(first[name], other[name]) for name in first)


def test_a_deep_copy_stands_alone(case):
    clean = case.model(case.tokens)
    other = copy.deepcopy(case.model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.5)
    assert torch.equal(case.model(case.tokens), clean)
    assert not torch.allclose(other(case.tokens), clean)


def test_bfloat16_autocast(case):
    if case.model.cfg.dtype == "float64":
        pytest.skip("autocast is for float32 parameters")
    clean = case.model(case.tokens)
    for watched in (False, True):
        case.switch(watched)
        with torch.autocast("cpu", torch.bfloat16):
            hooks = [(lambda name: True, look)] if watched else []
            logits = case.model.run_with_hooks(case.tokens, fwd_hooks=hooks)
            loss = F.cross_entropy(logits.float().flatten(0, 1), case.tokens.flatten())
        loss.backward()
        assert ((logits - clean).norm() / clean.norm()) < 0.05


def test_layers_can_be_run_apart(case):
    if not case.model.can_enter_layers:
        pytest.skip("the architecture runs its layers together")
    n_layers = case.model.cfg.n_layers
    logits, cache = case.model.run_with_cache(case.tokens)
    for layer in range(n_layers):
        resid = case.model(case.tokens, stop_at_layer=layer)
        torch.testing.assert_close(resid, cache["resid_pre", layer], atol=ATOL, rtol=0)
        torch.testing.assert_close(case.model(resid, start_at_layer=layer), logits, atol=ATOL, rtol=0)
        torch.testing.assert_close(case.model(resid, start_at_layer=layer - n_layers), logits, atol=ATOL, rtol=0)
    final = case.model(case.tokens, stop_at_layer=n_layers)
    torch.testing.assert_close(final, cache["resid_post", n_layers - 1], atol=ATOL, rtol=0)
    torch.testing.assert_close(case.model(final, start_at_layer=n_layers), logits, atol=ATOL, rtol=0)


def test_names_are_checked(case):
    with pytest.raises(ValueError, match=r"no hook point 'blocks\.0\.hook_resid_pr'; did you mean .*blocks\.0\."):
        case.model.run_with_cache(case.tokens, names_filter="blocks.0.hook_resid_pr")
    with pytest.raises(ValueError, match="no hook point"):
        case.model.run_with_cache(case.tokens, names_filter=["hook_embed", "hook_nothing"])
    with pytest.raises(ValueError, match="no hook point"):
        case.model.add_hook("hook_nothing", look)
    for name in case.model.hook_dict:
        switch = case.model._switch_off(name)
        if switch:
            for add in (
                lambda name=name: case.model.run_with_cache(case.tokens, names_filter=[name]),
                lambda name=name: case.model.run_with_hooks(case.tokens, fwd_hooks=[(name, look)]),
                lambda name=name: case.model.add_hook(name, look),
            ):
                with pytest.raises(ValueError, match=rf"set_{switch}\(True\)"):
                    add()


def test_bad_tokens(case):
    cfg = case.model.cfg
    for tokens, message in (
        (torch.full((1, 3), cfg.d_vocab), f"from 0 to {cfg.d_vocab - 1}; got {cfg.d_vocab}"),
        (torch.full((1, 3), -1), f"from 0 to {cfg.d_vocab - 1}; got -1"),
        (torch.zeros(3, dtype=torch.long), r"\[batch, pos\]; got torch.int64 \[3\]"),
        (torch.zeros(1, 3), "int64"),
    ):
        with pytest.raises(ValueError, match=message):
            case.model(tokens)


def test_names_of_tokens(case):
    with pytest.raises(ValueError, match="vocab must be set"):
        case.model.to_tokens("INC")
    case.model.vocab = ("PUT", "GET", "INC")
    assert case.model.to_tokens(["INC", "PUT"]).tolist() == [[2, 0]]
    assert case.model.to_tokens([["INC", "PUT"], ["GET", "GET"]]).tolist() == [[2, 0], [1, 1]]
    assert case.model.to_tokens([2, 0]).tolist() == [[2, 0]]
    assert case.model.to_tokens(torch.tensor([[2, 0]])).tolist() == [[2, 0]]
    assert case.model.to_single_token("GET") == 1
    for bad, message in (
        ("INK", "unknown token 'INK'; did you mean INC"),
        ([99], "from 0 to 12; got 99"),
        (0.5, "int"),
    ):
        with pytest.raises(ValueError, match=message):
            case.model.to_tokens(bad)


def test_a_stream_is_taken_apart_or_refused_in_a_sentence(case):
    with torch.no_grad():
        _, cache = case.model.run_with_cache(case.tokens)
        n_layers = getattr(case.model.cfg, "n_layers", 1)
        calls = {
            "decompose_resid": cache.decompose_resid,
            "get_full_resid_decomposition": partial(cache.get_full_resid_decomposition, expand_neurons=False),
            "compute_head_results": cache.compute_head_results,
            "stack_head_results": cache.stack_head_results,
            "get_neuron_results": partial(cache.get_neuron_results, 0),
            "stack_neuron_results": partial(cache.stack_neuron_results, n_layers),
        }
        for name, call in calls.items():
            if not case.model.has_residual_parts:
                kind = case.model.cfg.architecture
                with pytest.raises(ValueError, match=rf"^{name} takes a residual stream apart .* '{kind}' has no such"):
                    call()
            elif case.model.graph() is not None or "neuron" not in name:
                call()
    graph = case.model.graph()
    assert case.model.has_residual_parts or graph is None or not graph.one_stream
