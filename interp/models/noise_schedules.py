"""From noise to embeddings: how the signal fades, and how a prediction leads to the next, less noisy sample.

x_t = sqrt(a(t)) x_0 + sqrt(1 - a(t)) z,  z normal, t from 0 (clean) to 1 (noise)

sqrt      a(t) = 1 - sqrt(t + .0001)                        (Li et al. 2022: most noise levels are high ones)
cosine    a(t) = cos²(π/2 (t + .008) / 1.008) / cos²(…0)    (Nichol & Dhariwal 2021)

ddim      the noise that the prediction leaves over is kept: nothing is drawn (Song et al. 2021)
ddpm      x_s is drawn from q(x_s | x_t, x_0), with the prediction for x_0 (Ho et al. 2020)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from interp.models.diffusion_lm_config import SAMPLERS, SCHEDULES, Sampler, Schedule

# (pass from 0, time t, x [batch, pos, d], last prediction [batch, pos, d]) -> (x as it was read, prediction of x_0)
Denoiser = Callable[[int, float, Tensor, Tensor], tuple[Tensor, Tensor]]


def signal(schedule: Schedule, t: Tensor) -> Tensor:
    """a(t), the share of x_t's variance that is signal, from 1 to 0 as t goes from 0 to 1.

    Raises:
        ValueError: an unknown schedule.
    """
    if schedule == "sqrt":
        return (1 - (t + 1e-4).sqrt()).clamp(min=0)
    if schedule == "cosine":
        offset = 0.008
        angle = math.pi / 2 / (1 + offset)
        return ((t + offset) * angle).cos().square().clamp(min=0) / math.cos(offset * angle) ** 2
    raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}; got {schedule!r}")


def noised(x0: Tensor, noise: Tensor, a: Tensor) -> Tensor:
    """x_t, with a = a(t)."""
    return a.sqrt() * x0 + (1 - a).sqrt() * noise


def ddim_step(x: Tensor, x0: Tensor, a: Tensor, a_next: Tensor, noise: Tensor) -> Tensor:
    """x_s from x_t and a prediction of x_0; a = a(t), a_next = a(s), s < t. The noise is not used."""
    left = (x - a.sqrt() * x0) / (1 - a).sqrt()
    return noised(x0, left, a_next)


def ddpm_step(x: Tensor, x0: Tensor, a: Tensor, a_next: Tensor, noise: Tensor) -> Tensor:
    """As `ddim_step`, drawn from the posterior."""
    kept = a / a_next  # the share of x_s's variance that is still in x_t
    mean = (a_next.sqrt() * (1 - kept) * x0 + kept.sqrt() * (1 - a_next) * x) / (1 - a)
    return mean + ((1 - kept) * (1 - a_next) / (1 - a)).sqrt() * noise


_STEPS = {"ddim": ddim_step, "ddpm": ddpm_step}


@dataclass(frozen=True)
class Passes:
    """What every pass read and predicted."""

    noised: Tensor  # [batch, step, pos, d], what each read
    predicted: Tensor  # [batch, step, pos, d], what each gave for x_0, before it was clamped


def denoise_embeddings(
    denoiser: Denoiser,
    noise: Tensor,
    *,
    schedule: Schedule,
    sampler: Sampler,
    clamp: Callable[[Tensor], Tensor] | None = None,
) -> Passes:
    """From noise to embeddings in as many passes as noise is given for, evenly spread over t.

    Args:
        denoiser: predicts x_0, see `Denoiser`; the prediction before the first is 0.
        noise: standard normal, [step, batch, pos, d]: where the passes begin, and what ddpm draws before each other.
        schedule, sampler: see this module's docstring.
        clamp: applied to each prediction before it is used, such as moving it to the nearest embedding.

    Raises:
        ValueError: an unknown schedule or sampler, or no noise.
    """
    if sampler not in SAMPLERS:
        raise ValueError(f"sampler must be one of {', '.join(SAMPLERS)}; got {sampler!r}")
    steps = len(noise)
    if steps < 1:
        raise ValueError("noise must be given for at least one pass; got none")
    x, guess = noise[0].clone(), torch.zeros_like(noise[0])
    read, predicted = [], []
    for step in range(steps):
        x, found = denoiser(step, 1 - step / steps, x, guess)
        read.append(x)
        predicted.append(found)
        if step + 1 < steps:
            guess = found if clamp is None else clamp(found)
            a, a_next = signal(schedule, x.new_tensor([1 - step / steps, 1 - (step + 1) / steps]))
            x = _STEPS[sampler](x, guess, a, a_next, noise[step + 1])
    return Passes(torch.stack(read, dim=1), torch.stack(predicted, dim=1))


def bound(
    predict: Callable[[Tensor, Tensor], Tensor],
    embeddings: Tensor,
    tokens: Tensor,
    *,
    schedule: Schedule,
    draws: int,
    generator: torch.Generator,
    steps: int = 1000,
) -> Tensor:
    """An upper bound on -log p(tokens), nats a row, [batch]: the variational bound of Gaussian diffusion.

        E[-log p(tokens | x at t = 0)]  +  steps / 2 · E over steps of (snr(s) - snr(t)) |x_0 - prediction(x_t)|²

    with snr = a / (1 - a), s = t - 1 / steps (Kingma et al. 2021), and the tokens given x at t = 0 read off by distance
    to their embeddings. At t = 1 nothing of the signal is left, so that the prior costs nothing.

    Args:
        predict: (x_t [batch, pos, d], t [batch]) -> a prediction of x_0.
        embeddings: [d_vocab, d].
        tokens: long [batch, pos].
        schedule: how the signal fades.
        draws: noise levels a row, spread evenly; the estimate is their mean.
        generator: of the draws, on the CPU.
        steps: of the chain whose bound this is.
    """
    x0, n = embeddings[tokens], len(tokens)

    def normal() -> Tensor:
        return torch.randn(x0.shape, generator=generator).to(x0)

    def level(t: Tensor) -> Tensor:
        return signal(schedule, t).clamp(max=1 - 1e-4)[..., None]  # a chain that ends at a finite ratio

    a0 = level(x0.new_zeros(1, 1))
    clean = noised(x0, normal(), a0)
    distances = torch.cdist(clean, (a0.sqrt() * embeddings[None])[0].expand(n, -1, -1)).square()
    rounding = (-distances / (2 * (1 - a0))).log_softmax(-1)
    total = -rounding.gather(2, tokens[..., None])[..., 0].sum(1)
    offset = torch.rand(n, 1, generator=generator)
    for draw in range(draws):
        at = ((draw + offset) / draws * steps).ceil().clamp(1, steps).to(x0) / steps  # [batch, 1]
        a, a_next = level(at), level(at - 1 / steps)
        found = predict(noised(x0, normal(), a), at[:, 0])
        gain = a_next / (1 - a_next) - a / (1 - a)
        total = total + steps / 2 * (gain[..., 0] * (x0 - found).square().sum((1, 2))[:, None])[:, 0] / draws
    return total
