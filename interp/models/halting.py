"""When a loop stops, for each row by itself: from what it has carried, or from a logit that it has learned.

All rules read what the steps left, [batch, step, …], and give the weight of each step's carry in the answer, [batch,
step], rows summing to 1. A rule that stops gives one step the weight 1.

1. fixed_point: the first step after which the carry has moved by less than `threshold` of its length, from where it was
   one step before, or up to `periods` steps (a cycle). The seed of this model stopped a whole batch on one mean; here
   a row's stop depends on that row alone.
2. act: adaptive computation time (Graves 2016): probabilities of halting are added up until they reach 1 - 0.01; the
   step that reaches it takes what is left, and the answer is read from the weighted mean of the carries.
3. ponder: PonderNet (Banino et al. 2021): the chance of halting at step t given that none did before. In training the
   loss is the expectation; an answer is given at the first step by which halting has become likelier than `threshold`.
4. right: the first step whose logit says "my answer is right" with a probability of `threshold` or more.

Where no step stops a row, its last step answers.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_LEFT = 0.01  # of act: how much of the probability may be missing


def movement(carries: Tensor, *, periods: int = 1) -> Tensor:
    """How far each step moved the carry, relative to its length, [batch, step]; infinite where nothing is before it.

    Args:
        carries: [batch, step, pos, d_model].
        periods: the least distance to any of so many steps before it.
    """
    flat = carries.flatten(2)
    moved = torch.full(flat.shape[:2], torch.inf, dtype=flat.dtype, device=flat.device)
    for back in range(1, min(periods, flat.shape[1] - 1) + 1):
        distance = (flat[:, back:] - flat[:, :-back]).norm(dim=-1) / flat[:, back:].norm(dim=-1).clamp(min=1e-12)
        moved = torch.cat([moved[:, :back], torch.minimum(moved[:, back:], distance)], dim=1)
    return moved


def first_step(stops: Tensor) -> Tensor:
    """The first step at which each row stops, long [batch], from bool [batch, step]; its last one where none does."""
    last = torch.full_like(stops[:, 0], stops.shape[1] - 1, dtype=torch.long)
    return torch.where(stops.any(1), stops.int().argmax(1), last)


def halting_distribution(logits: Tensor) -> Tensor:
    """PonderNet's chances of halting at each step, [batch, step], rows summing to 1; the last step takes the rest."""
    halt = torch.sigmoid(logits)
    halt = torch.cat([halt[:, :-1], torch.ones_like(halt[:, :1])], dim=1)
    going = torch.cumprod(1 - halt[:, :-1], dim=1)
    return halt * torch.cat([torch.ones_like(halt[:, :1]), going], dim=1)


def adaptive_weights(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Weights of adaptive computation time [batch, step], and each row's ponder time N + R [batch]."""
    halt = torch.sigmoid(logits)
    stop = first_step(halt.cumsum(1) >= 1 - _LEFT)  # N - 1
    steps = torch.arange(halt.shape[1], device=halt.device)
    before = torch.where(steps < stop[:, None], halt, torch.zeros_like(halt))
    rest = 1 - before.sum(1)
    weights = before + F.one_hot(stop, halt.shape[1]).to(halt) * rest[:, None]
    return weights, stop + 1 + rest


def step_weights(kind: str, carries: Tensor, logits: Tensor | None, *, threshold: float, periods: int = 1) -> Tensor:
    """The weight of each step's carry in the answer, [batch, step].

    Args:
        kind: "none" (the last step), or a rule of this module's docstring.
        carries: [batch, step, pos, d_model].
        logits: of the halting head, [batch, step]; None where the rule has no use for them.
        threshold: of the rule.
        periods: of fixed_point.
    """
    if kind == "act":
        return adaptive_weights(_given(logits))[0]
    if kind == "fixed_point":
        stops = movement(carries.detach(), periods=periods) <= threshold
    elif kind == "ponder":
        stops = halting_distribution(_given(logits)).cumsum(1) >= threshold
    elif kind == "right":
        stops = torch.sigmoid(_given(logits)) >= threshold
    else:
        stops = torch.zeros(carries.shape[:2], dtype=torch.bool, device=carries.device)
    return F.one_hot(first_step(stops), carries.shape[1]).to(carries.dtype)


def _given(logits: Tensor | None) -> Tensor:
    if logits is None:
        raise ValueError("this halting rule reads the logits of a halting head; got None")
    return logits
