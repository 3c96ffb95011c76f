"""What is particular to the transformer and its configuration."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from interp.models import Transformer, TransformerConfig, build_model

CFG = TransformerConfig(d_vocab=13, n_ctx=9, n_layers=2, n_heads=2, d_model=16, qk_norm=True)
BLOCK: dict[str, Any] = {"positional_embedding_type": "block", "position_roles": (0,) * 9, "position_indices": (1,) * 9}


def make(cfg: TransformerConfig) -> tuple[Any, torch.Tensor]:
    return Transformer(cfg).eval(), torch.randint(13, (3, 9), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d_vocab": 0}, "d_vocab must be a whole number of at least 1, got 0"),
        ({"n_layers": -1}, "n_layers must be a whole number of at least 1, got -1"),
        ({"n_layers": 1.5}, "n_layers must be a whole number of at least 1, got 1.5"),
        ({"n_ctx": True}, "n_ctx must be a whole number of at least 1, got True"),
        ({"n_heads": 3, "d_head": -1}, "d_model must be a multiple of n_heads unless d_head is given; got d_model=16"),
        ({"d_head": 0}, "d_head must be a whole number of at least 1, got 0"),
        ({"d_mlp": -3}, "d_mlp must be a whole number of at least 1, got -3"),
        ({"act_fn": "gelo"}, r"act_fn must be one of \('gelu', 'relu', 'silu'\); got 'gelo'"),
        ({"normalization_type": "LNPre"}, "normalization_type must be one of .* got 'LNPre'"),
        ({"attention_dir": "both"}, "attention_dir must be one of .* got 'both'"),
        ({"positional_embedding_type": "alibo"}, "positional_embedding_type must be one of .* got 'alibo'"),
        ({"positional_embedding_type": "path", "rotary_dim": 4}, "rotary_dim must be 0 with .*='path', .* got 4"),
        ({"positional_embedding_type": "randomised"}, "position_range must be a whole number of at least 1, got 0"),
        ({"positional_embedding_type": "randomised", "position_range": 8}, "at least n_ctx = 9; got 8"),
        ({"position_range": 20}, "position_range needs positional_embedding_type='randomised'; got 'learned'"),
        ({"positional_embedding_type": "rotary", "d_head": 5}, "d_head must be even for rotary positions; got 5"),
        ({"attention_chunk": -2}, "attention_chunk must be a whole number of at least 1, got -2"),
        ({"attention_chunk": 3, "attention_dir": "bidirectional"}, "attention_chunk needs attention_dir='causal'"),
        ({"index_table_size": 9}, "index_table_size needs positional_embedding_type='block'; got 'learned'"),
        ({**BLOCK, "index_table_size": 1}, "above the largest of position_indices, 1; got 1"),
        ({"dtype": "bfloat16"}, "dtype must be one of .* got 'bfloat16'"),
        ({"eps": 0.0}, "eps must be above 0; got 0.0"),
        ({"init_range": -0.5}, "init_range must be at least 0 .* got -0.5"),
        ({**BLOCK, "position_roles": (0,) * 8}, "position_roles must hold 9 numbers .* got 8"),
        ({**BLOCK, "position_indices": (0,) * 8 + (-1,)}, "position_indices must hold integers from 0 up; got -1"),
        ({"position_roles": (0,) * 9}, "position_roles must hold 0 numbers .* positional_embedding_type='learned'"),
    ],
)
def test_bad_configuration(change, message):
    with pytest.raises(ValueError, match=message):
        replace(CFG, **change)


def test_unknown_architecture():
    with pytest.raises(ValueError, match="architecture must be one of transformer, .*; got 'perceptron'"):
        build_model(replace(CFG, architecture="perceptron"))


def test_derived_sizes():
    assert (CFG.d_head, CFG.d_mlp, CFG.init_range) == (8, 64, 0.2)
    assert replace(CFG, d_head=3).d_head == 3


def test_the_configuration_is_cheap_to_import():
    """transformer_lens takes seconds; a command that only reads its arguments must not pay for it."""
    use = "m.TransformerConfig; m.Architecture; [m.config_class(n) for n in ('transformer', 'gru', 'delta', 'mamba2')]"
    code = f"import sys, interp.models as m; {use}; sys.exit(bool({{'torch', 'transformer_lens'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_block_positions():
    roles, indices = (0, 1, 1, 1, 2, 3, 3, 3, 4), (0, 0, 1, 2, 0, 0, 1, 2, 0)
    cfg = replace(CFG, positional_embedding_type="block", position_roles=roles, position_indices=indices)
    model, tokens = make(cfg)
    assert torch.equal(model.pos_embed.W_flat, torch.zeros(9, 16))  # as drawn
    torch.nn.init.normal_(model.pos_embed.W_flat)
    _, cache = model.run_with_cache(tokens, names_filter="hook_pos_embed")
    table = model.pos_embed
    for pos in range(9):
        expected = table.W_role[roles[pos]] + table.W_index[indices[pos]] + table.W_flat[pos]
        torch.testing.assert_close(cache["pos_embed"][:, pos], expected.expand(3, -1))
        torch.testing.assert_close(model.W_pos[pos], expected)
    torch.testing.assert_close(cache["pos_embed"][:, :5], model.W_pos[:5].expand(3, -1, -1))


def test_qk_norm():
    """The root mean square of a query is the gain's, whatever the scale of what it reads."""
    model, tokens = make(CFG)
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight.mul_(1e3)
        model.blocks[0].attn.q_norm.w.fill_(2.0)
    _, cache = model.run_with_cache(tokens)
    for name, gain in (("q", 2.0), ("k", 1.0)):
        rms = cache[name, 0].square().mean(-1).sqrt()
        torch.testing.assert_close(rms, torch.full_like(rms, gain))


def test_weights_are_views():
    """Weights set through W_Q … b_out, as by hand, are the weights that the model computes with."""
    model, tokens = make(replace(CFG, qk_norm=False, normalization_type=None, d_head=5))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for block in model.blocks:
            for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"):
                weight = getattr(block.attn, name)
                weight.copy_(torch.randn(weight.shape, generator=generator) / 4)
            for name in ("W_in", "b_in", "W_out", "b_out"):
                weight = getattr(block.mlp, name)
                weight.copy_(torch.randn(weight.shape, generator=generator) / 4)
        _, cache = model.run_with_cache(tokens)
    for l in range(2):
        pre = cache["resid_pre", l]
        for name in "qkv":
            weight, bias = getattr(model, f"W_{name.upper()}")[l], getattr(model, f"b_{name.upper()}")[l]
            torch.testing.assert_close(cache[name, l], torch.einsum("bpm,hmd->bphd", pre, weight) + bias)
        attn_out = torch.einsum("bphd,hdm->bpm", cache["z", l], model.W_O[l]) + model.b_O[l]
        torch.testing.assert_close(cache["attn_out", l], attn_out)
        torch.testing.assert_close(cache["pre", l], cache["resid_mid", l] @ model.W_in[l] + model.b_in[l])
        torch.testing.assert_close(cache["mlp_out", l], cache["post", l] @ model.W_out[l] + model.b_out[l])
        qk = torch.einsum("hmd,hnd->hmn", model.W_Q[l], model.W_K[l])
        torch.testing.assert_close(model.QK[l].AB, qk)
        torch.testing.assert_close(model.OV[l].AB, torch.einsum("hmd,hdn->hmn", model.W_V[l], model.W_O[l]))


def test_no_biases():
    model, _ = make(replace(CFG, use_bias=False, normalization_type="LN"))
    assert not any(name.endswith(("bias", ".b")) for name, _ in model.named_parameters())
    for name in ("b_Q", "b_K", "b_V", "b_O", "b_in", "b_out", "b_U"):
        bias = getattr(model, name)
        assert bias.abs().max() == 0, name
        assert bias.shape == getattr(make(CFG)[0], name).shape, name


def test_tied_unembedding():
    model, _ = make(replace(CFG, tie_word_embeddings=True))
    assert torch.equal(model.W_U, model.W_E.T)
    names = [name for name, _ in model.named_parameters()]
    assert "embed.W_E" in names
    assert "unembed.weight" not in names
    with torch.no_grad():
        model.W_E[0] = 7.0
    assert (model.W_U[:, 0] == 7.0).all()


def test_split_inputs_reach_one_reader_each():
    model, tokens = make(CFG)
    model.set_use_split_qkv_input(True)
    _, clean = model.run_with_cache(tokens)

    def push(act, hook):
        act[:, :, 1] += torch.linspace(-1, 1, 16)
        return act

    for name in "qkv":
        with model.hooks(fwd_hooks=[(f"blocks.1.hook_{name}_input", push)]):
            _, cache = model.run_with_cache(tokens)
        for other in "qkv":
            same = torch.isclose(cache[other, 1], clean[other, 1], atol=1e-6).all(-1).all(0).all(0)
            assert same.tolist() == [True, other != name], (name, other)
        torch.testing.assert_close(cache["resid_pre", 1], clean["resid_pre", 1])
        ln1, attn = model.blocks[1].ln1, model.blocks[1].attn
        read = ln1(clean["resid_pre", 1] + torch.linspace(-1, 1, 16))
        value = read @ getattr(attn, f"W_{name.upper()}")[1] + getattr(attn, f"b_{name.upper()}")[1]
        value = getattr(attn, f"{name}_norm", torch.nn.Identity())(value)
        torch.testing.assert_close(cache[name, 1][:, :, 1], value, atol=1e-5, rtol=1e-5)


def test_all_split_inputs_together_are_the_input_of_attention():
    """Edges into every head's query, key and value, and into the MLP, add up to an edit of the residual stream."""
    model, tokens = make(replace(CFG, normalization_type="LN"))
    delta = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(2))
    resid = model(tokens, stop_at_layer=1)
    attn_out = model.blocks[1].attn(model.blocks[1].ln1(resid + delta))

    def add(act, hook):
        return act + (delta if act.ndim == 3 else delta[:, :, None])

    model.set_use_split_qkv_input(True)
    hooks = [(f"blocks.1.attn.hook_{name}_input", add) for name in "qkv"]
    with model.hooks(fwd_hooks=hooks):
        _, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(cache["attn_out", 1], attn_out, atol=1e-5, rtol=1e-5)
    assert cache["scale", 1, "ln1"].shape == (3, 9, 6, 1)  # fired once, on all of them

    with pytest.raises(ValueError, match=r"exclude each other; call set_use_split_qkv_input\(False\) first"):
        model.set_use_attn_in(True)
    model.set_use_split_qkv_input(False)
    model.set_use_attn_in(True)
    with model.hooks(fwd_hooks=[("blocks.1.hook_attn_in", add)]):
        _, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(cache["attn_out", 1], attn_out, atol=1e-5, rtol=1e-5)
    assert cache["blocks.0.hook_attn_in"].shape == cache["blocks.0.attn.hook_attn_in"].shape == (3, 9, 2, 16)

    model.set_use_hook_mlp_in(True)
    with model.hooks(fwd_hooks=[("blocks.0.hook_mlp_in", add)]):
        _, cache = model.run_with_cache(tokens)
    mlp_out = model.blocks[0].mlp(model.blocks[0].ln2(cache["resid_mid", 0] + delta))
    torch.testing.assert_close(cache["mlp_out", 0], mlp_out)
    torch.testing.assert_close(cache["resid_post", 0], cache["resid_mid", 0] + mlp_out)


def test_a_hook_sees_the_name_that_was_asked_for():
    model, tokens = make(CFG)
    model.set_use_split_qkv_input(True)
    names = ["blocks.0.hook_q_input", "blocks.0.attn.hook_q_input", "hook_embed"]
    seen = []
    hooks = [(name, lambda act, hook: seen.append(hook.name)) for name in names]
    with model.hooks(fwd_hooks=hooks):
        model(tokens)
    model.add_hook(names[0], lambda act, hook: seen.append(hook.name))
    model(tokens)
    model.reset_hooks()
    model(tokens)
    assert seen == ["hook_embed", *names[:2], names[0]]
    _, cache = model.run_with_cache(tokens, names_filter=names[0])
    assert set(cache.keys()) == set(names[:2])


def test_switches_show_on_the_configuration_and_stay_out_of_it():
    model, _ = make(CFG)
    model.set_use_attn_result(True)
    assert model.cfg.use_attn_result
    assert not CFG.use_attn_result
    assert model.cfg == CFG
    assert model.cfg.device == "cpu"


def test_editing_the_pattern_moves_the_values():
    model, tokens = make(CFG)

    def attend_to_first(pattern, hook):
        return torch.zeros_like(pattern).index_fill(-1, torch.tensor([0]), 1.0)

    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", attend_to_first)]):
        _, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(cache["z", 0], cache["v", 0][:, :1].expand(-1, 9, -1, -1))


def test_layers_out_of_range():
    model, tokens = make(CFG)
    resid = model(tokens, stop_at_layer=1)
    assert torch.equal(model(tokens, stop_at_layer=0), model(tokens, stop_at_layer=-2))
    for args, options, message in (
        (tokens, {"stop_at_layer": 3}, "stop_at_layer must be from -2 to 2; got 3"),
        (resid, {"start_at_layer": -3}, "start_at_layer must be from -2 to 2; got -3"),
        (resid, {"start_at_layer": 2, "stop_at_layer": 1}, "start_at_layer must not be past stop_at_layer"),
        (tokens, {"start_at_layer": 1}, r"must be a residual stream \[batch, pos, 16\]; got torch.int64 \[3, 9\]"),
    ):
        with pytest.raises(ValueError, match=message):
            model(args, **options)


def test_directions_of_tokens():
    model, _ = make(CFG)
    model.vocab = tuple("ABCDEFGHIJKLM")
    with torch.no_grad():
        model.ln_final.w.uniform_(0.5, 2)
    expected = model.W_U[:, 2] * model.ln_final.w
    torch.testing.assert_close(model.tokens_to_residual_directions("C"), expected)
    torch.testing.assert_close(model.tokens_to_residual_directions(2), expected)
    torch.testing.assert_close(model.tokens_to_residual_directions(torch.tensor([[2, 3]]))[0, 0], expected)
    with pytest.raises(ValueError, match="unknown token 'Z'"):
        model.tokens_to_residual_directions("Z")
