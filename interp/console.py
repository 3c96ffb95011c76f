"""What the command line shows: progress bars and tables. The library itself prints nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from interp.results import Aggregation, Metric, records, select

if TYPE_CHECKING:
    from interp.training import TrainingProgress

console = Console(highlight=False)
_stderr = Console(stderr=True, highlight=False)


@contextmanager
def training_display() -> Iterator[Callable[[TrainingProgress], None]]:
    """A live line: step, loss, exact match at the last evaluation, records a second, time left."""
    columns = (
        TextColumn("training"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("exact match {task.fields[exact]}"),
        TextColumn("{task.fields[rate]} records/s"),
        TextColumn("{task.fields[left]} left"),
    )
    with Progress(*columns, console=_stderr) as progress:
        bar = progress.add_task("training", total=None, loss="–", exact="–", rate="–", left="–")
        average: float | None = None
        milestone = 0

        def report(now: TrainingProgress) -> None:
            nonlocal average, milestone
            average = now.loss if average is None else 0.98 * average + 0.02 * now.loss
            exact = "–" if now.exact_match is None else f"{now.exact_match:.2%}"
            left = f"{int(now.seconds_left // 60)}:{int(now.seconds_left % 60):02d}"
            progress.update(
                bar,
                total=now.steps,
                completed=now.step,
                loss=f"{average:.4f}",
                exact=exact,
                rate=f"{now.records_per_second:,.0f}",
                left=left,
            )
            if not _stderr.is_terminal and 10 * now.step // now.steps > milestone:  # a log gets ten lines, not a bar
                milestone = 10 * now.step // now.steps
                _stderr.print(
                    f"step {now.step:,} of {now.steps:,}  loss {average:.4f}  exact match {exact}  {left} left"
                )

        yield report


@contextmanager
def stage_display(label: str) -> Iterator[Callable[[float, float, str], None]]:
    """A bar for a stage that reports (done, total, what it is at)."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[at]}"),
    )
    with Progress(*columns, console=_stderr) as progress:
        bar = progress.add_task(label, total=None, at="")

        def report(done: float, total: float, at: str) -> None:
            progress.update(bar, completed=done, total=total, at=at)

        yield report
    if not _stderr.is_terminal:
        _stderr.print(f"{label}: done")


def show_scores(scores: pd.DataFrame, *, title: str) -> None:
    """Two tables of `Task.score` rows: whole states with counts and intervals, and accuracy by block."""
    whole = records(select(scores, aggregation=Aggregation.MEAN, metric=Metric.EXACT_MATCH))
    parts = select(scores, metric=Metric.BLOCK_ACCURACY)
    table = plain_table(title, "op", "outcome", right=("states", "wrong", "exact match", "95 % interval"))
    for row in whole:
        wrong = round((1 - row["estimate"]) * row["n"])
        interval = f"{row['ci_low']:.2%} – {row['ci_high']:.2%}"
        table.add_row(row["op"], row["stratum"], f"{row['n']:,}", str(wrong), f"{row['estimate']:.2%}", interval)
    console.print(table)
    blocks = list(dict.fromkeys(parts["position"]))
    table = plain_table(
        "right by block, %", "op", "outcome", right=[block.replace("instruction", "instr") for block in blocks]
    )
    for row in whole:
        own = select(parts, op=row["op"], stratum=row["stratum"])
        table.add_row(row["op"], row["stratum"], *(f"{100 * value:.2f}" for value in own["estimate"]))
    console.print(table)
    macro = records(select(scores, aggregation=Aggregation.MACRO))[0]
    console.print(f"macro average over op × outcome: {macro['estimate']:.3%} of {macro['n']:,} states")


def plain_table(title: str, *left: str, right: Sequence[str]) -> Table:
    """A table of few lines: words to the left, numbers to the right."""
    table = Table(title=title, box=SIMPLE, pad_edge=False)
    for heading in left:
        table.add_column(heading, no_wrap=True)
    for heading in right:
        table.add_column(heading, justify="right")
    return table
