"""docs/thinking.md: how a looped model thinks, every number from its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from interp.commands import command
from interp.files import write_text
from interp.pages.thinking_drawing import thinking_drawing
from interp.pages.thinking_further import fixed_point_section, further_words, longer_section, parts_section
from interp.results import Aggregation, Metric, records, select
from interp.runs import Run

FIGURE = "thinking.svg"


def write_thinking_page(run: Run, rows: pd.DataFrame, out: Path) -> Path:
    """Write thinking.md and its figure into a folder; returns its path."""
    path = out / "thinking.md"
    write_text(out / FIGURE, thinking_drawing(rows))
    write_text(path, thinking_page(run.name, rows, command("thinking", run.path, "--out", out)))
    return path


def thinking_page(name: str, rows: pd.DataFrame, command: str) -> str:
    """The page as Markdown."""
    steps, halting = _by_step(rows), _halting(rows)
    return (
        f"# How a looped model thinks\n\n{_opening(name, rows, steps, halting)}\n\n"
        f"![Right by steps run, and what the answer is after a swap]({FIGURE})\n\n"
        f"Written by `{command}`; every number comes from its rows.\n\n"
        "## Right by loop step\n\nMacro average over the number of steps that programs run, %.\n\n"
        + _table(["loop steps", "right"], [[str(t), f"{100 * share:.1f}"] for t, share in steps])
        + "\n\n## Halting\n\nT\\* is the least fixed number of steps within .1 point of the best, chosen on "
        "validation; random halting has the model's own distribution of steps; "
        "the oracle stops at the first right answer.\n\n"
        + _table(
            ["", "right, %", "mean steps"],
            [[part, f"{100 * right:.1f}", f"{mean:.2f}"] for part, (right, mean) in halting.items()],
        )
        + f"\n\n{_spearman(rows)}\n\n"
        "## Is the carry what the rest of the run goes by?\n\nTwo held-out programs that the model answers "
        "differently: after loop step t base goes on from source's whole carry, with its own program still fed in at "
        "every step. The answer then is source's, as if the carry were the state of the run, or base's own again, as "
        "if nothing had been done, or neither.\n\n"
        + _table(*_swaps(rows))
        + parts_section(rows)
        + fixed_point_section(rows)
        + longer_section(rows)
        + "\n\n## Which executed step does a loop step hold?\n\nA ridge probe of each variable after s instructions, "
        "scored only where the last instruction changed it; the best loop step was chosen on validation and is scored "
        "on evaluation, beside the same probe on what enters the loop.\n\n" + _table(*_matrix(rows)) + "\n"
    )


def _opening(
    name: str, rows: pd.DataFrame, steps: list[tuple[int, float]], halting: dict[str, tuple[float, float]]
) -> str:
    """What was found, in sentences."""
    best, first = max(steps, key=lambda each: each[1]), steps[0]
    said = [
        "A looped model runs the same layers again and again before it answers. Whether that helps it, and what it "
        "carries from step to step, was measured here.",
        f"`{name}` gives the right output for {100 * first[1]:.1f} % of programs after one loop step and for "
        f"{100 * best[1]:.1f} % after {best[0]} (each number of steps run counted once).",
    ]
    if (own := halting.get("its own halting")) and (chance := halting.get("random halting")):
        said.append(
            f"Where it halts by itself, after {own[1]:.1f} steps on average, it is right in {100 * own[0]:.1f} %; "
            f"halting at random after as many, in {100 * chance[0]:.1f} %."
        )
    if swaps := _swap_shares(rows):
        t, (as_source, as_base) = next(iter(swaps.items()))
        last = max(swaps)
        said.append(
            f"Another program's carry, put in after loop step {t}, makes the answer that program's in "
            f"{100 * as_source:.0f} % and is forgotten in {100 * as_base:.0f} % (base's own answer again); after step "
            f"{last}, the last, it is that program's in {100 * swaps[last][0]:.0f} %."
        )
    said += [_map_words(rows), further_words(rows)]
    return " ".join(each for each in said if each)


def _swap_shares(rows: pd.DataFrame) -> dict[int, tuple[float, float]]:
    """By loop step: how often the answer is source's, and how often base's."""
    as_source, as_base = (
        {int(row["time"]): float(row["estimate"]) for row in records(select(rows, metric=metric, part="whole carry"))}
        for metric in (Metric.IIA, Metric.RETURN)
    )
    return {t: (as_source[t], as_base[t]) for t in sorted(as_source)}


def _swaps(rows: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    shares, counts = _swap_shares(rows), select(rows, metric=Metric.IIA, part="whole carry")["n"]
    lines = [
        [str(t), f"{100 * source:.1f}", f"{100 * base:.1f}", f"{100 * max(0.0, 1 - source - base):.1f}"]
        for t, (source, base) in shares.items()
    ]
    n = f"{max((int(n) for n in counts), default=0):,}"
    return [f"after loop step ({n} pairs)", "source's, %", "base's again, %", "neither, %"], lines


def _by_step(rows: pd.DataFrame) -> list[tuple[int, float]]:
    found = select(rows, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO, part=None)
    return [(int(t), float(e)) for t, e in zip(found["time"], found["estimate"], strict=True)]


def _halting(rows: pd.DataFrame) -> dict[str, tuple[float, float]]:
    right = select(rows, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO).dropna(subset=["part"])
    spent = select(rows, metric=Metric.LOOP_STEPS, stratum=None)
    steps = dict(zip(spent["part"], spent["estimate"], strict=True))
    pairs = zip(right["part"], right["estimate"], strict=True)
    return {str(part): (float(estimate), float(steps[part])) for part, estimate in pairs}


def _spearman(rows: pd.DataFrame) -> str:
    found = select(rows, metric=Metric.SPEARMAN)
    if found.empty:
        return "It halts after the same number of steps for every program."
    shares = [
        f"{e:.2f} over {n:,} {s} programs" for e, n, s in zip(found.estimate, found.n, found.stratum, strict=True)
    ]
    return f"Does it think longer where more runs? Rank correlation of its steps with steps run: {', '.join(shares)}."


def _matrix(rows: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    found = select(rows, metric=Metric.ACCURACY, part="best step on validation")
    entry = select(rows, metric=Metric.ACCURACY, part=None, time=0)
    before = {(v, s): e for v, s, e in zip(entry.variable, entry.lag, entry.estimate, strict=True)}
    lines = [
        [str(v), str(int(s)), str(int(t)), f"{100 * e:.0f}", f"{100 * before[v, s]:.0f}", f"{int(n):,}"]
        for v, s, t, e, n in zip(found.variable, found.lag, found.time, found.estimate, found.n, strict=True)
    ]
    return ["variable", "after s instructions", "best loop step", "read, %", "before the loop, %", "n"], lines


def _map_words(rows: pd.DataFrame) -> str:
    found = select(rows, metric=Metric.ACCURACY, part="best step on validation")
    if found.empty:
        return ""
    at, when = found["lag"].to_numpy(dtype=float), found["time"].to_numpy(dtype=float)
    if len(np.unique(when)) < 2:
        return f"Every executed step is read best at loop step {int(when[0])}: no map from executed to loop steps."
    order = float(np.corrcoef(at, when)[0, 1])
    kind = "later instructions are read best at later loop steps" if order > 0.5 else "there is no clear map"
    return f"Of executed against loop steps: {kind} (correlation {order:.2f} over {len(at)} variables and steps)."


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
