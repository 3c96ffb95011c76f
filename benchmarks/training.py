"""Step time of the hooked transformer against a plain module of the same shape, and against TransformerLens's own.

A step is forward, cross-entropy, backward and AdamW on one batch of random tokens. Both models take their steps in
turns, in one process and changing order, so that load from elsewhere falls on both; each time is a median.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from interp.models import TransformerConfig, build_model

D_VOCAB, N_CTX, N_LAYERS, N_HEADS, BATCH = 33, 74, 4, 4, 16
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

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.RMSNorm(d_model, EPS), PlainAttention(d_model)
        self.ln_2 = nn.RMSNorm(d_model, EPS)
        self.c_fc, self.c_proj = nn.Linear(d_model, 4 * d_model), nn.Linear(4 * d_model, d_model)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, pos, d_model] to the same."""
        x = x + self.attn(self.ln_1(x))
        return x + self.c_proj(F.gelu(self.c_fc(self.ln_2(x))))


class PlainTransformer(nn.Module):
    """nanoGPT's GPT without hooks: what the hooked model is measured against."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(D_VOCAB, d_model), nn.Embedding(N_CTX, d_model)
        self.h = nn.ModuleList(PlainBlock(d_model) for _ in range(N_LAYERS))
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


def boot_native(d_model: int) -> nn.Module:
    """TransformerLens's native model of the same shape; it has no QK-norm and no bias on the logits."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    cfg = TransformerBridgeConfig(
        d_vocab=D_VOCAB,
        n_ctx=N_CTX,
        n_layers=N_LAYERS,
        n_heads=N_HEADS,
        d_model=d_model,
        d_head=d_model // N_HEADS,
        d_mlp=4 * d_model,
        act_fn="gelu",
        normalization_type="RMS",
        attention_dir="bidirectional",
        eps=EPS,
        seed=0,
    )
    return TransformerBridge.boot_native(cfg)  # type: ignore[attr-defined]


def step_times(models: list[nn.Module], *, steps: int, warmup: int = 5) -> list[float]:
    """Median milliseconds of a training step of each model, taken in turns."""
    tokens = torch.randint(D_VOCAB, (BATCH, N_CTX), generator=torch.Generator().manual_seed(0))
    times: list[list[float]] = [[] for _ in models]
    runs = [(i, _stepper(model, tokens)) for i, model in enumerate(models)]
    for round_ in range(warmup + steps):
        for i, step in runs if round_ % 2 else reversed(runs):
            start = time.perf_counter()
            step()
            times[i].append(time.perf_counter() - start)
    return [1e3 * statistics.median(series[warmup:]) for series in times]


def _stepper(model: nn.Module, tokens: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    targets = tokens.flatten()

    def step() -> None:
        F.cross_entropy(model(tokens).flatten(0, 1), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def rows(*, steps: int = 40, threads: int = 1, d_models: tuple[int, ...] = (64, 128)) -> list[dict]:
    """The benchmark's rows: name, ours, peer, peer_name, ratio (peer / ours, above 1 = ours is faster), unit.

    Args:
        steps: timed steps of each model.
        threads: PyTorch threads; restored afterwards.
        d_models: widths; the first gives the rows `step_time_vs_plain` and `step_time_vs_boot_native`, each further one
            a row `step_time_vs_plain_d<width>`.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        out = []
        for d_model in d_models:
            ours, peer = step_times([build_model(hooked_config(d_model)), PlainTransformer(d_model)], steps=steps)
            suffix = "" if d_model == d_models[0] else f"_d{d_model}"
            out.append(_row(f"step_time_vs_plain{suffix}", ours, peer, f"nanoGPT-style module, d_model {d_model}"))
        pair = [build_model(hooked_config(d_models[0], qk_norm=False)), boot_native(d_models[0])]
        ours, peer = step_times(pair, steps=steps)
        peer_name = f"TransformerBridge.boot_native, d_model {d_models[0]}, no QK-norm"
        return [*out, _row("step_time_vs_boot_native", ours, peer, peer_name)]
    finally:
        torch.set_num_threads(before)


def _row(name: str, ours: float, peer: float, peer_name: str) -> dict:
    return {"name": name, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": peer / ours, "unit": "ms/step"}
