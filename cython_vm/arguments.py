"""Checks that many entries share. Each raises TypeError or ValueError naming the argument, what it takes, what came."""

from __future__ import annotations

import operator
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def check_kind(name: str, value: object, kind: type) -> None:
    """`value` must be a `kind`."""
    if not isinstance(value, kind):
        raise TypeError(f"{name} must be {kind.__name__}, got {_short(value)}")


def check_choice(name: str, value: object, choices: Collection[str]) -> None:
    """`value` must be one of a few words."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {_short(value)}")


def check_mapping(name: str, value: object) -> None:
    """`value` must map names to something."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{name} must map names to values, got {_short(value)}")


def check_room(name: str, folder: Path, n: int, bytes_each: int) -> None:
    """There must be room on the disk for n records."""
    free = shutil.disk_usage(folder).free
    if n * bytes_each > free:
        raise ValueError(f"{name} = {n} records take {n * bytes_each:,} bytes; {free:,} are free in {folder}")


def whole_number(name: str, value: Any, *, low: int = 0, high: int = 2**63 - 1) -> int:
    """`value` as an integer from low to high."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {_short(value)}") from None
    if not low <= number <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {number}")
    return number


def integers(name: str, values: Any) -> NDArray[Any]:
    """`values` as an array of integers (or booleans) of any shape, layout and byte order."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):  # rows of different lengths
        raise ValueError(f"{name} must be one array of integers, got {_short(values)}") from None
    check_unmasked(name, values)
    if array.size and array.dtype.kind not in "iub":
        raise TypeError(f"{name} must be integers, got {array.dtype}")
    return array


def numbers(name: str, values: Any) -> NDArray[np.float64]:
    """`values` as an array of real numbers of any shape, layout and byte order."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be numbers, got {_short(values)}") from None
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be numbers, got {_short(values)}")
    check_unmasked(name, values)
    return array.astype(np.float64)


def check_unmasked(name: str, values: Any) -> None:
    """A masked array must mask nothing: its data would be taken for values."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.is_masked(values):
        raise ValueError(f"{name} must have no masked values, got {int(np.ma.getmaskarray(values).sum())} of them")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:40]}…"
