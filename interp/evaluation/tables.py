"""The rows of an evaluation as tables for the console. A table is left out where its rows are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table

from interp.results import Aggregation, Metric, records, select

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = tuple(f"{steps} steps" for steps in (1, 5, 10, 20, 50))


def evaluation_tables(rows: pd.DataFrame, *, title: str) -> Iterator[Table | str]:
    """Whole answers by op x outcome, answers by block, partial credit, reliability, rollout, and the headline."""
    whole = records(select(rows, aggregation=Aggregation.MEAN, metric=Metric.EXACT_MATCH))
    yield _whole(whole, title)
    yield from _blocks(whole, rows)
    yield from _credit(rows)
    yield from _places(rows)
    yield from _reliability(rows)
    yield from _rollouts(rows)
    for row in records(select(rows, metric=Metric.SEQUENCE_MATCH)):
        interval = f"[{row['ci_low']:.2%}, {row['ci_high']:.2%}]"
        yield f"whole sequences without an error: {row['estimate']:.2%} {interval} of {row['n']:,}"
    macro = records(select(rows, aggregation=Aggregation.MACRO, metric=Metric.EXACT_MATCH))[0]
    interval = f" [{macro['ci_low']:.3%}, {macro['ci_high']:.3%}]" if macro["ci_low"] is not None else ""
    over = "op × outcome" if any(row["op"] for row in whole) else f"{len(whole)} strata"
    wrong, asked = sum(_wrong(row) for row in whole), sum(row["n"] for row in whole)
    yield f"macro average over {over}: {macro['estimate']:.3%}{interval}; {wrong:,} of {asked:,} answers wrong"


def denoising_tables(rows: pd.DataFrame, *, title: str) -> Iterator[Table | str]:
    """Exact match by passes and order, the slots that are filled in first and last, and the bound."""
    macro = records(select(rows, aggregation=Aggregation.MACRO, metric=Metric.EXACT_MATCH))
    found = {(row["time"], row["method"].removeprefix("denoise_")): row for row in macro}
    orders = [order for order in dict.fromkeys(order for _, order in found) if order != "once"]
    table = plain_table(title, "passes", right=[order.replace("_", " ") for order in orders] or ["at once"])
    for count in dict.fromkeys(count for count, _ in found):
        cells = [found.get((count, order)) or found.get((count, "once")) for order in orders or ["once"]]
        table.add_row(str(count), *("–" if row is None else f"{row['estimate']:.2%}" for row in cells))
    yield table
    for row in records(select(rows, metric=Metric.VARIATIONAL_BOUND)):
        yield (
            f"an answer costs at most {row['estimate']:.3f} nats [{row['ci_low']:.3f}, {row['ci_high']:.3f}], "
            f"the variational bound on {row['n']:,} examples"
        )


def beyond_table(rows: pd.DataFrame, *, title: str) -> Table:
    """Exact match by the length of runs, each beside whole runs and how long they were."""
    table = plain_table(title, "at most", right=("runs", "answers right", "whole runs right", "executed, mean"))
    found = {(row["stratum"], row["metric"]): row for row in records(rows) if row["op"] is None}
    for length in dict.fromkeys(stratum for stratum, _ in found):
        steps = found[length, Metric.RUN_STEPS]
        shares = [found.get((length, metric)) for metric in (Metric.EXACT_MATCH, Metric.SEQUENCE_MATCH)]
        cells = ["–" if row is None else f"{row['estimate']:.2%}" for row in shares]
        table.add_row(length, f"{steps['n']:,}", *cells, f"{steps['estimate']:.1f}")
    return table


def _wrong(row: dict[str, Any]) -> int:
    return round((1 - row["estimate"]) * row["n"])


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["op"], row["stratum"]


def _whole(whole: list[dict[str, Any]], title: str) -> Table:
    table = plain_table(title, "op", "outcome", right=("states", "wrong", "exact match", "95 % interval"))
    for row in whole:
        interval = f"{row['ci_low']:.2%} – {row['ci_high']:.2%}"
        counts = (f"{row['n']:,}", f"{_wrong(row):,}", f"{row['estimate']:.2%}", interval)
        table.add_row(row["op"] or "all", row["stratum"] or "all", *counts)
    return table


def _credit(rows: pd.DataFrame) -> Iterator[Table]:
    """Only where an answer was wrong: elsewhere all is right."""
    tokens = [row for row in records(select(rows, metric=Metric.TOKEN_ACCURACY)) if row["estimate"] < 1]
    changed = {_key(row): row["estimate"] for row in records(select(rows, metric=Metric.CHANGED_TOKEN_ACCURACY))}
    if not tokens or not changed:
        return
    title = "partial credit, where something was wrong"
    table = plain_table(title, "op", "outcome", right=("tokens right", "of those that change"))
    for row in tokens:
        share = changed.get(_key(row))
        of_changed = "–" if share is None else f"{share:.3%}"
        table.add_row(row["op"] or "macro average", row["stratum"] or "", f"{row['estimate']:.3%}", of_changed)
    yield table


def _blocks(whole: list[dict[str, Any]], rows: pd.DataFrame) -> Iterator[Table]:
    parts = select(rows, metric=Metric.BLOCK_ACCURACY)
    parts = parts.loc[parts["op"].notna()]
    blocks = list(dict.fromkeys(parts["position"].dropna()))
    if not blocks:
        return
    names = [block.replace("instruction", "instr") for block in blocks]
    table = plain_table("right by block, %", "op", "outcome", right=names)
    found = {(*_key(row), row["position"]): row["estimate"] for row in records(parts)}
    for row in whole:
        shares = (found.get((*_key(row), block)) for block in blocks)
        table.add_row(row["op"], row["stratum"], *("–" if share is None else f"{100 * share:.2f}" for share in shares))
    yield table


def places(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows that say how much is right at a place: a step of a chain, a slot of the output, an age of a cell."""
    if len(select(rows, metric=Metric.CHANGED_TOKEN_ACCURACY)):
        return []  # there these metrics are partial credit
    tokens = records(select(rows, metric=Metric.TOKEN_ACCURACY, aggregation=Aggregation.MEAN))
    blocks = records(select(rows, metric=Metric.BLOCK_ACCURACY, aggregation=Aggregation.MEAN))
    return tokens + [row for row in blocks if row["op"] is None]


def _places(rows: pd.DataFrame) -> Iterator[Table]:
    found = places(rows)
    if not found:
        return
    table = plain_table("by place", "where", right=("n", "wrong", "right", "95 % interval"))
    for row in found:
        where = " ".join(str(row[name]) for name in ("op", "stratum", "position") if row[name] is not None)
        interval = f"{row['ci_low']:.2%} – {row['ci_high']:.2%}"
        table.add_row(where, f"{row['n']:,}", f"{_wrong(row):,}", f"{row['estimate']:.2%}", interval)
    yield table


def _reliability(rows: pd.DataFrame) -> Iterator[Table]:
    error = records(select(rows, metric=Metric.CALIBRATION_ERROR))
    if not error:
        return
    sure = {row["stratum"]: row["estimate"] for row in records(select(rows, metric=Metric.CONFIDENCE))}
    title = f"reliability: expected calibration error {error[0]['estimate']:.2e} on {error[0]['n']:,} answers"
    table = plain_table(title, "confidence", right=("n", "mean confidence", "right", "95 % interval"))
    for row in records(select(rows, metric=Metric.RELIABILITY)):
        interval = f"{row['ci_low']:.2%} – {row['ci_high']:.2%}"
        share = f"{row['estimate']:.3%}"
        table.add_row(row["stratum"], f"{row['n']:,}", f"{sure[row['stratum']]:.3%}", share, interval)
    yield table


def _rollouts(rows: pd.DataFrame) -> Iterator[Table]:
    survival = records(select(rows, metric=Metric.SURVIVAL))
    causes = records(select(rows, metric=Metric.DEPARTURE))
    for programs in dict.fromkeys(row["stratum"].partition(":")[0] for row in survival):
        own = [row for row in survival if row["stratum"].startswith(f"{programs}:")]
        title = f"rollout: {own[0]['n']:,} held-out programs ({programs}) run on the model's own predictions"
        table = plain_table(title, "followed for", right=("programs", "95 % interval"))
        for row in own:
            steps = row["stratum"].partition(": ")[2]
            if steps not in _SHOWN and row is not own[-1]:
                continue
            table.add_row(steps, f"{row['estimate']:.2%}", f"{row['ci_low']:.2%} – {row['ci_high']:.2%}")
        yield table
        first = [row for row in causes if row["stratum"].startswith(f"{programs}:")]
        if first:
            table = plain_table("where the first error is made", "op", "outcome", right=("programs",))
            for row in sorted(first, key=lambda row: -row["estimate"]):
                outcome = row["stratum"].partition(": ")[2]
                table.add_row(row["op"], outcome, f"{round(row['estimate'] * row['n']):,}")
            yield table


def plain_table(title: str, *left: str, right: Sequence[str]) -> Table:
    """A table of few lines: words to the left, numbers to the right."""
    table = Table(title=title, box=SIMPLE, pad_edge=False)
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right")
    return table
