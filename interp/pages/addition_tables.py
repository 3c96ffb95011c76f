"""Two sections of docs/addition.md: several tokens at once and bases side by side, and longer numbers seed by seed."""

from __future__ import annotations

from statistics import median
from typing import Any

import pandas as pd

from interp.pages.markdown import table
from interp.results import Metric, records, select
from interp.studies.sum_tables import BASES, HEADS, LARGEST, SHIFTED
from interp.studies.sums import BALANCED, CHOSEN_AT

TABLES, LENGTHS = "addition_tables.parquet", "addition_lengths.parquet"


def table_sections(rows: pd.DataFrame | None) -> list[str]:
    """What it costs to say several digits at once, and in which base; nothing where nothing was measured."""
    if rows is None or rows.empty:
        return []
    found = {(row["stratum"], row["part"], row["metric"]): row for row in records(rows)}
    n = next(row["n"] for row in found.values() if row["metric"] == Metric.EXACT_MATCH)
    steps = next(row["steps"] for row in found.values())
    trained = (
        f"Trained alike for {steps:,} steps, seed {next(row['seed'] for row in found.values())}; exact match on {n:,} "
        "held-out sums, cascades of every length equally often; seconds are processor time of one thread, the median "
        "of rounds in which every model has its turn."
    )
    return [
        "## Several tokens at once",
        f"k tokens of the answer are said in each pass and none of them knows the others: by k heads, or by one head "
        f"whose labels are shifted by k - 1 slots, with blanks in front (`+12+873+` is followed by the blanks, then by "
        f"the digits). {trained}",
        _at_once(found),
        "## Bases",
        f"Numbers that reach {LARGEST:,} at least: a smaller base makes them longer. All digits of a sum are said in "
        "one pass. Longer sums have longer cascades, which are drawn equally often.",
        _bases(found),
    ]


def _at_once(found: dict[Any, dict[str, Any]]) -> str:
    entries = list(dict.fromkeys(part for stratum, part, _ in found if stratum == HEADS))
    lines = []
    for entry in entries:
        for kind in (HEADS, SHIFTED):
            lines.append([entry, kind, *_cells(found, kind, entry)])
    return table(["k", "how", *_TIMED], lines, right=["k", *_TIMED])


def _bases(found: dict[Any, dict[str, Any]]) -> str:
    lines = []
    for entry in dict.fromkeys(part for stratum, part, _ in found if stratum == BASES):
        digits = found[BASES, entry, Metric.EXACT_MATCH]["time"]
        lines.append([entry, str(digits), str(digits + 1), *_cells(found, BASES, entry)])
    headings = ["base", "digits of a number", "of a sum", *_TIMED]
    return table(headings, lines, right=headings)


_TIMED = ("right, %", "ms a training step", "tokens of answers a second", "answers a second")


def _cells(found: dict[Any, dict[str, Any]], kind: str, entry: str) -> list[str]:
    right, step, tokens = (
        found[kind, entry, metric] for metric in (Metric.EXACT_MATCH, Metric.STEP_SECONDS, Metric.TOKENS_A_SECOND)
    )
    n_said = right["time"] + 2  # the sum's digits, and the plus behind them
    return [
        f"{100 * right['estimate']:.4g}",
        f"{1000 * step['estimate']:.1f}",
        f"{tokens['estimate']:,.0f}",
        f"{tokens['estimate'] / n_said:,.0f}",
    ]


def seed_sections(rows: pd.DataFrame | None) -> list[str]:
    """Exact match by length of every seed, their median, and the seed that is best on validation."""
    if rows is None or rows.empty:
        return []
    chosen, best = _chosen(rows)
    held = records(select(rows, part="evaluation"))
    sizes = list(dict.fromkeys(row["time"] for row in held))
    parts = []
    for design in dict.fromkeys(row["pair_design"] for row in held):
        own = {(row["seed"], row["time"]): row["estimate"] for row in held if row["pair_design"] == design}
        seeds = sorted({seed for seed, _ in own})
        lines = [
            [f"{seed}{' (best on validation)' if seed == best else ''}", f"{100 * chosen[seed]:.4g}"]
            + [f"{100 * own[seed, size]:.4g}" for size in sizes]
            for seed in seeds
        ]
        middle = [f"{100 * median(own[seed, size] for seed in seeds):.4g}" for size in sizes]
        lines.append(["median", f"{100 * median(chosen.values()):.4g}", *middle])
        headings = ["seed", f"{CHOSEN_AT} digits, validation", *(f"{size} digits" for size in sizes)]
        parts.append(f"Draws: {design}.\n\n" + table(headings, lines, right=headings[1:]))
    n, n_chosen = min(row["n"] for row in held), select(rows, part="validation")["n"].min()
    name = str(held[0]["run"])
    return [
        "## Five seeds on longer numbers" if len(chosen) == 5 else f"## {len(chosen)} seeds on longer numbers",
        f"`{name.rstrip('0123456789').rstrip('_')}`, every seed that was trained: {seeds_said(rows)} Exact match, %, "
        f"on two numbers of exactly so many digits, {n} held-out sums an entry; the seed is chosen by its share at "
        f"{CHOSEN_AT} digits of {n_chosen:,} validation sums, a tie by the next length that these were asked at. "
        "McLeish et al. (2024) have 99 % at 100 digits after training to 20, with input injection.\n\n"
        + "\n\n".join(parts),
    ]


def seeds_said(rows: pd.DataFrame | None) -> str:
    """The median at 20 digits, and how far the chosen seed gets, in a sentence; empty where nothing was measured."""
    if rows is None or rows.empty:
        return ""
    _, best = _chosen(rows)
    held = records(select(rows, part="evaluation", pair_design=BALANCED))
    at = {(row["seed"], row["time"]): row["estimate"] for row in held}
    seeds = sorted({seed for seed, _ in at})
    sizes = sorted({size for _, size in at})
    shown = [size for size in sizes if size >= 20]
    said = ", ".join(f"{100 * at[best, size]:.4g} % at {size}" for size in shown)
    least = shown[0]
    return (
        f"Of {len(seeds)} seeds the median at {least} digits is {100 * median(at[seed, least] for seed in seeds):.4g} "
        f"% of sums; the seed that is best on validation (seed {best}) has {said} digits, cascades of every length "
        "equally often."
    )


def _chosen(rows: pd.DataFrame) -> tuple[dict[int, float], int]:
    """By seed its share of balanced validation sums at `CHOSEN_AT` digits, and the seed that is best there."""
    asked = records(select(rows, part="validation", pair_design=BALANCED))
    shares: dict[int, dict[int, float]] = {}
    for row in asked:
        shares.setdefault(row["seed"], {})[row["time"]] = row["estimate"]
    ranked = {seed: tuple(by[size] for size in sorted(by) if size >= CHOSEN_AT) for seed, by in shares.items()}
    return {seed: by[CHOSEN_AT] for seed, by in shares.items()}, max(sorted(ranked), key=lambda seed: ranked[seed])
