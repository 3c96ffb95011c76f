"""Sections of docs/thinking.md: parts of the carry, the fixed point, runs and thinking longer than in training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from interp.results import Control, Method, Metric, records, select

Rows = list[dict[str, Any]]
_ONE_IN = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96)  # loop steps that tables show


def parts_section(rows: pd.DataFrame) -> str:
    """Blocks of the carry, and what probes read of variables, exchanged; "" where nobody measured it."""
    blocks = [row for row in records(select(rows, method=Method.FULL_VECTOR)) if row["position"]]
    read = records(select(rows, method=Method.PROBE_SUBSPACE))
    if not blocks or not read:
        return ""
    return (
        "\n\n## Edits of a part of the carry\n\n" + _parts_words(blocks, read) + "\n\nOf the carry after loop step t "
        "the positions of one block are source's, put in once, or held there at every later step too. Pairs that the "
        "model answers alike are the control: there the answer must stay.\n\n"
        + _table(*_blocks(blocks))
        + "\n\nWhat a probe reads of a variable after s executed instructions, at the loop step where it reads it best "
        "(chosen on validation), is exchanged for source's; the answer should be what the machine prints when the "
        "variable is set to source's value there. Only pairs are counted whose output that changes.\n\n"
        + _table(*_variables(read))
    )


def fixed_point_section(rows: pd.DataFrame) -> str:
    """How far steps move the carry, and what fewer or more of them break and mend; "" where nobody measured it."""
    if select(rows, metric=Metric.MOVEMENT).empty:
        return ""
    return "\n\n## The fixed point\n\n" + _fixed_words(rows) + "\n\n" + _table(*_fixed(rows))


def longer_section(rows: pd.DataFrame) -> str:
    """Right by bin of steps run and loop steps; "" where nobody measured it."""
    found, late = _of_bins(rows), _of_bins(rows, late=True)
    if not found:
        return ""
    printing = (
        "\n\nOf these, programs that print something after the last step that training knew:\n\n"
        + _table(*_longer(late))
        if late
        else ""
    )
    return "\n\n## Runs longer than in training\n\n" + _longer_words(rows) + "\n\n" + _table(*_longer(found)) + printing


def further_words(rows: pd.DataFrame) -> str:
    """A sentence for the page's opening."""
    found = _of_bins(rows)
    if not found:
        return ""
    n_loops = _trained(rows, Metric.LOOP_STEPS)
    shares = _of_training(found, n_loops)
    least = min(share for _, share in shares)
    return (
        f"Of runs longer than any in training, up to {_end(shares[-1][0])} executed steps, it answers "
        f"{100 * least:.1f} % or more right, bin by bin, and more loop steps than in training "
        f"{'change nothing' if _flat(found, n_loops) else 'change that'}."
    )


# Parts of the carry.


def _parts_words(blocks: Rows, read: Rows) -> str:
    again = [row for row in blocks if row["control"] is None and row["metric"] == Metric.RETURN]
    last = max(row["time"] for row in again)
    early = [row for row in again if row["time"] < last - 1]
    said = []
    if once := [row["estimate"] for row in early if row["part"] == "once"]:
        said.append(
            "A block of another program's carry, put in once with two loop steps or more to come, leaves base's own "
            f"answer in {100 * min(once):.0f} % of pairs and more, whichever the block."
        )
    lasting: dict[str, list[float]] = {}
    for row in early:
        if row["part"] == "held":
            lasting.setdefault(row["position"], []).append(row["estimate"])
    if lasting:
        each = [f"that of {name} leaves it in {100 * sum(at) / len(at):.0f} %" for name, at in lasting.items()]
        said.append(f"Held at every later step, {'; '.join(each)}.")
    best: dict[str, float] = {}
    for row in read:
        if row["control"] is None:
            best[row["part"]] = max(best.get(row["part"], 0.0), row["estimate"])
    if best:
        once_, held, entering = (100 * best.get(part, 0.0) for part in ("once", "held", "input"))
        follows = max(once_, held) > 50
        what = "." if follows else ": what can be read of executed steps is not what the rest of the run goes by."
        said.append(
            f"The rest of the run follows the machine from an edited variable in {once_:.0f} % of pairs at best where "
            f"the edit is made once, {held:.0f} % where it is held, and {entering:.0f} % where it is made in what "
            f"enters every step{what}"
        )
    return " ".join(said)


def _blocks(blocks: Rows) -> tuple[list[str], list[list[str]]]:
    groups = _grouped(blocks, ("position", "part", "time"))
    lines = []
    for name, part, t in sorted(groups):
        group = groups[name, part, t]
        plain = {row["metric"]: row for row in group if row["control"] is None}
        shares = [plain.get(Metric.IIA), plain.get(Metric.RETURN), _control(group, Control.SAME_VALUE)]
        n = max(row["n"] for row in plain.values())
        lines.append([name, part, str(t), *(_percent(row) for row in shares), f"{n:,}"])
    return ["block", "put in", "after loop step", "source's, %", "base's again, %", "alike: stays, %", "pairs"], lines


def _variables(read: Rows) -> tuple[list[str], list[list[str]]]:
    lines, controls = [], (Control.UNPATCHED, Control.RANDOM_SUBSPACE, Control.SAME_VALUE)
    for (name, s, part, t), group in _grouped(read, ("variable", "lag", "part", "time")).items():
        plain = next(row for row in group if row["control"] is None)
        shares = [_percent(_control(group, each)) for each in controls]
        where = "what enters" if part == "input" else f"step {t}, {part}"
        lines.append([name, str(s), where, str(plain["rank"]), _percent(plain), *shares, f"{plain['n']:,}"])
    head = ["variable", "after s instructions", "put in at", "rank", "machine's, %"]
    return [*head, "left alone, %", "random, %", "same value: stays, %", "pairs"], lines


def _control(group: Rows, control: Control) -> dict[str, Any] | None:
    return next((row for row in group if row["control"] == control), None)


# The fixed point.


def _fixed_words(rows: pd.DataFrame) -> str:
    settled = _by_time(rows, Metric.SETTLED)
    last = max(settled)
    half = [t for t, row in settled.items() if row["estimate"] >= 0.5]
    said = [
        f"The carry stands still (a step moves it by less than 2 % of its length) in "
        f"{100 * settled[last]['estimate']:.1f} % of {settled[last]['n']:,} held-out programs by loop step {last}"
        + (f", in half of them by step {min(half)}." if half else ".")
    ]
    exact = {row["part"]: row["estimate"] for row in records(select(rows, metric=Metric.EXACT_MATCH))}
    here, after = (exact.get(f"{part}") for part in (_STILL, _AFTER))
    if here is not None and after is not None:
        said.append(
            f"Where it first stands still {100 * here:.1f} % of answers are right, and {100 * after:.1f} % after step "
            f"{last}: past the fixed point the answer {'stays' if abs(here - after) < 0.005 else 'changes still'}."
        )
    broken, mended = (_by_time(rows, metric) for metric in (Metric.BROKEN, Metric.MENDED))
    if broken and mended:
        one, most = min(broken), max(broken)
        words = [
            f"{'one loop step breaks' if t == one else f'{t} steps break'} {_percent(broken[t])} % of its right "
            f"answers and mend{'s' if t == one else ''} {_percent(mended.get(t))} % of the wrong ones"
            for t in (one, most)
        ]
        said.append(f"Against its own halting, {'; '.join(words)}.")
    return " ".join(said)


_STILL, _AFTER = "where the carry first stands still", "the same examples after the last step"


def _fixed(rows: pd.DataFrame) -> tuple[list[str], list[list[str]]]:
    moved, *others = (
        _by_time(rows, metric) for metric in (Metric.MOVEMENT, Metric.SETTLED, Metric.BROKEN, Metric.MENDED)
    )
    lines = []
    for t in (t for t in _ONE_IN if t in others[1]):
        way = moved.get(t)
        spread = "–" if way is None else f"{way['estimate']:.1e} ({way['ci_low']:.0e} to {way['ci_high']:.0e})"
        lines.append([str(t), spread, *(_percent(each.get(t)) for each in others)])
    head = ["loop steps", "moves by (5 to 95 % of programs)", "stands still by then, %"]
    return [*head, "right by its own halting, broken, %", "wrong, mended, %"], lines


# Longer runs.


def _of_bins(rows: pd.DataFrame, *, late: bool = False) -> Rows:
    found = [row for row in records(select(rows, metric=Metric.EXACT_MATCH)) if row["stratum"] and row["part"]]
    found = [row for row in found if row["stratum"].startswith("runs of ")]
    return [row for row in found if ("prints" in row["part"]) == late]


def _longer_words(rows: pd.DataFrame) -> str:
    found, late = _of_bins(rows), _of_bins(rows, late=True)
    n_loops, trained = _trained(rows, Metric.LOOP_STEPS), _trained(rows, Metric.RUN_STEPS)
    ran = [row for row in records(select(rows, metric=Metric.RUN_STEPS)) if row["stratum"]]
    shares, printing = _of_training(found, n_loops), _of_training(late, n_loops)
    counts, printed = _counts(found), _counts(late)
    said = [
        f"Training knew runs that end within {trained} steps. Here {max(counts.values()):,} held-out programs a bin "
        "run for longer, and end; inside a bin they are drawn as they come. Past "
        f"{_end(shares[-1][0])} steps the sampler finds no run of this machine that ends (the longest bin's make "
        f"{ran[-1]['estimate']:.0f} steps on average). After the {n_loops} loop steps of training "
        + ", ".join(f"{100 * share:.1f} % of {name} are right" for name, share in shares)
        + "."
    ]
    if printing:
        part = sum(printed.values()) / sum(counts[name] for name in printed)
        said.append(
            f"{100 * part:.0f} % of these programs print something after step {trained}; of those "
            + ", ".join(f"{100 * share:.1f} %" for _, share in printing)
            + " are right, bin by bin."
        )
    said.append(
        "From there on to four times as many loop steps nothing changes by half a point: it does not think on."
        if _flat(found, n_loops)
        else "With more loop steps the shares still move."
    )
    return " ".join(said)


def _trained(rows: pd.DataFrame, metric: Metric) -> int:
    """The longest run of training, or its loop steps."""
    part = {Metric.RUN_STEPS: "longest of training", Metric.LOOP_STEPS: "training"}[metric]
    return int(records(select(rows, metric=metric, part=part))[0]["estimate"])


def _end(stratum: str) -> str:
    """Where a bin ends, "48" of "runs of 41 to 48 steps"."""
    return stratum.rpartition(" to ")[2].removesuffix(" steps")


def _counts(found: Rows) -> dict[str, int]:
    return {row["stratum"]: row["n"] for row in found}


def _of_training(found: Rows, n_loops: int) -> list[tuple[str, float]]:
    """By bin, the share that is right after as many loop steps as training had."""
    return [(row["stratum"], row["estimate"]) for row in found if row["time"] == n_loops]


def _flat(found: Rows, n_loops: int) -> bool:
    """Whether nothing changes by half a point past the loop steps of training."""
    by_bin = _grouped([row for row in found if row["time"] and row["time"] >= n_loops], ("stratum",))
    shares = [[row["estimate"] for row in group] for group in by_bin.values()]
    return all(max(each) - min(each) < 0.005 for each in shares)


def _longer(found: Rows) -> tuple[list[str], list[list[str]]]:
    counts = _counts(found)
    share = {(row["stratum"], row["time"]): row for row in found}
    steps = [t for t in _ONE_IN if (next(iter(counts)), t) in share]
    lines = [[str(t), *(_percent(share.get((name, t))) for name in counts)] for t in steps]
    lines.append(["its own halting", *(_percent(share.get((name, None))) for name in counts)])
    lines.append(["programs", *(f"{n:,}" for n in counts.values())])
    return ["loop steps", *(f"{name}, %" for name in counts)], lines


def _by_time(rows: pd.DataFrame, metric: Metric) -> dict[int, dict[str, Any]]:
    return {row["time"]: row for row in records(select(rows, metric=metric))}


def _grouped(rows: Iterable[dict[str, Any]], names: tuple[str, ...]) -> dict[tuple[Any, ...], Rows]:
    """Rows with the same values of some columns, in the order in which they come."""
    found: dict[tuple[Any, ...], Rows] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in names), []).append(row)
    return found


def _percent(row: Mapping[str, Any] | None) -> str:
    return "–" if row is None else f"{100 * row['estimate']:.1f}"


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
