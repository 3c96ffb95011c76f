"""Tokens a second of every architecture, forward and in training, at lengths from 256 to 4,096.

Rows `forward_<architecture>_<length>` and `training_<architecture>_<length>`: 4,096 tokens a batch, cut into as many
rows as the length allows, so that an architecture whose cost is linear in the length has about the same number at all.
The peer is a transformer of 4 layers of the same width, at the same length. Times are medians of processor time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.models import CONFIGS, medians
from interp.models import TransformerConfig, build_model

logger = logging.getLogger(__name__)

TOKENS = 4096  # of a batch
LENGTHS = (256, 512, 1024, 2048, 4096)


def rows(
    *, repeats: int = 3, threads: int = 1, lengths: tuple[int, ...] = LENGTHS, names: tuple[str, ...] = tuple(CONFIGS)
) -> list[dict[str, Any]]:
    """The benchmark's rows: name, ours, peer, peer_name, ratio (above 1 = ours is better), unit.

    Args:
        repeats: timed runs of each contender.
        threads: PyTorch threads; restored afterwards.
        lengths: positions of a row; each divides TOKENS.
        names: which architectures.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return [row for length in lengths for row in _at(length, names, repeats)]
    finally:
        torch.set_num_threads(before)


def _at(length: int, names: tuple[str, ...], repeats: int) -> list[dict[str, Any]]:
    logger.info("length %d", length)
    tokens = torch.randint(40, (TOKENS // length, length), generator=torch.Generator().manual_seed(0))
    peer = build_model(TransformerConfig(d_vocab=40, n_ctx=length, n_layers=4, n_heads=4, d_model=96))
    models: list[nn.Module] = [peer, *(build_model(replace(CONFIGS[name], n_ctx=length)) for name in names)]
    out = []
    for kind, contender in (("forward", _forward), ("training", _training)):
        times = medians([contender(model, tokens) for model in models], repeats=repeats, warmup=1)
        speeds = [1e3 * TOKENS / milliseconds for milliseconds in times]
        out += [
            {
                "name": f"{kind}_{name}_{length}",
                "ours": speed,
                "peer": speeds[0],
                "peer_name": "transformer of 4 layers",
                "ratio": speed / speeds[0],
                "unit": "tokens/s",
            }
            for name, speed in zip(names, speeds[1:], strict=True)
        ]
    return out


def _forward(model: nn.Module, tokens: Tensor) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        model(tokens)

    return run


def _training(model: nn.Module, tokens: Tensor) -> Callable[[], None]:
    def run() -> None:
        F.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()).backward()
        model.zero_grad()

    return run
