"""The encoder–decoder: what each side sees, answers with and without a cache, T5's logits from its weights."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from interp.models import build_model
from interp.models.answers import fixed_point_answers, greedy_answers
from interp.models.encoder_decoder import suits
from interp.models.encoder_decoder_config import EncoderDecoderConfig
from interp.models.relative_bias import RelativeBias
from interp.tasks import TASKS
from interp.training import PRESETS
from interp.worlds.machine import MachineSpec

N_PROMPT, N_ANSWER, D_VOCAB = 5, 4, 11
CFG = EncoderDecoderConfig(
    d_vocab=D_VOCAB,
    n_ctx=N_PROMPT + N_ANSWER,
    n_prompt=N_PROMPT,
    n_layers=4,
    n_encoder=2,
    n_heads=2,
    d_model=16,
    qk_norm=True,
    positional_embedding_type="block",
    position_roles=(0,) * N_PROMPT + (1,) * N_ANSWER,
    position_indices=(*range(N_PROMPT), *range(N_ANSWER)),
    index_init="sinusoidal",
    rotary_dim=4,
    init_range=0.5,
)


@pytest.fixture(scope="module", params=["turned", "relative"])
def model(request) -> Any:
    relative = {"relative_buckets": 8, "relative_distance": 6, "rotary_dim": 0, "dtype": "float64"}
    model: Any = build_model(replace(CFG, **relative) if request.param == "relative" else CFG).eval()
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.5 * torch.randn(p.shape, generator=generator)
    return model


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(D_VOCAB, (7, N_PROMPT + N_ANSWER), generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_what_each_side_sees(model, tokens):
    """The prompt sees itself whole and none of the answer; an answer token is decided by it and those before."""
    _, clean = model.run_with_cache(tokens)
    for at in range(N_PROMPT + N_ANSWER):
        other = tokens.clone()
        other[:, at] = (other[:, at] + 1) % D_VOCAB
        _, cache = model.run_with_cache(other)
        stream = model.residual_hooks()[-1]
        changed = ~torch.isclose(cache[stream], clean[stream], atol=1e-6).all(-1).all(0)
        if at < N_PROMPT:
            assert changed.all()
        else:  # token `at` is read where the next is decided; the last is not read
            assert changed.tolist() == [pos > at for pos in range(N_PROMPT + N_ANSWER)]
    assert model(tokens).shape == (7, N_PROMPT + N_ANSWER, D_VOCAB)
    shorter = model(tokens[:, :-2])
    torch.testing.assert_close(shorter[:, N_PROMPT - 1 : -1], model(tokens)[:, N_PROMPT - 1 : -3], atol=1e-5, rtol=0)


@torch.no_grad()
def test_cached_answers_are_those_without_a_cache(model, tokens):
    prompt = tokens[:, :N_PROMPT]
    expected = greedy_answers(model, prompt, N_ANSWER, use_cache=False)
    assert len(expected.unique(dim=0)) > 2
    assert torch.equal(greedy_answers(model, prompt, N_ANSWER), expected)
    for guess in (tokens[:, N_PROMPT:], expected):
        assert torch.equal(fixed_point_answers(model, prompt, guess), expected)
    # each token is the arg max of the logits that teacher forcing gives
    logits = model(torch.cat([prompt, expected], dim=1))
    assert torch.equal(logits[:, N_PROMPT - 1 : -1].argmax(-1), expected)
    for bad, message in ((tokens[:, :3], "prompt must be"), (tokens[:, :N_PROMPT], "has 4 tokens; got 5")):
        with pytest.raises(ValueError, match=message):
            greedy_answers(model, bad, N_ANSWER + 1)


@torch.no_grad()
def test_a_task_is_answered_alike_whether_anybody_watches_or_not():
    spec = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=1)
    task = TASKS["step"](spec)
    cfg = EncoderDecoderConfig(
        d_vocab=spec.d_vocab,
        n_ctx=task.n_ctx,
        n_prompt=spec.state_length,
        n_layers=2,
        n_encoder=1,
        n_heads=2,
        d_model=16,
        init_range=0.6,
    )
    model: Any = build_model(cfg).eval()
    batch = task.sample(5, seed=0)
    plain = task.answer(model, batch)
    with model.hooks(fwd_hooks=[("hook_embed", lambda act, hook: act)]):
        assert model.fixed_point is None
        assert torch.equal(task.answer(model, batch), plain)
    assert torch.equal(plain, greedy_answers(model, batch.tokens[:, : spec.state_length], spec.state_length))


@pytest.mark.parametrize("tied", [True, False])
@torch.no_grad()
def test_logits_are_those_of_t5(tied):
    """transformers' T5, its weights copied. It divides no scores by sqrt(d_head), has one table of biases a side and
    one final norm of the encoder, and computes norms and softmax in float32."""
    torch.manual_seed(0)
    shape = {"d_model": 16, "d_kv": 5, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 3}
    config: dict[str, Any] = {
        "vocab_size": D_VOCAB + 1,  # with a start token
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "feed_forward_proj": "relu",
        "tie_word_embeddings": tied,
        "dropout_rate": 0.0,
        "decoder_start_token_id": D_VOCAB,
        "pad_token_id": D_VOCAB,
    }
    made: Any = T5Config
    settings = made(**config, **shape)
    theirs: Any = T5ForConditionalGeneration(settings).eval().double()
    for p in theirs.parameters():
        p.copy_(torch.randn(p.shape, dtype=p.dtype) * 0.4)
    n_prompt, n_answer = 17, 14
    ours: Any = build_model(
        EncoderDecoderConfig(
            d_vocab=D_VOCAB,
            n_ctx=n_prompt + n_answer,
            n_prompt=n_prompt,
            n_layers=5,
            n_encoder=2,
            n_heads=3,
            d_head=5,
            d_model=16,
            d_mlp=24,
            act_fn="relu",
            use_bias=False,
            eps=1e-6,
            positional_embedding_type="none",
            relative_buckets=8,
            relative_distance=12,
            dtype="float64",
        )
    ).eval()

    def copy_attention(attn, other):
        q, k, v = (getattr(other, name).weight for name in "qkv")
        attn.qkv.weight.copy_(torch.cat([q * 5**0.5, k, v]))
        attn.out.weight.copy_(other.o.weight)

    def copy_mlp(block, norm, other):
        norm.w.copy_(other.layer_norm.weight)
        block.mlp.fc_in.weight.copy_(other.DenseReluDense.wi.weight)
        block.mlp.fc_out.weight.copy_(other.DenseReluDense.wo.weight)

    ours.embed.W_E.copy_(theirs.shared.weight[:D_VOCAB])
    ours.embed.W_start.copy_(theirs.shared.weight[D_VOCAB:])
    for block, other in zip(ours.encoder_blocks, theirs.encoder.block, strict=True):
        block.ln1.w.copy_(other.layer[0].layer_norm.weight)
        copy_attention(block.attn, other.layer[0].SelfAttention)
        block.attn.distance_bias.W_rel.copy_(
            theirs.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        )
        copy_mlp(block, block.ln2, other.layer[1])
    for block, other in zip(ours.decoder_blocks, theirs.decoder.block, strict=True):
        block.ln1.w.copy_(other.layer[0].layer_norm.weight)
        copy_attention(block.self_attn, other.layer[0].SelfAttention)
        block.self_attn.distance_bias.W_rel.copy_(
            theirs.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        )
        block.ln2.w.copy_(other.layer[1].layer_norm.weight)
        block.ln_memory.w.copy_(theirs.encoder.final_layer_norm.weight)
        copy_attention(block.cross_attn, other.layer[1].EncDecAttention)
        copy_mlp(block, block.ln3, other.layer[2])
    ours.ln_final.w.copy_(
        theirs.decoder.final_layer_norm.weight * (16**-0.5 if theirs.config.scale_decoder_outputs else 1.0)
    )
    ours.unembed.weight.copy_(theirs.lm_head.weight[:D_VOCAB])
    tokens = torch.randint(D_VOCAB, (3, n_prompt + n_answer))
    prompt, answer = tokens[:, :n_prompt], tokens[:, n_prompt:]
    expected = theirs(input_ids=prompt, labels=answer.contiguous(), attention_mask=torch.ones_like(prompt)).logits[
        ..., :D_VOCAB
    ]
    torch.testing.assert_close(ours(tokens)[:, n_prompt - 1 : -1], expected, atol=2e-6, rtol=1e-4)
    _, cache = ours.run_with_cache(tokens)  # with patterns made explicit
    torch.testing.assert_close(
        cache["decoder_blocks.0.cross_attn.hook_pattern"].sum(-1).mean(), torch.tensor(1.0).double()
    )


def test_buckets_by_hand():
    """Eight buckets both ways: 0, 1, then [2, 3] and all beyond 3 of a greatest distance 4, doubled for later keys."""
    bias = RelativeBias(8, 1, both_ways=True, max_distance=8)
    offsets = torch.tensor([0, -1, -2, -3, -4, -9, 1, 2, 3, 4, 9])
    assert bias.buckets(offsets).tolist() == [0, 1, 2, 2, 3, 3, 5, 6, 6, 7, 7]
    causal = RelativeBias(4, 1, both_ways=False, max_distance=8)
    assert causal.buckets(offsets[:7]).tolist() == [0, 1, 2, 2, 3, 3, 0]


def test_hooks_say_which_side_they_are_about(model):
    assert model.axes("encoder_blocks.0.hook_resid_pre") == ("batch", "prompt_pos", "d_model")
    assert model.axes("decoder_blocks.1.hook_resid_mid2") == ("batch", "answer_pos", "d_model")
    assert model.axes("decoder_blocks.0.cross_attn.hook_k") == ("batch", "prompt_pos", "head", "d_head")
    cross = "decoder_blocks.0.cross_attn.hook_pattern"
    assert model.axes(cross) == ("batch", "head", "answer_query_pos", "prompt_key_pos")
    assert [model.layer_of(f"{side}_blocks.1.hook_mlp_out") for side in ("encoder", "decoder")] == [1, 3]
    placed = model.on_record(cross, torch.ones(1, 2, N_ANSWER, N_PROMPT))
    assert placed.shape == (1, 2, 9, 9) and placed[0, 0].sum() == N_ANSWER * N_PROMPT
    assert placed[0, 0, N_PROMPT:, :N_PROMPT].all()
    assert model.first_position(cross) == N_PROMPT and model.first_position("encoder_blocks.0.hook_mlp_out") == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n_prompt": 9}, "n_prompt must be from 1 to n_ctx - 1 = 8; got 9"),
        ({"n_encoder": 4}, "n_encoder must be from 1 to n_layers - 1 = 3; got 4"),
        ({"attention_dir": "bidirectional"}, "needs attention_dir='causal'"),
        ({"attn_only": True}, "no attn_only"),
        ({"relative_buckets": 6}, "a multiple of 4"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        replace(CFG, **fields)


def test_tasks_that_suit_it_and_the_preset():
    spec = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=1)
    assert suits(TASKS["step"](spec)) is None
    assert "step_inplace" in str(suits(TASKS["step_inplace"](spec)))
    preset = PRESETS["step_encoder_decoder"].model
    assert preset.n_prompt == MachineSpec().state_length
    assert sum(p.numel() for p in build_model(preset).parameters()) <= 400_000
