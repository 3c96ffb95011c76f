"""nanoGPT's GPT as a plain module, causal, without hooks: what the baseline on text is measured against."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainBlock(nn.Module):
    """nanoGPT's Block without biases."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.ln_1, self.ln_2 = nn.LayerNorm(d_model, bias=False), nn.LayerNorm(d_model, bias=False)
        self.c_attn = nn.Linear(d_model, 3 * d_model, bias=False)
        self.attn_proj = nn.Linear(d_model, d_model, bias=False)
        self.c_fc = nn.Linear(d_model, 4 * d_model, bias=False)
        self.c_proj = nn.Linear(4 * d_model, d_model, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, pos, d_model] to the same."""
        batch, pos, d_model = x.shape
        parts = self.c_attn(self.ln_1(x)).split(d_model, dim=2)
        q, k, v = (part.view(batch, pos, self.n_heads, -1).transpose(1, 2) for part in parts)
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attn_proj(z.transpose(1, 2).contiguous().view(batch, pos, d_model))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class PlainGPT(nn.Module):
    """Learned positions, tied embeddings, nanoGPT's initial weights; no dropout, as its setting for a CPU has none."""

    def __init__(self, *, d_vocab: int, n_ctx: int, n_layers: int = 4, n_heads: int = 4, d_model: int = 128) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(d_vocab, d_model), nn.Embedding(n_ctx, d_model)
        self.h = nn.ModuleList(PlainBlock(d_model, n_heads) for _ in range(n_layers))
        self.ln_f = nn.LayerNorm(d_model, bias=False)
        self.lm_head = nn.Linear(d_model, d_vocab, bias=False)
        self.lm_head.weight = self.wte.weight
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim == 2:
                    deep = math.sqrt(2 * n_layers) if name.endswith("_proj.weight") else 1.0
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02 / deep)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens [batch, pos] to logits [batch, pos, d_vocab]."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.h:
            x = block(x)
        return self.lm_head(self.ln_f(x))
