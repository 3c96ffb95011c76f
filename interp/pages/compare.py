"""The page about several runs: what each can do, what can be read, what is used, how sparse its circuits are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import pandas as pd
from safetensors import safe_open

from interp.commands import command
from interp.files import write_text
from interp.pages.across import FEWEST, Across
from interp.pages.across_drawing import across_drawing
from interp.pages.markdown import table
from interp.results import Metric, read_frame, select
from interp.runs import Run, RunError
from interp.studies.comparing import ALL, QUESTIONS

HEADINGS = (
    "run",
    "architecture",
    "task",
    "parameters",
    "records",
    "seconds a step",
    "exact match",
    "read above controls",
    "used",
    "circuit",
)
NOT_ASKED = "–"
TITLE = "Runs side by side"


def summary_rows(runs: Sequence[Run], frame: pd.DataFrame) -> list[list[str]]:
    """A line a run: what it is, and its answers in all; – where a question was not asked of it."""
    names = list(dict.fromkeys(frame["run"]))
    alike = len({run.name for run in runs}) < len(runs)
    lines = []
    for run in runs:
        name = str(run.path) if alike else run.name
        own = frame.loc[frame["run"] == name] if name in names else frame.iloc[:0]
        whole = own.loc[(own["question"] == "exact match") & (own["item"] == ALL)]
        read = own.loc[own["question"] == "read"]
        gaps = [gap for gap in read["estimate"] - read["control"] if not math.isnan(gap)]
        used = own.loc[(own["question"] == "used") & own["op"].isna()]
        circuit = own.loc[own["question"] == "circuit"]
        lines.append(
            [
                name,
                run.config.model.architecture,
                run.config.task,
                f"{_parameters(run):,}",
                _records(run),
                _step_seconds(run),
                _percent(whole.iloc[0]) if len(whole) else NOT_ASKED,
                f"{fmean(gaps):+.2f} (mean of {len(gaps)})".replace("-", "−") if gaps else NOT_ASKED,
                f"{fmean(used['estimate']):.2f} (mean of {len(used)})" if len(used) else NOT_ASKED,
                f"{100 * median(circuit['estimate']):.1f} % (median of {len(circuit)})" if len(circuit) else NOT_ASKED,
            ]
        )
    return lines


def write_compare_page(runs: Sequence[Run], frame: pd.DataFrame, file: Path, *, title: str = TITLE) -> Path:
    """Write the page about `runs`, and its picture beside it where several tell something together. Returns its path.

    Args:
        runs: at least one.
        frame: of `compared`.
        file: an .md file; the picture is the .svg file of the same name, and rows of other seeds are read from
            `seeds_file` where that is there.
        title: the page's heading.
    """
    kept = seeds_file(file)
    across = _across(runs, read_frame(kept) if kept.is_file() else None)
    if across is not None and across.pictured:
        write_text(file.with_suffix(".svg"), across_drawing(across))
    write_text(file, compare_page(runs, frame, title=title, picture=file.with_suffix(".svg").name, across=across))
    return file


def seeds_file(page: Path) -> Path:
    """Where the rows of other seeds of a page's models are kept (`tapelens compare --seeds`)."""
    return page.with_name(f"{page.stem}_seeds.parquet")


def _across(runs: Sequence[Run], seeds: pd.DataFrame | None) -> Across | None:
    """Where all are of one task, and enough to speak of several."""
    alike = len({run.config.task for run in runs}) == 1
    return Across(runs, seeds) if alike and len(runs) >= FEWEST else None


def compare_page(
    runs: Sequence[Run], frame: pd.DataFrame, *, title: str = TITLE, picture: str = "", across: Across | None = None
) -> str:
    """The page, in Markdown: what was found in a few sentences, the runs in a table, what they tell together, then
    every answer, question by question. `picture`: the name of `across`'s."""
    names = list(dict.fromkeys(frame["run"]))
    said = " ".join(
        [*(across.opening() if across else []), _findings(runs, frame), *(across.sentences() if across else [])]
    )
    parts = [f"# {title}", said]
    if across is not None and across.pictured:
        parts.append(f"![Right answers by length of runs, and how cells are kept, a row a model]({picture})")
    lines = summary_rows(runs, frame)
    held = [at for at, name in enumerate(HEADINGS) if name == "run" or any(row[at] != NOT_ASKED for row in lines)]
    parts.append(table([HEADINGS[at] for at in held], [[row[at] for at in held] for row in lines]))
    parts.append(
        "*Read above controls*: accuracy of the best probe of each variable minus the strongest of its controls at "
        "that place. *Used*: interchange accuracy where the answer should change, at the best place inside the model. "
        "*Circuit*: the smallest share of edges tried that keeps .9. Bests of many are flattered by their choice. "
        "*Seconds a step*: training, on a machine shared with other work. "
        f"{NOT_ASKED}: not measured on this run, or nothing that it has."
    )
    parts += across.sections() if across is not None else []
    for question, words in QUESTIONS.items():
        rows = frame.loc[(frame["question"] == question) & (frame["op"].isna() | (frame["op"] == frame["item"]))]
        if rows.empty:
            continue
        items = list(dict.fromkeys(rows["item"]))
        lines = [[item, *(_cell(rows, name, item) for name in names)] for item in items]
        parts += [f"## {question.capitalize()}", f"{words[0].upper()}{words[1:]}.", table(("", *names), lines)]
    named = ["--title", title] if title != TITLE else []
    parts.append(f"Made by `{command('compare', *(run.path for run in runs), '--out', 'PAGE.md', *named)}`.")
    return "\n\n".join(parts) + "\n"


def _findings(runs: Sequence[Run], frame: pd.DataFrame) -> str:
    """Of each task that several runs were evaluated on, which is right most often, and whether it is told apart from
    the next."""
    whole = frame.loc[(frame["question"] == "exact match") & (frame["item"] == ALL)]
    whole = whole.assign(task=[_task_of(name, runs) for name in whole["run"]])
    told = []
    for task, rows in whole.groupby("task", sort=False):
        rows = rows.sort_values("estimate", ascending=False, kind="stable")
        if len(rows) < 2:
            continue
        best, second = rows.iloc[0], rows.iloc[1]
        opening = f"Of {len(rows)} runs of the task {task}, "
        if best["estimate"] == second["estimate"]:
            alike = rows.loc[rows["estimate"] == best["estimate"], "run"]
            told.append(f"{opening}{len(alike)} are right most often, and alike: {_percent(best)}.")
            continue
        apart = best["low"] > second["high"]
        judged = "their 95 % intervals do not meet" if apart else "their 95 % intervals overlap, or one has none"
        told.append(
            f"{opening}`{best['run']}` is right most often: {_percent(best)}, before `{second['run']}` with "
            f"{_percent(second)}; {judged}."
        )
    return " ".join(told) or "No two of these runs were evaluated on one task, so none is held against another."


def _task_of(name: str, runs: Sequence[Run]) -> str:
    return next(run.config.task for run in runs if name in (run.name, str(run.path)))


def _cell(rows: pd.DataFrame, name: str, item: str) -> str:
    found = rows.loc[(rows["run"] == name) & (rows["item"] == item)]
    if found.empty:
        return NOT_ASKED
    row = found.iloc[0]
    control = "" if math.isnan(row["control"]) else f" ({row['control']:.2f})"
    return f"{row['estimate']:.3f}{control}"


def _percent(row: Any) -> str:
    interval = "" if math.isnan(row["low"]) else f" [{100 * row['low']:.2f}, {100 * row['high']:.2f}]"
    return f"{100 * math.floor(1e4 * row['estimate']) / 1e4:.2f} %{interval}"


def _parameters(run: Run) -> int:
    """From the header of the weights: nothing is loaded."""
    with safe_open(run.weights, framework="np") as weights:
        return sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118


def _records(run: Run) -> str:
    try:
        rows = select(run.frame("metrics"), metric=Metric.RECORDS)
    except RunError:
        return NOT_ASKED
    return f"{int(max(rows['estimate'].tolist())):,}" if len(rows) else NOT_ASKED


def _step_seconds(run: Run) -> str:
    try:
        rows = select(run.frame("metrics"), metric=Metric.SECONDS)
    except RunError:
        return NOT_ASKED
    return f"{max(rows['estimate'].tolist()) / run.config.training.steps:.3f}" if len(rows) else NOT_ASKED
