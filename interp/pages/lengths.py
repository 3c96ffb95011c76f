"""docs/length_generalisation.md: what each positional scheme keeps on longer machines, every number from the rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from interp.files import write_text
from interp.pages.lengths_drawing import lengths_drawing
from interp.pages.openings import lengths_opening
from interp.results import Metric, records, select
from interp.studies.lengths import ENCODINGS, TASK, LengthsConfig
from interp.tasks import TASKS
from interp.worlds import World

PICTURE = "length_generalisation.svg"


def write_lengths_page(folder: Path, rows: pd.DataFrame, config: LengthsConfig) -> Path:
    """Write length_generalisation.md and its picture into a folder; returns the page's path."""
    path = folder / "length_generalisation.md"
    exact = {(row["run"], row["stratum"]): row["estimate"] for row in records(select(rows, metric=Metric.EXACT_MATCH))}
    write_text(folder / PICTURE, lengths_drawing(exact, [*config.encodings, "copy"], list(config.tests())))
    write_text(path, lengths_page(rows, config))
    return path


def lengths_page(rows: pd.DataFrame, config: LengthsConfig) -> str:
    """The page as Markdown."""
    n = int(select(rows, metric=Metric.EXACT_MATCH)["n"].to_numpy().max())
    tests = "\n".join(f"- **{name}**: {_sizes(world)}" for name, world in config.tests().items())
    schemes = "\n".join(f"- `{name}`: {ENCODINGS[name]}" for name in config.encodings)
    return (
        f"# Trained on small machines, tested on longer ones\n\n{_opening(rows, config)}"
        "Written by `tapelens lengths`; every number below comes from its rows. One transformer a positional scheme "
        f"({config.n_layers} layers, d_model {config.d_model}) learns `{TASK}` on "
        f"{_sizes(config.world)}, from {config.steps * config.batch_size:,} records, seed {config.seed}. Its weights "
        "are then used, untouched, on machines that are longer in one way or in all:\n\n"
        f"{tests}\n\nThe schemes:\n\n{schemes}\n\n"
        f"Each entry is over {n:,} held-out states, spread evenly over op × outcome. 95 % intervals "
        f"over states reach at most {_widest(rows):.1f} points to either side. One seed a scheme: how another training "
        "would come out they do not say.\n\n"
        "## Exact match, %, macro average over op × outcome\n\n"
        "Copying the input is right wherever the machine freezes or halts, about half of these strata.\n\n"
        f"{_table(rows, config, Metric.EXACT_MATCH)}\n\n"
        "## Right tokens among those that the step changes, %, macro average\n\n"
        "Copying the input scores 0 here.\n\n"
        f"{_table(rows, config, Metric.CHANGED_TOKEN_ACCURACY)}\n\n"
        f"{_summary(rows, config)}\n"
    )


def _opening(rows: pd.DataFrame, config: LengthsConfig) -> str:
    """What was found, once a scheme is trained."""
    first, *_, hardest = config.tests()
    exact, trained = (
        {row["run"]: row["estimate"] for row in records(select(rows, metric=Metric.EXACT_MATCH, stratum=test))}
        for test in (hardest, first)
    )
    copied = exact.pop("copy", None)
    trained.pop("copy", None)
    return (
        ""
        if not exact or not trained or copied is None
        else lengths_opening(hardest, exact, trained, copied)
        + f"\n\n![Exact match by scheme and machine]({PICTURE})\n\n"
    )


def _sizes(world: World) -> str:
    return f"{world.in_words()} ({TASKS[TASK](world).n_ctx} tokens)"


def _table(rows: pd.DataFrame, config: LengthsConfig, metric: Metric) -> str:
    found = {(row["run"], row["stratum"]): row for row in records(select(rows, metric=metric))}
    tests = [name for name in config.tests() if any((run, name) in found for run in (*config.encodings, "copy"))]
    lines = ["| | " + " | ".join(tests) + " |", "| --- |" + " ---: |" * len(tests)]
    for name in (*config.encodings, "copy"):
        if not any((name, test) in found for test in tests):
            continue
        cells = []
        for test in tests:
            row = found.get((name, test))
            cells.append("–" if row is None else f"{100 * row['estimate']:.1f}")
        label = "copying the input" if name == "copy" else f"`{name}`"
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _widest(rows: pd.DataFrame) -> float:
    """The longest arm of an interval, in points."""
    sides = (rows["estimate"] - rows["ci_low"], rows["ci_high"] - rows["estimate"])
    return max(100 * float(side.to_numpy().max()) for side in sides)


def _summary(rows: pd.DataFrame, config: LengthsConfig) -> str:
    """Which scheme keeps most on the machine that is longer in every way, of whole states and of what changes."""
    hardest = list(config.tests())[-1]
    exact = select(rows, metric=Metric.EXACT_MATCH, stratum=hardest)
    schemes = exact.loc[exact["run"] != "copy"]
    if schemes.empty:
        return "No scheme is trained yet."
    copied = records(select(exact, run="copy"))[0]["estimate"]
    best = _best(schemes)
    kept = (
        f"no scheme gets more whole states right than copying the input does, {copied:.1%}; the best is `{best['run']}`"
        if best["estimate"] <= copied
        else f"`{best['run']}` keeps most: {best['estimate']:.1%} exact match, where copying the input has {copied:.1%}"
    )
    changed = select(rows, metric=Metric.CHANGED_TOKEN_ACCURACY, stratum=hardest)
    most = _best(changed.loc[changed["run"] != "copy"])
    return (
        f"On the machine that is longer in every way ({hardest}), {kept}. Of the tokens that the step changes, "
        f"`{most['run']}` gets most right there, {most['estimate']:.1%}."
    )


def _best(rows: pd.DataFrame) -> dict[str, Any]:
    return max(records(rows), key=lambda row: row["estimate"])
