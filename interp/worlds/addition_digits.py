"""Digits: numbers of any length in any base, and the carries between the places of a sum.

Digits stand least significant first, int64 [..., place]; zeros fill what a number is too short for. With m summands a
place's sum is at most m (base - 1) and a carry at most m - 1, as long as there are no more summands than the base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
DIGITS = "0123456789ABCDEF"
LOOK_AHEAD = "look_ahead"


def to_digits(numbers: Sequence[int], base: int, n_digits: int) -> Ints:
    """The digits of whole numbers, exact at any length, int64 [n, n_digits].

    Raises:
        ValueError: a number is negative, or needs more digits.
    """
    found = np.zeros((len(numbers), n_digits), dtype=np.int64)
    for row, number in enumerate(numbers):
        left = int(number)
        if left < 0 or left >= base**n_digits:
            raise ValueError(f"a number must have 1 to {n_digits} digits in base {base}, got {number}")
        for place in range(n_digits):
            left, found[row, place] = divmod(left, base)
    return found


def to_numbers(digits: Ints, base: int) -> list[int]:
    """The whole numbers of digits [n, n_digits], as Python's own, which have any length."""
    return [sum(int(digit) * base**place for place, digit in enumerate(row)) for row in digits]


def written(digits: Sequence[int]) -> str:
    """One number as it is read, most significant digit first, without leading zeros: "1A"."""
    return "".join(DIGITS[digit] for digit in reversed(list(digits))).lstrip("0") or "0"


def lengths(digits: Ints) -> Ints:
    """How many digits numbers have without leading zeros, [...]; 0 has one."""
    places = np.arange(1, digits.shape[-1] + 1)
    return np.maximum(1, ((digits > 0) * places).max(axis=-1))


def sum_of_places(operands: Ints, base: int, do: Mapping[str, NDArray[np.integer]], carries: str) -> dict[str, Ints]:
    """Every variable of a sum by its family: [n, places]; the carry and the result have one place more.

    Args:
        operands: [n, m, places].
        base: of the digits.
        do: variables of concrete names that are set, to values [n].
        carries: "ripple": a carry comes from the carry before it; "look_ahead": from all places below at once.
    """
    n, m, places = operands.shape

    def setting(family: str, place: int, value: Ints) -> Ints:
        name = f"{family}[{place}]"
        return value if name not in do else np.broadcast_to(np.asarray(do[name], dtype=np.int64), (n,))

    found = {name: np.zeros((n, places), dtype=np.int64) for name in ("digit_sum", "generate", "propagate")}
    carry, result, cascade = (np.zeros((n, places + 1), dtype=np.int64) for _ in range(3))
    came = np.zeros(n, dtype=np.int64)  # the carry as the places below make it, whatever the carries are set to
    for place in range(places):
        total = setting("digit_sum", place, operands[:, :, place].sum(axis=1))
        made = setting("generate", place, total // base)
        # How near the sum is to the base: a carry of k goes on where k + propagate reaches m. Of two summands it is
        # 1 where the sum is base - 1.
        near = setting("propagate", place, np.maximum(0, total % base + m - base))
        for name, value in (("digit_sum", total), ("generate", made), ("propagate", near)):
            found[name][:, place] = value
        result[:, place] = setting("result_digit", place, (total + carry[:, place]) % base)
        came = made + (came + near >= m)
        goes_on = carry[:, place] + near >= m
        rippled = made + goes_on
        carry[:, place + 1] = setting("carry_in", place + 1, came if carries == LOOK_AHEAD else rippled)
        cascade[:, place + 1] = np.where(carry[:, place + 1] == 0, 0, np.where(goes_on, cascade[:, place] + 1, 1))
    result[:, places] = setting("result_digit", places, carry[:, places])
    return found | {"carry_in": carry, "result_digit": result, "cascade": cascade}
