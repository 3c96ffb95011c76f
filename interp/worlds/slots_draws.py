"""Inputs of the slot machine's tasks, drawn row by row from 64-bit words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.worlds.rows import mix

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
_LETTERS = 3  # of texts in which a pattern is looked for, and of lists with runs


def below(words: Words, n: int, low: int, high: Ints | int) -> Ints:
    """`n` integers from `low` up to and not including `high`, of each word, [rows, n]."""
    each = mix(words[:, None] ^ mix(np.arange(1, n + 1, dtype=np.uint64))[None, :])
    share = (each >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (low + share * (high - low)).astype(np.int64)


def two_numbers(task: Any, words: Words) -> Ints:
    """Two numbers of `least` to `size` digits, every length equally often, no leading zero; least significant first."""
    size = task.size
    n_digits = below(words, 2, task.least, size + 1)
    digits = below(mix(words), 2 * size, 0, task.base).reshape(-1, 2, size)
    leading = below(mix(mix(words)), 2, 1, task.base)
    places = np.arange(size)
    first = (places == n_digits[..., None] - 1) & (n_digits[..., None] > 1)
    digits = np.where(first, leading[..., None], digits)
    return np.where(places < n_digits[..., None], digits, 0).reshape(len(words), -1)


def near_numbers(task: Any, words: Words) -> Ints:
    """Two numbers as in `two_numbers`, of which the second shares the first's upper places down to a random one."""
    numbers = two_numbers(task, words).reshape(-1, 2, task.size)
    shared = np.arange(task.size) >= below(mix(~words), 1, 0, task.size + 1)
    numbers[:, 1] = np.where(shared, numbers[:, 0], numbers[:, 1])
    return numbers.reshape(len(words), -1)


def values(task: Any, words: Words) -> Ints:
    """A list of `size` values, uniform."""
    return below(words, task.size, 0, task.base)


def few_values(task: Any, words: Words) -> Ints:
    """A list of `size` values, each the one before it with probability one half."""
    drawn = below(words, task.size, 0, min(_LETTERS, task.base))
    again = below(mix(~words), task.size, 0, 2)
    for i in range(1, task.size):
        drawn[:, i] = np.where(again[:, i], drawn[:, i - 1], drawn[:, i])
    return drawn


def keyed(task: Any, words: Words) -> Ints:
    """A key and a list of `size` values, in which the key is every second time."""
    drawn = below(words, task.size + 2, 0, task.base)
    place = below(mix(~words), 1, 0, task.size)
    inside = np.take_along_axis(drawn[:, 1:-1], place, axis=1)[:, 0]
    drawn[:, 0] = np.where(drawn[:, -1] % 2, inside, drawn[:, 0])
    return drawn[:, :-1]


def keyed_sorted(task: Any, words: Words) -> Ints:
    """The same, the list sorted."""
    drawn = keyed(task, words)
    drawn[:, 1:] = np.sort(drawn[:, 1:], axis=1)
    return drawn


def with_pattern(task: Any, words: Words) -> Ints:
    """A text of `size` values of few letters and a pattern of a third of that, cut from it every second time."""
    n, k = task.size, max(1, (task.size + 1) // 3)
    drawn = below(words, n + k, 0, min(_LETTERS, task.base))
    start = below(mix(~words), 1, 0, n - k + 1)
    cut = np.take_along_axis(drawn, start + np.arange(k), axis=1)
    inside = below(mix(mix(words)), 1, 0, 2)
    drawn[:, n:] = np.where(inside, cut, drawn[:, n:])
    return drawn


def numbers_hash(digits: Ints, size: int) -> Words:
    """A hash of each of two numbers, [n, 2], whatever zeros stand above its highest digit."""
    numbers = digits.reshape(-1, 2, size)
    places = np.arange(1, size + 1)
    n_digits = np.maximum(1, ((numbers > 0) * places).max(axis=-1))
    found = np.zeros(numbers.shape[:2], dtype=np.uint64)
    for place in range(size):
        found = np.where(place < n_digits, mix(found ^ numbers[:, :, place].astype(np.uint64)), found)
    return found


DRAWS: dict[str, Callable[[Any, Words], Ints]] = {
    "values": values,  # of every task that is not named
    "add": two_numbers,
    "compare": near_numbers,
    "search": keyed,
    "binary_search": keyed_sorted,
    "substring": with_pattern,
    "runs": few_values,
}
