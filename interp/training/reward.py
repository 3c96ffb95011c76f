"""Training by reward: answers are sampled, the world judges them, and what was better than its group becomes likelier.

1. Each prompt of the batch is answered `group` times by sampling from the model as it is.
2. The task gives each written token a credit: whether the final answer is right, the same for all tokens of a sample
   (`outcome`); or whether the step that the token belongs to is the machine's (`process`).
3. A token's advantage is its credit less the mean of its group there (Shao et al. 2024), without division by the
   group's deviation and without weights by length (Liu et al. 2025). Samples without any advantage, as those of groups
   that are all right or all wrong, are dropped.
4. The loss is minus advantage times log-likelihood, summed over tokens, and `kl` times an estimate of the divergence
   from the model that training started with, exp(d) - d - 1 of d = log p_start - log p at each token (Schulman 2020).
   Each sample is learned from once, so there is no ratio to be clipped.

`rejection` is the control: samples with a right answer are learned from by likelihood, the others thrown away.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from interp.results import Metric
from interp.runs.training_config import TrainingConfig
from interp.tasks import Batch


class Samples(NamedTuple):
    """Answers that were sampled, `group` rows a prompt, one after the other."""

    written: Tensor  # long [batch * group, k], -1 behind an answer
    tokens: Tensor  # long [batch * group, pos], prompt and answer, 0 behind it
    credit: Tensor  # [batch * group, k], 0 to 1
    right: Tensor  # bool [batch * group], the final answer


class Reward:
    """The objective of one training; `reference` is the model that it started with, or None where `kl` is 0."""

    def __init__(self, task: Any, settings: TrainingConfig, reference: Any):
        if not task.writes:
            raise ValueError(
                f"the objective {settings.objective} samples answers that are written token by token; those of the "
                f"task {task.name} are not"
            )
        if settings.kl and settings.objective == "reward" and reference is None:
            raise ValueError("a reward is learned from a run that answers already: give --start RUN")
        self.task, self.settings, self.reference = task, settings, reference
        if reference is not None:
            reference.eval().requires_grad_(False)

    def loss(self, forward: Any, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[Metric, float]]:
        """The loss of a batch of prompts, a scalar, and what is to be reported: reward, entropy, divergence, samples
        that were learned from."""
        model = getattr(forward, "module", forward)
        samples = self.sample(model, batch, generator)
        advantage = self.advantages(samples)
        kept = advantage.ne(0).any(dim=1)
        report = {Metric.REWARD: float(samples.credit.sum() / (samples.written >= 0).sum().clamp(min=1))}
        report |= {Metric.PASS_AT_K: float(samples.right.float().mean()), Metric.KEPT: float(kept.float().mean())}
        if not kept.any():  # nothing to learn from: a loss whose gradient is 0
            return torch.stack([p.sum() for p in model.parameters()]).sum() * 0.0, report
        written, tokens, weights = samples.written[kept], samples.tokens[kept], advantage[kept]
        said = written >= 0
        n_prompt = tokens.shape[1] - written.shape[1]
        logits = forward(tokens)[:, n_prompt - 1 : -1].float()
        chances = logits.log_softmax(-1)
        own = chances.gather(-1, written.clamp(min=0)[..., None])[..., 0].masked_fill(~said, 0.0)
        scale = len(advantage) * self.task.n_written  # a constant: long samples count as much a token as short ones
        loss = -(weights * own).sum() / scale
        with torch.no_grad():
            entropy = -(chances.exp() * chances).sum(-1)[said].mean()
        report[Metric.ENTROPY] = float(entropy)
        if self.reference is not None and self.settings.kl and self.settings.objective == "reward":
            with torch.no_grad():
                theirs = self.reference(tokens)[:, n_prompt - 1 : -1].float()
            start = -F.cross_entropy(theirs.flatten(0, 1), written.flatten(), ignore_index=-1, reduction="none")
            apart = (start.view_as(own) - own).masked_fill(~said, 0.0)
            divergence = (apart.exp() - apart - 1).sum()
            loss = loss + self.settings.kl * divergence / scale
            report[Metric.POLICY_KL] = float(divergence.detach() / said.sum())
        return loss, report

    @torch.no_grad()
    def sample(self, model: Any, batch: Batch, generator: torch.Generator) -> Samples:
        """`group` answers to each prompt, and what the world makes of them."""
        rows = torch.arange(len(batch)).repeat_interleave(self.settings.group)
        many = batch[rows.numpy()]
        prompt = many.tokens[:, self.task.prompt_positions]
        training = model.training
        model.eval()
        written = self.task.finished(self.task.write(model, prompt, generator=generator))
        model.train(training)
        right = torch.from_numpy(self.task.right(written, many)).to(written.device)
        if self.settings.judged == "process" and self.settings.objective == "reward":
            credit = self.task.credit(written.cpu(), many).to(written.device)
        else:
            credit = right.float()[:, None].expand(written.shape)
        credit = torch.where(written >= 0, credit, 0.0)
        longest = int((written >= 0).any(dim=0).sum())
        written, credit = written[:, :longest], credit[:, :longest]
        return Samples(written, torch.cat([prompt, written.clamp(min=0)], dim=1), credit, right)

    def advantages(self, samples: Samples) -> Tensor:
        """[batch * group, k]; 0 where there is nothing to learn."""
        if self.settings.objective == "rejection":
            return samples.credit
        said = (samples.written >= 0).float()
        shape = (-1, self.settings.group, said.shape[1])
        credit, there = samples.credit.view(shape), said.view(shape)
        mean = credit.sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp(min=1)
        if self.settings.judged == "outcome":  # one number a sample, wherever it ends
            mean = samples.right.float().view(shape[0], self.settings.group, 1).mean(1, keepdim=True)
        return ((credit - mean) * there).view_as(said)
