"""ActivationCache and transformer_lens.patching on our models: what they return must add up."""

from functools import partial

import pytest
import torch
from transformer_lens import ActivationCache, patching

ATOL = 1e-5


@pytest.fixture
def case(transformer_case):
    return transformer_case


@pytest.fixture
def cached(case):
    with torch.no_grad():
        logits, cache = case.model.run_with_cache(case.tokens)
    return case.model, case.tokens, logits, cache


def final(cache, model):
    return cache["resid_post", model.cfg.n_layers - 1]


def close(a, b):
    torch.testing.assert_close(a.to(b.dtype), b, atol=ATOL, rtol=ATOL)  # patching returns float32 always


def test_cache_options(case):
    _, cache = case.model.run_with_cache(case.tokens, names_filter=["hook_embed", "blocks.1.hook_resid_post"])
    assert isinstance(cache, ActivationCache)
    assert set(cache.keys()) == {"hook_embed", "blocks.1.hook_resid_post"}
    _, cache = case.model.run_with_cache(case.tokens[:1], remove_batch_dim=True, names_filter="hook_embed")
    assert not cache.has_batch_dim
    assert cache["embed"].shape == (case.tokens.shape[1], case.model.cfg.d_model)
    _, cache = case.model.run_with_cache(case.tokens, pos_slice=-1, names_filter="hook_embed")
    assert cache["embed"].shape == (len(case.tokens), 1, case.model.cfg.d_model)
    _, plain = case.model.run_with_cache(case.tokens, return_cache_object=False)
    assert isinstance(plain, dict)


def test_accumulated_resid(cached):
    model, tokens, _, cache = cached
    stack, labels = cache.accumulated_resid(return_labels=True)
    assert labels == ["0_pre", "1_pre", "final_post"]
    for layer in range(model.cfg.n_layers):
        close(stack[layer], model(tokens, stop_at_layer=layer))
    close(stack[-1], final(cache, model))


def test_decompositions_sum_to_the_residual_stream(cached):
    model, _, _, cache = cached
    close(cache.decompose_resid().sum(0), final(cache, model))
    close(cache.decompose_resid(1).sum(0), cache["resid_pre", 1])
    close(cache.decompose_resid(1, mlp_input=True).sum(0), cache["resid_pre", 1] + cache["attn_out", 1])
    close(cache.stack_head_results(incl_remainder=True).sum(0), final(cache, model))
    for expand_neurons in (True, False):
        close(cache.get_full_resid_decomposition(expand_neurons=expand_neurons).sum(0), final(cache, model))
    if not model.cfg.attn_only:
        full = cache.get_full_resid_decomposition(1, mlp_input=True)
        close(full.sum(0), cache["resid_mid", 1])


def test_head_results_sum_to_attn_out(cached):
    model, tokens, _, cache = cached
    model.set_use_attn_result(True)
    _, with_result = model.run_with_cache(tokens)
    heads = cache.stack_head_results(layer=1)
    close(with_result["result", 0].movedim(2, 0), heads)
    close(heads.sum(0) + model.b_O[0], cache["attn_out", 0])


@pytest.mark.parametrize("position", [0, -1, 4])
def test_decompositions_at_one_position(cached, position):
    """The `pos_slice` of an ActivationCache's methods takes positions, and nothing else, out of the whole."""
    *_, cache = cached
    for whole, cut in (
        (cache.decompose_resid(), cache.decompose_resid(pos_slice=position)),
        (cache.accumulated_resid(), cache.accumulated_resid(pos_slice=position)),
        (cache.stack_head_results(), cache.stack_head_results(pos_slice=position)),
        (cache.get_full_resid_decomposition(), cache.get_full_resid_decomposition(pos_slice=position)),
        (cache.decompose_resid(apply_ln=True), cache.decompose_resid(apply_ln=True, pos_slice=position)),
    ):
        close(cut, whole[:, :, position])
    parts = cache.decompose_resid(pos_slice=position)
    close(cache.logit_attrs(parts, 3, pos_slice=position), cache.logit_attrs(cache.decompose_resid(), 3)[..., position])


def test_norms_of_a_stack(cached):
    """Scaled components sum to the normalised residual stream, before the gain and the bias."""
    model, _, _, cache = cached
    if model.cfg.normalization_type is None:
        close(cache.decompose_resid(apply_ln=True).sum(0), final(cache, model))
        return
    close(cache.decompose_resid(apply_ln=True).sum(0), cache["ln_final.hook_normalized"])
    close(cache.decompose_resid(1, apply_ln=True).sum(0), cache["normalized", 1, "ln1"])
    if not model.cfg.attn_only:
        close(cache.decompose_resid(1, mlp_input=True, apply_ln=True).sum(0), cache["normalized", 1, "ln2"])


def test_logit_attrs_sum_to_the_logits(cached):
    model, tokens, logits, cache = cached
    parts = cache.decompose_resid()
    attrs = cache.logit_attrs(parts, tokens)
    target = logits.gather(-1, tokens[..., None])[..., 0] - model.logit_bias()[tokens]
    close(attrs.sum(0), target)
    one = cache.logit_attrs(parts, 3, incorrect_tokens=5).sum(0)
    close(one, logits[..., 3] - logits[..., 5] - (model.logit_bias()[3] - model.logit_bias()[5]))
    heads = cache.logit_attrs(cache.get_full_resid_decomposition(), tokens)
    close(heads.sum(0), target)


def test_logit_lens_ends_at_the_logits(cached):
    model, _, logits, cache = cached
    lens = cache.logit_lens(positions=None)
    close(lens.values[-1], logits)
    close(lens.values[0], model.unembed(model.ln_final(cache["resid_pre", 0])))


def test_scores_are_the_products_of_queries_and_keys(cached):
    model, _, _, cache = cached
    cfg = model.cfg
    if cfg.positional_embedding_type in ("alibi", "path"):
        pytest.skip("scores hold more than the product; test_positions.py has these")
    q_name, k_name = ("rot_q", "rot_k") if cfg.rotary else ("q", "k")
    for layer in range(cfg.n_layers):
        scores = torch.einsum("bqhd,bkhd->bhqk", cache[q_name, layer], cache[k_name, layer]) / cfg.d_head**0.5
        if cfg.attention_dir == "causal":
            future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
            for query_pos in range(len(future)) if cfg.attention_chunk else ():
                future[query_pos, : max(0, query_pos // cfg.attention_chunk - 1) * cfg.attention_chunk] = True
            assert torch.isneginf(cache["attn_scores", layer][..., future]).all()
            scores = scores.masked_fill(future, -torch.inf)
        close(cache["attn_scores", layer], scores)
        close(cache["pattern", layer], scores.softmax(-1))
        close(cache["z", layer], torch.einsum("bhqk,bkhd->bqhd", cache["pattern", layer], cache["v", layer]))


@pytest.fixture
def pair(case):
    """Clean cache, corrupted tokens, and a metric of the logits that feels every patch."""
    corrupted = (case.tokens + 1) % case.model.cfg.d_vocab
    with torch.no_grad():
        _, clean_cache = case.model.run_with_cache(case.tokens)
    return (
        case.model,
        corrupted,
        clean_cache,
        lambda logits: logits[:, -1, 0].mean() - logits[:, -2, 1].mean(),
    )


@torch.no_grad()
def test_patching_the_residual_stream(pair):
    model, corrupted, clean_cache, metric = pair
    result = patching.get_act_patch_resid_pre(model, corrupted, clean_cache, metric)
    assert result.shape == (model.cfg.n_layers, corrupted.shape[1])
    for layer in range(model.cfg.n_layers):
        for pos in range(corrupted.shape[1]):
            resid = model(corrupted, stop_at_layer=layer)
            resid[:, pos] = clean_cache["resid_pre", layer][:, pos]
            close(result[layer, pos], metric(model(resid, start_at_layer=layer)))
    assert result.std() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("name", ["z", "q", "k", "v"])
def test_patching_heads(pair, name):
    model, corrupted, clean_cache, metric = pair
    sweep = {"z": patching.get_act_patch_attn_head_out_all_pos}
    sweep |= {n: getattr(patching, f"get_act_patch_attn_head_{n}_all_pos") for n in "qkv"}
    result = sweep[name](model, corrupted, clean_cache, metric)
    for layer in range(model.cfg.n_layers):
        for head in range(model.cfg.n_heads):

            def patch(act, hook, head=head):
                heads = torch.arange(act.shape[2])[:, None] == head
                return torch.where(heads, clean_cache[hook.name], act)

            hooks = [(f"blocks.{layer}.attn.hook_{name}", patch)]
            close(result[layer, head], metric(model.run_with_hooks(corrupted, fwd_hooks=hooks)))
    assert result.std() > 1e-6


@torch.no_grad()
def test_patching_patterns(pair):
    model, corrupted, clean_cache, metric = pair
    result = patching.get_act_patch_attn_head_pattern_all_pos(model, corrupted, clean_cache, metric)
    _, corrupted_cache = model.run_with_cache(corrupted)
    layer = model.cfg.n_layers - 1
    for head in range(model.cfg.n_heads):
        z = corrupted_cache["z", layer].clone()
        z[:, :, head] = clean_cache["pattern", layer][:, head] @ corrupted_cache["v", layer][:, :, head]
        hooks = [(f"blocks.{layer}.attn.hook_z", lambda act, hook, z=z: z)]
        close(result[layer, head], metric(model.run_with_hooks(corrupted, fwd_hooks=hooks)))


@torch.no_grad()
@pytest.mark.parametrize("component", ["q", "k", "v"])
def test_patching_a_direct_path(pair, component):
    """One head's write, taken from the clean run, into one later head's query, key or value input alone."""
    model, corrupted, clean_cache, metric = pair
    _, cache = model.run_with_cache(corrupted)
    result = patching.get_act_patch_direct_path(
        model, corrupted, clean_cache, cache, metric, src_layer=0, src_head=1, component=component, verbose=False
    )
    assert not model.cfg.use_split_qkv_input  # as it was
    W_O = model.W_O[0, 1]
    delta = (clean_cache["z", 0][:, :, 1] - cache["z", 0][:, :, 1]) @ W_O
    attn, ln1 = model.blocks[1].attn, model.blocks[1].ln1
    for head in range(model.cfg.n_heads):
        read = ln1(cache["resid_pre", 1] + delta)
        value = read @ getattr(attn, f"W_{component.upper()}")[head] + getattr(attn, f"b_{component.upper()}")[head]
        value = getattr(attn, f"{component}_norm", torch.nn.Identity())(value)

        def patch(act, hook, head=head, value=value):
            act[:, :, head] = value
            return act

        hooks = [(f"blocks.1.attn.hook_{component}", patch)]
        if component == "k" and attn.path is not None:  # PaTH's transitions read what keys read
            for name, other in zip(("w", "beta"), attn.path(read), strict=True):
                hooks.append((f"blocks.1.attn.hook_{name}", partial(patch, value=other[:, :, head])))
        close(result[1, head], metric(model.run_with_hooks(corrupted, fwd_hooks=hooks)))
