"""Models of the last `context` tokens: an MLP over their embeddings, and counted n-grams.

    window   embeddings of the last `context` tokens, beside each other (Bengio et al. 2003) or as the newest and the
             mean of all, then one hidden layer; `d_mlp = 0` reads logits off the window itself: with a context of one
             token and d_model = d_vocab the bigram, learned by gradient
    ngram    counts of what followed each context, fitted without gradients; each order is smoothed by the one below
             with weight alpha (MacKay and Peto 1995), the lowest by the uniform distribution

Hook points, those of `window` first:

    hook_embed, blocks.0.hook_resid_pre    [batch, pos, d_model], the embeddings
    blocks.0.hook_window       [batch, pos, context * d_model]; with pooling "mean" [batch, pos, 2 * d_model]
    blocks.0.hook_resid_post   [batch, pos, d_mlp]; without a hidden layer the window again

The n-gram has hook_embed and hook_resid_pre, the one-hot tokens, and hook_resid_post, log-probabilities [batch, pos,
d_vocab].

Before the first token the window is filled with zeros, which the n-gram counts as a token of its own.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from interp.models.architecture import Architecture, causal_only
from interp.models.base import HookedModel
from interp.models.window_config import NgramConfig, WindowConfig


class Window(HookedModel):
    """`window` of this module's docstring."""

    declared_axes = {  # noqa: RUF012  # a constant of the class
        "hook_embed": ("batch", "pos", "d_model"),
        "hook_resid_pre": ("batch", "pos", "d_model"),
        "hook_window": ("batch", "pos", "d_window"),
        "hook_resid_post": ("batch", "pos", "d_out"),
    }

    def __init__(self, cfg: WindowConfig) -> None:
        super().__init__()
        self.cfg = cfg = cfg.as_written
        self.hook_embed = HookPoint()
        self.embed = nn.Embedding(cfg.d_vocab, cfg.d_model)
        block: Any = nn.Module()
        block.hook_resid_pre, block.hook_window, block.hook_resid_post = HookPoint(), HookPoint(), HookPoint()
        if cfg.d_mlp:
            block.fc_in = nn.Linear(cfg.d_window, cfg.d_mlp)
        self.blocks = nn.ModuleList([block])
        self.unembed = nn.Linear(cfg.d_out, cfg.d_vocab)
        self.ln_final = nn.Identity()
        generator = torch.Generator().manual_seed(cfg.seed)
        with torch.no_grad():
            for parameter in self.parameters():
                scale = 1.0 if parameter is self.embed.weight else parameter.shape[-1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale * (parameter.ndim > 1))
        self.to(getattr(torch, cfg.dtype))
        self.setup()

    def compute(self, tokens: Tensor) -> Tensor:
        """Logits [batch, pos, d_vocab] of tokens [batch, pos], of any length."""
        _require_tokens(tokens, self.cfg.d_vocab)
        cfg, block = self.cfg, cast(Any, self.blocks[0])
        x = block.hook_resid_pre(self.hook_embed(self.with_gradient(self.embed(tokens))))
        lagged = torch.stack([_shifted(x, lag) for lag in range(cfg.context)], dim=2)  # [batch, pos, lag, d_model]
        window = lagged.flatten(2) if cfg.pooling == "concat" else torch.cat([x, lagged.mean(2)], dim=-1)
        hidden = window = block.hook_window(window)
        if cfg.d_mlp:
            hidden = getattr(torch, cfg.act_fn)(block.fc_in(window))
        return self.unembed(block.hook_resid_post(hidden))

    @property
    def longest(self) -> None:
        """None: of a longer sequence it sees the end."""
        return None

    def residual_hooks(self) -> tuple[str, ...]:
        """The embeddings, and what logits are read off."""
        return "blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"

    def carrier_hooks(self) -> tuple[str, ...]:
        """The embeddings: later windows see them and nothing else of a position."""
        return ("blocks.0.hook_resid_pre",)

    @property
    def W_U(self) -> Tensor:
        """[d_mlp, d_vocab]; see `hook_resid_post`."""
        return self.unembed.weight.T

    @property
    def b_U(self) -> Tensor:  # type: ignore[override]
        """[d_vocab]."""
        return self.unembed.bias


class Ngram(HookedModel):
    """`ngram` of this module's docstring. `counts` are parameters, so that they are saved as weights are."""

    declared_axes = dict.fromkeys(("hook_embed", "hook_resid_pre", "hook_resid_post"), ("batch", "pos", "d_model"))

    def __init__(self, cfg: NgramConfig) -> None:
        super().__init__()
        self.cfg = cfg = cfg.as_written
        self.counts = nn.ParameterList(
            nn.Parameter(torch.zeros((cfg.d_vocab + 1) ** order, cfg.d_vocab)) for order in range(cfg.context + 1)
        )
        self.hook_embed = HookPoint()
        block: Any = nn.Module()
        block.hook_resid_pre, block.hook_resid_post = HookPoint(), HookPoint()
        self.blocks = nn.ModuleList([block])
        self.ln_final = nn.Identity()
        self.to(getattr(torch, cfg.dtype))
        self.setup()

    def contexts(self, tokens: Tensor) -> list[Tensor]:
        """The number of each context that ends at a token, by order, each long [batch, pos]."""
        filled = torch.full_like(tokens, self.cfg.d_vocab)
        found, number = [torch.zeros_like(tokens)], torch.zeros_like(tokens)
        for lag in range(self.cfg.context):
            token = torch.cat([filled[:, :lag], tokens[:, : tokens.shape[1] - lag]], dim=1)
            number = number + token * (self.cfg.d_vocab + 1) ** lag
            found.append(number)
        return found

    def compute(self, tokens: Tensor) -> Tensor:
        """Log-probabilities [batch, pos, d_vocab] of tokens [batch, pos]: logits that sum to 1.

        An edited embedding is read as its largest entry, whose size weighs the counts of the contexts that hold it.
        """
        _require_tokens(tokens, self.cfg.d_vocab)
        block = cast(Any, self.blocks[0])
        x = F.one_hot(tokens.long(), self.cfg.d_vocab).to(self.counts[0].dtype)
        weight, read = block.hook_resid_pre(self.hook_embed(self.with_gradient(x))).max(dim=-1)
        held = torch.ones_like(weight)
        found = torch.full_like(x, 1 / self.cfg.d_vocab)
        for order, number in enumerate(self.contexts(read)):
            held = held * _shifted(weight[..., None], order - 1, fill=1.0)[..., 0] if order else held
            counts = F.embedding(number, self.counts[order]).clamp(min=0) * held[..., None]
            alpha = self.cfg.alpha
            found = (counts + alpha * found) / (counts.sum(-1, keepdim=True) + alpha)
        return block.hook_resid_post(found.clamp(min=1e-30).log())

    @torch.no_grad()
    def count(self, tokens: Tensor, targets: Tensor) -> None:
        """Add what follows each context; targets [batch, pos], −1 where nothing is asked."""
        asked = targets >= 0
        for counts, number in zip(self.counts, self.contexts(tokens), strict=True):
            flat = number[asked] * self.cfg.d_vocab + targets[asked]
            counts.view(-1).index_add_(0, flat, torch.ones(len(flat), dtype=counts.dtype))

    @property
    def longest(self) -> None:
        """None: of a longer sequence it sees the end."""
        return None

    def residual_hooks(self) -> tuple[str, ...]:
        """The one-hot tokens, and the log-probabilities."""
        return "blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"

    def carrier_hooks(self) -> tuple[str, ...]:
        """The one-hot tokens."""
        return ("blocks.0.hook_resid_pre",)

    @property
    def W_U(self) -> Tensor:
        """The identity: log-probabilities are the logits."""
        return torch.eye(self.cfg.d_vocab, dtype=self.dtype)

    @property
    def b_U(self) -> Tensor:  # type: ignore[override]
        """[d_vocab], zeros."""
        return torch.zeros(self.cfg.d_vocab, dtype=self.dtype)


def count_batch(model: Any, task: Any, batch: Any) -> Tensor:
    """`Architecture.fit`: the batch is counted; the loss is that before it was."""
    with torch.no_grad():
        loss = task.loss(model(batch.tokens), batch)
    model.count(batch.tokens, batch.targets)
    return loss


def _shifted(x: Tensor, lag: int, *, fill: float = 0.0) -> Tensor:
    """x [batch, pos, d] moved `lag` positions later, filled up at the start."""
    return F.pad(x, (0, 0, lag, 0), value=fill)[:, : x.shape[1]]


def _require_tokens(tokens: Tensor, d_vocab: int) -> None:
    if tokens.ndim != 2 or tokens.dtype not in (torch.int64, torch.int32):
        raise ValueError(f"tokens must be int64 [batch, pos]; got {tokens.dtype} {list(tokens.shape)}")
    if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < d_vocab:
        raise ValueError(f"tokens must be from 0 to {d_vocab - 1}; got {int(tokens.min())} to {int(tokens.max())}")


WINDOW_ARCHITECTURE = Architecture(
    config=WindowConfig,
    build=Window,
    words="An MLP over the embeddings of the last few tokens.",
    suits=causal_only,
)
NGRAM_ARCHITECTURE = Architecture(
    config=NgramConfig,
    build=Ngram,
    words="Counts of what followed each context of a few tokens.",
    suits=causal_only,
    fit=count_batch,
)
