"""Shares that add up over batches, and the macro average of shares with its interval."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.results import Aggregation, IntervalKind, Metric, records, wilson_interval
from interp.worlds import Strata, World

_VALUES = ("estimate", "ci_low", "ci_high", "n")


class Tally:
    """Adds up rows that each say "the share `estimate` of `n`"; equal rows but for these numbers are one stratum."""

    def __init__(self, strata: Sequence[str] = (), parts: Sequence[str] = ()) -> None:
        self._order = tuple({name: place for place, name in enumerate(names)} for names in (strata, parts))
        self._counts: dict[tuple[tuple[str, Any], ...], list[float]] = {}

    @classmethod
    def of(cls, world: World) -> Tally:
        """A tally whose rows come in the order of a world's strata and their parts."""
        return cls(world.stratum_names, world.part_names)

    def add(self, rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> None:
        """Add rows such as those of `Task.score`."""
        self._count(rows, 1)

    def remove(self, rows: pd.DataFrame | Iterable[Mapping[str, Any]]) -> None:
        """Take back rows that were counted among others. Raises ValueError where there were not so many."""
        self._count(rows, -1)

    def _count(self, rows: pd.DataFrame | Iterable[Mapping[str, Any]], sign: int) -> None:
        for row in records(rows) if isinstance(rows, pd.DataFrame) else rows:
            key = tuple((name, value) for name, value in row.items() if name not in _VALUES and value is not None)
            count = self._counts.setdefault(key, [0.0, 0])
            count[0] += sign * row["estimate"] * row["n"]
            count[1] += sign * row["n"]
            if min(round(count[0], 6), count[1]) < 0:
                raise ValueError(f"expected at least {row['n']} of {dict(key)} to take back, found fewer")

    def rows(self) -> list[dict[str, Any]]:
        """One row a stratum, in the order of strata and their parts, with its 95 % Wilson interval.

        Where what is averaged is itself a share of each example, the interval is conservative: such shares vary less
        than zeros and ones with the same mean.
        """
        rows = []
        for key, (successes, n) in sorted(self._counts.items(), key=lambda item: self._place(dict(item[0]))):
            if not n:
                continue  # all were taken back
            successes = round(successes, 6)
            low, high = wilson_interval(successes, int(n))
            shares = {"estimate": successes / n, "ci_low": low, "ci_high": high, "n": int(n)}
            rows.append({**dict(key), **shares})
        return rows

    def _place(self, row: Mapping[str, Any]) -> tuple[int, int, int]:
        strata, parts = self._order
        return (
            strata.get(str(row.get("op")), len(strata)),
            parts.get(str(row.get("stratum")), len(parts)),
            0 if row.get("metric") == Metric.EXACT_MATCH else 1,
        )


def by_stratum(strata: Strata) -> Iterator[tuple[dict[str, str], NDArray[np.bool_]]]:
    """The columns `op` and `stratum` of every stratum that occurs, and which examples belong to it, bool [n].

    Examples of a world without strata are one, without a name.
    """
    present = strata.present()
    if not present:
        yield {}, np.ones(len(strata), dtype=bool)
    for number, part in present:
        columns = {"op": strata.names[number]} | ({"stratum": strata.parts[part]} if strata.parts else {})
        yield columns, strata.members(number, part)


def macro_row(shares: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of independent shares, each counted once, with a 95 % interval.

    The interval is MOVER (Zou & Donner, Statistics in Medicine, 2008): the strata's Wilson intervals are combined as
    lower = mean − √Σ w²(pᵢ − lᵢ)², upper = mean + √Σ w²(uᵢ − pᵢ)² with w = 1 / number of strata.

    Raises:
        ValueError: there are no shares.
    """
    if not shares:
        raise ValueError("expected at least one exact-match share to average, got none")
    estimates = np.array([row["estimate"] for row in shares])
    lows = np.array([row["ci_low"] for row in shares])
    highs = np.array([row["ci_high"] for row in shares])
    mean = float(estimates.mean())
    return {
        "metric": shares[0]["metric"],
        "aggregation": Aggregation.MACRO,
        "estimate": mean,
        "ci_low": max(0.0, mean - float(np.linalg.norm(estimates - lows)) / len(shares)),
        "ci_high": min(1.0, mean + float(np.linalg.norm(highs - estimates)) / len(shares)),
        "interval_kind": IntervalKind.MOVER,
        "n": sum(int(row["n"]) for row in shares),
    }
