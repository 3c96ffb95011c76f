"""Training: configuration, optimizers, the loop, checkpoints, evaluation.

Importing the configuration is cheap; the rest imports torch and transformer_lens when first asked for.
"""

from typing import TYPE_CHECKING, Any

from interp.runs.training_config import TrainingConfig

if TYPE_CHECKING:
    from interp.training.loop import TrainingProgress, train
    from interp.training.presets import PRESETS
    from interp.training.scoring import evaluate

__all__ = ["PRESETS", "TrainingConfig", "TrainingProgress", "evaluate", "train"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from interp.training import loop, presets
    from interp.training import scoring as evaluation

    for module in (evaluation, loop, presets):
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(name)
