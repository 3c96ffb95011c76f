"""Continuous diffusion: schedules and samplers by hand, what a pass reads and hands on, embeddings that stay apart."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from interp.models import build_model
from interp.models.diffusion_lm_config import DiffusionLMConfig
from interp.models.diffusion_lm_training import objective, suits, times
from interp.models.noise_schedules import bound, ddim_step, ddpm_step, denoise_embeddings, noised, signal
from interp.tasks import TASKS
from interp.training import PRESETS, TrainingConfig
from interp.training.optimizer import Optimizers
from interp.worlds import as_world
from interp.worlds.machine import MachineSpec

N_PROMPT, N_ANSWER, D_VOCAB, D_EMBED = 4, 5, 11, 6


@pytest.fixture(scope="module")
def model():
    cfg = DiffusionLMConfig(
        d_vocab=D_VOCAB,
        n_ctx=N_PROMPT + N_ANSWER,
        n_prompt=N_PROMPT,
        n_layers=2,
        n_heads=2,
        d_model=16,
        d_embed=D_EMBED,
        denoising_steps=3,
        max_steps=4,
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


def test_the_schedules_at_known_times():
    t = torch.tensor([0.0, 0.2499, 0.5, 1.0], dtype=torch.float64)
    assert signal("sqrt", t).tolist() == pytest.approx([0.99, 0.5, 1 - math.sqrt(0.5001), 0])
    half = math.cos(math.pi / 2 * 0.508 / 1.008) ** 2 / math.cos(math.pi / 2 * 0.008 / 1.008) ** 2
    assert signal("cosine", t)[[0, 2, 3]].tolist() == pytest.approx([1, half, 0], abs=1e-12)
    for schedule in ("sqrt", "cosine"):
        assert (signal(schedule, torch.linspace(0, 1, 50)).diff() < 0).all()
    with pytest.raises(ValueError, match="schedule must be one of sqrt, cosine; got 'linear'"):
        signal("linear", t)  # type: ignore[arg-type]


def test_both_samplers_keep_the_marginals_of_the_process():
    """Given the true x_0: ddim stays on its path, and ddpm's x_s has mean sqrt(a_s) x_0 and variance 1 - a_s."""
    a, a_next = torch.tensor([0.2, 0.7], dtype=torch.float64)
    x0, z, zero = (torch.randn(40, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in range(3))
    zero = torch.zeros_like(zero)
    torch.testing.assert_close(ddim_step(noised(x0, z, a), x0, a, a_next, zero), noised(x0, z, a_next))
    # ddpm is linear: its coefficients of x_0 (through x_t and directly), of z and of the fresh noise.
    mean = ddpm_step(noised(x0, zero, a), x0, a, a_next, zero)
    of_z = ddpm_step((1 - a).sqrt(), zero[:1], a, a_next, zero[:1])
    fresh = ddpm_step(zero[:1], zero[:1], a, a_next, torch.ones_like(zero[:1]))
    torch.testing.assert_close(mean, a_next.sqrt() * x0)
    torch.testing.assert_close(of_z**2 + fresh**2, 1 - a_next[None])


def exact(joined: bool):
    """The exact denoiser of two tokens, embeddings 1 and -1, each as likely: equal ones (`joined`), or any two."""

    def denoiser(step, t, x, guess):
        a = signal("sqrt", torch.tensor(t))
        evidence = x.sum(1, keepdim=True).expand_as(x) if joined else x
        return x, (a.sqrt() / (1 - a) * evidence).tanh()

    return denoiser


def test_two_tokens_that_must_agree_need_a_second_pass():
    z = torch.randn(2, 500, 2, 1, generator=torch.Generator().manual_seed(0))
    found = denoise_embeddings(exact(joined=True), z, schedule="sqrt", sampler="ddim")
    assert (found.predicted[:, 0] == 0).all()  # from noise alone nothing is known: both tokens are undecided
    a = signal("sqrt", torch.tensor(0.5))  # the second pass reads x = sqrt(1 - a) z, whose sum decides for both
    by_hand = ((a / (1 - a)).sqrt() * z[0].sum(1, keepdim=True)).tanh().expand(-1, 2, -1)
    torch.testing.assert_close(found.predicted[:, 1], by_hand)
    agree = [found.predicted[:, 1].sign().diff(dim=1) == 0]
    free = denoise_embeddings(exact(joined=False), z, schedule="sqrt", sampler="ddim")
    agree.append(free.predicted[:, 1].sign().diff(dim=1) == 0)
    assert float(agree[0].float().mean()) == 1 and 0.42 < float(agree[1].float().mean()) < 0.58


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_many_passes_end_at_an_embedding_and_both_are_drawn(sampler):
    z = torch.randn(40, 400, 2, 1, generator=torch.Generator().manual_seed(3))
    found = denoise_embeddings(exact(joined=True), z, schedule="sqrt", sampler=sampler).predicted[:, -1, 0, 0]
    assert float((found.abs() > 0.95).float().mean()) > 0.9
    assert 0.42 < float((found > 0).float().mean()) < 0.58
    clamped = denoise_embeddings(exact(joined=True), z[:3], schedule="sqrt", sampler=sampler, clamp=torch.sign)
    a, a_next = signal("sqrt", torch.tensor([2 / 3, 1 / 3]))
    step = {"ddim": ddim_step, "ddpm": ddpm_step}[sampler]
    moved = step(clamped.noised[:, 1], clamped.predicted[:, 1].sign(), a, a_next, z[2])
    torch.testing.assert_close(clamped.noised[:, 2], moved)
    with pytest.raises(ValueError, match="sampler must be one of ddim, ddpm; got 'euler'"):
        denoise_embeddings(exact(True), z, schedule="sqrt", sampler="euler")  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", ["sqrt", "cosine"])
def test_the_bound_of_the_exact_denoiser_is_the_entropy(schedule):
    """Two equal tokens, either of two values: log 2 nats, however the signal fades; a worse denoiser pays more."""
    embeddings, n = torch.tensor([[1.0], [-1.0]], dtype=torch.float64), 3_000
    tokens = torch.randint(2, (n, 1), generator=torch.Generator().manual_seed(4)).expand(-1, 2)

    def best(x, t):
        a = signal(schedule, t)[:, None, None]
        return (a.sqrt() / (1 - a) * x.sum(1, keepdim=True)).tanh().expand_as(x)

    def alone(x, t):
        a = signal(schedule, t)[:, None, None]
        return (a.sqrt() / (1 - a) * x).tanh()

    options: Any = {"schedule": schedule, "draws": 64}
    nats = [
        bound(predict, embeddings, tokens, generator=torch.Generator().manual_seed(5), **options)
        for predict in (best, alone)
    ]
    deviation = float(nats[0].std()) / n**0.5
    assert deviation < 0.05 * math.log(2)  # so that the next line says something
    assert float(nats[0].mean()) == pytest.approx(math.log(2), abs=3 * deviation + 0.02)
    assert float(nats[1].mean()) == pytest.approx(2 * math.log(2), rel=0.1)


def test_the_prompt_is_never_noised_and_the_answers_place_is_not_read(model, tokens):
    other = tokens.clone()
    other[:, N_PROMPT:] = (tokens[:, N_PROMPT:] + 1) % D_VOCAB
    assert torch.equal(model(tokens), model(other))
    noise = model.drawn_noise(6, seed=1)
    names = ["hook_embed", "steps.0.hook_noised_embed"]
    a, b = (model.run_with_cache(tokens, names_filter=names, noise=given)[1] for given in (None, noise))
    assert torch.equal(a["hook_embed"], b["hook_embed"])
    torch.testing.assert_close(a["hook_embed"], model.W_E[tokens[:, :N_PROMPT]])
    assert torch.equal(b["steps.0.hook_noised_embed"], noise[0])
    for row in range(2):  # the noise of `model(tokens)` is no row's own
        torch.testing.assert_close(model(tokens[row : row + 1]), model(tokens)[row : row + 1], atol=1e-5, rtol=0)


def test_a_cache_keeps_every_pass_and_a_patch_touches_one(model, tokens):
    _, clean = model.run_with_cache(tokens)
    swapped = clean["steps.1.hook_noised_embed"].flip(0)
    with model.hooks(fwd_hooks=[("steps.1.hook_noised_embed", lambda act, hook: swapped)]):
        _, edited = model.run_with_cache(tokens)
    unmoved = {name for name in clean if torch.equal(clean[name], edited[name])}
    assert {name for name in clean if name.startswith("steps.0.")} < unmoved
    assert not any(name.endswith(("hook_prediction", "hook_resid_post")) for name in unmoved if "steps.0." not in name)
    # What was put in is what the sampler goes on from: ddim's next x, worked out from it.
    a, a_next = signal("sqrt", torch.tensor([2 / 3, 1 / 3]))
    found = edited["steps.1.hook_prediction"][:, N_PROMPT:]
    moved = ddim_step(swapped, found, a, a_next, swapped)
    torch.testing.assert_close(edited["steps.2.hook_noised_embed"], moved)
    torch.testing.assert_close(edited["steps.2.hook_self_condition"], found)
    assert model.step_of("steps.2.blocks.1.hook_resid_post") == 2 and model.step_of("hook_embed") is None
    assert {model.step_of(name) for name in clean} == {None, 0, 1, 2} and "steps.3.hook_prediction" in model.hook_dict


def test_the_nearest_embedding_is_the_likeliest_token(model, tokens):
    assert torch.allclose(model.embed.table.norm(dim=1), torch.tensor(D_EMBED**0.5))
    predicted = torch.randn(50, D_EMBED, generator=torch.Generator().manual_seed(6))
    by_distance = torch.cdist(predicted, model.embed.table).argmin(1)
    assert torch.equal(model.rounded(predicted).argmax(1), by_distance)
    torch.testing.assert_close(model.nearest(predicted), model.embed.table[by_distance])
    passes = model(tokens, returns="passes")
    assert torch.equal(
        model.rounded(passes.predicted[:, -1]).argmax(-1), model(tokens)[:, N_PROMPT - 1 : -1].argmax(-1)
    )
    final = model.ln_final(model.run_with_cache(tokens)[1]["steps.2.blocks.1.hook_resid_post"])
    torch.testing.assert_close((final @ model.W_U + model.b_U)[:, 1:], model(tokens)[:, :-1])


def test_a_noised_answer_is_read_and_times_are_even(model, tokens):
    noise = torch.zeros(1, 6, N_ANSWER, D_EMBED)
    found = model(tokens, at=torch.zeros(6), noise=noise)
    torch.testing.assert_close(found.clean, model.embed(tokens[:, N_PROMPT:]))
    seen = []
    hooks = [("steps.0.hook_noised_embed", lambda act, hook: seen.append(act))]
    at = torch.linspace(0, 1, 6)
    model.run_with_hooks(tokens, fwd_hooks=hooks, at=at, noise=noise)
    torch.testing.assert_close(seen[0], signal("sqrt", at).sqrt()[:, None, None] * found.clean)
    t = times(1_000, torch.Generator().manual_seed(0))
    assert torch.allclose(t.sort().values, torch.linspace(0, 1, 1_000), atol=2e-3) and float(t.min()) > 0
    assert 0.44 < float((times(1_000, torch.Generator().manual_seed(0), whole=0.5) == 1).float().mean()) < 0.56


def test_what_does_not_fit_is_refused(model, tokens):
    with pytest.raises(ValueError, match="denoising_steps must be from 1 to max_steps = 4; got 5"):
        model(tokens, denoising_steps=5)
    with pytest.raises(
        ValueError, match=r"noise must be \[3, 6, 5, 6\], or the same for every row; got \[2, 6, 5, 6\]"
    ):
        model(tokens, noise=model.drawn_noise(6, seed=0, steps=2))
    assert suits(TASKS["step"](as_world(MachineSpec()))) is None
    refused = suits(TASKS["step_inplace"](as_world(MachineSpec())))
    assert refused is not None and "stands behind its prompt; the task step_inplace" in refused
    for wrong, says in (
        ({"attention_dir": "causal"}, "needs attention_dir='bidirectional'"),
        ({"n_prompt": 6}, "n_prompt must be from 1 to n_ctx - 1 = 5; got 6"),
        ({"schedule": "linear"}, "schedule must be one of sqrt, cosine"),
        ({"denoising_steps": 5, "max_steps": 4}, "denoising_steps must be at most max_steps = 4; got 5"),
        ({"attn_only": True}, "no attn_only"),
    ):
        with pytest.raises(ValueError, match=says):
            DiffusionLMConfig(**({"d_vocab": 5, "n_ctx": 6, "n_prompt": 2} | wrong))  # type: ignore[arg-type]


def test_the_preset_is_small():
    config = PRESETS["step_diffusion_lm"]
    assert config.model.n_prompt == MachineSpec().state_length
    assert sum(p.numel() for p in build_model(config.model).parameters()) <= 400_000


def test_it_learns_and_its_embeddings_do_not_collapse():
    """With the project's objective; with the squared error alone they do, and then no token can be told."""
    task = TASKS["step"](as_world(MachineSpec(n_instructions=4, n_cells=2, n_input=1, n_output=1, bits=1)))
    n_prompt = task.prompt_positions.stop
    cfg = DiffusionLMConfig(
        d_vocab=len(task.vocab), n_ctx=task.n_ctx, n_prompt=n_prompt, n_layers=1, n_heads=2, d_model=32
    )

    def error_alone(model, task, batch, generator):
        found = model(
            batch.tokens,
            at=times(len(batch.tokens), generator),
            noise=torch.randn(1, len(batch.tokens), cfg.n_answer, cfg.d_embed, generator=generator),
        )
        return F.mse_loss(found.predicted, found.clean), found.logits

    closest, right = [], 0.0
    held = task.sample(64, seed=1)
    for loss in (objective, error_alone):
        model: Any = build_model(cfg).train()
        optimizer = Optimizers(model, TrainingConfig(steps=120, warmup_steps=5))
        generator = torch.Generator().manual_seed(0)
        for step in range(120):
            batch = task.sample(32, seed=0, start=32 * step, split="train")
            loss(model, task, batch, generator)[0].backward()
            optimizer.step(step)
        model.eval()
        table = F.normalize(model.embed.table.detach()[held.tokens.unique()], dim=1)
        closest.append(float((table @ table.T).fill_diagonal_(-1).max()))
        right = right or float((model.answer(task, held) == held.tokens[:, n_prompt:]).float().mean())
    assert closest[0] < 0.8 < 0.99 < closest[1]
    assert right > 0.75
