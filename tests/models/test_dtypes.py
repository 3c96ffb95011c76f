"""Models moved to another dtype compute the same up to its rounding, in every kind of pass."""

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from interp.models import build_model, greedy_decode, resize

HALVES = {torch.float16: 0.03, torch.bfloat16: 0.15}  # relative error of the logits, norm by norm


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def moved(case: Any, dtype: torch.dtype) -> Any:
    model = copy.deepcopy(case.model).to(dtype)
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.dtype == model.cfg.dtype == dtype
    assert model.cfg == case.model.cfg  # what it was built from has not changed
    assert model.cfg.to_dict() == case.model.cfg.to_dict()
    return model


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
def test_every_kind_of_pass(case, dtype):
    model, tokens = moved(case, dtype), case.tokens
    near = HALVES.get(dtype, 1e-4)
    expected = case.model(tokens)
    logits = model(tokens)
    assert logits.dtype == dtype
    assert relative(logits, expected) < near
    for on in (False, True):
        case_model = copy.deepcopy(case.model)
        for each in (model, case_model):
            for switch in sorted(set(each.switches.values()) - {"use_attn_in"}):
                getattr(each, f"set_{switch}")(on)
        watched, cache = model.run_with_cache(tokens)
        assert relative(watched, expected) < near
        _, reference = case_model.run_with_cache(tokens)
        for name, act in cache.items():
            floats = act.dtype == dtype or name.endswith(("hook_scale", "hook_normalized"))  # norms: float32 at least
            assert floats, name
            finite = reference[name].isfinite()
            assert torch.equal(act.isfinite(), finite), name
            assert relative(act[finite], reference[name][finite]) < 2 * near, name
    for layer in range(len(model.residual_hooks()) if model.can_enter_layers else 0):
        resid = model(tokens, stop_at_layer=layer)
        assert resid.dtype == dtype
        assert relative(model(resid, start_at_layer=layer), expected) < near
    if model.is_causal:
        loss = model(tokens, return_type="loss")
        assert math.isclose(float(loss), float(case.model(tokens, return_type="loss")), rel_tol=near)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
def test_cached_decoding(case, dtype):
    model = moved(case, dtype)
    past, read = model.new_cache(len(case.tokens)), []
    if past is None:
        pytest.skip("the model reads whole sequences")
    for piece in case.tokens.split((4, 1, 3, 1), dim=1):
        read.append(model(piece, past_kv_cache=past))
    near = {torch.float64: 1e-10, torch.float32: 1e-5} | HALVES
    assert relative(torch.cat(read, dim=1), model(case.tokens)) < near[dtype]
    if dtype not in HALVES:
        slow = greedy_decode(model, case.tokens[:, :3], 7, use_kv_cache=False)
        assert torch.equal(greedy_decode(model, case.tokens[:, :3], 7), slow)
    assert model.generate(case.tokens[:, :3], 7, seed=0).shape == (3, 10)


@torch.no_grad()
def test_a_model_moved_between_two_pieces(case):
    model = moved(case, torch.float32)
    past = model.new_cache(len(case.tokens))
    if past is None:
        pytest.skip("the model reads whole sequences")
    model(case.tokens[:, :4], past_kv_cache=past)
    rest = model.double()(case.tokens[:, 4:], past_kv_cache=past)
    assert rest.dtype == torch.float64
    assert relative(rest, case.model(case.tokens)[:, 4:]) < 1e-4


@torch.no_grad()
def test_cached_decoding_under_autocast(case):
    model, read = moved(case, torch.float32), []
    past = model.new_cache(len(case.tokens))
    if past is None:
        pytest.skip("the model reads whole sequences")
    with torch.autocast("cpu", torch.bfloat16):
        for piece in case.tokens.split((4, 1, 3, 1), dim=1):
            read.append(model(piece, past_kv_cache=past))
        whole = model(case.tokens)
    assert relative(torch.cat(read, dim=1), whole) < HALVES[torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_training_and_gradients(case, dtype):
    model = moved(case, dtype)
    model(case.tokens).float().logsumexp(-1).sum().backward()
    case.model(case.tokens).float().logsumexp(-1).sum().backward()
    for (name, p), reference in zip(model.named_parameters(), case.model.parameters(), strict=True):
        assert p.grad is not None and p.grad.dtype == dtype
        if reference.grad.norm() > 1e-3:
            assert relative(p.grad, reference.grad) < (1e-4 if dtype == torch.float64 else 0.5), name


@torch.no_grad()
def test_what_is_derived_has_the_dtype_too(transformer_case):
    case = transformer_case
    model = moved(case, torch.float64)
    assert resize(model, model.cfg.as_written).dtype == torch.float64
    for weight in (model.W_E, model.W_U, model.b_U, model.W_pos, model.W_Q, model.b_O, model.accumulated_bias(1)):
        assert weight.dtype == torch.float64
    assert model.tokens_to_residual_directions(1).dtype == torch.float64
    assert model.logit_bias().dtype == torch.float64
    _, cache = model.run_with_cache(case.tokens)
    torch.testing.assert_close(cache.decompose_resid().sum(0), cache["resid_post", model.cfg.n_layers - 1])
    assert (
        relative(
            cache.logit_attrs(cache.decompose_resid(), 3).sum(0), model(case.tokens)[..., 3] - model.logit_bias()[3]
        )
        < 1e-6
    )


def test_a_built_models_configuration_builds_the_same_again(case):
    for cfg in (case.model.cfg, case.model.cfg.as_written, replace(case.model.cfg), moved(case, torch.bfloat16).cfg):
        again = build_model(cfg)
        assert again.cfg == case.model.cfg
        assert hash(again.cfg) == hash(case.model.cfg)
        assert again.dtype == getattr(torch, case.model.cfg.to_dict()["dtype"])
