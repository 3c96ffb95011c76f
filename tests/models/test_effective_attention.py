"""Effective attention: with keys and gates as they were, what is read is exactly this sum of values."""

from typing import Any

import pytest
import torch

from interp.models import build_model
from interp.models.effective_attention import by_position, value_weights
from interp.models.state_configs import DeltaConfig, GRUConfig, LinearAttentionConfig

SIZES: dict[str, Any] = {"d_vocab": 11, "n_ctx": 40, "n_layers": 2, "d_model": 16, "dtype": "float64"}
CONFIGS = {
    "linear attention": LinearAttentionConfig(**SIZES),
    "retention": LinearAttentionConfig(**SIZES, decay="fixed"),
    "delta": DeltaConfig(**SIZES),
    "delta product": DeltaConfig(**SIZES, n_householder=2),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_reads_are_weighted_sums_of_values(name):
    model: Any = build_model(CONFIGS[name]).eval()
    tokens = torch.randint(11, (3, 40), generator=torch.Generator().manual_seed(0))
    layer = 1
    hooks = model.effective_attention_hooks(layer)
    inside = f"blocks.{layer}.linear_attn"
    with torch.no_grad():
        _, cache = model.run_with_cache(
            tokens, names_filter=[*hooks, f"{inside}.hook_v", f"{inside}.hook_recurrence_out"]
        )
    q, k, log_decay, *beta = (cache[hook] for hook in hooks)
    weights = value_weights(q, k, beta[0] if beta else None, log_decay)
    v = cache[f"{inside}.hook_v"]
    written = (v.flatten(1, 2) if v.ndim == 5 else v).transpose(1, 2)  # [batch, head, write, d_value]
    read = (weights @ written).transpose(1, 2)
    torch.testing.assert_close(read, cache[f"{inside}.hook_recurrence_out"], atol=1e-9, rtol=1e-9)
    picture = model.effective_attention(layer, cache)
    assert picture.shape == (3, model.cfg.n_heads, 40, 40)
    assert not picture.triu(1).any()  # nothing is read of what comes later
    torch.testing.assert_close(picture, by_position(weights, 40))


def test_an_overwritten_value_is_not_read():
    """Two writes under one key with β = 1: the second replaces the first, which linear attention keeps."""
    k = torch.eye(2, dtype=torch.float64)[[0, 0, 1]][None, :, None]  # [batch, pos, head, d_key]
    q, none = k[:, [0, 0, 0]], torch.zeros(1, 3, 1, dtype=torch.float64)
    assert value_weights(q, k, none + 1, none)[0, 0, 2].tolist() == [0, 1, 0]
    assert value_weights(q, k, None, none)[0, 0, 2].tolist() == [1, 1, 0]
    assert value_weights(q, k, none + 0.5, none)[0, 0, 2].tolist() == [0.25, 0.5, 0]


def test_other_models_say_that_they_have_none():
    gru: Any = build_model(GRUConfig(d_vocab=5, n_ctx=4, d_model=8))
    assert gru.effective_attention_hooks(0) == ()
    with pytest.raises(ValueError, match="'gru' reads is no weighted sum of values"):
        gru.effective_attention(0, {})
