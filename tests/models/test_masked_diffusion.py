"""Masked diffusion: what is hidden, what is learned, and how answers are filled in; by hand where that can be."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from interp.models import build_model
from interp.models.denoising import answer_bound, denoise
from interp.models.masked_diffusion import MaskedDiffusionConfig, masking, objective, suits, weighted_losses
from interp.tasks import TASKS
from interp.training import PRESETS, TrainingConfig
from interp.training.optimizer import Optimizers
from interp.worlds import as_world
from interp.worlds.machine import MachineSpec

N_PROMPT, N_ANSWER, D_VOCAB = 4, 5, 11


@pytest.fixture(scope="module")
def model():
    cfg = MaskedDiffusionConfig(
        d_vocab=D_VOCAB, n_ctx=N_PROMPT + N_ANSWER, n_prompt=N_PROMPT, n_layers=2, n_heads=2, d_model=16
    )
    model: Any = build_model(cfg).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.3 * torch.randn(p.shape, generator=generator)
    return model


@pytest.fixture
def tokens():
    return torch.randint(D_VOCAB, (6, N_PROMPT + N_ANSWER), generator=torch.Generator().manual_seed(2))


def test_an_answer_that_is_not_revealed_is_not_seen(model, tokens):
    other = tokens.clone()
    other[:, N_PROMPT:] = (tokens[:, N_PROMPT:] + 1) % D_VOCAB
    torch.testing.assert_close(model(tokens), model(other), atol=0, rtol=0)
    revealed = torch.zeros(6, N_ANSWER, dtype=torch.bool)
    revealed[:, 2] = True
    seen = model(tokens, revealed=revealed)
    assert not torch.allclose(seen, model(other, revealed=revealed))
    only = tokens.clone()
    only[:, N_PROMPT : N_PROMPT + 2] = other[:, N_PROMPT : N_PROMPT + 2]  # hidden ones
    torch.testing.assert_close(seen, model(only, revealed=revealed), atol=0, rtol=0)


def test_the_mask_is_the_models_own_and_is_never_predicted(model, tokens):
    assert model(tokens).shape[-1] == D_VOCAB and model.W_E.shape == (D_VOCAB, 16)
    masked = model.masked(tokens)
    assert (masked[:, N_PROMPT:] == D_VOCAB).all() and torch.equal(masked[:, :N_PROMPT], tokens[:, :N_PROMPT])


def test_logits_are_read_one_position_earlier_than_they_are_computed(model, tokens):
    final = model(tokens, stop_at_layer=model.cfg.n_layers)
    at_their_token = model.unembed(model.ln_final(final))
    torch.testing.assert_close(model(tokens)[:, :-1], at_their_token[:, 1:])


def test_the_weighted_loss_of_exact_conditionals_is_the_entropy():
    """A known distribution over two binary tokens: p(00) = 1/2, p(01) = 1/4, p(11) = 1/4, and its conditionals."""
    joint = {(0, 0): 0.5, (0, 1): 0.25, (1, 1): 0.25, (1, 0): 0.0}

    def conditional(answer, masked, at):
        """log p(token at | the tokens that are not masked), of both values."""
        weights = torch.zeros(2, dtype=torch.float64)
        for value in itertools.product((0, 1), repeat=2):
            if all(masked[i] or value[i] == answer[i] for i in range(2)):
                weights[value[at]] += joint[value[0], value[1]]
        return (weights / weights.sum()).clamp(min=1e-30).log()

    n = 40_000
    generator = torch.Generator().manual_seed(0)
    answers = torch.tensor([(0, 0)] * (n // 2) + [(0, 1)] * (n // 4) + [(1, 1)] * (n // 4))
    masked, t = masking(n, 2, generator)
    table = {
        (a, m): torch.stack([conditional(a, m, at) for at in range(2)])
        for a in joint
        if joint[a]
        for m in itertools.product((False, True), repeat=2)
    }
    logits = torch.stack(
        [table[tuple(a), tuple(m)] for a, m in zip(answers.tolist(), masked.tolist(), strict=True)]
    ).float()
    losses = weighted_losses(logits, answers, masked, t)
    entropy = 0.5 * math.log(2) + 0.5 * math.log(4)
    assert float(losses.mean()) == pytest.approx(entropy, abs=3 * float(losses.std()) / n**0.5)
    assert float(losses.std()) / n**0.5 < 0.03 * entropy  # so that the line above says something


def test_probabilities_of_masking_are_even_and_rows_can_be_masked_whole():
    masked, t = masking(1_000, 50, torch.Generator().manual_seed(3))
    assert torch.allclose(t.sort(0).values[:, 0], torch.linspace(0, 1, 1_000), atol=2e-3)
    assert float((masked.float().mean(1) - t[:, 0]).abs().mean()) < 0.06
    masked, t = masking(1_000, 50, torch.Generator().manual_seed(3), whole=0.3)
    assert 0.24 < float((t == 1).float().mean()) < 0.36 and bool(masked[t[:, 0] == 1].all())


class TwoTokens:
    """A hand-set denoiser of two tokens: the second is sure, 1; the first copies the second once that is there."""

    class cfg:
        n_prompt, n_answer, d_vocab = 1, 2, 2

    def run_with_hooks(self, sequence, *, revealed, fwd_hooks):
        assert not fwd_hooks
        first = torch.where(revealed[:, 1:], 2.0 * sequence[:, 2:] - 1, -0.1)  # logit of 1 against 0
        second = torch.full_like(first, 3.0)
        logits = torch.stack([-torch.cat([first, second, second], 1), torch.cat([first, second, second], 1)], -1)
        return logits


@pytest.mark.parametrize(
    ("order", "steps", "answer", "decided"),
    [
        ("confidence", 2, [1, 1], [1, 0]),  # the sure one first, and then what follows from it
        ("left_to_right", 2, [0, 1], [0, 1]),  # the first has to be guessed
        ("right_to_left", 2, [1, 1], [1, 0]),
        ("confidence", 1, [0, 1], [0, 0]),  # both at once
    ],
)
def test_the_order_of_filling_in(order, steps, answer, decided):
    denoiser: Any = TwoTokens()
    found = denoise(denoiser, torch.zeros(3, 1, dtype=torch.long), steps=steps, order=order)
    assert found.tokens.tolist() == [answer] * 3 and found.decided.tolist() == [decided] * 3
    if steps == 2:
        assert (found.history[:, 0] == 2).sum(1).tolist() == [1] * 3  # one of two is still masked


def test_one_pass_is_the_forward_pass_and_passes_fill_in_evenly(model, tokens):
    prompt = tokens[:, :N_PROMPT]
    once = denoise(model, prompt, steps=1)
    assert torch.equal(once.tokens, model(tokens)[:, N_PROMPT - 1 : -1].argmax(-1))
    for order in ("confidence", "left_to_right", "right_to_left", "random"):
        found = denoise(model, prompt, steps=3, order=order)
        assert (found.history != D_VOCAB).sum(2).tolist() == [[2, 3, 5]] * 6
        assert torch.equal(found.tokens, found.history[:, -1]) and (found.decided >= 0).all()
    orders = [denoise(model, prompt, steps=5, order="random", seed=seed).decided for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])


def test_what_is_given_stays_and_a_hook_of_one_pass_fires_in_it_alone(model, tokens):
    prompt, start = tokens[:, :N_PROMPT], torch.full((6, N_ANSWER), D_VOCAB)
    start[:, 1] = tokens[:, N_PROMPT + 1]
    for remask in (False, True):
        assert torch.equal(denoise(model, prompt, steps=3, start=start, remask=remask).tokens[:, 1], start[:, 1])
    fired = []
    hooks = {1: [("blocks.0.hook_resid_post", lambda act, hook: fired.append(act.shape))]}
    denoise(model, prompt, steps=3, fwd_hooks=hooks)
    assert fired == [(6, N_PROMPT + N_ANSWER, 16)]
    with pytest.raises(ValueError, match="hooks of pass 3 never fire: there are passes 0 to 2"):
        denoise(model, prompt, steps=3, fwd_hooks={3: []})
    with pytest.raises(ValueError, match="steps must be from 1 to the 5 tokens of an answer; got 6"):
        denoise(model, prompt, steps=6)
    with pytest.raises(
        ValueError, match="order must be one of confidence, left_to_right, right_to_left, random; got 'first'"
    ):
        denoise(model, prompt, steps=2, order="first")  # type: ignore[arg-type]


def test_a_model_learns_to_fill_in_and_the_bound_falls():
    """An answer that repeats the prompt: the loss of an untrained model is that of chance, and goes."""
    task = TASKS["step"](as_world(MachineSpec(n_instructions=4, n_cells=2, n_input=1, n_output=1, bits=1)))
    n_prompt = task.prompt_positions.stop
    cfg = MaskedDiffusionConfig(
        d_vocab=len(task.vocab), n_ctx=task.n_ctx, n_prompt=n_prompt, n_layers=2, n_heads=2, d_model=32
    )
    model: Any = build_model(cfg).train()
    held = task.sample(64, seed=1)
    before = answer_bound(model.eval(), held.tokens).mean()
    assert float(before) == pytest.approx(cfg.n_answer * math.log(cfg.d_vocab), rel=0.15)
    optimizer = Optimizers(model.train(), TrainingConfig(steps=60, warmup_steps=5))
    generator = torch.Generator().manual_seed(0)
    for step in range(60):
        objective(model, task, task.sample(32, seed=0, start=32 * step, split="train"), generator).backward()
        optimizer.step(step)
    assert float(answer_bound(model.eval(), held.tokens).mean()) < 0.3 * float(before)


def test_the_objective_is_the_loss_at_the_masked_tokens(model, tokens):
    class Shown:
        n_ctx, prompt_positions = N_PROMPT + N_ANSWER, slice(0, N_PROMPT)

    class Batch:
        def __init__(self, tokens):
            self.tokens = tokens

    masked, t = masking(6, N_ANSWER, torch.Generator().manual_seed(5), whole=0.25)
    logits = model(tokens, revealed=~masked)
    by_hand = sum(
        F.cross_entropy(logits[row, N_PROMPT - 1 + at], tokens[row, N_PROMPT + at]) / t[row, 0]
        for row, at in masked.nonzero().tolist()
    )
    found = objective(model, Shown, Batch(tokens), torch.Generator().manual_seed(5))
    torch.testing.assert_close(found, by_hand / (6 * N_ANSWER))


def test_what_suits_it_and_what_does_not():
    assert suits(TASKS["step"](as_world(MachineSpec()))) is None
    refused = suits(TASKS["step_inplace"](as_world(MachineSpec())))
    assert refused is not None and "stands behind its prompt; the task step_inplace" in refused
    assert PRESETS["step_masked_diffusion"].model.n_prompt == MachineSpec().state_length
    with pytest.raises(ValueError, match="needs attention_dir='bidirectional'"):
        MaskedDiffusionConfig(d_vocab=5, n_ctx=6, n_prompt=2, attention_dir="causal")
    with pytest.raises(ValueError, match="n_prompt must be from 1 to n_ctx - 1 = 5; got 6"):
        MaskedDiffusionConfig(d_vocab=5, n_ctx=6, n_prompt=6)
    with pytest.raises(ValueError, match="denoising_steps must be from 1 to the 4 tokens of an answer; got 5"):
        MaskedDiffusionConfig(d_vocab=5, n_ctx=6, n_prompt=2, denoising_steps=5)


def test_tails_are_masked_from_a_block_on() -> None:
    """Half of the rows show whole blocks and nothing behind, each block equally often; the weight is the share."""
    masked, t = masking(4000, 20, torch.Generator().manual_seed(0), tail_block=8)
    first = masked.int().argmax(1)
    tail = (masked == (torch.arange(20) >= first[:, None])).all(1) & masked.any(1) & (first % 8 == 0)
    assert 0.47 < tail.float().mean() < 0.55  # a few of the others come out so by chance
    rows = tail & (t[:, 0] == 1 - first / 20)
    assert rows.sum() > 0.98 * 0.5 * 4000 * 0.95
    shares = torch.bincount(first[rows], minlength=20)[[0, 8, 16]] / rows.sum()
    assert ((shares - 1 / 3).abs() < 0.05).all()
    plain = masking(4000, 20, torch.Generator().manual_seed(0))
    assert torch.equal(plain[0], masking(4000, 20, torch.Generator().manual_seed(0), tail_block=0)[0])
    assert torch.equal(plain[0][~tail], masked[~tail]), "rows that are no tails are as they were"


def test_a_tail_of_no_block_is_refused() -> None:
    with pytest.raises(ValueError, match="tail_block must be from 0 to below the 4 tokens"):
        MaskedDiffusionConfig(d_vocab=4, n_ctx=6, n_prompt=2, n_layers=1, n_heads=1, d_model=4, tail_block=4)
