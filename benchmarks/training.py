"""Step time of the hooked transformer against a plain module of the same shape, and against TransformerLens's own.

A step is forward, cross-entropy, backward and AdamW on one batch of random tokens. Both models take their steps in
turns, in one process and changing order, so that load from elsewhere falls on both; each time is a median. Real steps
of the `step_inplace` preset, and what their time goes to, are in training_parts.py.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.plain import D_VOCAB, EPS, N_CTX, N_HEADS, N_LAYERS, PlainTransformer, hooked_config
from interp.models import build_model

BATCH = 16


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


def rows(
    *, steps: int = 40, threads: int = 1, d_models: tuple[int, ...] = (64, 128), compiled: bool = True
) -> list[dict]:
    """The benchmark's rows: name, ours, peer, peer_name, ratio (above 1 = ours is better), unit.

    Args:
        steps: timed steps of each model.
        threads: PyTorch threads; restored afterwards.
        d_models: widths; the first gives the rows `step_time_vs_plain` and `step_time_vs_boot_native`, each further one
            a row `step_time_vs_plain_d<width>`.
        compiled: also the row `step_time_compiled`, where there is a C++ compiler.
    """
    from benchmarks import training_parts

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
        out.append(_row("step_time_vs_boot_native", ours, peer, peer_name))
        return out + training_parts.rows(steps=steps, compiled=compiled)
    finally:
        torch.set_num_threads(before)


def _row(name: str, ours: float, peer: float, peer_name: str) -> dict:
    return {"name": name, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": peer / ours, "unit": "ms/step"}
