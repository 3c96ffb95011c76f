"""Rows of `tapelens sources` as a table for the console, as sentences, and as what a comparison of models tells."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from rich.table import Table

from interp.evaluation.tables import plain_table
from interp.reading import RunError
from interp.results import Control, Metric, records, select
from interp.runs import Run
from interp.runs.further_frames import SOURCES
from interp.tasks.value_sources import HISTORIES, KINDS, OVERWRITTEN, READ_IN

Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Head:
    """The head that reads most of what made the value."""

    site: str
    made: float
    """The share of its weight on what made the value."""
    overwritten: float | None
    """The share on what GET has overwritten, where there is such; None: never."""


@dataclass(frozen=True)
class Sources:
    """What was measured of one run."""

    right: dict[str, Interval]
    """By history: the share of values that are right, and its interval."""
    n: dict[str, int]
    """Values asked for, by history."""
    even: dict[str, float]
    """By kind of token: its share of the tokens, where there is one."""
    head: Head | None
    """None where no weights are known."""


def sources_of(run: Run) -> Sources | None:
    """What the run's file says; None where it was not measured."""
    try:
        return summed(SOURCES.read(run))
    except RunError:
        return None


def summed(rows: pd.DataFrame) -> Sources:
    """The rows in short."""
    accuracy = {row["stratum"]: row for row in records(select(rows, metric=Metric.TOKEN_ACCURACY))}
    even = {row["part"]: row["estimate"] for row in records(select(rows, control=Control.EVEN))}
    by_head: dict[str, dict[str, float]] = {}
    for row in records(select(rows, metric=Metric.ATTENTION, control=None)):
        by_head.setdefault(row["site"], {})[row["part"]] = row["estimate"]
    best = max(by_head, key=lambda site: by_head[site].get("made", 0.0), default=None)
    return Sources(
        {name: (row["estimate"], row["ci_low"], row["ci_high"]) for name, row in accuracy.items()},
        {name: row["n"] for name, row in accuracy.items()},
        even,
        None if best is None else Head(best, by_head[best].get("made", 0.0), by_head[best].get("overwritten")),
    )


def source_table(rows: pd.DataFrame) -> Table:
    """What every head reads where a value is asked for, a line a head, shares in %; tokens themselves in the last."""
    table = plain_table("what is read where a value is asked for, % of a head's weight", "head", right=KINDS)
    lines: dict[str, dict[str, float]] = {}
    for row in records(select(rows, metric=Metric.ATTENTION)):
        lines.setdefault(row["site"] or "tokens themselves", {})[row["part"]] = row["estimate"]
    for site, shares in lines.items():
        table.add_row(
            site.replace("[", "\\["), *(f"{100 * shares[kind]:.0f}" if kind in shares else "–" for kind in KINDS)
        )
    return table


def source_sentences(rows: pd.DataFrame) -> list[str]:
    """What was found of one run, for a person."""
    found = summed(rows)
    told = [
        f"{name}: {100 * found.right[name][0]:.1f} % right [{100 * found.right[name][1]:.1f}, "
        f"{100 * found.right[name][2]:.1f}] of {found.n[name]:,}"
        for name in HISTORIES
        if name in found.right
    ]
    said = [f"Values of cells not told since they changed, by how they came about: {'; '.join(told)}."]
    if OVERWRITTEN in found.right and READ_IN in found.right:
        said.append(f"Where GET overwrote an earlier value, it is right {_verdict(found)} where it set the first one.")
    if found.head is not None:
        over = found.head.overwritten
        said.append(
            f"The head that reads most of what made a value, {found.head.site}, has {100 * found.head.made:.0f} % of "
            f"its weight there ({100 * found.even['made']:.0f} % of tokens)"
            + ("." if over is None else f", {100 * over:.0f} % on what was overwritten "
               f"({100 * found.even['overwritten']:.0f} % of tokens).")
        )  # fmt: skip
    return said


def _verdict(found: Sources) -> str:
    """How what was overwritten compares, by whether the intervals meet."""
    (_, low, high), (_, other_low, other_high) = found.right[OVERWRITTEN], found.right[READ_IN]
    return "more often than" if low > other_high else "less often than" if high < other_low else "as often as"
