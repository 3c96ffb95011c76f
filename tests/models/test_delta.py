"""The delta rule against its recurrence, transformers' Qwen3-Next, and hand-set weights that count."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from interp.models import chunks
from interp.models.delta import Delta
from interp.models.state_configs import DeltaConfig
from tests.models.state_cases import STATE_CASES, build, some_tokens

HANDSET: dict[str, Any] = {
    "d_vocab": 3,
    "n_ctx": 64,
    "n_layers": 1,
    "decay": "none",
    "conv_size": 0,
    "output_gate": False,
    "normalization_type": None,
    "use_bias": False,
}
START, COUNT, PASS = range(3)  # the tokens of the hand-set models
OFF, ON = -200.0, 40.0  # σ is exactly 0 and 1 there in float32


def random_writes(n_pos, *, steps=1, dtype=torch.float64, seed=0, batch=2, heads=3):
    """Queries, unit keys, values, strengths up to 2, log decays and a state, as chunks.py takes them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(batch, heads, *shape, generator=generator, dtype=dtype)

    q, k = F.normalize(draw(n_pos, 5), dim=-1), F.normalize(draw(n_pos * steps, 5), dim=-1)
    v, beta = draw(n_pos * steps, 4), 2 * torch.sigmoid(draw(n_pos * steps))
    return q, k, v, beta, -0.3 * draw(n_pos).abs(), draw(5, 4)


def recurrence(q, k, v, beta, log_decay, state):
    steps = k.shape[2] // q.shape[2]
    k, v, beta = (each.unflatten(2, (-1, steps)) for each in (k, v, beta))
    reads = []
    for t in range(q.shape[2]):
        state = chunks.delta_step(state, k[:, :, t], v[:, :, t], beta[:, :, t], log_decay[:, :, t])
        reads.append((q[:, :, t, None] @ state)[:, :, 0])
    return torch.stack(reads, dim=2), state


def test_a_write_replaces_what_its_key_reads():
    """Worked by hand: 3 written at e1, then 5 with strength 1 there and 1/2 at e2; what was at e1 is gone."""
    e1, e2 = torch.eye(2)
    state = torch.zeros(1, 1, 2, 1)
    for key, value, strength in ((e1, 3.0, 1.0), (e1, 5.0, 1.0), (e2, 8.0, 0.5)):
        one = (key[None, None, None], torch.full((1, 1, 1, 1), value), torch.full((1, 1, 1), strength))
        state = chunks.delta_step(state, *one, torch.zeros(1, 1))
    assert state.flatten().tolist() == [5.0, 4.0]


@pytest.mark.parametrize("steps", [1, 2, 3])
@pytest.mark.parametrize(("n_pos", "chunk"), [(1, 8), (8, 8), (37, 8), (20, 32)])
def test_chunks_equal_the_recurrence(steps, n_pos, chunk):
    writes = random_writes(n_pos, steps=steps)
    read, state, _ = chunks.delta_rule(*writes, chunk=chunk)
    expected_read, expected_state = recurrence(*writes)
    torch.testing.assert_close(read, expected_read, atol=1e-10, rtol=0)
    torch.testing.assert_close(state, expected_state, atol=1e-10, rtol=0)


def test_gradients_of_the_chunks():
    writes = [each.requires_grad_() for each in random_writes(7, steps=2, batch=1, heads=2)]
    assert torch.autograd.gradcheck(lambda *x: chunks.delta_rule(*x, chunk=4)[:2], writes)


def test_strong_decay_stays_finite():
    q, k, v, beta, log_decay, state = random_writes(64, dtype=torch.float32)
    log_decay = (100 * log_decay).requires_grad_()
    read, _, _ = chunks.delta_rule(q, k, v, beta, log_decay, state)
    torch.testing.assert_close(read, recurrence(q, k, v, beta, log_decay, state)[0], atol=1e-5, rtol=0)
    assert torch.autograd.grad(read.square().sum(), log_decay)[0].isfinite().all()


def test_equal_to_qwen3_next():
    """transformers' functions, chunked and recurrent; they divide queries by sqrt(d_key)."""
    from transformers.models.qwen3_next import modeling_qwen3_next as qwen

    q, k, v, beta, log_decay, state = random_writes(70, dtype=torch.float32)
    read, last, _ = chunks.delta_rule(q, k, v, beta, log_decay, state)
    theirs = [each.transpose(1, 2) for each in (q, k, v, log_decay, beta)]
    for function in (qwen.torch_chunk_gated_delta_rule, qwen.torch_recurrent_gated_delta_rule):
        out, final = function(*theirs, initial_state=state, output_final_state=True)
        torch.testing.assert_close(out.transpose(1, 2) * 5**0.5, read, atol=1e-5, rtol=0)
        torch.testing.assert_close(final, last, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["delta", "delta-product", "delta-plain"])
def test_cached_activations_are_those_of_the_recurrence(name):
    model = build(replace(STATE_CASES[name], dtype="float64"))
    _, cache = model.run_with_cache(some_tokens(1))
    q, k, v, beta, log_decay, states, read = (
        cache[f"blocks.1.linear_attn.hook_{part}"]
        for part in ("q", "k", "v", "beta", "log_decay", "ssm_state", "recurrence_out")
    )
    torch.testing.assert_close(k.norm(dim=-1), torch.ones_like(k[..., 0]))
    assert 0 < beta.min() < 1
    assert (beta.max() > 1) == (model.cfg.beta_max == 2)
    assert (log_decay == 0).all() if model.cfg.decay == "none" else (log_decay < 0).all()
    if k.ndim == 4:
        k, v, beta = (each[:, :, None] for each in (k, v, beta))
    state = torch.zeros_like(states[:, 0])
    for pos in range(states.shape[1]):
        k_t, v_t, beta_t = (each[:, pos].transpose(1, 2) for each in (k, v, beta))
        state = chunks.delta_step(state, k_t, v_t, beta_t, log_decay[:, pos])
        torch.testing.assert_close(states[:, pos], state)
        torch.testing.assert_close(read[:, pos], (q[:, pos, :, None] @ state)[:, :, 0])


def count_tokens(seed: int, n_pos: int) -> torch.Tensor:
    tokens = torch.randint(COUNT, PASS + 1, (4, n_pos), generator=torch.Generator().manual_seed(seed))
    return torch.cat([torch.full((4, 1), START), tokens], dim=1)


@torch.no_grad()
def test_parity_is_exact_with_strengths_up_to_2():
    """One head that holds one number: written 1 at the start, a counted token reflects it, others leave it."""
    model = Delta(DeltaConfig(**HANDSET, d_model=4, n_heads=1, d_key=1, d_value=1))
    for parameter in model.parameters():
        parameter.zero_()
    layer: Any = model.blocks[0].recurrence
    model.embed.W_E[:, :3] = torch.eye(3)  # the token, one-hot; dimension 3 takes the answer
    layer.W_Q[0, :3] = layer.W_K[0, :3] = 1.0
    layer.W_V[0, START] = 1.0
    layer.W_beta[0, :3] = torch.tensor([0.0, ON, OFF])  # strength 1, 2, 0
    layer.W_O[3, 0] = 1.0
    model.unembed.weight[:2, 3] = torch.tensor([1.0, -1.0])  # even, odd
    tokens = count_tokens(0, 1000)
    logits, cache = model.run_with_cache(tokens)
    odd = (tokens == COUNT).cumsum(1) % 2
    assert torch.equal(logits[..., :2].argmax(-1), odd)
    for read in (logits[..., 0], cache["blocks.0.linear_attn.hook_ssm_state"].flatten(2)[..., 0]):
        assert torch.equal(read, 1.0 - 2.0 * odd)  # not a rounding error in 1000 flips
    layer.beta_max = 1  # the same weights, where a write can only replace
    assert (model(tokens)[..., 0].abs() < 1)[:, 20:].all()


@torch.no_grad()
def test_counting_modulo_3_is_exact_with_two_writes():
    """Two reflections at 60° are a turn by 120°. Two heads hold the same vector; one reads x, the other y."""
    model = Delta(DeltaConfig(**HANDSET, d_model=5, n_heads=2, d_key=2, d_value=1, n_householder=2))
    for parameter in model.parameters():
        parameter.zero_()
    layer: Any = model.blocks[0].recurrence
    model.embed.W_E[:, :3] = torch.eye(3)
    for head in range(2):
        keys = slice(2 * head, 2 * head + 2)
        layer.W_Q[2 * head + head, :3] = 1.0
        layer.W_K_0[keys, :3] = torch.tensor([[1.0], [0.0]])
        layer.W_K_1[keys, :3] = torch.tensor([[0.5], [0.75**0.5]])
        layer.W_V_0[head, START] = 1.0
        layer.W_beta_0[head, :3] = torch.tensor([0.0, ON, OFF])
        layer.W_beta_1[head, :3] = torch.tensor([OFF, ON, OFF])
        layer.W_O[3 + head, head] = 1.0
    angles = 2 * torch.pi * torch.arange(3) / 3
    model.unembed.weight[:, 3:] = torch.stack([angles.cos(), angles.sin()], dim=1)
    tokens = count_tokens(1, 1000)
    count = (tokens == COUNT).cumsum(1) % 3
    logits = model(tokens)
    assert torch.equal(logits.argmax(-1), count)
    torch.testing.assert_close(logits, torch.where(count[..., None] == torch.arange(3), 1.0, -0.5), atol=1e-3, rtol=0)


def test_bad_configurations_say_what_was_expected():
    common: dict[str, Any] = {"d_vocab": 13, "n_ctx": 9}
    for options, message in (
        ({"n_householder": 0}, "n_householder must be a whole number of at least 1, got 0"),
        ({"beta_max": 3}, r"beta_max must be one of \(1, 2\); got 3"),
        ({"conv_size": 1}, "conv_size must be 0, for no convolution, or an integer of at least 2; got 1"),
        ({"d_model": 30}, "d_model must be a multiple of n_heads unless d_key is given; got d_model=30, n_heads=4"),
        ({"decay": "slow"}, "decay must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            DeltaConfig(**{**common, **options})
