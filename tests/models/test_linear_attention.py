"""Linear attention in chunks against its recurrence, and what its configurations mean."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from interp.models import chunks
from tests.models.state_cases import STATE_CASES, build, some_tokens


def random_inputs(n_pos, *, shared=False, dtype=torch.float64, batch=2, heads=3):
    generator = torch.Generator().manual_seed(0)

    def draw(heads, *shape):
        return torch.randn(batch, heads, *shape, generator=generator, dtype=dtype)

    q, k = (draw(1 if shared else heads, n_pos, 5) for _ in range(2))
    return q, k, draw(heads, n_pos, 4), -0.3 * draw(heads, n_pos).abs(), draw(heads, 5, 4)


def recurrence(q, k, v, log_decay, state):
    reads = []
    for t in range(v.shape[2]):
        state = log_decay[:, :, t, None, None].exp() * state + k[:, :, t, :, None] * v[:, :, t, None, :]
        reads.append((q[:, :, t, None] @ state)[:, :, 0])
    return torch.stack(reads, dim=2), state


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("n_pos", "chunk"), [(1, 8), (8, 8), (37, 8), (20, 32)])
def test_chunks_equal_the_recurrence(n_pos, chunk, shared):
    inputs = random_inputs(n_pos, shared=shared)
    for found, expected in zip(chunks.linear_attention(*inputs, chunk=chunk), recurrence(*inputs), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)


def test_chunks_equal_the_recurrence_in_single_precision():
    inputs = random_inputs(148, dtype=torch.float32)
    for found, expected in zip(chunks.linear_attention(*inputs), recurrence(*inputs), strict=True):
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_gradients_of_the_chunks():
    inputs = [each.requires_grad_() for each in random_inputs(7, batch=1, heads=2)]
    assert torch.autograd.gradcheck(lambda *x: chunks.linear_attention(*x, chunk=4), inputs)


def test_without_decay_it_is_attention_without_softmax():
    """Every position reads Σ (q·k) v over itself and all before it."""
    model = build(replace(STATE_CASES["linear-attention-plain"], dtype="float64"))
    _, cache = model.run_with_cache(some_tokens(1))
    q, k, v, read = (cache[f"blocks.0.linear_attn.hook_{part}"] for part in ("q", "k", "v", "recurrence_out"))
    assert q.min() > 0  # elu + 1
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k).tril()
    torch.testing.assert_close(read, torch.einsum("bhqk,bkhv->bqhv", scores, v))


def test_retention_fades_at_a_fixed_rate_a_head():
    model = build(replace(STATE_CASES["retention"], dtype="float64"))
    _, cache = model.run_with_cache(some_tokens(1))
    decay = cache["blocks.0.linear_attn.hook_log_decay"].exp()
    torch.testing.assert_close(decay, torch.tensor([1 - 1 / 32, 1 - 1 / 64], dtype=torch.float64).expand_as(decay))
    scores = torch.einsum("bqhd,bkhd->bhqk", cache["blocks.0.linear_attn.hook_q"], cache["blocks.0.linear_attn.hook_k"])
    age = (torch.arange(9)[:, None] - torch.arange(9)).clamp(min=0)
    scores = (scores * decay[0, 0, :, None, None] ** age).tril()
    expected = torch.einsum("bhqk,bkhv->bqhv", scores, cache["blocks.0.linear_attn.hook_v"])
    torch.testing.assert_close(cache["blocks.0.linear_attn.hook_recurrence_out"], expected)


def test_a_write_that_is_taken_away_is_missing_from_all_later_states():
    model = build(replace(STATE_CASES["linear-attention"], n_layers=1, dtype="float64"))
    names = [f"blocks.0.linear_attn.hook_{part}" for part in ("ssm_write", "ssm_state", "log_decay")]

    def skip(act, hook):
        act[:, 2] = 0.0
        return act

    _, clean = model.run_with_cache(some_tokens(1), names_filter=names)
    with model.hooks(fwd_hooks=[(names[0], skip)]):
        _, edited = model.run_with_cache(some_tokens(1), names_filter=names)
    missing: Any = clean[names[1]] - edited[names[1]]
    kept = clean[names[2]][:, 3:].cumsum(1).exp()[..., None, None]
    torch.testing.assert_close(missing[:, 2], clean[names[0]][:, 2])
    torch.testing.assert_close(missing[:, 3:], kept * clean[names[0]][:, 2:3])
    assert (missing[:, :2] == 0).all()
