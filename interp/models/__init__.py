"""Models with TransformerLens hooks, trained in this package.

Importing the configuration is cheap; Transformer, MODELS and build_model import torch and transformer_lens when first
asked for.
"""

from typing import TYPE_CHECKING, Any

from interp.models.architecture import Architecture
from interp.models.config import TransformerConfig, config_class

if TYPE_CHECKING:
    from interp.models.base import HookedModel
    from interp.models.decoding import greedy_decode
    from interp.models.kv_cache import KeyValueCache
    from interp.models.registry import MODELS, build_model
    from interp.models.resizing import resize
    from interp.models.transformer import Transformer

__all__ = [
    "MODELS",
    "Architecture",
    "HookedModel",
    "KeyValueCache",
    "Transformer",
    "TransformerConfig",
    "build_model",
    "config_class",
    "greedy_decode",
    "resize",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from interp.models import base, decoding, kv_cache, registry, resizing, transformer

    for module in (registry, base, decoding, kv_cache, resizing, transformer):
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(name)
