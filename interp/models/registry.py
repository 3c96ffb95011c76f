"""Every architecture by its key."""

from __future__ import annotations

from collections.abc import Callable

import torch

from interp.models.base import HookedModel
from interp.models.config import TransformerConfig
from interp.models.transformer import Transformer

MODELS: dict[str, Callable[[TransformerConfig], HookedModel]] = {"transformer": Transformer}


def build_model(cfg: TransformerConfig) -> HookedModel:
    """The model that `cfg.architecture` names, on the CPU, with initial weights drawn from `cfg.seed`.

    Raises:
        ValueError: the architecture is not in MODELS.
    """
    if cfg.architecture not in MODELS:
        raise ValueError(f"architecture must be one of {', '.join(MODELS)}; got {cfg.architecture!r}")
    with torch.random.fork_rng(
        devices=[]
    ):  # PyTorch's layers draw once before ours do: leave the caller's stream alone
        return MODELS[cfg.architecture](cfg)
