"""Calibration: every method of the project held against models whose mechanism is known, and the scores it gets."""

from typing import TYPE_CHECKING, Any

from interp.calibration.summary import score

if TYPE_CHECKING:
    from interp.calibration.truth import Effects, true_effects, with_circuits

__all__ = ["Effects", "score", "true_effects", "with_circuits"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from interp.calibration import truth  # imports torch; the summary does not

    return vars(truth)[name]
