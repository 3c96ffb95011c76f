"""The plain module that training is measured against: nanoGPT's GPT with RMSNorm, QK-norm and no hooks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models import TransformerConfig

Activation = Callable[[Tensor], Tensor]

D_VOCAB, N_CTX, N_LAYERS, N_HEADS = 33, 74, 4, 4  # of `step_inplace` at the default machine
EPS = 1e-5


class PlainAttention(nn.Module):
    """nanoGPT's CausalSelfAttention, bidirectional, with an RMSNorm on queries and keys."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.c_attn = nn.Linear(d_model, 3 * d_model)
        self.c_proj = nn.Linear(d_model, d_model)
        self.q_norm = nn.RMSNorm(d_model // N_HEADS, EPS)
        self.k_norm = nn.RMSNorm(d_model // N_HEADS, EPS)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, pos, d_model] to the same."""
        batch, pos, d_model = x.shape
        q, k, v = self.c_attn(x).split(d_model, dim=2)
        q, k, v = (part.view(batch, pos, N_HEADS, d_model // N_HEADS).transpose(1, 2) for part in (q, k, v))
        z = F.scaled_dot_product_attention(self.q_norm(q), self.k_norm(k), v)
        return self.c_proj(z.transpose(1, 2).contiguous().view(batch, pos, d_model))


class PlainBlock(nn.Module):
    """nanoGPT's Block with RMSNorm."""

    def __init__(self, d_model: int, act: Activation) -> None:
        super().__init__()
        self.act = act
        self.ln_1, self.attn = nn.RMSNorm(d_model, EPS), PlainAttention(d_model)
        self.ln_2 = nn.RMSNorm(d_model, EPS)
        self.c_fc, self.c_proj = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, pos, d_model] to the same."""
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(self.act(self.c_fc(self.ln_2(x))))


class PlainTransformer(nn.Module):
    """nanoGPT's GPT without hooks: what the hooked model is measured against."""

    def __init__(self, d_model: int, *, act: Activation = F.gelu) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(D_VOCAB, d_model), nn.Embedding(N_CTX, d_model)
        self.h = nn.ModuleList(PlainBlock(d_model, act) for _ in range(N_LAYERS))
        self.ln_f, self.lm_head = nn.RMSNorm(d_model, EPS), nn.Linear(d_model, D_VOCAB)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, pos] to logits [batch, pos, d_vocab]."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))


def hooked_config(d_model: int, *, qk_norm: bool = True) -> TransformerConfig:
    """The configuration that PlainTransformer mirrors."""
    return TransformerConfig(
        d_vocab=D_VOCAB,
        n_ctx=N_CTX,
        n_layers=N_LAYERS,
        n_heads=N_HEADS,
        d_model=d_model,
        normalization_type="RMS",
        eps=EPS,
        qk_norm=qk_norm,
        attention_dir="bidirectional",
        positional_embedding_type="learned",
    )
