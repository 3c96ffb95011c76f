"""Every architecture by its key."""

from __future__ import annotations

from collections.abc import Callable

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
    return MODELS[cfg.architecture](cfg)
