"""What a looped model is trained on: the answer after the last step, or after every one, and when it halts.

1. none, fixed_point: the task's loss after the last step; with `deep_supervision` the mean over the steps.
2. act: the loss of the weighted answer, and `ponder_cost` nats for each step of the mean ponder time N + R.
3. ponder: the loss at each step weighted by the chance of halting there, and `ponder_cost` times the divergence of
   these chances from a geometric prior.
4. right: the task's loss as in 1, and the cross-entropy of the logit against whether the step's answer is right.

With `least_loops` each batch runs a number of steps of its own; with `backprop_steps` the carry that enters the last so
many steps is detached.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interp.models.architecture import Architecture
from interp.models.halting import adaptive_weights, halting_distribution
from interp.models.looped import Looped
from interp.models.looped_config import LoopedConfig


def objective(model: Any, task: Any, batch: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The loss of a batch, a scalar, and the logits [batch, pos, d_vocab] of its answer; see the module's docstring."""
    cfg: LoopedConfig = getattr(model, "module", model).cfg
    n_steps = cfg.n_loops
    if cfg.least_loops:
        n_steps = int(torch.randint(cfg.least_loops, cfg.n_loops + 1, (), generator=generator))
    options = {
        "loop_steps": n_steps,
        "detach_before": max(0, n_steps - cfg.backprop_steps) if cfg.backprop_steps else 0,
    }
    every = cfg.deep_supervision or cfg.has_halting_head
    if not every:
        logits = model(batch.tokens, **options)
        return task.loss(logits.float(), batch), logits
    thoughts = model(batch.tokens, thoughts=True, **options)
    if cfg.halting == "act":
        _, ponder_time = adaptive_weights(thoughts.halt_logits.float())
        return task.loss(thoughts.answer.float(), batch) + cfg.ponder_cost * ponder_time.mean(), thoughts.answer
    if cfg.halting == "ponder":
        chances = halting_distribution(thoughts.halt_logits.float())
        loss = (chances * row_losses(thoughts.logits.float(), batch.targets)).sum(1).mean()
        return loss + cfg.ponder_cost * divergence(chances, cfg.ponder_prior), thoughts.answer
    steps = range(n_steps) if cfg.deep_supervision else [n_steps - 1]
    loss = torch.stack([task.loss(thoughts.logits[:, t].float(), batch) for t in steps]).mean()
    if cfg.halting == "right":
        right = answers_right(thoughts.logits, batch.targets).to(loss.dtype)
        loss = loss + F.binary_cross_entropy_with_logits(thoughts.halt_logits.float(), right)
    return loss, thoughts.answer


def row_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy over each row's asked tokens at every step, [batch, step], nats a token.

    Args:
        logits: [batch, step, pos, d_vocab].
        targets: long [batch, pos], -1 where nothing is asked.
    """
    wide = targets[:, None].expand(logits.shape[:3])
    losses = F.cross_entropy(logits.flatten(0, 2), wide.flatten(), ignore_index=-1, reduction="none").view(wide.shape)
    return losses.sum(-1) / (wide >= 0).sum(-1).clamp(min=1)


def answers_right(logits: Tensor, targets: Tensor) -> Tensor:
    """Whether every asked token is the likeliest one, bool [batch, step]; arguments as in `row_losses`."""
    wide = targets[:, None]
    return ((logits.argmax(-1) == wide) | (wide < 0)).all(-1)


def divergence(chances: Tensor, prior: float) -> Tensor:
    """KL of the chances of halting [batch, step] from a geometric prior that is cut and renormalised, mean, in nats."""
    steps = torch.arange(chances.shape[1], device=chances.device)
    expected = prior * (1 - prior) ** steps
    expected = expected / expected.sum()
    return (chances * (chances.clamp(min=1e-9).log() - expected.log())).sum(1).mean()


LOOPED_ARCHITECTURE = Architecture(
    config=LoopedConfig,
    build=Looped,
    words="A transformer that runs a few shared blocks again and again, as many steps as asked or until it halts.",
    objective=objective,
)
