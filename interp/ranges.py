"""Parameters that count something, checked where they come in: whole numbers, and not too few.

    @counted(n=1, pairs=1)
    def effects(model, pairs, n=8): ...

refuses `n=0`, `n=2.5`, `n=nan` and empty `pairs` in one sentence, before anything is computed. None is left to the
function, which may give it a meaning.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import wraps
from inspect import signature
from math import inf, isfinite, nan
from numbers import Integral, Real
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

COUNTED: dict[str, dict[str, int]] = {}  # of each function so declared, by module and name: the least of each count


def counted(**least: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Declare the least value of parameters that count, and the least length of those that hold things."""

    def declare(function: Callable[P, T]) -> Callable[P, T]:
        names = list(signature(function).parameters)
        if unknown := set(least) - set(names):
            raise TypeError(f"{function.__qualname__} has no parameter {min(unknown)}")
        COUNTED[f"{function.__module__}:{function.__qualname__}"] = least

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            given = {**dict(zip(names, args, strict=False)), **kwargs}
            for name, low in least.items():
                if given.get(name) is not None:
                    require_count(name, given[name], least=low)
            return function(*args, **kwargs)

        return checked

    return declare


def require_fields(config: Any, *, of: str = "", **least: int) -> None:
    """Check the numbers of a dataclass, by what its fields say that they are.

    Args:
        config: fields of `int` must hold whole numbers, of `float` finite ones; None where the field allows it.
        of: put before a name in sentences: "training ".
        least: of some of its whole numbers, and of some of its collections how many they hold at least.

    Raises:
        ValueError: a number is none, or is too small.
    """
    for each in fields(config):
        value, kinds = getattr(config, each.name), str(each.type).split(" | ")
        if each.name in least and (value is not None or "None" not in kinds):
            require_count(of + each.name, value, least=least[each.name])
        elif value is not None and "int" in kinds and (not isinstance(value, Integral) or isinstance(value, bool)):
            raise ValueError(f"{of}{each.name} must be a whole number, got {value!r}")
        elif value is not None and "float" in kinds:
            require_number(of + each.name, value)


def require_count(name: str, value: Any, *, least: int = 1) -> None:
    """Raises ValueError unless `value` is a whole number, or a collection of so many things, from `least` on."""
    if hasattr(value, "__len__") and not isinstance(value, str):
        if len(value) < least:
            raise ValueError(f"{name} must hold at least {least}, got {len(value)}")
    elif not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def require_number(name: str, value: Any, *, above: float = -inf, least: float = -inf, most: float = inf) -> None:
    """Raises ValueError unless `value` is a finite number: above `above`, at least `least` and at most `most`."""
    bounds = {"above": above, "at least": least, "at most": most}
    bounds_said = " and ".join(f"{word} {bound}" for word, bound in bounds.items() if isfinite(bound))
    number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else nan
    if not isfinite(number) or not number > above or not least <= number <= most:
        raise ValueError(f"{name} must be a number {bounds_said or 'that is finite'}, got {value!r}")
