"""Examples that are rows of integers: all that a small world needs to store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from interp.worlds.base import Split, in_split


@dataclass(frozen=True, eq=False)
class Rows:
    """n examples of k stored integers each."""

    values: NDArray[np.int64]  # [n, k]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Any) -> Rows:
        return Rows(self.values[rows])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and np.array_equal(self.values, other.values)

    @classmethod
    def concatenate(cls, parts: Sequence[Rows]) -> Rows:
        """The rows of all parts, in order."""
        return cls(np.concatenate([part.values for part in parts]))

    def with_column(self, column: int, values: NDArray[np.integer]) -> Rows:
        """The same rows with one stored integer changed to `values` [n]."""
        changed = self.values.copy()
        changed[:, column] = values
        return Rows(changed)


@dataclass(frozen=True, eq=False)
class RowsAnswer:
    """What should come out of each row, and whether anything should."""

    values: NDArray[np.int64]  # [n, k]
    valid: NDArray[np.bool_]  # [n]


def hash_rows(values: NDArray[np.integer]) -> NDArray[np.uint64]:
    """A 64-bit hash of each row of integers [n, k]: [n]. Equal rows have equal hashes, others up to collisions.

    Each integer is folded in by one step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    found = np.zeros(len(values), dtype=np.uint64)
    for column in np.asarray(values).astype(np.uint64).T:
        found = mix(found ^ column)
    return found


def pick(units: Rows, groups: NDArray[np.uint64], n: int, *, seed: int, start: int, split: Split) -> Rows:
    """`n` rows drawn uniformly, with replacement, from the listed units of a split; row i depends on (seed, start + i).

    Raises:
        ValueError: no listed unit belongs to the split.
    """
    own = np.flatnonzero(in_split(groups, split))
    if not len(own):
        raise ValueError(f"none of {len(units)} units belongs to the split {split!r}; list more of them")
    return units[own[uniform(n, len(own), seed=seed, start=start)]]


def uniform(n: int, below: int, *, seed: int, start: int, stream: int = 0) -> NDArray[np.int64]:
    """`n` integers from 0 to `below` - 1; the i-th depends only on (seed, stream, start + i)."""
    rows = np.arange(start, start + n, dtype=np.uint64)
    words = mix(mix(np.full(n, seed, dtype=np.uint64) ^ mix(np.full(n, stream, dtype=np.uint64))) ^ mix(rows))
    return ((words >> np.uint64(11)).astype(np.float64) * 2.0**-53 * below).astype(np.int64)


def mix(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of SplitMix64 from every word, so that near words give far ones."""
    with np.errstate(over="ignore"):
        z = words + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))
