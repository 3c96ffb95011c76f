"""Training: presets, optimizers, the loop, checkpoints, the curve on held-out units.

Importing the configuration is cheap; the rest imports torch and transformer_lens when first asked for, and the presets
the worlds that they are about.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp.runs.training_config import TrainingConfig

if TYPE_CHECKING:
    from interp.training.loop import TrainingProgress, train
    from interp.training.presets import PRESETS
    from interp.training.scoring import evaluate

_FROM = {"TrainingProgress": "loop", "train": "loop", "PRESETS": "presets", "evaluate": "scoring"}

__all__ = ["PRESETS", "TrainingConfig", "TrainingProgress", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"interp.training.{_FROM[name]}"), name)
