"""docs/probing.md: what can be read from runs, what of it is used, and when it forms; made from rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from interp.figures.style import present, site_words
from interp.files import write_text
from interp.pages.openings import probing_opening
from interp.pages.probing_drawings import along_drawing, heatmap_drawing
from interp.results import Control, Method, Metric, records, select, site_order
from interp.runs import Run, RunError
from interp.studies.probe_sweep import n_probes
from interp.studies.read_and_written import (
    ABOVE,
    edited_where_read,
    formation,
    localisation,
    localisation_rows,
    over_seeds,
    read_and_written,
    where_first,
)
from interp.worlds import World

_PUBLISHED = (
    ("linear probe of a hidden board, accuracy", "99.5 % (3 classes)", "Nanda et al. 2023"),
    ("trace of a program, linear probe, accuracy", "63.2 % (2-layer MLP 82.3 %)", "Jin & Rinard 2024"),
    ("edited board state, legal moves after the edit", "90 to 92 % (40.5 % unedited)", "Karvonen 2024"),
)  # fmt: skip


def write_probing_page(runs: Sequence[Run], out: Path) -> Path:
    """Write `probing.md` into `out`, with its figures beside it, and return its path.

    Runs of one task, world and model, which differ in their seed, share a section.

    Raises:
        ValueError: no run.
        RunError: a run that was not probed.
    """
    if not runs:
        raise ValueError("the page needs at least one run, got none")
    counts = [(n_probes(records(run.frame("probes"))), _examples(run.frame("probes"))) for run in runs]
    total, least = sum(count for count, _ in counts), min(n for _, n in counts)
    worlds = _listed([run.config.world.name for run in runs])
    units = _listed([run.config.world.unit for run in runs])
    half = norm.ppf(1 - 0.025 / total) * 0.5 / np.sqrt(least)
    parts = [
        f"# What can be read, and what is used\n\n{_opening(runs, out)}",
        "Written by `tapelens probing-page` from the rows of `tapelens probe`. "
        f"Linear (multinomial logistic) probes are fitted on {units}s of the training split and scored on {units}s of "
        "the evaluation split. *Decodable*: accuracy at least "
        f"{ABOVE:g} above the strongest of majority class, control task, the same probe on the embedding, and on an "
        "untrained model. *Used*: writing another value into what the probe reads makes the model answer as the "
        f"{worlds} does with that value, in a share of pairs at least {ABOVE:g} above the model left alone, a random "
        "direction of the same length, and the wrong layer.\n\n"
        f"**Multiple comparisons.** {total:,} probes (runs: {len(runs)}) stand behind this page, and best places are "
        "maxima over those counted beside them, on the same held-out data. With "
        f"{least:,} held-out examples or more, a Bonferroni-corrected 95 % interval over all of them is at most "
        f"±{half:.3f} wide, so a margin of {ABOVE:g} is not a matter of luck among many; a best value itself may be "
        "flattered by as much.",
        "For scale, from elsewhere and on other tasks:\n\n| what | figure | source |\n| --- | --- | --- |\n"
        + "\n".join(f"| {what} | {figure} | {source} |" for what, figure, source in _PUBLISHED),
    ]
    for _, group in groupby(sorted(runs, key=lambda run: (_kind(run), run.config.seed)), key=_kind):
        parts.append(_section(list(group), out))
    path = out / "probing.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _opening(runs: Sequence[Run], out: Path) -> str:
    """What was found, and the first run's probes as one picture."""
    opening = probing_opening({run.name: run.frame("probes") for run in runs})
    first = min(runs, key=lambda run: (_kind(run), run.config.seed))
    return f"{opening}\n\n![Probes of {first.name}: variables by layers](probing_{first.name}_1.svg)"


def _kind(run: Run) -> tuple[str, str, str]:
    """What runs that differ in their seed alone have in common."""
    return run.config.task, repr(run.config.world), repr(replace(run.config.model, seed=0))


def _listed(words: Sequence[str]) -> str:
    return "/".join(dict.fromkeys(words))


def _examples(frame: pd.DataFrame) -> int:
    """The least number of held-out examples behind an accuracy; variables that are defined in few are passed over."""
    return int(select(frame, metric=Metric.ACCURACY, control=None, stratum=None)["n"].quantile(0.25))  # type: ignore[arg-type]


def _section(runs: list[Run], out: Path) -> str:
    names = ", ".join(f"`{run.name}` (seed {run.config.seed})" for run in runs)
    first = runs[0]
    frames = [run.frame("probes") for run in runs]
    parts = [f"## The task `{first.config.task}`: {names}"]
    accuracy = select(frames[0], metric=Metric.ACCURACY, method=Method.LOGISTIC)
    for number, position in enumerate(shown_positions(accuracy), start=1):
        file = out / f"probing_{first.name}_{number}.svg"
        write_text(file, heatmap_drawing(frames[0], position=position))
        parts.append(f"![Probe accuracy at {position} by variable and layer, with controls]({file.name})")
    for run, frame in zip(runs, frames, strict=True):
        if len(runs) > 1:
            parts.append(f"### Seed {run.config.seed}")
        parts += [_table(frame), _both_ways(frame)]
        parts += [each for each in (_places(frame), _tape(frame)) if each]
        if edited_where_read(frame):
            parts.append(_first(run, frame))
    if len(runs) > 1:
        parts += ["### Over training seeds", _seeds(frames)]
    for run in runs:
        if (along := _along(run)) is not None:
            file = out / f"probing_{run.name}_along.svg"
            write_text(file, along_drawing(along))
            parts.append(f"### Over training, seed {run.config.seed}")
            parts.append(f"![Best accuracy of each variable, and exact match, over training]({file.name})")
            parts.append(_formation(along, run.config.world))
    return "\n\n".join(parts)


def shown_positions(accuracy: pd.DataFrame) -> list[str]:
    """Positions worth a figure, at most four: where probes beat their strongest control most, summed over variables."""
    place = ["position", "variable"]
    best: Any = select(accuracy, control=None, stratum=None).groupby(place)["estimate"].max()
    controls: Any = accuracy[accuracy["control"].notna() & accuracy["stratum"].isna()]
    strongest = controls.groupby(place)["estimate"].max().reindex(best.index).fillna(0.0)
    margin: Any = (best - strongest).clip(lower=0).groupby("position").sum()
    positions = present(select(accuracy, control=None), "position")
    return sorted(positions, key=lambda name: -float(margin.get(name, 0.0)))[:4]


def _table(frame: pd.DataFrame) -> str:
    lines = [
        "| variable | read best | accuracy | strongest control | selectivity | compression | decodable | edited best "
        "| success | control | used |",
        "| " + " | ".join(["---"] * 11) + " |",
    ]
    rows: Any = read_and_written(frame).itertuples()
    for row in rows:
        here = {"variable": row.variable, "site": row.read_site, "position": row.read_position, "control": None}
        beside = [
            select(frame, metric=metric, **here)["estimate"] for metric in (Metric.SELECTIVITY, Metric.COMPRESSION)
        ]
        cells = [
            f"`{row.variable}`",
            f"{site_words(str(row.read_site))}, {row.read_position} (of {row.n_probes})",
            f"{row.accuracy:.3f}",
            f"{row.accuracy_control:.3f}",
            *("–" if values.empty else f"{float(values.iloc[0]):.2f}" for values in beside),
            "yes" if row.decodable else "no",
        ]
        if pd.isna(row.success):
            cells += ["", "", "", ""]
        else:
            cells += [f"{site_words(str(row.edit_site))}, {row.edit_scope}", f"{row.success:.3f}"]
            cells += [f"{row.success_control:.3f}", "yes" if row.used else "no"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _both_ways(frame: pd.DataFrame) -> str:
    """Decodable but not used, and the reverse, in words."""
    lines = read_and_written(frame)
    tried = lines[lines["used"].notna()]
    idle = [f"`{name}`" for name in tried[tried["decodable"] & ~tried["used"].astype(bool)]["variable"]]
    hidden = [f"`{name}`" for name in tried[~tried["decodable"] & tried["used"].astype(bool)]["variable"]]
    unread = [f"`{name}`" for name in lines[~lines["decodable"]]["variable"]]
    return (
        f"Decodable, but no edit along the probe works: {', '.join(idle) or 'none'}. Edits work, though not decodable "
        f"by this margin: {', '.join(hidden) or 'none'}. Not decodable anywhere: {', '.join(unread) or 'none'}."
    )


def _places(frame: pd.DataFrame) -> str | None:
    """Localisation: are probes right where the variable is written and not yet consumed?"""
    if select(frame, metric=Metric.EDIT_SUCCESS).empty:
        return None
    both, read, written, neither = localisation(frame).counts()
    rates = [row for row in localisation_rows(frame) if row["variable"] is None and row["method"] == Method.LOGISTIC]
    known = {row["metric"]: (row["estimate"], row["n"]) for row in rates}
    words = [
        f"{label} {known[metric][0]:.2f} (of {known[metric][1]})"
        for label, metric in (
            ("precision", Metric.PRECISION),
            ("recall", Metric.RECALL),
            ("false-positive rate", Metric.FALSE_POSITIVE_RATE),
        )
        if metric in known
    ]
    return (
        f"Of {both + read + written + neither} places where an edit was tried, {both} are decodable and used, {read} "
        f"decodable alone, {written} used alone, {neither} neither. Held against the window between the first and the "
        f"last layer where edits of the variable work (where it is written and not yet consumed), “decodable” has "
        f"{', '.join(words) or 'nothing to be right about'}."
    )


def _tape(frame: pd.DataFrame) -> str | None:
    joint = select(frame, metric=Metric.JOINT_EXACTNESS, method=Method.LOGISTIC)
    measured = select(joint, control=None)
    if measured.empty:
        return None
    best = measured.loc[measured["estimate"].idxmax()]
    majority = select(joint, control=Control.MAJORITY_CLASS, site=best["site"], position=best["position"])["estimate"]
    tape = select(frame, metric=Metric.ACCURACY, variable="cells", control=None, site=best["site"])
    share: Any = tape[tape["stratum"].isna() & (tape["position"] == best["position"])]["estimate"]
    return (
        f"The tape: every cell is right at once in {best['estimate']:.1%} of tokens at {site_words(best['site'])} "
        f"({best['position']}), single cells in {float(share.iloc[0]):.1%}; always answering the commonest values gets "
        f"{float(majority.iloc[0]):.1%}."
    )


def _first(run: Run, frame: pd.DataFrame) -> str:
    """By layer and position: where each variable is first decodable, and first used."""
    try:
        swaps = run.frame("interventions")
    except RunError:
        swaps = None
    lines = [
        "Where each variable is first decodable, first moved by an edit along its probe, and first carried by an "
        "interchange of whole activations (both after the first layer: before it they edit the input):\n",
        "| variable | first decodable | edits work from | interchange works from |",
        "| --- | --- | --- | --- |",
    ]
    rows: Any = where_first(frame, swaps).itertuples()
    for row in rows:
        places = (
            (row.read_site, row.read_positions),
            (row.edit_site, row.edit_positions),
            (row.swap_site, row.swap_positions),
        )
        cells = ["–" if pd.isna(site) else f"{site_words(str(site))}: {positions}" for site, positions in places]
        lines.append(f"| `{row.variable}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def _seeds(frames: list[pd.DataFrame]) -> str:
    """By layer, over seeds: accuracy, selectivity, joint exactness and edit success, mean and range."""
    rows = over_seeds(frames)
    whole: Any = rows[rows["control"].isna() & (rows["stratum"].isna() | rows["metric"].eq(Metric.EDIT_SUCCESS))]
    whole = whole[whole["variable"].notna() & whole["site"].notna()]
    sites = site_order(whole["site"])
    words = {
        Metric.ACCURACY: "accuracy",
        Metric.SELECTIVITY: "selectivity",
        Metric.JOINT_EXACTNESS: "joint exactness",
        Metric.EDIT_SUCCESS: "edit success",
    }
    n = len(frames)
    lines = [
        f"Mean of {n} seeds, and the least and greatest, by layer"
        + ("" if n >= 5 else " (fewer than five: no interval)")
        + ".\n",
        "| variable | at | measure | " + " | ".join(site_words(site) for site in sites) + " |",
        "| --- | --- | --- | " + " | ".join(["---"] * len(sites)) + " |",
    ]
    for (name, position), part in whole.groupby(["variable", "position"], sort=False):
        for metric, label in words.items():
            found = {row["site"]: row for row in records(select(part, metric=metric))}
            if found:
                cells = [
                    ""
                    if (r := found.get(site)) is None
                    else f"{r['estimate']:.2f} [{r['ci_low']:.2f}, {r['ci_high']:.2f}]"
                    for site in sites
                ]
                lines.append(f"| `{name}` | {position} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _along(run: Run) -> pd.DataFrame | None:
    """Rows of the checkpoints along the run that were probed."""
    frames = []
    for step in run.steps:
        then = run.at_step(step)
        try:
            frames.append(then.frame("probes"))
        except RunError:
            continue
    return pd.concat(frames, ignore_index=True) if len(frames) > 1 else None


def _formation(along: pd.DataFrame, world: World) -> str:
    lines = [
        f"From which kept checkpoint on a variable is decodable ({ABOVE:g} above majority class and embedding, and "
        f"from then on), from which it is read within 0.05 of its best, and from which the {world.stratum_title}s that "
        "need it are right in nine of ten held-out examples:\n",
        "| variable | decodable from step | nearly at its best | needed by | these are right from step |",
        "| --- | --- | --- | --- | --- |",
    ]
    rows: Any = formation(along, world.needed_by).itertuples()
    for row in rows:
        steps = ["never" if pd.isna(step) else f"{int(step):,}" for step in (row.decodable, row.best, row.behaviour)]
        steps[2] = "–" if row.needed_by == "–" else steps[2]
        lines.append(f"| `{row.variable}` | {steps[0]} | {steps[1]} | {row.needed_by} | {steps[2]} |")
    return "\n".join(lines)
