"""Logits and cached activations equal those of independent implementations on the same weights."""

from typing import Any

import pytest
import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from benchmarks.plain import D_VOCAB, N_CTX, PlainTransformer, hooked_config
from interp.models import Transformer, TransformerConfig

ATOL = 1e-5
N_HEADS, D_HEAD, D_MODEL = 2, 5, 12


def native_model(cfg: TransformerConfig) -> TransformerBridge:
    native = TransformerBridgeConfig(
        d_vocab=cfg.d_vocab,
        n_ctx=cfg.n_ctx,
        n_layers=cfg.n_layers,
        n_heads=cfg.n_heads,
        d_model=cfg.d_model,
        d_head=cfg.d_head,
        d_mlp=cfg.d_mlp,
        act_fn=cfg.act_fn,
        normalization_type=cfg.normalization_type,
        attention_dir=cfg.attention_dir,
        attn_only=cfg.attn_only,
        eps=cfg.eps,
        seed=5,
    )
    model = TransformerBridge.boot_native(native)  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # biases and gains start at 0 and 1 and would hide a fault
        for parameter in model.original_model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


@torch.no_grad()
def copy_weights(source: Any, target: Any) -> None:
    weights = {k.replace("._original_component", ""): v for k, v in source.original_model.named_parameters()}
    target.embed.W_E.copy_(weights.pop("tok_embed.weight"))
    target.W_pos.copy_(weights.pop("pos.weight"))
    target.W_U.copy_(weights.pop("head.weight").T)
    target.b_U.zero_()
    for l, block in enumerate(target.blocks):
        for part in "qkv":
            weight = weights.pop(f"layers.{l}.attn.{part}.weight").view(N_HEADS, D_HEAD, D_MODEL)
            getattr(block.attn, f"W_{part.upper()}").copy_(weight.transpose(1, 2))
            bias = weights.pop(f"layers.{l}.attn.{part}.bias").view(N_HEADS, D_HEAD)
            getattr(block.attn, f"b_{part.upper()}").copy_(bias)
        block.attn.W_O.copy_(weights.pop(f"layers.{l}.attn.o.weight").T.view(N_HEADS, D_HEAD, D_MODEL))
        block.attn.b_O.copy_(weights.pop(f"layers.{l}.attn.o.bias"))
        if block.mlp is not None:
            block.mlp.W_in.copy_(weights.pop(f"layers.{l}.mlp.fc_in.weight").T)
            block.mlp.b_in.copy_(weights.pop(f"layers.{l}.mlp.fc_in.bias"))
            block.mlp.W_out.copy_(weights.pop(f"layers.{l}.mlp.fc_out.weight").T)
            block.mlp.b_out.copy_(weights.pop(f"layers.{l}.mlp.fc_out.bias"))
    norms = {
        f"layers.{l}.{name}": getattr(b, name, None) for l, b in enumerate(target.blocks) for name in ("ln1", "ln2")
    }
    for name, norm in {**norms, "ln_out": target.ln_final}.items():
        for ours, theirs in (("w", "weight"), ("b", "bias")):
            parameter = getattr(norm, ours, None)
            if parameter is not None:
                parameter.copy_(weights.pop(f"{name}.{theirs}"))
    assert not weights, f"not copied: {list(weights)}"


@pytest.mark.parametrize(
    ("normalization_type", "attention_dir", "act_fn", "attn_only"),
    [
        ("LN", "causal", "gelu", False),
        ("RMS", "bidirectional", "gelu", False),
        (None, "causal", "relu", False),
        ("LN", "bidirectional", "relu", False),
        ("RMS", "causal", "gelu", True),
    ],
)
def test_parity_with_boot_native(normalization_type, attention_dir, act_fn, attn_only):
    cfg = TransformerConfig(
        d_vocab=11,
        n_ctx=7,
        n_layers=2,
        n_heads=N_HEADS,
        d_model=D_MODEL,
        d_head=D_HEAD,
        d_mlp=9,
        act_fn=act_fn,
        normalization_type=normalization_type,
        attention_dir=attention_dir,
        attn_only=attn_only,
    )
    native, ours = native_model(cfg), Transformer(cfg).eval()
    copy_weights(native, ours)
    tokens = torch.randint(11, (3, 7), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), native(tokens), atol=ATOL, rtol=ATOL)
        logits, cache = ours.run_with_cache(tokens)
        native_logits, native_cache = native.run_with_cache(tokens)
    torch.testing.assert_close(logits, native_logits, atol=ATOL, rtol=ATOL)
    compared = set()
    for name in cache:
        if name.endswith("hook_attn_scores"):  # boot_native keeps the pattern there
            torch.testing.assert_close(cache[name].softmax(-1), native_cache[name], atol=ATOL, rtol=ATOL)
        else:
            torch.testing.assert_close(cache[name], native_cache[name], atol=ATOL, rtol=ATOL, msg=name)
        compared.add(name)
    assert compared == {name for name in ours.hook_dict if ours._switch_off(name) is None}


@torch.no_grad()
def test_the_benchmark_compares_equal_models():
    """PlainTransformer computes the same function: qk-norm, bidirectional, RMSNorm."""
    plain: Any = PlainTransformer(32).eval()
    ours: Any = Transformer(hooked_config(32)).eval()
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in ours.parameters())
    generator = torch.Generator().manual_seed(1)
    for parameter in plain.parameters():
        parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    pairs = [(ours.embed.W_E, plain.wte.weight), (ours.W_pos, plain.wpe.weight), (ours.ln_final.w, plain.ln_f.weight)]
    pairs += [(ours.unembed.weight, plain.lm_head.weight), (ours.b_U, plain.lm_head.bias)]
    for a, b in zip(ours.blocks, plain.h, strict=True):
        pairs += [(a.ln1.w, b.ln_1.weight), (a.ln2.w, b.ln_2.weight)]
        pairs += [(a.attn.q_norm.w, b.attn.q_norm.weight), (a.attn.k_norm.w, b.attn.k_norm.weight)]
        pairs += [(a.attn.qkv.weight, b.attn.c_attn.weight), (a.attn.qkv.bias, b.attn.c_attn.bias)]
        pairs += [(a.attn.out.weight, b.attn.c_proj.weight), (a.attn.out.bias, b.attn.c_proj.bias)]
        pairs += [(a.mlp.fc_in.weight, b.c_fc.weight), (a.mlp.fc_in.bias, b.c_fc.bias)]
        pairs += [(a.mlp.fc_out.weight, b.c_proj.weight), (a.mlp.fc_out.bias, b.c_proj.bias)]
    for target, source in pairs:
        target.copy_(source)
    tokens = torch.randint(D_VOCAB, (2, N_CTX), generator=generator)
    torch.testing.assert_close(ours(tokens), plain(tokens), atol=ATOL, rtol=ATOL)
