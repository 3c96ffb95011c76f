"""Several tokens at once: a transformer with k heads, of which the first says the next token, the second the one after.

1. One trunk, and on its final residual stream k unembeddings (Gloeckle et al. 2024, without a block a head).
2. Training: head j is taught the token j places after the next; the loss is the mean over the heads.
3. Answering: at the last known token all heads are read, so that an answer of n tokens takes ceil(n / k) passes.

None of the tokens said in one pass knows the others. Everything that looks inside sees the trunk and the first head.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models.architecture import Architecture, causal_only
from interp.models.config import MultiTokenConfig
from interp.models.transformer import Transformer


class MultiTokenTransformer(Transformer):
    """The transformer, and `cfg.n_predicted` - 1 further heads on its final norm."""

    cfg: MultiTokenConfig

    def __init__(self, cfg: MultiTokenConfig) -> None:
        super().__init__(cfg)
        generator = torch.Generator().manual_seed(cfg.seed + 1)
        self.unembed_ahead = nn.ModuleList(
            nn.Linear(cfg.d_model, cfg.d_vocab, bias=cfg.use_bias) for _ in range(cfg.n_predicted - 1)
        )
        with torch.no_grad():
            for parameter in self.unembed_ahead.parameters():
                drawn = torch.randn(parameter.shape, generator=generator) * cfg.init_range
                parameter.copy_(drawn if parameter.ndim == 2 else torch.zeros_like(parameter))
        self.to(getattr(torch, cfg.dtype))

    def all_heads(self, tokens: Tensor) -> Tensor:
        """What every head says after each token, logits [batch, pos, n_predicted, d_vocab]."""
        final = self.ln_final(self(tokens, stop_at_layer=self.cfg.n_layers))
        return torch.stack([self.unembed(final), *(head(final) for head in self.unembed_ahead)], dim=2)

    def answer(self, task: Any, batch: Any) -> Tensor:
        """Greedy answers, `n_predicted` tokens a pass."""
        where, n = task.answer_positions, len(task.answer_positions)
        answers = torch.zeros((len(batch), n), dtype=torch.long)
        for start in range(0, n, self.cfg.n_predicted):
            tokens = task.render(batch.examples, answers.numpy()).tokens
            said = self.all_heads(tokens)[:, int(where[start])].argmax(dim=-1)  # [batch, n_predicted]
            answers[:, start : start + self.cfg.n_predicted] = said[:, : n - start]
        return task.finished(answers)


def objective(model: MultiTokenTransformer, task: Any, batch: Any, generator: torch.Generator) -> Tensor:
    """Mean over the heads of the cross-entropy of the tokens that each is to say, nats a token."""
    logits, losses = model.all_heads(batch.tokens), []
    for j in range(model.cfg.n_predicted):
        targets = batch.targets.roll(-j, dims=1)
        targets[:, targets.shape[1] - j :] = -1
        targets = targets.masked_fill(batch.targets < 0, -1)  # before the question is read, nothing is asked
        if bool((targets >= 0).any()):
            losses.append(F.cross_entropy(logits[:, :, j].flatten(0, 1), targets.flatten(), ignore_index=-1))
    return torch.stack(losses).mean()


def suits(task: Any) -> str | None:
    """Causal tasks whose answer is one run of tokens that is shown as it is said."""
    if reason := causal_only(task):
        return reason
    whole, shown, at_once = (getattr(task, n, True) for n in ("whole_answers", "shows_answer", "at_once"))
    if whole and shown and at_once == 1:
        return None
    return f"several heads say the tokens of one answer after the other; the task {task.name} has no such answer"


MULTI_TOKEN_ARCHITECTURE = Architecture(
    config=MultiTokenConfig,
    build=MultiTokenTransformer,
    words="A transformer with several heads, each of which says one token further ahead.",
    suits=suits,
    objective=objective,
)
