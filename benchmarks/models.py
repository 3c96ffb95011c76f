"""Models with a state: their scans against loops under autograd, and what hook points and caching cost.

Rows `scan_<kernel>_<length>`: forward and backward of the recurrence alone, batch 16 at length 148 and 2 at 1,184 (a
state as in a model of 128 channels), `h = a h + b` for the linear scans, and from step sizes to what is read for
Mamba's; the peer is the same recurrence as a loop under autograd (scan_loops.py). Rows `hooked_step_<architecture>`: a
training step while no hook is live, against a copy of the same model whose hook points are taken out. Rows
`cached_<architecture>`: a forward pass that keeps every activation but matrix states, against one that keeps none;
`cached_states_<architecture>`, where there are such, keeps them too.

Contenders take turns, in changing order. Times are medians of processor time: load from elsewhere counts little.
"""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from benchmarks import scan_loops
from interp.models import build_model, chunks
from interp.models.scans import linear_scan
from interp.models.selective_scan import selective_scan
from interp.models.state_configs import (
    DeltaConfig,
    GRUConfig,
    LinearAttentionConfig,
    LSTMConfig,
    Mamba2Config,
    MambaConfig,
    RNNConfig,
    StateConfig,
)

logger = logging.getLogger(__name__)

_SIZES: dict[str, Any] = {"d_vocab": 40, "n_ctx": 148}
CONFIGS: dict[str, StateConfig] = {
    "rnn": RNNConfig(**_SIZES, d_model=160),
    "gru": GRUConfig(**_SIZES, d_model=160),
    "lstm": LSTMConfig(**_SIZES, d_model=160),
    "linear_attention": LinearAttentionConfig(**_SIZES, d_model=96, n_layers=4),
    "delta": DeltaConfig(**_SIZES, d_model=96, n_layers=4),
    "mamba": MambaConfig(**_SIZES, d_model=96, n_layers=4),
    "mamba2": Mamba2Config(**_SIZES, d_model=96, n_layers=4),
}
BATCH = 16
LENGTHS = {148: 16, 1184: 2}  # positions: rows of the batch


class Absent:
    """Stands where a hook point was, in the peer: listens to nothing, costs a call."""

    _forward_hooks = _forward_pre_hooks = _backward_hooks = _backward_pre_hooks = ()

    def __call__(self, x: Tensor) -> Tensor:
        return x


def without_hook_points(model: Any) -> Any:
    """A copy of a model in which every hook point is gone."""
    model = copy.deepcopy(model)
    for module in model.modules():
        for name in [name for name, child in module.named_children() if isinstance(child, HookPoint)]:
            delattr(module, name)
            setattr(module, name, Absent())
    model.hook_points = lambda: []
    return model


def medians(runs: list[Callable[[], Any]], *, repeats: int, warmup: int = 2) -> list[float]:
    """Median milliseconds of each, taken in turns in changing order."""
    times: list[list[float]] = [[] for _ in runs]
    for number in range(warmup + repeats):
        for i in range(len(runs)) if number % 2 else reversed(range(len(runs))):
            start = time.process_time()
            runs[i]()
            times[i].append(time.process_time() - start)
    return [1e3 * statistics.median(series[warmup:]) for series in times]


def scan_inputs(length: int) -> dict[str, list[Tensor]]:
    """Arguments of the kernels by recurrence: 128 channels of 16 numbers, or 4 heads of 24 × 24."""
    generator = torch.Generator().manual_seed(0)
    batch = LENGTHS[length]

    def draw(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, generator=generator)

    x, dt, (B, C) = draw(length, 128), F.softplus(draw(length, 128) - 3), (draw(length, 16) for _ in "BC")
    q, k, v = (F.normalize(draw(4, length, 24), dim=-1) for _ in "qkv")
    beta, log_decay = 2 * torch.sigmoid(draw(4, length)), -0.1 * draw(4, length).abs()
    A = -torch.arange(1.0, 17.0).expand(128, 16).clone()
    found = {
        "linear": [torch.sigmoid(draw(length, 128, 16) + 2), draw(length, 128, 16)],
        "mamba": [x, dt, A, B, C],
        "mamba2": [draw(1, length, 16), draw(1, length, 16), draw(4, length, 32), log_decay],
        "delta": [q, k, v, beta, log_decay],
    }
    return {name: [each.detach().clone().requires_grad_() for each in inputs] for name, inputs in found.items()}


SCANS: dict[str, tuple[str, Callable[..., Tensor], Callable[..., Tensor]]] = {  # name: inputs, kernel, loop
    "linear": ("linear", linear_scan, scan_loops.linear_loop),
    "linear_parallel": ("linear", partial(linear_scan, kernel="chunked"), scan_loops.linear_loop),
    "mamba": ("mamba", lambda *inputs: selective_scan(*inputs)[0], scan_loops.selective_loop),
    "mamba2": ("mamba2", lambda *inputs: chunks.linear_attention(*inputs)[0], scan_loops.linear_attention_loop),
    "delta": ("delta", lambda *inputs: chunks.delta_rule(*inputs)[0], scan_loops.delta_loop),
}


def scan_rows(repeats: int) -> list[dict[str, Any]]:
    """Rows `scan_<kernel>_<length>`."""
    rows = []
    for length in LENGTHS:
        inputs = scan_inputs(length)
        for name, (key, kernel, loop) in SCANS.items():
            logger.info("scan %s at %d", name, length)
            fast, slow = (_differentiated(each, inputs[key]) for each in (kernel, loop))
            short = length < 1000  # a loop under autograd takes time that grows with the square of the length
            ours = medians([fast], repeats=repeats)[0]
            peer = medians([slow], repeats=3 if short else 1, warmup=1 if short else 0)[0]
            again = medians([fast], repeats=repeats)[0]  # after the peer too, so that load falls on both
            rows.append(_row(f"scan_{name}_{length}", min(ours, again), peer, "loop under autograd", "ms"))
    return rows


def _differentiated(kernel: Callable[..., Tensor], inputs: list[Tensor]) -> Callable[[], None]:
    weight = torch.ones(1)

    def run() -> None:
        out = kernel(*inputs)
        torch.autograd.grad(out, inputs, weight.expand_as(out))

    return run


def _step(model: nn.Module, tokens: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    targets = tokens.flatten()

    def step() -> None:
        F.cross_entropy(model(tokens).flatten(0, 1), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def model_rows(repeats: int) -> list[dict[str, Any]]:
    """Rows `hooked_step_…`, `cached_…` and `cached_states_…`."""
    rows = []
    tokens = torch.randint(40, (BATCH, 148), generator=torch.Generator().manual_seed(0))
    for name, cfg in CONFIGS.items():
        logger.info("model %s", name)
        model = build_model(cfg).train()
        bare = without_hook_points(model)
        ours, peer = medians([_step(model, tokens), _step(bare, tokens)], repeats=repeats)
        rows.append(_row(f"hooked_step_{name}", ours, peer, "the same model without hook points", "ms/step"))
        matrices = ("hook_ssm_state", "hook_ssm_write")
        others = [hook for hook in model.hook_dict if not hook.endswith(matrices)]
        with torch.no_grad():
            plain, cached, whole = medians(
                [
                    lambda model=model: model(tokens),
                    lambda model=model, others=others: model.run_with_cache(tokens, names_filter=others),
                    lambda model=model: model.run_with_cache(tokens),
                ],
                repeats=repeats,
            )
        rows.append(_row(f"cached_{name}", cached, plain, "forward without a cache", "ms"))
        if len(others) < len(model.hook_dict):
            rows.append(_row(f"cached_states_{name}", whole, plain, "forward without a cache", "ms"))
    return rows


def rows(*, repeats: int = 9, threads: int = 1) -> list[dict[str, Any]]:
    """The benchmark's rows: name, ours, peer, peer_name, ratio (above 1 = ours is better), unit.

    Args:
        repeats: timed runs of each contender, but for the loops.
        threads: PyTorch threads; restored afterwards.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return scan_rows(repeats) + model_rows(repeats)
    finally:
        torch.set_num_threads(before)


def _row(name: str, ours: float, peer: float, peer_name: str, unit: str) -> dict[str, Any]:
    return {"name": name, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": peer / ours, "unit": unit}
