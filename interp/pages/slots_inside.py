"""The part of docs/slots.md that is about a slot machine's inside, and about programs that are searched for, from rows
alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from interp.results import Control, Method, Metric, records, select
from interp.runs import Run
from interp.studies.slot_alu import FILLED, THROUGH_SUM, VISITED
from interp.studies.slot_restarts import CASES, PROGRAM, WAYS
from interp.studies.slot_sharpness import ADDRESSES, AS_IT_STANDS, EVERYTHING, MARGIN, SHARPENED
from interp.studies.slot_swaps import RIGHT, SOFT

Told = Sequence[tuple[Run, pd.DataFrame]]


def inside_sections(runs: Told) -> list[str]:
    """What was asked of the runs' inside; a section without rows is left out."""
    parts: list[str] = []
    for run, rows in runs:
        for section in (_softly, _sharpness, _controller, _alu, _gradients):
            parts += section(run, rows)
    return parts


def sharpness_said(runs: Told) -> list[str]:
    """In a sentence, how sharp addresses must be at the largest size that was measured."""
    for _, rows in runs:
        own = records(select(rows, part=ADDRESSES))
        size = max((int(row["time"]) for row in own), default=0)
        needed = {}
        for how in (AS_IT_STANDS, SHARPENED):
            exact = [row for row in own if (row["map"], row["time"], row["estimate"]) == (how, size, 1.0)]
            sure = [_first(own, metric=Metric.CONFIDENCE, time=size, position=row["position"]) for row in exact]
            needed[how] = min((row["estimate"] for row in sure if row is not None), default=None)
        if needed.get(SHARPENED) is not None:
            alone = needed[AS_IT_STANDS]
            return [
                f"A plan of {size} digits whose addresses are {100 * needed[SHARPENED]:.3g} % sure is run without an "
                "error where every step sharpens what it holds; "
                + (
                    f"where none does, {100 * alone:.8g} % is needed."
                    if alone is not None
                    else "where none does, none that was tried is sharp enough."
                )
            ]
    return []


def restarts_said(rows: pd.DataFrame | None) -> list[str]:
    """In a sentence, how often a program was found from answers alone."""
    rates = [] if rows is None else [row for row in records(select(rows, metric=Metric.EXACT_MATCH)) if not row["part"]]
    if not rates:
        return []
    shares = []
    for case in CASES:
        own = sorted({f"{100 * row['estimate']:.0f}" for row in rates if row["stratum"] == case}, key=float)
        shares += [f"{own[0]} % ({case})" if len(own) == 1 else f"{own[0]} to {own[-1]} % ({case})"] if own else []
    return [f"From final answers alone, gradients find a right program in {', '.join(shares)} of random restarts."]


def _share(row: dict[str, Any] | None) -> str:
    return "–" if row is None else f"{100 * row['estimate']:.0f}"


def _table(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    names = list(head)
    ruled = ["---"] + ["---:"] * (len(names) - 1)
    return "\n".join(f"| {' | '.join(each)} |" for each in (names, ruled, *lines))


def _first(rows: Iterable[dict[str, Any]], **wanted: Any) -> dict[str, Any] | None:
    return next((row for row in rows if all(row[name] == value for name, value in wanted.items())), None)


def _softly(run: Run, rows: pd.DataFrame) -> list[str]:
    own = records(select(rows, metric=Metric.IIA, part=SOFT))
    if not own:
        return []
    names = run.config.world.program.names  # type: ignore[attr-defined]
    steps = sorted({int(row["time"]) for row in own})
    lines = []
    for variable in dict.fromkeys(row["variable"] for row in own):
        family, _, slot = variable.partition("[")
        words = f"{family} of `{names[int(slot[:-1])]}`" if slot else variable
        kinds = (
            ("change", "changes", None, True),
            ("change, and base is right", RIGHT, None, False),
            ("stay: an equal value", "same", Control.SAME_VALUE, False),
        )
        for told, stratum, control, alone in kinds:
            cells = []
            for at in steps:
                here = [row for row in own if (row["variable"], row["time"]) == (variable, at)]
                found = _first(here, stratum=stratum, control=control)
                beside = _first(here, stratum=stratum, control=Control.UNPATCHED) if alone else None
                cells.append(_share(found) + (f" ({_share(beside)})" if found and beside else ""))
            lines.append([words, told, *cells])
    return [
        f"## Exchanged while it runs softly: `{run.name}`",
        "The controller's own plan as it is, distributions and all, run softly without sharpening: what is exchanged "
        "is what the model's memory holds. Percent of answers that follow the symbolic machine's `do`, in brackets the "
        "run without the exchange; where soft execution has base right by itself; and where the value put in is the "
        "one that was there, source taken at the same step. Soft execution errs by itself, so that the second row of "
        "each is the one that says what the machine does with the variable.",
        _table(["exchanged", "answers that", *(f"step {at}" for at in steps)], lines),
    ]


def _sharpness(run: Run, rows: pd.DataFrame) -> list[str]:
    own = [row for row in records(rows) if row["part"] in (ADDRESSES, EVERYTHING)]
    if not own:
        return []
    sizes = sorted({int(row["time"]) for row in own})
    lines = []
    for fields in (ADDRESSES, EVERYTHING):
        for position in dict.fromkeys(row["position"] for row in own):
            here = [row for row in own if row["part"] == fields and row["position"] == position]
            certain = _first(here, metric=Metric.CONFIDENCE, time=sizes[-1])
            cells = [
                _share(_first(here, metric=Metric.EXACT_MATCH, time=size, map=how))
                for how in (AS_IT_STANDS, SHARPENED)
                for size in sizes
            ]
            astray = "–" if certain is None else f"{1 - certain['estimate']:.1e}"
            lines.append([fields, position.removeprefix("temperature "), astray, *cells])
    head = [f"{how}, {size}" for how in (AS_IT_STANDS, SHARPENED) for size in sizes]
    n = min(row["n"] for row in own)
    return [
        "## How sharp addresses must be",
        f"The true plan of addition, every field's true entry leading by {MARGIN:g} logits over the temperature, run "
        "softly in float64, on numbers of so many digits: percent of answers that are right. Either addresses alone "
        "are soft, or kinds and contents too; the machine either leaves its distributions as they stand, or sharpens "
        "counter, addresses and results by the same temperature at every step. *astray*: the probability that a "
        "pointer "
        f"gives to wrong addresses at {sizes[-1]} digits. {n} inputs an entry.",
        _table(["soft", "temperature", "astray", *head], lines),
    ]


def _controller(run: Run, rows: pd.DataFrame) -> list[str]:
    probes = records(select(rows, metric=Metric.ACCURACY, method=Method.RIDGE))
    swaps = [row for row in records(select(rows, metric=Metric.IIA)) if row["part"] is None]
    if not probes or not swaps:
        return []
    sites = list(dict.fromkeys(row["site"] for row in swaps))
    places = list(dict.fromkeys(row["position"] for row in swaps))
    names, offset = run.config.world.program.names, "memory["  # type: ignore[attr-defined]
    variable = swaps[0]["variable"]
    read, moved = [], []
    for place in places:
        slot = int(place[len(offset) : -1]) if place.startswith(offset) else -1
        words = f"slot `{names[slot]}`" if slot >= 0 else f"prompt, `{place}`"
        cells = []
        for site in sites:
            here = [row for row in probes if (row["site"], row["position"]) == (site, place)]
            found = _first(here, control=None)
            controls = [_share(_first(here, control=each)) for each in (Control.UNTRAINED_MODEL, Control.CONTROL_TASK)]
            cells.append(f"{_share(found)} ({', '.join(controls)})")
        read.append([words, *cells])
        cells = []
        for site in sites:
            here = [row for row in swaps if (row["site"], row["position"]) == (site, place)]
            found, same = _first(here, control=None), _first(here, control=Control.SAME_VALUE)
            cells.append(f"{_share(found)} ({_share(same)})")
        moved.append([words, *cells])
    alone = _share(_first(swaps, control=Control.UNPATCHED))
    layers = ["embedding", *(f"after layer {n}" for n in range(1, len(sites)))]
    return [
        f"## Where the plan is before it is written: `{run.name}`",
        "The controller reads the whole prompt at once, so that *before* means in an earlier layer or at another "
        "position. The instructions and pointers of one program are the same in every run and a position's role says "
        f"them; what differs are the contents of the inputs' slots. Of `{variable}`: percent of held-out inputs of "
        "which a ridge probe reads it off the residual stream (in brackets from the untrained copy, and the control "
        "task, whose labels are drawn by the last input's value, which many inputs share).",
        _table(["position", *layers], read),
        "And percent of answers that become those of the source's value when the stream there is exchanged (in "
        f"brackets those that stay when the values are equal; {alone} % do without an exchange). Where the slot before "
        "is exchanged, its own content moves, so that few stay.",
        _table(["position", *layers], moved),
    ]


def _alu(run: Run, rows: pd.DataFrame) -> list[str]:
    entries = [row for row in records(rows) if row["part"] == VISITED]
    filled = [row for row in records(rows) if row["part"] == FILLED]
    sums = [row for row in records(rows) if row["part"] == THROUGH_SUM]
    if not entries or not filled or not sums:
        return []
    lines = []
    for stratum in dict.fromkeys(row["stratum"] for row in entries):
        right = _first(entries, stratum=stratum, metric=Metric.EXACT_MATCH)
        margin = _first(entries, stratum=stratum, metric=Metric.LOGIT_DIFFERENCE)
        if right and margin:
            lines.append([stratum, str(right["n"]), _share(right), f"{margin['estimate']:.2f}"])
    drawn = {
        variable: ", ".join(_share(row) for row in filled if row["variable"] == variable)
        for variable in ("result", "carry")
    }
    own, blank = _first(sums, control=None), _first(sums, control=Control.UNTRAINED_MODEL)
    assert own is not None and blank is not None
    return [
        f"## A table, or a sum: `{run.name}`",
        "The entries of addition with a carry that runs visit, by what they carry out, and the least margin: the "
        "logarithm of the right answer's probability over the likeliest wrong one's, result or carry, whichever is "
        "less.",
        _table(["entries", "visited", "right, %", "least margin"], lines),
        f"A network of the same shape that is shown all but {filled[0]['n']} entries directly has so many percent of "
        f"those {filled[0]['n']} right, three draws: the digit that is written {drawn['result']}; the carry "
        f"{drawn['carry']}. "
        "What is shown of a table does not say the rest of it; a carry is a threshold of the sum, which one layer of "
        f"weights can say. The sum explains {own['estimate']:.1%} of the variance of what enters this run's hidden "
        f"layer, {blank['estimate']:.1%} before training: it was not taken through the sum.",
    ]


def _gradients(run: Run, rows: pd.DataFrame) -> list[str]:
    own = records(select(rows, metric=Metric.GRADIENT_NORM))
    if not own:
        return []
    last = len(own)
    shown = sorted({1, *range(6, last, 6), last}) if last > 6 else range(1, last + 1)
    chosen = [row for row in own if row["time"] in shown]
    return [
        f"## Gradients by executed step: `{run.name}`",
        f"Norm of the gradient of the answer's loss with respect to the memory after each of {last} soft steps, mean "
        f"of {own[0]['n']} inputs (5 to 95 % of them).",
        _table(
            ["after step", *(str(row["time"]) for row in chosen)],
            [["norm", *(f"{row['estimate']:.2g} ({row['ci_low']:.2g}–{row['ci_high']:.2g})" for row in chosen)]],
        ),
    ]


def restart_section(rows: pd.DataFrame) -> list[str]:
    """Programs that were searched for by gradients from answers alone."""
    rates = [row for row in records(select(rows, metric=Metric.EXACT_MATCH)) if row["part"] is None]
    lines, found = [], []
    for case in CASES:
        cells = []
        for way in WAYS:
            row = _first(rates, stratum=case, map=way)
            cells.append(
                "–" if row is None
                else f"{100 * row['estimate']:.0f} [{100 * row['ci_low']:.0f}, {100 * row['ci_high']:.0f}]"
            )  # fmt: skip
        lines.append([case, *cells])
        each = records(select(rows, part=PROGRAM, stratum=case))
        shown = list(dict.fromkeys(row["position"] for row in each))[:4]
        distinct = records(select(rows, metric=Metric.UNIQUENESS, stratum=case))
        n = sum(row["n"] for row in distinct)
        different = round(sum(row["estimate"] * row["n"] for row in distinct))
        if shown:
            listed = "".join(f"\n    - `{text}`" for text in shown)
            found.append(f"- {case}: {different} different ones among {n}, by way, such as{listed}")
    return [
        "## A plan learned from answers alone",
        "The operators, the data slots and the inputs are given; kind, pointers and content of every instruction are "
        f"logits that begin at random, anew in each of {rates[0]['n']} restarts, {rates[0]['steps']} steps of Adam, "
        "and are told nothing but whether the final answers on all inputs are right. Percent of restarts whose "
        "likeliest program then answers every input right when the symbolic machine runs it; in brackets the 95 % "
        "interval.",
        _table(["task", *WAYS], lines),
        "What the programs that were found execute, which need not be what a person would write:",
        "\n".join(found),
    ]
