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
from interp.results import Metric, select
from interp.runs import Run, RunError
from interp.studies.comparing import ALL, QUESTIONS, compared

HEADINGS = (
    "run",
    "architecture",
    "task",
    "parameters",
    "records",
    "exact match",
    "read above controls",
    "used",
    "circuit",
)
NOT_ASKED = "–"


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
                _percent(whole.iloc[0]) if len(whole) else NOT_ASKED,
                f"{fmean(gaps):+.2f} (mean of {len(gaps)})".replace("-", "−") if gaps else NOT_ASKED,
                f"{fmean(used['estimate']):.2f} (mean of {len(used)})" if len(used) else NOT_ASKED,
                f"{100 * median(circuit['estimate']):.1f} % (median of {len(circuit)})" if len(circuit) else NOT_ASKED,
            ]
        )
    return lines


def write_compare_page(runs: Sequence[Run], file: Path) -> Path:
    """Write the page about `runs`. Returns its path."""
    frame = compared(runs)
    write_text(file, compare_page(runs, frame))
    return file


def compare_page(runs: Sequence[Run], frame: pd.DataFrame) -> str:
    """The page, in Markdown: what was found in a sentence, the runs in a table, then every answer, question by
    question."""
    names = list(dict.fromkeys(frame["run"]))
    parts = ["# Runs side by side", _findings(runs, frame), _table(HEADINGS, summary_rows(runs, frame))]
    parts.append(
        "*Read above controls*: accuracy of the best probe of each variable minus the strongest of its controls at "
        "that place. *Used*: interchange accuracy where the answer should change, at the best place inside the model. "
        "*Circuit*: the smallest share of edges tried that keeps .9. Bests of many are flattered by their choice. "
        f"{NOT_ASKED}: not measured on this run."
    )
    for question, words in QUESTIONS.items():
        rows = frame.loc[(frame["question"] == question) & (frame["op"].isna() | (frame["op"] == frame["item"]))]
        if rows.empty:
            continue
        items = list(dict.fromkeys(rows["item"]))
        lines = [[item, *(_cell(rows, name, item) for name in names)] for item in items]
        parts += [f"## {question.capitalize()}", f"{words[0].upper()}{words[1:]}.", _table(("", *names), lines)]
    parts.append(f"Made by `{command('compare', *(run.path for run in runs), '--out', 'PAGE.md')}`.")
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


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [headings, ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


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
