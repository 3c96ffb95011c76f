"""docs/chains.md: whether a chain of thought is used, and what reward makes of it, every number from its rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from interp.figures.svg import FAINT, PALETTE, QUIET, curve, drawing, line, text
from interp.files import write_text
from interp.results import Aggregation, Control, Metric, records, select
from interp.studies.chains import DESIGNS, FOLLOWS_CHAIN, FOLLOWS_PROGRAM, FROZEN, REGENERATED, THIRDS, THROUGHOUT

FIGURE = "chains.svg"
Rows = list[dict[str, Any]]


def write_chains_page(rows: pd.DataFrame, commands: Mapping[str, str], command: str, measured: str, out: Path) -> Path:
    """Write chains.md and its figure into a folder; returns its path.

    Args:
        rows: of all runs, in the order of the page; the first is the one that others began with.
        commands: what made each run, by name.
        command: what makes the page from the rows.
        measured: what measured them last.
        out: the folder.
    """
    path, found = out / "chains.md", records(rows)
    write_text(out / FIGURE, chains_drawing(found))
    write_text(path, chains_page(found, commands, command, measured))
    return path


def chains_page(rows: Rows, commands: Mapping[str, str], command: str, measured: str) -> str:
    """The page as Markdown."""
    names = list(dict.fromkeys(row["run"] for row in rows))
    made = "\n".join(f"- `{name}`: `{commands[name]}`" for name in names if commands.get(name))
    return (
        f"# Is the chain of thought used?\n\n{_opening(rows, names)}\n\n"
        f"![Who is followed, by place of the edit, and pass@k]({FIGURE})\n\n"
        f"Written by `{command}` from the rows of `chains.parquet` beside it, which `{measured}` measured; every "
        f"number comes from them. The runs:\n\n{made}\n\n"
        "## How often it ends right, and what it costs\n\nHeld-out programs, every number of steps equally often; "
        "entries are those of the machine's run. Tokens are those written before the answer.\n\n"
        + _table(*_behaviour(rows, names))
        + "\n\n## Edits of the chain\n\nIn one entry of the machine's chain the value of the cell is another one that "
        "the cell can have. Regenerated: the model writes the rest itself, and follows the chain where its output is "
        "that of the machine's run with the cell so set. Frozen: the rest of the chain stays, and the edited value is "
        "one that is printed. Frozen throughout: it is edited in every entry that tells it, from where it was written "
        "to where it is written over. Counted are edits after which following the chain and following the program "
        "differ; of the others (stays) and of chains without an edit the answer must stay.\n\n"
        + _table(*_edits(rows, names))
        + "\n\n## pass@k\n\nSampled answers, the chance that one of k is right, %.\n\n"
        + _table(*_passes(rows, names))
        + "\n"
    )


def _opening(rows: Rows, names: list[str]) -> str:
    first = names[0]
    own = [row for row in rows if row["run"] == first]
    whole = {row["stratum"]: row for row in own if _is(row, Metric.EXACT_MATCH, part=None, aggregation="mean")}
    spent = {row["stratum"]: row["estimate"] for row in own if row["metric"] == Metric.WRITTEN_TOKENS}
    said = [
        f"`{first}` reads a program and its input, writes down what each step does, and then the output. Since the "
        "machine knows every step, one can ask whether the answer goes by what was written.",
        "Right are "
        + ", ".join(f"{_percent(row)} % of {name} ({spent[name]:.0f} tokens)" for name, row in whole.items())
        + ".",
    ]
    followed = {row["pair_design"]: row for row in own if _followed(row, FOLLOWS_CHAIN)}
    against = {row["pair_design"]: row for row in own if _followed(row, FOLLOWS_PROGRAM)}
    if REGENERATED in followed:
        said.append(
            f"With one value in the chain changed, and the rest written on from there, the answer is what follows from "
            f"the chain in {_percent(followed[REGENERATED])} % of {followed[REGENERATED]['n']:,} edits, and the "
            f"program's own in {_percent(against[REGENERATED])} %."
        )
    if FROZEN in followed and THROUGHOUT in followed:
        once, all_of_it = (f"{_percent(followed[each])} %" for each in (FROZEN, THROUGHOUT))
        said.append(
            "With a printed value changed where it is printed, and the rest of the chain left as it was, the output "
            f"has the changed one in {once}; changed in every entry that tells it, in {all_of_it}."
        )
        least = min(row["estimate"] for row in followed.values())
        said.append(
            "The chain is what the answer is read from, one entry as good as all."
            if least > 0.9
            else "The answer is not read from the one entry that a reader would point to."
        )
    if len(names) > 1:
        said.append(_compared(rows, names))
    return " ".join(said)


def _compared(rows: Rows, names: list[str]) -> str:
    """What further training made of the longest programs."""
    longest = [row for row in rows if _is(row, Metric.EXACT_MATCH, part=None, aggregation="mean")]
    last = longest[-1]["stratum"]
    by_run = {row["run"]: row for row in longest if row["stratum"] == last}
    shares = ", ".join(f"`{name}` {_percent(by_run[name])} %" for name in names if name in by_run)
    return f"On {last}, which the first training did not have: {shares}."


def _is(row: Mapping[str, Any], metric: Metric, **columns: Any) -> bool:
    return row["metric"] == metric and all(row[name] == value for name, value in columns.items())


def _followed(row: Mapping[str, Any], part: str) -> bool:
    """Whether a row is that of all edits of a design that follow so, whatever their place."""
    return _is(row, Metric.EDIT_SUCCESS, part=part, control=None, position=None)


def _behaviour(rows: Rows, names: list[str]) -> tuple[list[str], list[list[str]]]:
    lines = []
    for name in names:
        own = [row for row in rows if row["run"] == name]
        for row in own:
            if not _is(row, Metric.EXACT_MATCH, part=None, aggregation=Aggregation.MEAN):
                continue
            here = [each for each in own if each["stratum"] == row["stratum"]]
            value = {each["metric"]: each for each in here if each["part"] is None and each["aggregation"] == "mean"}
            slips = next((each for each in here if each["part"] == "right behind a chain with a wrong entry"), None)
            behind = "–" if slips is None else f"{_percent(slips)} of {slips['n']:,}"
            lines.append(
                [
                    name,
                    row["stratum"],
                    f"{100 * row['estimate']:.2f} [{100 * row['ci_low']:.2f}, {100 * row['ci_high']:.2f}]",
                    f"{100 * value[Metric.ENTRIES_RIGHT]['estimate']:.2f}",
                    behind,
                    f"{value[Metric.WRITTEN_TOKENS]['estimate']:.1f}",
                    f"{row['n']:,}",
                ]
            )
    head = ["run", "programs", "right, %", "entries right, %", "right behind a wrong entry, %", "tokens", "n"]
    return head, lines


def _edits(rows: Rows, names: list[str]) -> tuple[list[str], list[list[str]]]:
    lines = []
    edits = [row for row in rows if row["metric"] == Metric.EDIT_SUCCESS]
    for name in names:
        for design in DESIGNS:
            own = [row for row in edits if row["run"] == name and row["pair_design"] == design]
            for place in (None, *THIRDS):
                here = {row["part"]: row for row in own if row["position"] == place and row["control"] is None}
                if not here:
                    continue
                chain, program = here[FOLLOWS_CHAIN], here[FOLLOWS_PROGRAM]
                neither = 100 * max(0.0, 1 - chain["estimate"] - program["estimate"])
                where = place or "anywhere"
                lines.append(
                    [name, design, where, _percent(chain), _percent(program), f"{neither:.1f}", f"{chain['n']:,}"]
                )
            for control, words in ((Control.SAME_VALUE, "stays"), (Control.UNPATCHED, "no edit")):
                if row := next((row for row in own if row["control"] == control), None):
                    lines.append([name, design, words, "–", _percent(row), "–", f"{row['n']:,}"])
    return ["run", "the rest", "place", "follows the chain, %", "the program, %", "neither, %", "n"], lines


def _passes(rows: Rows, names: list[str]) -> tuple[list[str], list[list[str]]]:
    found = [row for row in rows if row["metric"] == Metric.PASS_AT_K and row["part"]]
    ks = list(dict.fromkeys(row["part"] for row in found))
    value = {(row["run"], row["stratum"], row["part"]): row for row in found}
    pairs = dict.fromkeys((row["run"], row["stratum"], row["n"]) for row in found)
    lines = [[run, name, *(_percent(value[run, name, k]) for k in ks), f"{n:,}"] for run, name, n in pairs]
    return ["run", "programs", *ks, "n"], lines


_LEFT, _BOTTOM, _WIDTH, _HEIGHT, _APART = 52, 250, 270, 190, 380


def chains_drawing(rows: Rows) -> str:
    """Two panels: edits that the answer follows by their place in the chain, a curve a run and design; and pass@k of
    the longest programs, a curve a run."""
    names = list(dict.fromkeys(row["run"] for row in rows))
    parts = _frame(0, "edits followed, by place in the chain", THIRDS, 0.0)
    at = 0
    for k, name in enumerate(names):
        for design, dash in zip(DESIGNS, ("", "2 3", "7 3"), strict=True):
            own = {
                row["position"]: row["estimate"]
                for row in rows
                if row["run"] == name
                and _is(row, Metric.EDIT_SUCCESS, part=FOLLOWS_CHAIN, control=None, pair_design=design)
            }
            shares = [(i, own[place]) for i, place in enumerate(THIRDS) if place in own]
            if shares:
                parts.append(_curve(0, shares, len(THIRDS), 0.0, PALETTE[k], dash))
                words = f"{name}, {design}"
                parts.append(text(_LEFT + 8, _BOTTOM - 14 - 15 * at, words, fill=PALETTE[k], size=11))
                at += 1
    found = [row for row in rows if row["metric"] == Metric.PASS_AT_K and row["part"]]
    if found:
        last = found[-1]["stratum"]
        ks = list(dict.fromkeys(row["part"] for row in found))
        shown = [row for row in found if row["stratum"] == last]
        least = 0.1 * int(10 * min(row["estimate"] for row in shown))
        least = min(least, 0.9)
        parts += _frame(1, f"pass@k, {last}", ks, least)
        for k, name in enumerate(names):
            value = {row["part"]: row["estimate"] for row in shown if row["run"] == name}
            points = [(i, value[each]) for i, each in enumerate(ks) if each in value]
            if points:
                parts.append(_curve(1, points, len(ks), least, PALETTE[k], ""))
                parts.append(text(_LEFT + _APART + 8, _BOTTOM - 14 - 15 * k, name, fill=PALETTE[k], size=11))
    return drawing(parts, width=_LEFT + _APART + _WIDTH + 30, height=290, title="Chains of thought: used, and pass@k")


def _frame(panel: int, title: str, ticks: Any, least: float) -> list[str]:
    left = _LEFT + panel * _APART
    parts = [text(left, 24, title, fill=QUIET)]
    for share in (0.0, 0.5, 1.0):
        y, value = _BOTTOM - _HEIGHT * share, least + (1 - least) * share
        parts.append(line(left, y, left + _WIDTH, y, stroke=FAINT))
        parts.append(text(left - 6, y + 4, f"{value:.2g}", anchor="end", size=11, fill=QUIET))
    for i, name in enumerate(ticks):
        x = left + _WIDTH * i / max(1, len(ticks) - 1)
        parts.append(text(x, _BOTTOM + 16, str(name), anchor="middle", size=10, fill=QUIET))
    return parts


def _curve(panel: int, points: list[tuple[int, float]], n: int, least: float, color: str, dash: str) -> str:
    left = _LEFT + panel * _APART
    places = [
        (left + _WIDTH * i / max(1, n - 1), _BOTTOM - _HEIGHT * (share - least) / (1 - least)) for i, share in points
    ]
    return curve(places, stroke=color, dash=dash)


def _percent(row: Mapping[str, Any]) -> str:
    return f"{100 * row['estimate']:.1f}"


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def beside(rows: pd.DataFrame, kept: pd.DataFrame | None) -> pd.DataFrame:
    """New rows of some runs with those that are kept of others, the new ones first where nothing is kept."""
    if kept is None:
        return rows
    new = set(rows["run"])
    old = [kept.loc[kept["run"] == name] for name in dict.fromkeys(kept["run"])]
    parts = [select(rows, run=each["run"].iloc[0]) if each["run"].iloc[0] in new else each for each in old]
    known = set(kept["run"])
    parts += [select(rows, run=name) for name in dict.fromkeys(rows["run"]) if name not in known]
    return pd.concat(parts, ignore_index=True)
