"""What continuous diffusion is trained on: answers noised to a random time, predicted in one pass.

    loss = cross-entropy of the rounded prediction, nats a token  +  squared error of the prediction, a dimension

The first holds embeddings apart and makes a prediction's rounding a probability; the second makes the prediction the
embedding itself, which the samplers take it for (Li et al. 2022). It moves predictions alone: embeddings that it moved
as well would draw together, since what is all alike is easy to predict. Times are spread evenly over (0, 1] within a
batch, so that its loss varies less; half of the rows begin at noise alone, as the samplers do. In every other batch
the model sees a first prediction of its own, made without gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from interp.models.architecture import Architecture, answer_behind_prompt
from interp.models.diffusion_lm import DiffusionLM, OnePass
from interp.models.diffusion_lm_config import DiffusionLMConfig

_WHOLE = 0.5  # share of training rows of which nothing is left but noise


def times(n_rows: int, generator: torch.Generator, *, whole: float = 0.0) -> Tensor:
    """Times in (0, 1], spread evenly over a batch, [n_rows]; a share `whole` of the rows at 1."""
    offset = torch.rand(1, generator=generator)
    t = 1 - (torch.randperm(n_rows, generator=generator) / n_rows + offset).remainder(1.0)
    return torch.where(torch.rand(n_rows, generator=generator) < whole, 1.0, t)


def denoising_loss(found: OnePass, answers: Tensor, *, n_prompt: int) -> Tensor:
    """The loss of this module's docstring, a scalar; answers long [batch, answer_pos]."""
    logits = found.logits[:, n_prompt - 1 : -1].float()
    rounding = F.cross_entropy(logits.flatten(0, 1), answers.flatten())
    return rounding + (found.predicted - found.clean.detach()).float().square().mean()


def objective(model: Any, task: Any, batch: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The loss of a batch, and the logits [batch, pos, d_vocab] that it was given at."""
    cfg: DiffusionLMConfig = getattr(model, "module", model).cfg
    answers, device = batch.tokens[:, cfg.n_prompt :], batch.tokens.device
    at = times(len(answers), generator, whole=_WHOLE).to(device)
    noise = torch.randn(1, *answers.shape, cfg.d_embed, generator=generator).to(device)
    conditioned = cfg.self_conditioning and bool(torch.rand((), generator=generator) < 0.5)
    found = model(batch.tokens, at=at, noise=noise, conditioned=conditioned)
    return denoising_loss(found, answers, n_prompt=cfg.n_prompt), found.logits


def suits(task: Any) -> str | None:
    """Whether the answer stands as one block behind the prompt; the sentence that says why not, or None."""
    if answer_behind_prompt(task):
        return None
    return f"a diffusion_lm denoises an answer that stands behind its prompt; the task {task.name} is not made so"


DIFFUSION_LM_ARCHITECTURE = Architecture(
    config=DiffusionLMConfig,
    build=DiffusionLM,
    words="A bidirectional transformer that denoises an answer's embeddings, in a few passes from pure noise.",
    suits=suits,
    objective=objective,
)
