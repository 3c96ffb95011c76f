"""Drawings: pure functions from data to HTML or to a chart specification."""
