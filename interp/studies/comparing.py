"""Runs side by side: the same questions asked of the rows of each, every answer beside its control. No torch.

    exact match   of held-out examples, all and by stratum                            control: none
    read          of each variable, a linear probe at its best place                  strongest of its controls there
    used          of each variable, whole vectors swapped at their best place (IIA)   the model left alone, same pairs
    longer        of runs longer than the trained ones, exact match                   control: none
    carried       of each variable, the part of the carrier that moves it and leaves  strongest null of that part
                  the rest (the lesser of the two), at its best
    circuit       of each instruction, the share of edges that keeps .9               random circuits of that size

The first five are better the higher; a circuit is the sparser the lower. All lie from 0 to 1. The best of many places
is flattered by its choice, in every run alike: places are those that the run was measured at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import pandas as pd

from interp.reading import RunError
from interp.results import Aggregation, Control, Method, Metric, records, select, site_order
from interp.runs import Run
from interp.runs.further_frames import BEYOND, STATES, FurtherFrame
from interp.studies.carried import best, scores

FAITHFUL = 0.9
ALL = "all"
QUESTIONS = {
    "exact match": "how much of what it is asked is right, on held-out examples",
    "read": "how well a linear probe reads a variable, at its best place inside the model",
    "used": "how often a swap of the activation there moves the answer as the variable would (IIA)",
    "longer": "how much is right on runs of more executed instructions than any in training",
    "carried": "how often a part of what goes on from token to token moves a variable, and leaves the rest",
    "circuit": "the share of edges that keeps .9 of the difference between two inputs",
}
_ENDS = ("hook_embed", "hook_pos_embed", "blocks.0.hook_resid_pre")  # swaps and probes there are about the input


@dataclass(frozen=True)
class Answer:
    """One number of one run, beside what it is held against."""

    run: str
    question: str
    """One of QUESTIONS."""
    item: str
    """A variable, a stratum, or ALL."""
    op: str | None
    """The stratum that the number is about; None: all together."""
    estimate: float
    low: float = math.nan
    high: float = math.nan
    n: int | None = None
    control: float = math.nan
    control_name: str = ""
    place: str = ""
    """Where it was measured."""


def answers_of(run: Run, *, name: str | None = None) -> list[Answer]:
    """Every answer that a run's files hold; a question that was not asked of it has none. `name`: in place of its
    own."""
    found: list[Answer] = []
    for kind, answer in _ANSWERS:
        try:
            frame = kind.read(run) if isinstance(kind, FurtherFrame) else run.frame(kind)
        except RunError:
            continue
        found += answer(name or run.name, frame)
    return found


def compared(runs: Sequence[Run]) -> pd.DataFrame:
    """The answers of several runs, one a row; runs of the same folder name are told apart by their paths."""
    alike = len({run.name for run in runs}) < len(runs)
    rows = [asdict(each) for run in runs for each in answers_of(run, name=str(run.path) if alike else None)]
    return pd.DataFrame(rows, columns=[each.name for each in fields(Answer)])


def side_by_side(frame: pd.DataFrame, first: str, second: str) -> pd.DataFrame:
    """What was asked of two runs both: question, item, op, the two estimates, each with its control, and second −
    first.

    Args:
        frame: of `compared`.
        first, second: names of runs in it.
    """
    keys = ["question", "item", "op"]
    kept = ["estimate", "low", "high", "n", "control", "control_name", "place"]
    halves = [
        frame.loc[frame["run"] == name, [*keys, *kept]].rename(columns={each: f"{each}_{side}" for each in kept})
        for name, side in ((first, 1), (second, 2))
    ]
    joined = halves[0].merge(halves[1], on=keys, how="inner")
    return joined.assign(difference=joined["estimate_2"] - joined["estimate_1"])


def _accuracy(run: str, frame: pd.DataFrame) -> list[Answer]:
    """The last evaluation of all: what `eval` or the end of training measured."""
    rows = select(frame, metric=Metric.EXACT_MATCH, method=Method.GREEDY, control=None)
    whole = records(select(rows, aggregation=Aggregation.MACRO))
    if not whole:
        return []
    # Of a step there is the curve's evaluation and, behind it, the final one: the last macro row opens the last block.
    last = rows.index[(rows["aggregation"] == Aggregation.MACRO).to_numpy()][-1]
    final = records(rows.loc[last:])
    found = [Answer(run, "exact match", ALL, None, final[0]["estimate"], **_interval(final[0]))]
    by_op: dict[str, list[dict[str, Any]]] = {}
    for row in final[1:]:
        if row["op"] is not None and row["position"] is None:
            by_op.setdefault(row["op"], []).append(row)
    for op, of in by_op.items():
        mean = sum(row["estimate"] for row in of) / len(of)
        # Of several outcomes it is a mean of shares, for which no interval was measured.
        told: dict[str, Any] = _interval(of[0]) if len(of) == 1 else {}
        told["n"] = sum(row["n"] or 0 for row in of)
        found.append(Answer(run, "exact match", op, op, mean, **told))
    return found


def _readable(run: str, frame: pd.DataFrame) -> list[Answer]:
    rows = select(frame, metric=Metric.ACCURACY, method=Method.LOGISTIC, stratum=None)
    rows = rows.loc[rows["site"].notna()]
    inside = rows.loc[~rows["site"].isin(list(_ENDS)).to_numpy(dtype=bool)]
    found = []
    for variable in dict.fromkeys(inside["variable"].dropna()):
        of = records(select(inside, variable=variable))
        controls: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in of:
            if row["control"] is not None:
                controls.setdefault((row["site"], row["position"]), []).append(row)
        best: tuple[float, dict[str, Any], dict[str, Any] | None] | None = None
        for row in of:
            if row["control"] is not None:
                continue
            here = controls.get((row["site"], row["position"]), [])
            strongest = max(here, key=lambda each: each["estimate"], default=None)
            gap = row["estimate"] - (strongest["estimate"] if strongest else 0.0)
            if best is None or gap > best[0]:
                best = gap, row, strongest
        if best is not None:
            found.append(_answer(run, "read", variable, None, best[1], best[2]))
    return found


def input_and_end(sites: Any) -> set[str]:
    """The hooks at which swaps are about the input, and the last: after the last layer the output itself is
    exchanged."""
    return {*_ENDS, *site_order(sites.dropna())[-1:]}


def _used(run: str, frame: pd.DataFrame) -> list[Answer]:
    rows = select(frame, metric=Metric.IIA, method=Method.FULL_VECTOR, stratum="changes")
    keep = ~rows["site"].isin(list(input_and_end(rows["site"]))) & (rows["position"] != "all")
    rows = rows.loc[keep.fillna(False).to_numpy(dtype=bool)]
    found = []
    for variable in dict.fromkeys(rows["variable"].dropna()):
        of = select(rows, variable=variable)
        for op in [None, *dict.fromkeys(of["op"].dropna())]:
            here = records(select(of, op=op) if op else select(of, op=None, pair_design="independent"))
            own = [row for row in here if row["control"] is None]
            if not own:
                continue
            best = max(own, key=lambda row: row["estimate"])
            same = [row for row in here if (row["site"], row["position"]) == (best["site"], best["position"])]
            alone = next((row for row in same if row["control"] == Control.UNPATCHED), None)
            found.append(_answer(run, "used", variable, op, best, alone))
    return found


def _longer(run: str, frame: pd.DataFrame) -> list[Answer]:
    rows = select(frame, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO)
    return [Answer(run, "longer", row["stratum"], None, row["estimate"], **_interval(row)) for row in records(rows)]


def _carried(run: str, frame: pd.DataFrame) -> list[Answer]:
    return [
        Answer(
            run,
            "carried",
            name,
            None,
            score.both,
            n=score.n,
            control=score.null,
            control_name="strongest null",
            place=f"{score.part}, {score.size:,} numbers",
        )
        for name, score in best(scores(frame)).items()
    ]


def _circuits(run: str, frame: pd.DataFrame) -> list[Answer]:
    rows = select(frame, metric=Metric.FAITHFULNESS, stratum="absolute", granularity="edge")
    found = []
    for op in dict.fromkeys(rows["op"].dropna()):
        of = records(select(rows, op=op))
        whole = max((row["circuit_size"] or 0 for row in of), default=0)
        kept = [row for row in of if row["control"] is None and row["estimate"] >= FAITHFUL and row["circuit_size"]]
        if not kept or not whole:
            continue
        least = min(kept, key=lambda row: row["circuit_size"])
        random = next(
            (r for r in of if r["control"] == Control.RANDOM_CIRCUIT and r["circuit_size"] == least["circuit_size"]),
            None,
        )
        place = f"{least['circuit_size']:,} of {whole:,} edges"
        told = {} if random is None else {"control": random["estimate"], "control_name": str(random["control"])}
        share = least["circuit_size"] / whole
        found.append(Answer(run, "circuit", op, op, share, n=least["n"], place=place, **told))
    return found


_ANSWERS: tuple[tuple[str | FurtherFrame, Callable[[str, pd.DataFrame], list[Answer]]], ...] = (
    ("metrics", _accuracy),
    ("probes", _readable),
    ("interventions", _used),
    (BEYOND, _longer),
    (STATES, _carried),
    ("circuits", _circuits),
)


def _answer(
    run: str, question: str, item: str, op: str | None, row: dict[str, Any], control: dict[str, Any] | None
) -> Answer:
    told = {} if control is None else {"control": control["estimate"], "control_name": str(control["control"])}
    place = f"{row['position']} {row['site']}" if row["position"] is not None else str(row["site"])
    return Answer(run, question, item, op, row["estimate"], **_interval(row), place=place, **told)


def _interval(row: dict[str, Any]) -> dict[str, Any]:
    """The fields `low`, `high` and `n` of an answer; ends that a row lacks are left out."""
    low, high = row["ci_low"], row["ci_high"]
    ends = {} if low is None or high is None else {"low": float(low), "high": float(high)}
    return {**ends, "n": None if row["n"] is None else int(row["n"])}
