"""Decoding with a key-value cache equals decoding without, token by token."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch

from cython_vm import MachineSpec
from interp.models import KeyValueCache, TransformerConfig, build_model, greedy_decode
from interp.models.decoding import fixed_point_decode, is_plain
from interp.tasks import Step
from interp.training.presets import transformer_for

CFG = TransformerConfig(d_vocab=13, n_ctx=9, n_layers=2, n_heads=2, d_model=16, seed=3)


@pytest.fixture
def case(transformer_case):
    return transformer_case


@pytest.fixture
def causal(case):
    if case.model.cfg.attention_dir != "causal":
        with pytest.raises(ValueError, match="needs attention_dir='causal'; this model is bidirectional"):
            KeyValueCache(case.model.cfg, 3)
        with pytest.raises(ValueError, match="needs a causal model; this one is bidirectional"):
            greedy_decode(case.model, case.tokens, 1)
        pytest.skip("bidirectional: nothing to decode")
    return case


@torch.no_grad()
@pytest.mark.parametrize("pieces", [(1,) * 9, (4, 1, 3, 1), (2, 7)])
def test_reading_in_pieces_is_reading_at_once(causal, pieces):
    model, tokens = causal.model, causal.tokens
    _, whole = model.run_with_cache(tokens)
    for watched in (False, True):
        past, start = KeyValueCache(model.cfg, len(tokens)), 0
        for piece in tokens.split(pieces, dim=1):
            stop = start + piece.shape[1]
            filter_ = None if watched else []
            logits, cache = model.run_with_cache(piece, names_filter=filter_, past_kv_cache=past)
            assert past.length == stop
            torch.testing.assert_close(logits, model(tokens)[:, start:stop], atol=1e-5, rtol=1e-5)
            for name in cache:
                own = whole[name][..., start:stop, :stop] if "pattern" in name or "scores" in name else None
                own = whole[name][:, start:stop] if own is None else own
                torch.testing.assert_close(cache[name], own, atol=1e-5, rtol=1e-5, msg=name)
            start = stop


@torch.no_grad()
def test_a_cache_filled_in_inference_mode_is_read_on_outside(causal):
    model, tokens = causal.model, causal.tokens
    kept = torch.arange(len(tokens)) != 1
    expected = model(tokens)
    with torch.inference_mode():
        cache = model.new_cache(len(tokens))
        model(tokens[:, :2], past_kv_cache=cache)
        cache.keep(torch.arange(len(tokens)) != 1)
    torch.testing.assert_close(model(tokens[kept, 2:], past_kv_cache=cache), expected[kept, 2:], atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_same_tokens_either_way(causal):
    model, prompt = causal.model, causal.tokens[:, :3]
    slow = greedy_decode(model, prompt, 7, use_kv_cache=False)
    assert slow.unique().numel() > 1  # no constant
    assert torch.equal(greedy_decode(model, prompt, 7), slow)
    assert torch.equal(greedy_decode(model, prompt, 0), slow[:, :0])
    sequence = torch.cat([prompt, slow], dim=1)[:, :9]
    assert torch.equal(model(sequence)[:, 2:].argmax(-1), slow)  # each the arg max given all before it
    for n_tokens in (0, 1, 6):
        guess = torch.zeros(3, n_tokens, dtype=torch.long)
        assert torch.equal(fixed_point_decode(model, prompt, guess), slow[:, :n_tokens])


def test_hooks_fire_once_a_token():
    model: Any = build_model(CFG).eval()
    seen: Counter[tuple[int, ...]] = Counter()
    prompt = torch.tensor([[1, 2, 3]])
    clean = greedy_decode(model, prompt, 4)
    with model.hooks(fwd_hooks=[("blocks.0.attn.hook_pattern", lambda act, hook: seen.update([tuple(act.shape)]))]):
        assert torch.equal(greedy_decode(model, prompt, 4), clean)
    assert seen == {(1, 2, 3, 3): 1, (1, 2, 1, 4): 1, (1, 2, 1, 5): 1, (1, 2, 1, 6): 1}
    with model.hooks(fwd_hooks=[("blocks.1.hook_resid_post", lambda act, hook: torch.zeros_like(act))]):
        assert not torch.equal(greedy_decode(model, prompt, 4), clean)


def test_refusals():
    model: Any = build_model(CFG).eval()
    prompt = torch.tensor([[1, 2, 3]])
    with pytest.raises(ValueError, match=r"must be from 0 to 7 after a prompt of 3 .at most 9 are read.; got 8"):
        greedy_decode(model, prompt, 8)
    with pytest.raises(ValueError, match="at least one token; got"):
        greedy_decode(model, prompt[:, :0], 2)
    past = KeyValueCache(CFG, 1)
    with pytest.raises(ValueError, match=r"use it under torch.no_grad\(\)"):
        model(prompt, past_kv_cache=past)
    with torch.no_grad():
        model(prompt.repeat(1, 2), past_kv_cache=past)
        with pytest.raises(ValueError, match="at most n_ctx = 9 long; got 6 read and 6 new"):
            model(prompt.repeat(1, 2), past_kv_cache=past)
        with pytest.raises(ValueError, match="batch of 1; got 2 rows"):
            model(prompt.repeat(2, 1), past_kv_cache=past)
        with pytest.raises(ValueError, match="no start_at_layer or stop_at_layer"):
            model(prompt, past_kv_cache=past, stop_at_layer=1)


def test_step_predicts_the_same_watched_or_not():
    """A hook that only looks takes whole passes; without it the cache is used, and rows leave when done."""
    spec = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=1)
    task = Step(spec)
    cfg = transformer_for("step", spec, n_layers=1, n_heads=2, d_model=16)
    model: Any = build_model(replace(cfg, init_range=0.6)).eval()
    tokens = task.sample(140, seed=0).tokens[:, : spec.state_length]
    assert is_plain(model)
    alone = task.predict(model, tokens)
    assert not torch.equal(alone, tokens)
    with model.hooks(fwd_hooks=[("hook_embed", lambda act, hook: None)]):
        assert not is_plain(model)
        watched = task.predict(model, tokens)
    assert torch.equal(alone, watched)
    assert torch.equal(alone, task.predict(lambda tokens: model(tokens), tokens))
    assert torch.equal(alone[:8], greedy_decode(model, tokens[:8], spec.state_length))
    assert task.predict(model, tokens[:0]).shape == (0, spec.state_length)
