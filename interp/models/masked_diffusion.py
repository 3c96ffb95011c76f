"""Masked diffusion: the bidirectional transformer, filling in an answer whose tokens are masked.

    1. A sequence is a prompt of n_prompt tokens and the answer behind it. In training each row draws a probability t,
       each of its answer tokens is masked with it, and the loss is the cross-entropy of the masked tokens over t
       (Sahoo et al. 2024, Nie et al. 2025). Its mean is a bound on the negative log-likelihood of the answer; with the
       exact conditionals it is the entropy H(answer | prompt), whatever the order. Where an answer is written block
       by block (`tail_block`), half of the rows are masked from a block on instead: tokens masked one by one are told
       by what is shown behind them, and a model that never misses its future does not learn to go on from the past.
    2. The prompt is never masked, the mask is never predicted, and a token that is not masked stays what it is.
    3. Sampling (denoising.py) begins with everything masked and fills in some tokens a pass.

`model(tokens)` masks the whole answer, whatever stands there: it is one step from full mask, an ordinary classifier.
With `revealed` some tokens are shown. Logits at position p are those of token p + 1, as in a causal record, so that
tasks read a model's answers where they always do; activations of token p stand at position p.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models.architecture import Architecture, answer_behind_prompt
from interp.models.config import TransformerConfig
from interp.models.drafts import Drafts, denoising_drafts
from interp.models.embed import Embed
from interp.models.masked_diffusion_config import ORDERS, MaskedDiffusionConfig
from interp.models.transformer import Transformer

_WHOLE = 0.25  # share of training rows that are masked whole: what one step from full mask learns from
_TAILS = 0.5  # share of training rows that are masked from a block on, where the answer has blocks
_DRAFTS = 16  # passes in which `drafts` shows an answer
_LEAST = 1e-3  # the smallest probability of masking: the loss divides by it


class MaskableEmbed(Embed):
    """Token embedding with a vector of its own for the mask, whose id is d_vocab."""

    def __init__(self, cfg: TransformerConfig) -> None:
        super().__init__(cfg)
        self.W_mask = nn.Parameter(torch.empty(1, cfg.d_model))

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, pos] from 0 to d_vocab to vectors [batch, pos, d_model]."""
        return F.embedding(tokens, torch.cat([self.W_E, self.W_mask]))


class MaskedDiffusion(Transformer):
    """See this module's docstring; hook points are the transformer's."""

    cfg: MaskedDiffusionConfig  # type: ignore[assignment]

    def __init__(self, cfg: MaskedDiffusionConfig) -> None:
        super().__init__(cfg)

    def make_embed(self, cfg: TransformerConfig) -> Embed:
        """See Transformer."""
        return MaskableEmbed(cfg)

    def compute(self, tokens: Tensor, *, revealed: Tensor | None = None, **options: Any) -> Tensor:
        """Logits [batch, pos, d_vocab] of the token behind each position; those of the last position repeat.

        Args:
            tokens: integers [batch, pos], pos <= n_ctx; with `start_at_layer` a residual stream.
            revealed: which answer tokens the model sees, bool [batch, pos - n_prompt]; by default none.
            options: of the transformer.

        Raises:
            ValueError: `revealed` of another shape, or what the transformer refuses.
        """
        if options.get("past_kv_cache") is not None:
            raise ValueError("masked diffusion reads the whole sequence at every pass: past_kv_cache must be None")
        if options.get("start_at_layer") is None:
            tokens = self.masked(tokens, revealed)
        out = super().compute(tokens, **options)
        if options.get("stop_at_layer") is not None:
            return out
        return torch.cat([out[:, 1:], out[:, -1:]], dim=1)  # what is read at p was computed at token p + 1

    def masked(self, tokens: Tensor, revealed: Tensor | None = None) -> Tensor:
        """Tokens [batch, pos] with the mask, id d_vocab, wherever the answer is not revealed. See `compute`."""
        n_prompt, mask = self.cfg.n_prompt, self.cfg.d_vocab
        if tokens.numel() and int(tokens.max()) >= mask:  # the mask is set by `revealed` alone
            raise ValueError(f"tokens must be from 0 to {mask - 1}; got {int(tokens.min())} to {int(tokens.max())}")
        if tokens.ndim != 2 or tokens.shape[1] <= n_prompt:
            return tokens
        answer = tokens[:, n_prompt:]
        if revealed is None:
            return torch.cat([tokens[:, :n_prompt], torch.full_like(answer, mask)], dim=1)
        if revealed.dtype != torch.bool or revealed.shape != answer.shape:
            raise ValueError(
                f"revealed must say of the {answer.shape[1]} answer tokens of each row whether they are seen, "
                f"bool {list(answer.shape)}; got {revealed.dtype} {list(revealed.shape)}"
            )
        return torch.cat([tokens[:, :n_prompt], answer.masked_fill(~revealed, mask)], dim=1)

    def answer(self, task: Any, batch: Any) -> Any:
        """Filled in as the configuration says: in one pass what the task reads, else by `denoise`."""
        if self.cfg.denoising_steps == 1:
            return super().answer(task, batch)
        from interp.models.denoising import denoise  # it imports this module

        prompt = batch.tokens[:, : self.cfg.n_prompt]
        return denoise(self, prompt, steps=self.cfg.denoising_steps, order=self.cfg.order).tokens

    def answer_bound(self, tokens: Tensor, *, draws: int = 8, seed: int = 0) -> Tensor:
        """See `interp.models.denoising.answer_bound`, [batch]."""
        from interp.models.denoising import answer_bound  # it imports this module

        return answer_bound(self, tokens, draws=draws, seed=seed)

    @property
    def max_denoising_steps(self) -> int:
        """See ModelFacts."""
        return self.cfg.n_answer

    denoising_orders = ORDERS
    denoising_limit = "tokens of an answer"
    decides_for_good = True

    def filled_in(
        self, prompt: Tensor, steps: int, order: Any, *, remask: bool = False, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """See ModelFacts and `interp.models.denoising.denoise`."""
        from interp.models.denoising import denoise  # it imports this module

        found = denoise(self, prompt, steps=steps, order=order, remask=remask, seed=seed)
        return found.tokens, found.decided

    def drafts(self, task: Any, batch: Any) -> Drafts:
        """See ModelFacts: in sixteen passes, or as many as the answer has tokens."""
        return denoising_drafts(self, task, batch, passes=min(_DRAFTS, self.cfg.n_answer))

    def fast_pass(self) -> None:
        """None: the fast pass reads logits where they are computed, and embeds no mask."""

    @property
    def fixed_point(self) -> None:
        """None: an answer is not written from left to right."""


def masking(
    n_rows: int, n_answer: int, generator: torch.Generator, *, whole: float = 0.0, tail_block: int = 0
) -> tuple[Tensor, Tensor]:
    """Which answer tokens are masked, bool [n_rows, n_answer], and with which probability in each row, [n_rows, 1].

    Probabilities are spread evenly over (0, 1] within a batch, so that its loss varies less.

    Args:
        n_rows: of the batch.
        n_answer: tokens of an answer.
        generator: of the draws.
        whole: the share of rows that are masked whole, with probability 1.
        tail_block: tokens a block, where half of the rows are masked from the start of some block to the end, each
            block equally often; their probability is the share that is masked. 0: none.
    """
    offset = torch.rand(1, generator=generator)
    t = (torch.randperm(n_rows, generator=generator) / n_rows + offset).remainder(1.0).clamp(min=_LEAST)[:, None]
    t = torch.where(torch.rand(n_rows, 1, generator=generator) < whole, 1.0, t)
    masked = torch.rand(n_rows, n_answer, generator=generator) < t
    if not tail_block:
        return masked, t
    first = torch.randint(math.ceil(n_answer / tail_block), (n_rows, 1), generator=generator) * tail_block
    tail = torch.rand(n_rows, 1, generator=generator) < _TAILS
    masked = torch.where(tail, torch.arange(n_answer) >= first, masked)
    return masked, torch.where(tail, 1 - first / n_answer, t)


def weighted_losses(logits: Tensor, answers: Tensor, masked: Tensor, t: Tensor) -> Tensor:
    """Cross-entropy of the masked tokens over the probability of masking, nats an answer, [batch].

    Args:
        logits: of the answer's tokens, [batch, n_answer, d_vocab].
        answers: long [batch, n_answer].
        masked: bool [batch, n_answer].
        t: [batch, 1].
    """
    losses = F.cross_entropy(logits.transpose(1, 2).float(), answers, reduction="none")
    return (losses * masked / t).sum(1)


def objective(model: Any, task: Any, batch: Any, generator: torch.Generator) -> Tensor:
    """The weighted masked loss, nats a token of the answer; a quarter of the rows are masked whole."""
    n_prompt = len(range(task.n_ctx)[task.prompt_positions])
    answers = batch.tokens[:, n_prompt:]
    drawn = masking(len(answers), answers.shape[1], generator, whole=_WHOLE, tail_block=model.cfg.tail_block)
    masked, t = (each.to(answers.device) for each in drawn)
    logits = model(batch.tokens, revealed=~masked)
    return weighted_losses(logits[:, n_prompt - 1 : -1], answers, masked, t).mean() / answers.shape[1]


def suits(task: Any) -> str | None:
    """Whether the answer stands as one block behind the prompt; the sentence that says why not, or None."""
    if answer_behind_prompt(task):
        return None
    return f"masked diffusion fills in an answer that stands behind its prompt; the task {task.name} is not made so"


MASKED_DIFFUSION_ARCHITECTURE = Architecture(
    config=MaskedDiffusionConfig,
    build=MaskedDiffusion,
    words="A bidirectional transformer that fills in masked tokens of an answer, in one pass or in several.",
    suits=suits,
    objective=objective,
)
