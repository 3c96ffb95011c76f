"""docs/slots.md: what the slot machine's controllers plan, what is executed, what its ALU learned; from rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp.commands import command
from interp.figures.svg import FAINT, INK, PALETTE, QUIET, curve, dot, drawing, line, text
from interp.files import write_text
from interp.pages.slots_inside import inside_sections, restart_section, restarts_said, sharpness_said
from interp.results import Metric, records, select
from interp.runs import Run
from interp.studies.slots import BOTH, ENTRIES, EXECUTED, PLANNED, SIZES
from interp.worlds.slots_programs import COMPILERS

FILE, INSIDE, RESTARTS, PICTURE = "slots.parquet", "slots_inside.parquet", "slots_restarts.parquet", "slots_sizes.svg"
Told = Sequence[tuple[Run, pd.DataFrame]]


def write_slots_page(runs: Told, folder: Path, inside: Told = (), restarts: pd.DataFrame | None = None) -> Path:
    """Write slots.md and its picture about runs with their rows (`studies.slots`), with those of `studies.slot_inside`
    and `studies.slot_restarts` where there are any; returns its path.

    Raises:
        ValueError: no run.
    """
    if not runs:
        raise ValueError("the page is about at least one run; none was given")
    write_text(folder / PICTURE, sizes_drawing(runs))
    path = folder / "slots.md"
    write_text(path, slots_page(runs, inside, restarts))
    return path


def slots_page(runs: Told, inside: Told = (), restarts: pd.DataFrame | None = None) -> str:
    """The page as Markdown."""
    parts = [
        "# The slot machine: plan, then execute",
        " ".join([*_opening(runs), *sharpness_said(inside), *restarts_said(restarts)]),
        f"![Exact plans and right answers against the size of the input]({PICTURE})",
        "Written by `tapelens slots-page` from the rows that `tapelens slots` measures; no number here is typed in.",
        "## Plan, execution, both",
        _sizes(runs),
        "*plan*: every kind, pointer and content of every slot is the true one, and where the free list begins. "
        "*execution of the true plan*: the tensors hold the symbolic machine's memory and counter when it halts (the "
        "tests hold them after every step). *plan and execution*: the answer is right from the controller's own plan. "
        "*least sure*: the smallest probability that any plan gives to the true entry of a field. Held-out inputs of "
        "exactly the size; in brackets the 95 % interval. Positions tell the controller which part of the layout a "
        "slot belongs to, and which are an array's first and last; what is written there it must find out."
        + _reaching(runs),
        *_alu(runs),
        *_interchange(runs),
        *inside_sections(inside),
        *(restart_section(restarts) if restarts is not None else []),
        "## The same again",
        _commands(runs, inside, searched=restarts is not None),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _opening(runs: Told) -> list[str]:
    """What a person would say of the page."""
    said = [
        "A transformer reads a task, writes a small program and its data into slots of memory, and then has no more "
        "part in it: a machine made of tensors runs the program, slot by slot, and the answer is what memory holds in "
        "the end.",
        "The same machine exists in symbols, so that every slot, pointer and counter is known at every step.",
    ]
    for run, rows in runs:
        planned = _by_size(rows, BOTH)
        if planned:
            trained, far = _world(run).size, max(planned)
            form = "a loop" if _world(run).task.form == "looped" else "a straight line"
            size = sum(each.numel() for each in run.model.parameters())
            said.append(
                f"The run `{run.name}`, {size:,} parameters, learned to plan a machine that "
                f"{COMPILERS[_world(run).task.program].words} in {form}, from inputs of up to size {trained}; at size "
                f"{far} it answers {_percent(planned[far])} % right."
            )
        for row in records(select(rows, part=ENTRIES)):
            said.append(
                f"The run `{run.name}` was given the plan and learned what its operators do from final answers alone: "
                f"{row['estimate']:.1%} of the {row['n']} entries that its runs visit are right."
            )
    executed = [row["estimate"] for _, rows in runs for row in _by_size(rows, EXECUTED).values()]
    said.append(
        "Given the true plan, execution did not err once, whether its operators are exact tables or learned; where "
        "answers are wrong, the plan was."
        if min(executed) == 1
        else f"Given the true plan, execution is right in {min(executed):.1%} of runs at worst."
    )
    said.append(
        "An exchange of the carry, of a digit, a pointer or the counter in mid-run shows what the rest hangs on."
    )
    return said


def _reaching(runs: Told) -> str:
    """Which controllers have keys for near addresses."""
    reaching = [f"`{run.name}`" for run, _ in runs if run.config.model.pointer_reach]  # type: ignore[attr-defined]
    if not reaching:
        return ""
    return (
        f" Pointers of {', '.join(reaching)} are also told which address is the slot before their own, and which next."
    )


def _world(run: Run) -> Any:
    return run.config.world


def _by_size(rows: pd.DataFrame, part: str, metric: str = Metric.EXACT_MATCH) -> dict[int, dict[str, Any]]:
    found = records(select(rows, part=part, metric=metric))
    return {int(row["time"]): row for row in found if row["stratum"] is not None}


def _percent(row: dict[str, Any]) -> str:
    return f"{100 * row['estimate']:.1f} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"


def _sizes(runs: Told) -> str:
    sizes = sorted({size for _, rows in runs for size in _by_size(rows, EXECUTED)})
    head = f"| run | trained to | % | {' | '.join(f'size {size}' for size in sizes)} |"
    lines = [head, "| --- | ---: | --- |" + " ---: |" * len(sizes)]
    for run, rows in runs:
        for part in (PLANNED, EXECUTED, BOTH):
            if own := _by_size(rows, part):
                cells = " | ".join(_percent(own[size]) if size in own else "–" for size in sizes)
                lines.append(f"| `{run.name}` | {_world(run).size} | {part} | {cells} |")
        if own := _by_size(rows, PLANNED, Metric.CONFIDENCE):
            cells = " | ".join(f"{own[size]['estimate']:.3g}" if size in own else "–" for size in sizes)
            lines.append(f"| `{run.name}` | {_world(run).size} | least sure | {cells} |")
    n = min(row["n"] for _, rows in runs for row in _by_size(rows, EXECUTED).values())
    return "\n".join(lines) + f"\n\nAt least {n:,} inputs an entry."


def _alu(runs: Told) -> list[str]:
    lines = []
    for run, rows in runs:
        for row in records(select(rows, part=ENTRIES)):
            lines.append(f"| `{run.name}` | {row['n']} | {row['estimate']:.1%} |")
    if not lines:
        return []
    return [
        "## An ALU learned from answers",
        "The plan is given and executed softly; the network that stands for the operators is told only whether the "
        "final digits are right. An entry is an operator with two contents and a carry that some run of the trained "
        "size computes; it is right if what is written and what is carried are, whatever the two carries are called "
        "inside.",
        "\n".join(["| run | entries visited | right |", "| --- | ---: | ---: |", *lines]),
    ]


def _interchange(runs: Told) -> list[str]:
    found = []
    for run, rows in runs:
        own = records(select(rows, metric=Metric.IIA))
        if not own:
            continue
        names = _world(run).program.names
        steps = sorted({int(row["time"]) for row in own})
        lines = [
            f"| exchanged | answers that | {' | '.join(f'step {at}' for at in steps)} |",
            "| --- | --- |" + " ---: |" * len(steps),
        ]
        for variable in dict.fromkeys(row["variable"] for row in own):
            family, _, slot = variable.partition("[")
            words = f"{family} of `{names[int(slot[:-1])]}`" if slot else variable
            for stratum in ("changes", "same"):
                cells = []
                for at in steps:
                    here = (variable, stratum, at)
                    chosen = [row for row in own if (row["variable"], row["stratum"], row["time"]) == here]
                    patched = next((row for row in chosen if row["control"] is None), None)
                    alone = next((row for row in chosen if row["control"] is not None), None)
                    cells.append(f"{patched['estimate']:.2f} ({alone['estimate']:.2f})" if patched and alone else "–")
                told = "change" if stratum == "changes" else "stay"
                lines.append(f"| {words} | {told} | {' | '.join(cells)} |")
        found.append(f"`{run.name}`:\n\n" + "\n".join(lines))
    if not found:
        return []
    return [
        "## What the rest of a run hangs on",
        "After so many steps the memory, or a register, of one run takes one value from another, seven steps further "
        "on, and execution goes on. Share of answers that are what the symbolic machine says with that value "
        "set, where the exchange should change the answer and where it should not; in brackets the run without the "
        "exchange. A dash: no such pair whose run then halts. The machine is exact, so that this says that its hooks "
        "reach what the rest of the run hangs on, and nothing of the controller.",
        *found,
    ]


def sizes_drawing(runs: Told) -> str:
    """Exact plans (dashed) and right answers against the size of the input, a colour a run."""
    sizes = sorted({size for _, rows in runs for size in _by_size(rows, EXECUTED)})
    width, height, left, bottom, top = 640, 300, 60, 240, 40
    span = max(sizes) - min(sizes) or 1

    def place(size: int, share: float) -> tuple[float, float]:
        return left + (width - 240 - left) * (size - min(sizes)) / span, bottom - (bottom - top) * share

    parts = [text(left - 10, 20, "share of held-out inputs, %", fill=QUIET)]
    for share in (0, 0.25, 0.5, 0.75, 1):
        _, y = place(sizes[0], share)
        parts += [line(left, y, width - 230, y, stroke=FAINT)]
        parts += [text(left - 8, y + 4, f"{100 * share:.0f}", anchor="end", size=11, fill=QUIET)]
    for size in sizes:
        parts.append(text(place(size, 0)[0], bottom + 18, str(size), anchor="middle", size=11, fill=QUIET))
    parts.append(text(left, bottom + 38, "size of the input", fill=QUIET))
    for number, (run, rows) in enumerate(runs):
        color = PALETTE[number % len(PALETTE)]
        for part, dash in ((PLANNED, "4 3"), (EXECUTED if run.config.model.plan_given else BOTH, "")):  # type: ignore[attr-defined]
            if own := _by_size(rows, part):
                points = [place(size, row["estimate"]) for size, row in sorted(own.items())]
                parts.append(curve(points, stroke=color, dash=dash))
                parts += [dot(x, y, fill=color) for x, y in points if not dash]
        parts.append(text(width - 210, 60 + 20 * number, run.name, fill=color))
    parts.append(text(width - 210, 60 + 20 * len(runs), "dashed: plan exact", fill=INK, size=11))
    return drawing(parts, width=width, height=height, title="Exact plans and right answers against the size of inputs")


def _commands(runs: Told, inside: Told, *, searched: bool) -> str:
    lines, looked = [], {run.name for run, _ in inside}
    for run, rows in runs:
        folder = f"runs/{run.name}"
        sizes = sorted(_by_size(rows, EXECUTED))
        asked = () if sizes == sorted(SIZES) else ("--sizes", *map(str, sizes))
        lines += [command("train", "--preset", run.name, "--out", folder), command("slots", folder, *asked)]
        lines += [command("slots-inside", folder)] if run.name in looked else []
    lines += [command("slots-restarts", "--out", "docs")] if searched else []
    lines.append(command("slots-page", *(f"runs/{run.name}" for run, _ in runs)))
    return "```\n" + "\n".join(lines) + "\n```"
