"""Parameters of probes within their intervals, or a ValueError that names the parameter; checked when fit is called."""

import math
from numbers import Integral, Real
from typing import Any

import numpy as np


def check_real(name: str, value: Any, *, above: float | None = None, least: float | None = None) -> None:
    """A finite real number, above `above` or at least `least`."""
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    if math.isfinite(number) and (above is None or number > above) and (least is None or number >= least):
        return
    bound = f"above {above:g}" if least is None else f"at least {least:g}"
    raise ValueError(f"{name} must be a finite number {bound}, got {value!r}")


def check_whole(name: str, value: Any, *, least: int) -> None:
    """An integer of at least `least`."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_share(name: str, value: Any) -> None:
    """A number strictly between 0 and 1."""
    if not isinstance(value, Real) or not 0 < float(value) < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r}")
