"""A sweep on the screen: a line a run, with its stage, exact match and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from interp.studies.sweep import Progress
from interp.studies.sweep_plan import Estimate
from interp.studies.sweep_state import read_attempts, read_state

MOST = 24  # lines of the live table; the rest is counted


def clock(seconds: float | None) -> str:
    """Seconds as 4:05, or 1:04:05; "–" where they are not known."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def size(count: float) -> str:
    """Bytes as 3.1 MB."""
    return f"{count / 1e6:,.1f} MB"


def plan_table(estimates: Sequence[Estimate]) -> Table:
    """What a sweep will take, a line a run."""
    table = Table(title="measured by short probes of each", title_justify="left")
    verbs = list(dict.fromkeys(verb for each in estimates for verb in (*each.seconds, *each.refused)))
    for name in ("run", "steps", "ms a step", *verbs, "in all", "disk"):
        table.add_column(name, justify="left" if name == "run" else "right", no_wrap=name != "run")
    for each in estimates:
        by_verb = [clock(each.seconds[verb]) if verb in each.seconds else "n/a" for verb in verbs]
        row = [f"{each.steps:,}", f"{1000 * each.step_seconds:.1f}", *by_verb, clock(each.total_seconds)]
        table.add_row(each.name, *row, size(each.bytes))
    return table


def plan_sentence(estimates: Sequence[Estimate], *, workers: int) -> str:
    """A plan in all: one thread's time, the time it takes so many workers, and disk."""
    total = sum(each.total_seconds for each in estimates)
    together = max(total / workers, max(each.total_seconds for each in estimates))
    runs = f"{len(estimates)} runs: {clock(total)} in all, {clock(together)} with {workers} at a time"
    return f"{runs}; {size(sum(each.bytes for each in estimates))}"


def state_row(out: Path, name: str, *, given_up: str | None = None, waiting: bool = False) -> list[str]:
    """One run's line: run, stage, exact match, time left, attempts that ended early, and what there is to say."""
    state, attempts = read_state(out, name), read_attempts(out, name)
    stages: dict[str, Any] = state.get("stages", {})
    stage, done, total = state.get("stage"), state.get("done"), state.get("total")
    words, note = "waiting", ""
    if state.get("state") == "done":
        words = " ".join(verb if each["state"] == "done" else f"({verb} n/a)" for verb, each in stages.items())
        note = next((each["reason"] for each in stages.values() if each["state"] == "refused"), "")
    elif stage is not None:
        words = stage + (f" {100 * done / total:.0f} %" if done and total else "")
        words = f"stopped in {words}" if waiting else words
    if given_up is not None:
        words, note = "given up", given_up
    elif attempts and state.get("state") != "done":
        note = attempts[-1]["reason"]
    exact = state.get("exact_match")
    shown = "–" if exact is None else f"{exact:.2%}"
    left = clock(None if waiting else state.get("seconds_left"))
    return [name, words, shown, left, str(len(attempts) or ""), note]


def status_table(
    out: Path, names: Sequence[str], progress: Progress | None = None, *, most: int | None = None
) -> Table:
    """Every run's line; with `progress`, those at work first, and no more than `most`."""
    table = Table()
    for column in ("run", "stage", "exact match", "left", "retries", ""):
        table.add_column(column, justify="right" if column in ("exact match", "left", "retries") else "left")
    order = list(names)
    if progress is not None:
        running = [name for name in names if name in progress.running]
        order = running + [name for name in names if name in progress.given_up]
        order += [name for name in names if name in progress.finished][-max(0, (most or len(names)) - len(order)) :]
    for name in order[:most]:
        given_up = progress.given_up.get(name) if progress else None
        table.add_row(*state_row(out, name, given_up=given_up, waiting=bool(progress and name in progress.waiting)))
    if progress is not None:
        done, n = len(progress.finished), len(names)
        words = f"{done} of {n} done, {len(progress.running)} at work, {len(progress.waiting)} waiting"
        table.caption = words + (f", {len(progress.given_up)} given up" if progress.given_up else "")
    return table


@contextmanager
def sweep_display(out: Path, names: Sequence[str]) -> Iterator[Callable[[Progress], None]]:
    """The live table on a terminal; elsewhere a line for whatever ends."""
    console = Console(stderr=True, highlight=False)
    if console.is_terminal:
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            yield lambda progress: live.update(status_table(out, names, progress, most=MOST))
        return
    told: set[Any] = set()

    def report(progress: Progress) -> None:
        for name in sorted(progress.finished - told):
            done = f"{len(progress.finished)} of {len(names)}"
            row = state_row(out, name)
            console.print(f"{name}: {row[1]}, exact match {row[2]} ({done})", markup=False, soft_wrap=True)
            told.add(name)
        for number, (name, reason) in enumerate(progress.losses):
            if number not in told:
                console.print(f"{name}: {reason}", markup=False, soft_wrap=True)
                told.add(number)

    yield report
