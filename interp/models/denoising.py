"""Sampling from masked diffusion: an answer filled in over several passes, and the bound on its likelihood.

A pass gives every masked token its likeliest value; some of them are kept, in an order:

    confidence       those given with the highest probability (Chang et al. 2022)
    left_to_right    the first
    right_to_left    the last
    random           any

After pass s of S, s / S of the tokens are kept. With `remask` a token may be masked again: those kept are the most
confident of all, each with the probability that it was given when it was filled in (Nie et al. 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from interp.models.masked_diffusion import MaskedDiffusion, masking, weighted_losses
from interp.models.masked_diffusion_config import ORDERS, Order


@dataclass(frozen=True)
class Denoised:
    """An answer as it came into being."""

    tokens: Tensor  # long [batch, n_answer]
    decided: Tensor  # the pass, from 0, that filled in each token as it stayed, long [batch, n_answer]
    history: Tensor  # tokens after each pass, d_vocab where masked, long [batch, step, n_answer]
    confidence: Tensor  # the probability that each token was given when it was filled in, [batch, n_answer]


@torch.no_grad()
def denoise(
    model: MaskedDiffusion,
    prompt: Tensor,
    *,
    steps: int,
    order: Order = "confidence",
    remask: bool = False,
    seed: int = 0,
    start: Tensor | None = None,
    fwd_hooks: Mapping[int, Sequence[tuple[Any, Any]]] | None = None,
) -> Denoised:
    """Fill in the answer to each prompt in `steps` passes.

    Hooks that stand on the model fire at every pass.

    Args:
        model: in eval mode.
        prompt: integers [batch, n_prompt].
        steps: passes, from 1 to n_answer.
        order: which tokens are kept first, see this module's docstring.
        remask: whether tokens may be masked again.
        seed: of the random order.
        start: tokens to begin with in place of full mask, [batch, n_answer], d_vocab where masked. They stay.
        fwd_hooks: of single passes, by their number from 0.

    Raises:
        ValueError: a number of passes, an order, a hook's pass, or a start that does not fit.
    """
    cfg, n = model.cfg, len(prompt)
    if not 1 <= steps <= cfg.n_answer:
        raise ValueError(f"steps must be from 1 to the {cfg.n_answer} tokens of an answer; got {steps}")
    if order not in ORDERS:
        raise ValueError(f"order must be one of {', '.join(ORDERS)}; got {order!r}")
    hooks = dict(fwd_hooks or {})
    if missing := set(hooks) - set(range(steps)):
        raise ValueError(f"hooks of pass {min(missing)} never fire: there are passes 0 to {steps - 1}")
    mask = cfg.d_vocab
    tokens = prompt.new_full((n, cfg.n_answer), mask) if start is None else start.clone()
    if tokens.shape != (n, cfg.n_answer):
        raise ValueError(f"start must be [{n}, {cfg.n_answer}]; got {list(tokens.shape)}")
    given = tokens != mask
    confidence = torch.where(given, 1.0, 0.0)
    decided = torch.full_like(tokens, -1)
    rank = _ranks(order, n, cfg.n_answer, seed)
    history = []
    for step in range(steps):
        shown = tokens != mask
        sequence = torch.cat([prompt, tokens.clamp(max=mask - 1)], dim=1)
        logits = model.run_with_hooks(sequence, revealed=shown, fwd_hooks=list(hooks.get(step, ())))
        probability, best = logits[:, cfg.n_prompt - 1 : -1].float().softmax(-1).max(-1)
        tokens = torch.where(shown, tokens, best)
        confidence = torch.where(shown, confidence, probability)
        decided = torch.where(shown, decided, step)
        # Kept are the first so many in the order, before them what was given and, without `remask`, what was kept.
        first = confidence if rank is None else rank.to(confidence.device)
        fixed = given if remask else shown
        keep = _first(first.masked_fill(fixed, torch.inf), round(cfg.n_answer * (step + 1) / steps))
        tokens = torch.where(keep | fixed, tokens, mask)
        history.append(tokens)
    return Denoised(tokens, decided, torch.stack(history, dim=1), confidence)


def _ranks(order: Order, n: int, n_answer: int, seed: int) -> Tensor | None:
    """The higher the sooner, [n, n_answer]; None: by confidence."""
    if order == "confidence":
        return None
    places = torch.arange(n_answer, dtype=torch.float32).expand(n, -1)
    if order in ("left_to_right", "right_to_left"):
        return -places if order == "left_to_right" else places
    return torch.rand(n, n_answer, generator=torch.Generator().manual_seed(seed))


def _first(order: Tensor, k: int) -> Tensor:
    """Where the k largest of each row are, ties to the left, bool."""
    ranked = order.argsort(dim=1, descending=True, stable=True)
    return torch.zeros_like(order, dtype=torch.bool).scatter_(1, ranked[:, :k], True)


@torch.no_grad()
def answer_bound(model: MaskedDiffusion, tokens: Tensor, *, draws: int = 8, seed: int = 0) -> Tensor:
    """An upper bound on the nats of each answer given its prompt, estimated from masks drawn at random, [batch].

    Args:
        model: in eval mode.
        tokens: integers [batch, n_ctx], prompt and true answer.
        draws: masks a row; the estimate is their mean.
        seed: of the masks.
    """
    cfg, generator = model.cfg, torch.Generator().manual_seed(seed)
    answers, total = tokens[:, cfg.n_prompt :], torch.zeros(len(tokens), device=tokens.device)
    for _ in range(draws):
        masked, t = (each.to(tokens.device) for each in masking(len(answers), answers.shape[1], generator))
        logits = model(tokens, revealed=~masked)
        total += weighted_losses(logits[:, cfg.n_prompt - 1 : -1], answers, masked, t)
    return total / draws
