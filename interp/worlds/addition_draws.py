"""Summands drawn uniformly among those of given lengths whose longest cascade is given, at any length.

Random summands hardly cascade, so that balanced draws cannot wait for long cascades to occur. The places are walked
from the lowest up; the state is the carry k, how many places it has come r, and whether the cascade asked for has
occurred. A table holds, for every place and state, the share of the ways to go on that end with exactly that longest
cascade; a place's sum is drawn in proportion to its ways times that share, and then digits that have this sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from interp.worlds.addition_digits import Ints
from interp.worlds.rows import mix

ABSENT, LEADING, FREE = 0, 1, 2  # a digit beyond its number, the first one of a number of several, any other
Floats = NDArray[np.float64]


def units(rows: NDArray[np.integer], *, seed: int, stream: NDArray[np.integer] | int) -> Floats:
    """Numbers from 0 up to 1; each depends only on (seed, its stream, its row)."""
    streams = np.broadcast_to(np.asarray(stream), rows.shape).astype(np.uint64)
    words = mix(mix(np.uint64(seed) ^ mix(streams)) ^ mix(rows.astype(np.uint64)))
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


@dataclass(frozen=True)
class Way:
    """How one row is to be drawn: the lengths of its summands, and the longest cascade (-1: as it comes)."""

    base: int
    places: int
    lengths: tuple[int, ...]
    cascade: int

    @property
    def sums(self) -> int:
        """How many values the sum of a place has."""
        return len(self.lengths) * (self.base - 1) + 1


def kinds_of(lengths: Ints | int, place: int) -> Ints:
    """What stands at a place of numbers of these lengths [...]: ABSENT, LEADING or FREE."""
    n_digits = np.asarray(lengths)
    first = (n_digits - 1 == place) & (n_digits > 1)
    return np.where(n_digits <= place, ABSENT, np.where(first, LEADING, FREE))


@lru_cache(maxsize=4096)
def _ways(base: int, kinds: tuple[int, ...]) -> Floats:
    """How many digits of these kinds have each sum, [sums]."""
    found = np.ones(1)
    for kind in kinds:
        digits = np.ones(base)
        digits[:1] = kind != LEADING
        digits[1:] = kind != ABSENT
        found = np.convolve(found, digits)
    return found


@lru_cache(maxsize=4096)
def _table(way: Way) -> tuple[Floats, Floats]:
    """A place's sums [places, sums], and the share of ways on from each state that end as asked,
    [places + 1, carry, run, hit]; a run of cascade + 1 is too long."""
    m, c = len(way.lengths), max(way.cascade, 0)
    shares = np.zeros((way.places, way.sums))
    for place in range(way.places):
        counted = _ways(way.base, tuple(int(kinds_of(each, place)) for each in way.lengths))
        shares[place] = counted / counted.sum()
    on = np.zeros((way.places + 1, m, c + 2, 2))
    if way.cascade < 0:
        return shares, np.ones_like(on)
    on[-1, :, : c + 1, 1] = 1
    carry, run, hit = np.ix_(np.arange(m), np.arange(c + 2), np.arange(2))
    sums = np.arange(way.sums)
    after = _after(way.base, np.array(c), carry[..., None], run[..., None], hit[..., None], sums)
    for place in range(way.places - 1, -1, -1):
        on[place] = (on[place + 1][after] * shares[place]).sum(axis=-1)
        on[place, :, c + 1] = 0
    return shares, on


def _after(base: int, cascade: Ints, carry: Ints, run: Ints, hit: Ints, sums: Ints) -> tuple[Ints, Ints, Ints]:
    """The state after a place with these sums; runs stop at one more than the cascade that is asked for."""
    made = sums // base
    new = (sums + carry) // base
    longer = np.where(new == 0, 0, np.where(new != made, run + 1, 1))
    longer = np.minimum(longer, cascade + 1)
    return new, longer, np.maximum(hit, (longer >= cascade) & (cascade > 0) | (cascade == 0)) * np.ones_like(longer)


def possible(way: Way) -> bool:
    """Whether any summands are so."""
    return bool(_table(way)[1][0, 0, 0, int(way.cascade <= 0)] > 0)


def draw_digits(
    base: int, places: int, lengths: Ints, cascades: Ints, random: Floats
) -> tuple[Ints, NDArray[np.bool_]]:
    """Summands with these lengths and these longest cascades.

    Args:
        base, places: of the digits.
        lengths: of each summand, [n, m].
        cascades: [n]; -1 for what comes.
        random: numbers from 0 up to 1, [n, places * m].

    Returns:
        Digits [n, m, places], and whether there are such summands, bool [n]; where there are none, the digits are 0.
    """
    n, m = lengths.shape
    keys = [Way(base, places, tuple(sorted(row[:m])), row[m]) for row in np.column_stack([lengths, cascades]).tolist()]
    distinct = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    table = np.array([distinct[key] for key in keys])
    shares, on = _stacked(list(distinct))
    found = np.zeros((n, m, places), dtype=np.int64)
    carry, run, hit = (np.zeros(n, dtype=np.int64) for _ in range(3))
    hit[cascades <= 0] = 1
    there = on[table, 0, 0, 0, hit] > 0
    sums, rows = np.arange(shares.shape[2]), np.arange(n)
    cap = np.maximum(cascades, 0)
    for place in range(places):
        after = _after(base, cap[:, None], carry[:, None], run[:, None], hit[:, None], sums)
        weights = shares[table, place] * on[table[:, None], place + 1, *after]
        total = _choose(weights, random[:, place * m])
        carry, run, hit = (each[rows, total] for each in after)
        found[:, :, place] = _split_sum(
            base, total, kinds_of(lengths, place), random[:, place * m + 1 : (place + 1) * m]
        )
    found[~there] = 0
    return found, there


def _stacked(ways: list[Way]) -> tuple[Floats, Floats]:
    """The tables of several ways in one: [way, places, sums] and [way, places + 1, carry, run, hit]."""
    tables = [_table(way) for way in ways]
    widest = max(on.shape[2] for _, on in tables)
    padded = np.zeros((len(ways), *tables[0][1].shape[:2], widest, 2))
    for number, (_, on) in enumerate(tables):
        padded[number, :, :, : on.shape[2]] = on
    return np.stack([shares for shares, _ in tables]), padded


def _choose(weights: Floats, random: Floats) -> Ints:
    """An index of each row [n, k], in proportion to its weights."""
    summed = weights.cumsum(axis=1)
    chosen = (summed <= (random * summed[:, -1])[:, None]).sum(axis=1)
    return np.minimum(chosen, weights.shape[1] - 1)


def _split_sum(base: int, total: Ints, kinds: Ints, random: Floats) -> Ints:
    """Digits of these kinds [n, m] that add up to `total` [n], uniform among all such, [n, m]."""
    n, m = kinds.shape
    found, digits = np.zeros((n, m), dtype=np.int64), np.arange(base)
    left, codes = total, kinds @ (3 ** np.arange(m))
    which, member = np.unique(codes, return_inverse=True)
    for operand in range(m - 1):
        rest = np.zeros((len(which), m * (base - 1) + base))
        for number, code in enumerate(which):
            ways = _ways(base, tuple(int(code // 3**each % 3) for each in range(operand + 1, m)))
            rest[number, base - 1 : base - 1 + len(ways)] = ways  # a remainder below 0 reads a zero
        kind = kinds[:, operand, None]
        fits = np.where(digits == 0, kind != LEADING, kind != ABSENT)
        weights = fits * rest[member[:, None], left[:, None] - digits + base - 1]
        found[:, operand] = _choose(weights, random[:, operand])
        left = left - found[:, operand]
    found[:, m - 1] = left
    return found
