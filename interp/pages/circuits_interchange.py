"""The page's section on interchange: where each variable is kept, until when it is used, and in which subspace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp.figures.style import present, site_words
from interp.figures.svg import INK, QUIET, drawing, line, text
from interp.files import write_text
from interp.results import Control, Method, Metric, records, select, site_order
from interp.runs import Run, RunError

_CELL, _LEFT = 13, 130
_LOW, _HIGH = (0xF7, 0xF7, 0xF7), (0x00, 0x5A, 0x9C)
_CLEAR = 0.9  # probe accuracy from which on a variable counts as readable
_FEW = 0.5  # IIA below which no place is said to carry a variable
_FURTHER = {
    Method.MEAN_DIFFERENCE: "class means",
    Method.PROBE_SUBSPACE: "probe's subspace",
    Method.DAS: "DAS",
    Method.POSITION_SEARCH: "smallest set of positions",
}


def interchange_part(run: Run, out: Path) -> list[str]:
    """The section about one run, with its figure written into `out`; empty where nothing was measured."""
    try:
        frame = run.frame("interventions")
    except RunError:
        return []
    try:
        probes = run.frame("probes")
    except RunError:
        probes = None
    file = f"circuits-{run.name}-kept.svg"
    write_text(Path(out) / file, kept_drawing(frame, probes))
    parts = [
        "### Where each variable is kept, and until when it is used\n",
        f"![Interchange accuracy by variable, position set and layer]({file})\n",
    ]
    if len(whole := _whole(frame)):
        n = max(row["n"] for row in records(whole))
        parts += [
            f"IIA: the share of up to {n} pairs of independent states whose whole answer, after the swap, is the "
            "machine's with that variable set to the source's value; only pairs whose answer should change. Input, "
            "last layer and `all` are ceilings and left out of the table. A fetched copy such as `op` cannot be moved "
            "by swapping the slot that it is fetched from, which is itself part of the answer. The best of many places "
            "is flattered by its choice:\n",
            _best_table(whole),
        ]
    if by_stratum := _by_stratum(frame, run):
        parts += by_stratum
    if len(inside := _inside(frame)):
        parts += ["Whole activations inside a layer, a head's output or an MLP's neurons, at their best place:\n"]
        parts.append(_best_table(inside))
    if len(minimal := _whole(frame, "minimal")):
        parts += [
            "Minimal pairs, where the source is the base with one edit. Whatever else differs is what the edit itself "
            "changes, so that more places can answer:\n",
            _best_table(minimal),
        ]
    return parts + _further(frame)


def failures(run: Run) -> list[str]:
    """What interchange did not find, as clauses."""
    try:
        frame = run.frame("interventions")
    except RunError:
        return []
    whole = _whole(frame)
    own = select(whole, control=None)
    best: dict[str, float] = {}
    for row in records(own):
        best[row["variable"]] = max(row["estimate"], best.get(row["variable"], 0.0))
    if low := [f"`{name}` ({value:.2f})" for name, value in best.items() if value < _FEW]:
        said = [f"no single set of positions at one layer carries {', '.join(low)}: best IIA below {_FEW:g}"]
        names = [name for name, value in best.items() if value < _FEW]
        return said + _in_part(frame, names) + _readable(run, names)
    return []


def _by_stratum(frame: pd.DataFrame, run: Run) -> list[str]:
    """What the best swap of each variable does, stratum by stratum, in three numbers."""
    rows = frame.loc[frame["op"].notna() & (frame["pair_design"] == "stratified") & (frame["stratum"] == "changes")]
    rows = select(rows, method=Method.FULL_VECTOR)
    own = select(rows, metric=Metric.IIA, control=None)
    if own.empty:
        return []
    lines = []
    for row in records(own):
        key = {name: row[name] for name in ("variable", "site", "position", "op")}
        cells = [
            select(rows, metric=metric, control=control, **key)["estimate"]
            for metric, control in (
                (Metric.IIA, None),
                (Metric.EFFECT_ACCURACY, None),
                (Metric.SIDE_ACCURACY, None),
                (Metric.IIA, Control.UNPATCHED),
            )
        ]
        same = select(frame, metric=Metric.IIA, control=Control.SAME_VALUE, method=Method.FULL_VECTOR, **key)
        shown = [f"{values.iloc[0]:.2f}" if len(values) else "" for values in (*cells, same["estimate"])]
        where = f"{row['position']} {site_words(row['site'])}"
        lines.append([f"`{row['variable']}`", where, row["op"], *shown, str(row["n"])])
    word = run.config.world.stratum_title
    headings = ["variable", "swapped at", word, "IIA", "should change", "should stay", "left alone", "same value", "n"]
    return [
        f"The same, {word} by {word}, on pairs drawn for each whose answer should change. A place that holds more than "
        "the variable moves what should change and spoils what should stay: the whole answer is then wrong. Same "
        "value: swapped from a source in which the variable is the same, where the answer must stay:\n",
        markdown_table(headings, lines) + "\n",
    ]


def _in_part(frame: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Which of these a fitted subspace moves where whole vectors do not."""
    rows = select(frame, metric=Metric.IIA, stratum="changes", method=Method.DAS, control=None, op=None)
    best = {name: max((row["estimate"] for row in records(select(rows, variable=name))), default=0.0) for name in names}
    moved = [f"`{name}` ({value:.2f})" for name, value in best.items() if value >= _FEW]
    return [f"of these a subspace found by DAS carries {', '.join(moved)}"] if moved else []


def _readable(run: Run, names: Sequence[str]) -> list[str]:
    """Which of these a probe reads all the same."""
    try:
        rows = select(run.frame("probes"), metric=Metric.ACCURACY, method=Method.LOGISTIC, control=None)
    except RunError:
        return []
    best = {name: max((row["estimate"] for row in records(select(rows, variable=name))), default=0.0) for name in names}
    clear = [f"`{name}` ({value:.2f})" for name, value in best.items() if value >= _CLEAR]
    return (
        [f"of these a probe reads {', '.join(clear)} somewhere: what can be read need not be used there"]
        if clear
        else []
    )


def _inside(frame: pd.DataFrame) -> pd.DataFrame:
    """Whole-vector swaps at other hooks than the residual stream, of independent pairs that should change."""
    rows = select(frame, metric=Metric.IIA, stratum="changes", pair_design="independent", method=Method.FULL_VECTOR)
    return rows.loc[~rows["site"].str.contains("resid")]


def _whole(frame: pd.DataFrame, pair_design: str = "independent") -> pd.DataFrame:
    """Whole-vector swaps of the residual stream, of pairs that should change, ceilings left out."""
    rows = select(frame, metric=Metric.IIA, stratum="changes", pair_design=pair_design, method=Method.FULL_VECTOR)
    rows = rows.loc[rows["site"].str.contains("resid")]
    last = site_order(rows["site"])[-1:]
    return rows.loc[~rows["site"].isin(["blocks.0.hook_resid_pre", *last]) & (rows["position"] != "all")]


def _best_table(whole: pd.DataFrame) -> str:
    own = select(whole, control=None)
    lines = []
    for name in present(own, "variable"):
        best = own.loc[select(own, variable=name)["estimate"].idxmax()]
        there = select(whole, variable=name, site=best["site"], position=best["position"])
        beside = [select(there, control=control)["estimate"] for control in _CONTROLS]
        lines.append(
            [
                f"`{name}`",
                _place(best),
                _certain(best),
                *(f"{values.iloc[0]:.2f}" if len(values) else "–" for values in beside),
                str(int(best["n"])),
            ]
        )
    return markdown_table(["variable", "best swapped at", "IIA", *_CONTROLS.values(), "pairs"], lines)


def _place(row: Any) -> str:
    """Where a swap was made: `cells` after L2, or `cells` at a hook inside a layer."""
    site = str(row["site"])
    where = f"after {site_words(site)}" if "resid" in site else f"at `{site}`"
    return f"`{_short(str(row['position']))}` {where}"


_CONTROLS = {
    Control.UNPATCHED: "left alone",
    Control.WRONG_SITE: "wrong positions",
    Control.UNTRAINED_MODEL: "untrained model",
}


def _further(frame: pd.DataFrame) -> list[str]:
    """Subspaces, searched position sets and joint swaps, each beside its controls."""
    rows = select(frame, metric=Metric.IIA, stratum="changes", op=None)
    parts, lines = [], []
    for method, words in _FURTHER.items():
        found = select(rows, method=method, pair_design="independent")
        if method == Method.PROBE_SUBSPACE and len(found):  # measured everywhere: the best place of each variable
            own = select(found, control=None)
            keep = own.loc[own.groupby("variable")["estimate"].idxmax()]
            found = found.merge(keep[["variable", "site", "position"]], on=["variable", "site", "position"])
        for row in records(select(found, control=None)):
            there = select(found, variable=row["variable"], site=row["site"], position=row["position"])
            if row["granularity"] is not None:
                continue
            there = there.loc[there["granularity"].isna()]
            beside = [select(there, control=control)["estimate"] for control in _OTHERS]
            rank = "" if row["rank"] is None else f", rank {row['rank']}"
            lines.append(
                [
                    f"`{row['variable']}`",
                    f"{words}{rank}",
                    _place(row),
                    _certain(row),
                    *(f"{values.iloc[0]:.2f}" if len(values) else "–" for values in beside),
                ]
            )
    if lines:
        parts += [
            "Swapped within a subspace, or at the smallest set of positions that a greedy search finds:\n",
            markdown_table(["variable", "what is swapped", "where", "IIA", *_OTHERS.values()], lines),
        ]
    return parts + _null_parts(rows) + _joint(frame)


_OTHERS = {
    Control.RANDOM_SUBSPACE: "random subspace",
    Control.WRONG_SITE: "wrong positions",
    Control.UNTRAINED_MODEL: "untrained model",
    Control.UNPATCHED: "left alone",
}


def _null_parts(rows: pd.DataFrame) -> list[str]:
    """What the two parts of a subspace of MLP neurons do alone."""
    said = []
    for row in records(select(rows, method=Method.DAS, granularity="null_space", control=None)):
        there = select(rows, method=Method.DAS, variable=row["variable"], site=row["site"], position=row["position"])
        there = select(there, control=None)
        seen = select(there, granularity="row_space")["estimate"]
        whole = there.loc[there["granularity"].isna(), "estimate"]
        if len(seen) and len(whole):
            said.append(
                f"`{row['variable']}` at `{row['site']}`: {whole.iloc[0]:.2f} whole, {seen.iloc[0]:.2f} in what W_out "
                f"passes on, {row['estimate']:.2f} in what it drops"
            )
    return [f"Parts of subspaces of MLP neurons: {'; '.join(said)}.\n"] if said else []


def _joint(frame: pd.DataFrame) -> list[str]:
    rows = select(frame, metric=Metric.IIA, pair_design="joint", stratum="both")
    lines = []
    for row in records(select(rows, control=None)):
        there = select(rows, variable=row["variable"], site=row["site"], position=row["position"])
        single = select(there, control=Control.SINGLE_SWAP)["estimate"]
        alone = select(there, control=Control.UNPATCHED)["estimate"]
        lines.append(
            [
                f"`{row['variable']}`",
                _place(row),
                _certain(row),
                *(f"{values.iloc[0]:.2f}" if len(values) else "–" for values in (single, alone)),
            ]
        )
    if not lines:
        return []
    return [
        "Two variables at once, from two sources (pairs where both matter):\n",
        markdown_table(["variables", "where", "IIA", "better one alone", "left alone"], lines),
    ]


def kept_drawing(frame: pd.DataFrame, probes: pd.DataFrame | None) -> str:
    """IIA of each variable by position set and layer; below it what a logistic probe reads, where it was measured."""
    iia = select(
        frame, metric=Metric.IIA, method=Method.FULL_VECTOR, pair_design="independent", stratum="changes", control=None
    )
    iia = iia.loc[iia["site"].str.contains("resid")]
    variables = present(iia, "variable")
    parts, y, width = _map(iia, variables, 20, "Used: interchange accuracy (IIA), 0 light … 1 dark")
    if probes is not None:
        read = select(probes, metric=Metric.ACCURACY, method=Method.LOGISTIC, control=None)
        read = read.loc[read["variable"].isin(variables)]
        if len(read):
            below, y, other = _map(read, variables, y + 34, "Readable: accuracy of a logistic probe")
            parts, width = parts + below, max(width, other)
    return drawing(parts, width=width, height=y + 14, title="Where each variable is kept, and until when it is used")


def _map(rows: pd.DataFrame, variables: Sequence[str], top: float, title: str) -> tuple[list[str], float, float]:
    """A heat map whose columns are layers within position sets: (parts, its lower end, its right end)."""
    sites, sets = site_order(rows["site"]), present(rows, "position")
    values = {(row["variable"], row["position"], row["site"]): row["estimate"] for row in records(rows)}
    parts = [text(10, top, title, size=13)]
    left, head = float(_LEFT), top + 40
    for row, name in enumerate(variables):
        parts.append(text(_LEFT - 8, head + _CELL * row + 10, name, size=10, anchor="end"))
    for place, positions in enumerate(sets):
        words = positions.replace("instruction", "instr")
        parts.append(text(left, head - (20 if place % 2 else 8), words, size=8, fill=QUIET))
        for column, site in enumerate(sites):
            x = left + _CELL * column
            for row, name in enumerate(variables):
                value = values.get((name, positions, site))
                if value is not None:
                    parts.append(_cell(x, head + _CELL * row, float(value)))
            label = site_words(site).replace("input", "in")
            parts.append(
                text(x + _CELL / 2, head + _CELL * len(variables) + 11, label, size=7, fill=INK, anchor="middle")
            )
        left += _CELL * len(sites) + 8
        if positions != sets[-1]:
            parts.append(line(left - 4, head - 2, left - 4, head + _CELL * len(variables)))
    return parts, head + _CELL * len(variables) + 14, left + 60


def _cell(x: float, y: float, value: float) -> str:
    share = min(1.0, max(0.0, value))
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_LOW, _HIGH, strict=True))
    size = _CELL - 1
    return f'<rect x="{x:g}" y="{y:g}" width="{size}" height="{size}" fill="rgb({red},{green},{blue})"/>'


def _short(positions: str) -> str:
    return positions if len(positions) <= 60 else f"{positions[:57]}…"


def _certain(row: Any) -> str:
    low, high = row["ci_low"], row["ci_high"]
    return f"{row['estimate']:.2f}" + ("" if pd.isna(low) else f" [{low:.2f}, {high:.2f}]")


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"
