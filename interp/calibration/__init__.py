"""Calibration: every method of the project held against models whose mechanism is known, and the scores it gets."""
