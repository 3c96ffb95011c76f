"""Calibration: every method of the project held against models whose mechanism is known, and the scores it gets."""

from interp.calibration.summary import score

__all__ = ["score"]
