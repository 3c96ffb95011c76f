"""What the command line shows: progress bars and tables. The library itself prints nothing."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from interp.evaluation.tables import evaluation_tables, plain_table

if TYPE_CHECKING:
    import pandas as pd

    from interp.training import TrainingProgress

__all__ = ["console", "plain_table", "printable", "say", "show_scores", "stage_display", "training_display"]


class _Console(Console):
    """A console that leaves it to the command line what happens when nobody reads on."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


console = _Console(highlight=False)
_stderr = _Console(stderr=True, highlight=False)


class _TrainingProgress(Progress):
    """The bar, and below it exact match by opcode."""

    by_op: dict[str, float] | None = None

    def get_renderables(self) -> Iterator[RenderableType]:
        yield from super().get_renderables()
        if self.by_op:
            yield Text(by_op_words(self.by_op), style="dim")


def by_op_words(by_op: Mapping[str, float]) -> str:
    """ "exact match by op, %: NEXT 99.8  PREV 99.7": shares from 0 to 1, rounded down, so that 100 means all."""
    return "exact match by op, %: " + "  ".join(
        f"{op} {math.floor(1000 * share) / 10:g}" for op, share in by_op.items()
    )


@contextmanager
def training_display() -> Iterator[Callable[[TrainingProgress], None]]:
    """Live: step, loss, exact match at the last evaluation, records a second, time left; below, exact match by op."""
    columns = (
        TextColumn("training"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TextColumn("exact match {task.fields[exact]}"),
        TextColumn("{task.fields[rate]} records/s"),
        TextColumn("{task.fields[left]} left"),
    )
    with _TrainingProgress(*columns, console=_stderr) as progress:
        bar = progress.add_task("training", total=None, loss="–", exact="–", rate="–", left="–")
        average: float | None = None
        milestone = 0

        def report(now: TrainingProgress) -> None:
            nonlocal average, milestone
            if now.note:
                _stderr.print(now.note, markup=False)
            average = now.loss if average is None else 0.98 * average + 0.02 * now.loss
            progress.by_op = now.by_op
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
                    f"step {now.step:,} of {now.steps:,}  loss {average:.4f}  exact match {exact}  "
                    f"{now.records_per_second:,.0f} records/s  {left} left"
                )
                if now.by_op:
                    _stderr.print(by_op_words(now.by_op))

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


def say(sentence: str) -> None:
    """A sentence as it is: brackets in a path are no markup, and no line break falls into a path or a command."""
    console.print(sentence, markup=False, soft_wrap=True)


def show_scores(scores: pd.DataFrame, *, title: str) -> None:
    """Tables of an evaluation's rows: by op x outcome, by block, reliability, rollout; the headline last."""
    for part in evaluation_tables(scores, title=title):
        console.print(part)


def printable(text: str) -> str:
    """Text that a terminal may be given: control and direction characters, newline and tab aside, are spelled out."""
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs")
        else _spelt(character)
        for character in text
    )


def _spelt(character: str) -> str:
    point = ord(character)
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}" if point < 0x10000 else f"\\U{point:08x}"
