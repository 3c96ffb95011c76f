"""An answer as it comes into being, pass by pass, of models that go over it more than once: loops and denoising."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Drafts:
    """The answer to one example after each pass over it."""

    positions: Tensor  # long [k], the tokens that are answered: where the answer is told
    tokens: Tensor  # long [pass, k], the answer after each pass; -1 where a token is not decided yet
    p: Tensor  # [pass, k], the probability that the model gave each; 0 where it is not decided
    truth: Tensor  # long [k], the world's answer
    stop: int | None  # the pass, from 0, at which the model's own rule stops; None: it has no such rule

    @property
    def right(self) -> Tensor:
        """Which tokens are decided and right, bool [pass, k]."""
        return self.tokens == self.truth


@torch.no_grad()
def loop_drafts(model: Any, task: Any, batch: Any) -> Drafts:
    """What a looped model answers after each step that it can make, of a batch of one."""
    shown = batch if not task.shows_answer else task.render(batch.examples, answers=model.answer(task, batch).numpy())
    thoughts = model(shown.tokens, thoughts=True, loop_steps=model.max_loop_steps)
    asked = batch.targets[0] >= 0
    p, tokens = thoughts.logits[0][:, asked].float().softmax(-1).max(-1)
    steps = torch.arange(thoughts.weights.shape[1], device=thoughts.weights.device)
    stop = int((thoughts.weights[0] * steps).sum().round()) if model.cfg.halting != "none" else None
    told = torch.nonzero(asked)[:, 0] + int(task.shows_answer)
    return Drafts(told, tokens, p, batch.targets[0][asked], stop)


@torch.no_grad()
def denoising_drafts(model: Any, task: Any, batch: Any, *, passes: int) -> Drafts:
    """What masked diffusion has filled in after each of so many passes, in its own order, of a batch of one."""
    from interp.models.denoising import denoise

    n_prompt = model.cfg.n_prompt
    done = denoise(model, batch.tokens[:, :n_prompt], steps=passes, order=model.cfg.order)
    tokens = done.history[0]
    decided = tokens != model.cfg.d_vocab
    positions = torch.arange(n_prompt, n_prompt + model.cfg.n_answer)
    p = torch.where(decided, done.confidence[0], 0.0)
    return Drafts(positions, tokens.where(decided, -1), p, batch.targets[0, positions - 1], None)


@torch.no_grad()
def embedding_drafts(model: Any, task: Any, batch: Any) -> Drafts:
    """The tokens nearest to what each pass of continuous diffusion predicts, in all its passes, of a batch of one."""
    cfg = model.cfg
    passes = model(batch.tokens, denoising_steps=cfg.most_steps, returns="passes")
    p, tokens = model.rounded(passes.predicted[0]).float().softmax(-1).max(-1)
    positions = torch.arange(cfg.n_prompt, cfg.n_ctx)
    return Drafts(positions, tokens, p, batch.targets[0, positions - 1], None)
