"""Texts in and out, next-token losses, and generation: the calls of a TransformerLens user."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformer_lens.utilities.lm_utils import lm_cross_entropy_loss

from interp.models import TransformerConfig, build_model, greedy_decode

CFG = TransformerConfig(d_vocab=5, n_ctx=12, n_layers=2, n_heads=2, d_model=16, init_range=0.6)
WORDS = ("PUT", "GET", "INC", "NUM_1", "NUM_11")
LETTERS = ("a", "b", " ", "1", "2")


@pytest.fixture
def model() -> Any:
    model: Any = build_model(CFG).eval()
    model.vocab = WORDS
    return model


@pytest.mark.parametrize(
    ("vocab", "text", "expected"),
    [
        (WORDS, "PUT INC  NUM_11\nGET", [[0, 2, 4, 1]]),
        (WORDS, "NUM_11", [[4]]),
        (WORDS, ["PUT", "INC"], [[0, 2]]),  # names of one sequence
        (WORDS, ["PUT INC", "GET GET"], [[0, 2], [1, 1]]),  # texts of two
        (WORDS, [["PUT", "INC"], ["GET", "GET"]], [[0, 2], [1, 1]]),
        (WORDS, [3, 4], [[3, 4]]),
        (LETTERS, "ab 12", [[0, 1, 2, 3, 4]]),  # the space is a token
        (LETTERS, "a b", [[0, 2, 1]]),
        (LETTERS, ["ab", "ba"], [[0, 1], [1, 0]]),
        (("0", "1", "+", "=", "x"), "1+1=01", [[1, 2, 1, 3, 0, 1]]),
    ],
)
def test_texts_are_read_and_written(model, vocab, text, expected):
    model.vocab = vocab
    tokens = model.to_tokens(text)
    assert tokens.tolist() == expected
    assert torch.equal(model(text), model(tokens))
    assert torch.equal(model.run_with_cache(text, names_filter=[])[0], model(tokens))
    names = [[vocab[i] for i in row] for row in expected]
    assert model.to_str_tokens(text) == (names[0] if len(names) == 1 else names)
    assert model.to_tokens(model.to_string(tokens)).tolist() == expected  # read back
    assert model.to_string(tokens[0]) == model.to_string(tokens)[0]
    assert [model.to_single_str_token(i) for i in expected[0]] == names[0]


@pytest.mark.parametrize(
    ("vocab", "text", "message"),
    [
        (WORDS, "PUT INK", "unknown token 'INK'; did you mean INC"),
        (WORDS, "NUM_111", "unknown token 'NUM_111'"),  # and not NUM_11 with a 1
        (WORDS, ["PUT INC", "PUT"], r"rows must be of one length; got \[2, 1\] tokens"),
        (WORDS, "", "unknown token ''"),
        (LETTERS, "a?b", r"unknown token '\?'"),
        (None, "PUT", "vocab must be set"),
    ],
)
def test_texts_that_cannot_be_read(model, vocab, text, message):
    model.vocab = vocab
    with pytest.raises(ValueError, match=message):
        model(text)


def test_ids_that_cannot_be_written(model):
    model.vocab = WORDS[:3]
    with pytest.raises(ValueError, match="token ids must be from 0 to 2; got 1 to 4"):
        model.to_string([1, 4])
    with pytest.raises(ValueError, match=r"tokens must be \[pos\] or \[batch, pos\]; got \[1, 1, 2\]"):
        model.to_string([[[1, 2]]])


def test_losses(case):
    model, tokens = case.model, case.tokens
    logits = model(tokens)
    assert model(tokens, return_type=None) is None
    if not model.is_causal:
        for returned in ("loss", "both"):
            with pytest.raises(ValueError, match="this model looks ahead at it"):
                model(tokens, return_type=returned)
        return
    each = model(tokens, return_type="loss", loss_per_token=True)
    for row in range(len(tokens)):
        for pos in range(tokens.shape[1] - 1):
            expected = -F.log_softmax(logits[row, pos], -1)[tokens[row, pos + 1]]
            torch.testing.assert_close(each[row, pos], expected)
    mean = model(tokens, return_type="loss")
    torch.testing.assert_close(mean, each.mean())
    torch.testing.assert_close(mean, lm_cross_entropy_loss(logits, tokens))
    both = model(tokens, "both", loss_per_token=True)
    assert torch.equal(both.logits, logits)
    assert torch.equal(both.loss, each)
    for options, message in (
        ({"stop_at_layer": 1}, "no stop_at_layer with it"),
        ({"start_at_layer": 1}, "no start_at_layer with it"),
    ):
        with pytest.raises(ValueError, match=message):
            model(tokens, return_type="loss", **options)
    with pytest.raises(ValueError, match="at least two tokens; got 1"):
        model(tokens[:, :1], return_type="loss")
    with pytest.raises(ValueError, match="return_type must be 'logits', 'loss', 'both' or None; got 'probs'"):
        model(tokens, return_type="probs")


@torch.no_grad()
@pytest.mark.parametrize("cached", [True, False])
def test_generation_draws_from_the_softmax(cached):
    """Frequencies of 20,000 draws against probabilities, with each of the options; standard error below .0036."""
    model: Any = build_model(CFG).eval()
    prompt, n = torch.tensor([[1, 3, 0]]), 20_000
    logits = model(prompt)[0, -1].double()
    order = logits.argsort(descending=True)
    for options, temperature, kept in (
        ({}, 1.0, 5),
        ({"temperature": 2.0}, 2.0, 5),
        ({"top_k": 2}, 1.0, 2),
        ({"top_k": 9}, 1.0, 5),
        ({"top_p": float(logits.softmax(-1)[order[:2]].sum()) - 1e-6}, 1.0, 2),
        ({"top_p": float(logits.softmax(-1)[order[:2]].sum()) + 1e-6}, 1.0, 3),
        ({"top_p": 1e-9}, 1.0, 1),
        ({"top_p": 1.0}, 1.0, 5),
    ):
        expected = torch.zeros(5, dtype=torch.float64)
        expected[order[:kept]] = (logits[order[:kept]] / temperature).softmax(-1)
        drawn = model.generate(prompt.expand(n, -1), 1, seed=0, use_past_kv_cache=cached, **options)[:, -1]
        frequencies = drawn.bincount(minlength=5) / n
        assert (frequencies - expected).abs().max() < 0.015, options
        assert (frequencies[order[kept:]] == 0).all(), options


@torch.no_grad()
def test_generation_is_seeded_and_the_same_with_and_without_a_cache(case):
    model, prompt = case.model, case.tokens[:, :3]
    if not model.is_causal:
        with pytest.raises(ValueError, match="needs a causal model; this one is bidirectional"):
            model.generate(prompt)
        return
    first = model.generate(prompt, 6, seed=3)
    assert torch.equal(first[:, :3], prompt)
    assert first.shape == (3, 9)
    assert torch.equal(model.generate(prompt, 6, seed=3, use_past_kv_cache=False), first)
    assert torch.equal(model.generate(prompt, 6, generator=torch.Generator().manual_seed(3)), first)
    assert not torch.equal(model.generate(prompt, 6, seed=4), first)
    torch.manual_seed(3)
    assert torch.equal(model.generate(prompt, 6), first)  # PyTorch's own stream, where nothing is given
    greedy = model.generate(prompt, 6, do_sample=False)
    assert torch.equal(greedy[:, 3:], greedy_decode(model, prompt, 6))


@torch.no_grad()
def test_stop_tokens(model):
    """A row is filled up with the stop token that it wrote; what stands in the prompt stops nothing."""
    prompt = torch.tensor([[2, 2], [1, 2], [0, 3], [4, 4]])
    free = model.generate(prompt, 10, seed=1)
    stopped = model.generate(prompt, 10, seed=1, stop_tokens=["INC", 4])
    lasts = []
    for row in range(len(prompt)):
        written = free[row, 2:].tolist()
        last = next((i for i, token in enumerate(written) if token in (2, 4)), len(written) - 1)
        lasts.append(last)
        expected = written[: last + 1] + [written[last]] * (10 - last - 1)
        assert stopped[row, 2:].tolist() == expected[: stopped.shape[1] - 2]
    assert stopped.shape[1] == 2 + max(lasts) + 1  # and when all have stopped it ends
    assert len(set(lasts)) > 1  # not all at once
    text = model.generate("GET INC", 3, seed=1)
    assert text == model.to_string(model.generate("GET INC", 3, seed=1, return_type="tokens"))[0]
    assert isinstance(model.generate(prompt, 1, return_type="str"), list)


def test_what_generation_refuses(model):
    prompt = torch.tensor([[0, 1]])
    for options, message in (
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"temperature": float("nan")}, "temperature must be above 0"),
        ({"top_k": 0}, "top_k must be at least 1; got 0"),
        ({"top_p": 1.5}, "top_p must be above 0 and at most 1; got 1.5"),
        ({"top_p": 0.0}, "top_p must be above 0"),
        ({"seed": 1, "generator": torch.Generator()}, "give seed or generator, not both"),
        ({"return_type": "ids"}, "return_type must be 'input', 'tokens' or 'str'; got 'ids'"),
        ({"max_new_tokens": 12}, "from 0 to 11 after a prompt of 2"),
        ({"stop_tokens": ["STOP"]}, "unknown token 'STOP'"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate(prompt, **options)
    with pytest.raises(ValueError, match="at least one token"):
        model.generate(prompt[:, :0])


def test_names_of_a_configuration():
    """By hand: 2 layers of 4 * 16 * 16 and 2 * 16 * 64."""
    assert CFG.n_params == 2 * (4 * 16 * 16 + 2 * 16 * 64) == 6144
    assert replace(CFG, attn_only=True).n_params == 2048
    assert replace(CFG, gated_mlp=True, d_head=3).n_params == 2 * (4 * 16 * 6 + 3 * 16 * 64)
    assert CFG.attn_scale == 8**0.5
    assert CFG.model_name == "transformer"
    model: Any = build_model(CFG)
    assert sum(p.numel() for n, p in model.named_parameters() if n.startswith("blocks") and p.ndim == 2) == CFG.n_params
