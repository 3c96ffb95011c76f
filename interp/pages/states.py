"""docs/states.md: what models carry from token to token, how it is addressed, how long it lasts; from rows alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from interp.figures.style import present
from interp.files import write_text
from interp.interventions import LAGS
from interp.pages.states_drawing import addressing_drawing
from interp.results import READOUT, Control, Metric, select
from interp.runs import Run, RunError
from interp.runs.further_frames import STATES
from interp.studies.across import addressing, kept
from interp.studies.carried import CLEAR, Score, best, scores

_ASKED = (
    "A model without attention must carry all that it will need in a vector of fixed size. Parts of that vector are "
    "exchanged between two streams, and the machine says what should come out."
)


def write_states_page(runs: Sequence[Run], out: Path) -> Path:
    """Write `states.md` into `out`, with its figures beside it, and return its path.

    Raises:
        ValueError: no run.
        RunError: a run whose states were not exchanged.
    """
    if not runs:
        raise ValueError("the page needs at least one run, got none")
    frames = {run.name: STATES.read(run) for run in runs}
    scored = {name: scores(frame) for name, frame in frames.items()}
    single = {run.name: _findings(run, frames[run.name], scored[run.name]) for run in runs}
    write_text(out / "states_addressing.svg", addressing_drawing(scored))
    parts = [
        "# What a model carries",
        " ".join([_ASKED, *(_together(runs, frames, scored) if len(runs) > 1 else single[runs[0].name])]),
        "![For each variable the best part of what is carried: what moved, what stayed, and the null]"
        "(states_addressing.svg)",
        "Written by `tapelens states-page` from the rows of `tapelens patch RUN --part …`; one row is measured again, "
        "with another seed, by the same command with `--seed`.",
        _how_to_read(),
    ]
    for run in runs:
        told = " ".join(single[run.name]) if len(runs) > 1 else ""
        parts.append(_section(run, frames[run.name], scored[run.name], told))
    path = out / "states.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


_VERDICTS = {
    "relative": "the relative one fits better",
    "absolute": "the absolute one fits better",
    "both": "both fit about as well",
    "neither": "neither addressing was found",
}


def _together(
    runs: Sequence[Run], frames: Mapping[str, pd.DataFrame], scored: Mapping[str, Sequence[Score]]
) -> list[str]:
    """What a person would say of several runs."""
    sizes = [int(np.median(frame["carrier_size"].to_numpy(dtype=float))) for frame in frames.values()]
    said = [f"{len(runs)} models carry from {min(sizes):,} to {max(sizes):,} numbers past a token."]
    shares = [[_whole(frame, part) for frame in frames.values()] for part in ("all", READOUT)]
    stored, retrieved = ([each for each in some if each is not None] for some in shares)
    if stored and retrieved:
        said.append(
            "Where an instruction is asked, exchanging everything carried before it gives the other stream's value in "
            f"{min(stored):.2f} to {max(stored):.2f} of pairs (storage), exchanging only what the layers read there in "
            f"{min(retrieved):.2f} to {max(retrieved):.2f} (retrieval)."
        )
    judged = [each for each in map(kept, runs) if each.absolute and each.relative]
    for verdict, words in (
        ("relative", "keep cells by their distance from the pointer"),
        ("absolute", "keep cells by their place"),
        ("both", "keep them in a way that fits both as well"),
        ("neither", "show neither"),
    ):
        names = [f"`{each.run}`" for each in judged if addressing(each) == verdict]
        if names:
            said.append(f"Of {len(judged)} models that were asked both ways {len(names)} {words}: {', '.join(names)}.")
    clear: dict[str, int] = {}
    for found in scored.values():
        for name, score in best(found).items():
            clear[name] = clear.get(name, 0) + (score.both > score.null + CLEAR)
    counts = ", ".join(f"`{name}` in {count}" for name, count in clear.items())
    said.append(
        f"A part that moves a variable clearly more often than chance, and leaves the rest, was found for {counts}."
    )
    return said


def _findings(run: Run, frame: pd.DataFrame, found: Sequence[Score]) -> list[str]:
    """What a person would say of one run."""
    name = run.name
    size = int(np.median(frame["carrier_size"].to_numpy(dtype=float)))
    said = [
        f"The model `{name}` carries {size:,} numbers past a token."
        if _one(frame)
        else f"The model `{name}` carries some {size:,} numbers."
    ]
    stored, retrieved = (_whole(frame, part) for part in ("all", READOUT))
    if stored is not None and retrieved is not None:
        said.append(
            f"Where an instruction is asked, exchanging everything carried before it gives the other "
            f"stream's value in {stored:.2f} of pairs (storage), exchanging only what its layers read there in "
            f"{retrieved:.2f} (retrieval)."
        )
    how = kept(run)
    if how.absolute and how.relative:
        pairs = (("absolute", how.absolute), ("relative", how.relative))
        both = ", ".join(f"{word} {score:.2f} (null {null:.2f})" for word, (score, null) in pairs)
        said.append(
            f"Are cells kept by their place or by their distance from the pointer? Here {both}: "
            f"{_VERDICTS[addressing(how)]}."
        )
    chosen = best(found)
    clear = [s for s in chosen.values() if s.both > s.null + CLEAR]
    names = ", ".join(f"`{s.variable}`" for s in clear) or "none"
    said.append(
        f"Of {len(chosen)} variables {len(clear)} have a part that moves them clearly more often than chance "
        f"({names}); of the others no part is known."
    )
    return said


def _one(frame: pd.DataFrame) -> bool:
    return len(set(frame["carrier_size"])) == 1


def _whole(frame: pd.DataFrame, part: str) -> float | None:
    """IIA of `operand` at one part, pooled."""
    rows = frame.loc[frame["lag"].isna() & frame["op"].isna()]
    rows = select(rows, variable="operand", part=part, metric=Metric.IIA, stratum="changes", control=None)["estimate"]
    return float(rows.iloc[0]) if len(rows) else None


def _how_to_read() -> str:
    return (
        "**How to read this.** Two streams are read up to the same position, a part of what the model carries there is "
        "exchanged, and the first answer that hangs on the variable is judged by the machine with the variable set. "
        "*Moved*: the share of pairs in which that answer is right, counted for cells where the two pointers differ, "
        "because elsewhere the two addressings name the same cell. *Stayed*: the share of answers about another cell "
        "that did not move. A part is only as good as the lesser of the two: exchanging everything is right about any "
        "cell at a distance from the pointer, and wrong about the rest. *Null*: the higher of a random part of equal "
        "size and the same fit on an untrained model; for the pointer also the same part at another time, since most "
        "cells of most streams hold 0. Cells are taken from streams that have visited them. On the two "
        "hand-set interpreters of the calibration every method here tells absolute from relative."
    )


def _section(run: Run, frame: pd.DataFrame, found: Sequence[Score], told: str) -> str:
    lines = [
        f"| `{s.variable}` | {s.part.replace('_', ' ')} | {s.size:,} | {s.moved:.2f} | "
        f"{'–' if s.stayed is None else f'{s.stayed:.2f}'} | {s.null:.2f} | {s.n:,} |"
        for s in best(found).values()
    ]
    parts = [
        f"## `{run.name}`: {run.config.model.architecture}, seed {run.config.seed}",
        told,
        "The best part of each variable (the best of many is flattered by its choice).\n\n"
        "| variable | part | numbers | moved | stayed | null | pairs |\n"
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |\n" + "\n".join(lines),
        _controls(frame),
        _delay(frame, found),
        _readable(run),
    ]
    return "\n\n".join(part for part in parts if part)


def _controls(frame: pd.DataFrame) -> str:
    """All parts of every variable, pooled, with all controls."""
    rows = frame.loc[frame["lag"].isna() & frame["op"].isna()]
    rows = select(rows, metric=Metric.IIA, stratum="changes")
    names = (None, *(Control(each) for each in present(rows, "control")))
    head = ("variable", "part", "numbers", *("IIA" if each is None else str(each).replace("_", " ") for each in names))
    lines = []
    for variable, part in dict.fromkeys(zip(rows["variable"], rows["part"], strict=True)):
        some, cells = select(rows, variable=variable, part=part), []
        for each in names:
            value = select(some, control=each)["estimate"]
            cells.append(f"{value.iloc[0]:.2f}" if len(value) else "")
        lines.append(f"| `{variable}` | {part} | {int(some['part_size'].iloc[0]):,} | " + " | ".join(cells) + " |")
    rule = "| --- | --- |" + " ---: |" * (len(names) + 1)
    body = "\n".join(["| " + " | ".join(head) + " |", rule, *lines])
    title = "Every part and every control, all pairs whose answer should change"
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _delay(frame: pd.DataFrame, found: Sequence[Score]) -> str:
    """IIA of the best part of each variable by the steps from the exchange to the answer."""
    rows = frame.loc[frame["lag"].notna() & frame["control"].isna() & (frame["metric"] == Metric.IIA)]
    spans = [str(low) if low == high else f"{low}–{high}" if high < 100 else f"{low} or more" for low, high in LAGS]
    lines = []
    for name, score in best(found).items():
        here = select(rows, variable=name, part=score.part).set_index("lag")
        cells = [
            f"{here.loc[low, 'estimate']:.2f} ({here.loc[low, 'n']})" if low in here.index else "" for low, _ in LAGS
        ]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return (
        "How long it lasts: IIA of that part by the executed instructions from the exchange to the answer (pairs).\n\n"
        f"| variable | {' | '.join(spans)} |\n| --- |{' ---: |' * len(LAGS)}\n" + "\n".join(lines)
    )


def _readable(run: Run) -> str:
    """What probes read from the carrier itself, where `tapelens probe` was asked for its hooks."""
    try:
        frame = run.frame("probes")
    except RunError:
        return ""
    hooks = list(run.model.carrier_hooks())
    rows = frame.loc[frame["site"].isin(hooks) & frame["stratum"].isna()]
    kinds = {Metric.ACCURACY: "accuracy", Metric.JOINT_EXACTNESS: "all at once"}
    lines = []
    for row in rows.loc[rows["control"].isna() & rows["metric"].isin(list(kinds))].itertuples():
        here = select(rows, variable=row.variable, site=row.site, metric=row.metric, method=row.method)
        nulls = here.loc[here["control"].notna(), "estimate"]
        strongest = f"{nulls.max():.2f}" if len(nulls) else ""
        lines.append(
            f"| `{row.variable}` | {kinds[row.metric]} | `{row.site}` | {row.estimate:.2f} | {strongest} | {row.n:,} |"
        )
    if not lines:
        return ""
    head = (
        "| variable | what | read at | share | strongest control | tokens |\n| --- | --- | --- | ---: | ---: | ---: |\n"
    )
    return "What a linear probe reads from what is carried.\n\n" + head + "\n".join(lines)
