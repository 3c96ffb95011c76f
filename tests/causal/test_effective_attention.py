"""Effective attention against the recurrence, and by brute force where nothing decays."""

from typing import Any

import pytest
import torch

from interp.interventions import effective_attention
from interp.models import build_model
from interp.models.state_configs import DeltaConfig, GRUConfig, LinearAttentionConfig

SIZES: Any = {"d_vocab": 7, "n_ctx": 9, "d_model": 12, "n_heads": 2, "d_key": 5, "d_value": 3, "n_layers": 2}


@pytest.mark.parametrize(
    "config",
    [
        LinearAttentionConfig(**SIZES),
        LinearAttentionConfig(**SIZES, decay="none"),
        DeltaConfig(**SIZES, conv_size=3),
        DeltaConfig(**SIZES, decay="none", beta_max=1, conv_size=0),
    ],
    ids=["decaying", "plain", "delta", "delta-plain"],
)
def test_what_is_read_is_the_weighted_values(config) -> None:
    model = build_model(config).eval()
    tokens = torch.randint(7, (3, 9), generator=torch.Generator().manual_seed(0))
    for layer in range(2):
        A = effective_attention(model, tokens, layer)
        kept = {}

        def keep(activation, hook, kept=kept) -> None:
            kept[hook.name.rpartition("hook_")[2]] = activation

        names = [f"blocks.{layer}.linear_attn.hook_{part}" for part in ("v", "recurrence_out")]
        with torch.no_grad(), model.hooks(fwd_hooks=[(name, keep) for name in names]):
            model(tokens)
        read = torch.einsum("bhts,bshv->bthv", A, kept["v"])
        torch.testing.assert_close(read, kept["recurrence_out"], atol=1e-5, rtol=1e-4)
        assert not A.triu(1).any()


def test_without_decay_it_is_query_times_key() -> None:
    model = build_model(LinearAttentionConfig(**SIZES, decay="none")).eval()
    tokens = torch.randint(7, (2, 9), generator=torch.Generator().manual_seed(1))
    _, cache = model.run_with_cache(tokens)
    q, k = (cache[f"blocks.1.linear_attn.hook_{part}"] for part in "qk")
    A = effective_attention(model, tokens, 1)
    for t in range(9):
        for s in range(t + 1):
            torch.testing.assert_close(A[:, :, t, s], (q[:, t] * k[:, s]).sum(-1))


def test_other_models_are_refused() -> None:
    tokens = torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="hold a matrix"):
        effective_attention(build_model(GRUConfig(d_vocab=7, n_ctx=9, d_model=12)), tokens, 0)
    assert effective_attention(build_model(DeltaConfig(**SIZES, n_householder=2)), tokens, 0).shape == (1, 2, 3, 3)
