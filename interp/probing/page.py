"""docs/probing.md: what can be read from runs, what of it is used, and when it forms; made from rows alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp.figures.style import present, site_order, site_words
from interp.figures.svg import FAINT, INK, QUIET, curve, drawing, line, text
from interp.files import write_text
from interp.probing.summary import ABOVE, localisation, read_and_written
from interp.results import Control, Method, Metric, select
from interp.runs import Run, RunError

_PANELS: tuple[tuple[Control | None, str], ...] = (
    (None, "probe"),
    (Control.CONTROL_TASK, "control task"),
    (Control.ALTERED_SEMANTICS, "altered semantics"),
    (Control.UNTRAINED_MODEL, "untrained"),
    (Control.EMBEDDING_ONLY, "embedding"),
    (Control.SHUFFLED_LABELS, "shuffled"),
    (Control.MAJORITY_CLASS, "majority"),
)
_CELL, _TOP, _LEFT = 26, 52, 130
_LOW, _HIGH = (0xF7, 0xF7, 0xF7), (0x00, 0x5A, 0x9C)
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")


def write_probing_page(runs: Sequence[Run], out: Path) -> Path:
    """Write `probing.md` into `out`, with its figures beside it, and return its path.

    Raises:
        ValueError: no run.
        RunError: a run that was not probed.
    """
    if not runs:
        raise ValueError("the page needs at least one run, got none")
    parts = [
        "# What can be read, and what is used\n\nWritten by `tapelens probing-page` from the rows of `tapelens probe`. "
        "Probes are fitted on programs of the training split and scored on programs of the evaluation split. A score "
        f"counts where it stands {ABOVE:g} above its strongest control. Best places are maxima over the probes counted "
        "beside them, on the same held-out data."
    ]
    parts += [_section(run, out) for run in runs]
    path = out / "probing.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def _section(run: Run, out: Path) -> str:
    frame = run.frame("probes")
    parts = [f"## {run.name}: the task `{run.config.task}`, seed {run.config.seed}"]
    accuracy = select(frame, metric=Metric.ACCURACY, method=Method.LOGISTIC)
    for position in present(select(accuracy, control=None), "position"):
        file = out / f"probing_{run.name}_{len(parts)}.svg"
        write_text(file, heatmap_drawing(frame, position=position))
        parts.append(f"![Probe accuracy at {position} by variable and layer, with controls]({file.name})")
    parts.append(_table(frame))
    if select(frame, metric=Metric.EDIT_SUCCESS).size:
        both, read, written, neither = localisation(frame).counts()
        parts.append(
            f"Of {both + read + written + neither} places (variable × layer) where an edit was tried, {both} are "
            f"decodable and used, {read} decodable alone, {written} used alone, {neither} neither"
            + (f": a decodable place is used in {both / (both + read):.0%} of cases." if both + read else ".")
        )
    if (tape := _tape(frame)) is not None:
        parts.append(tape)
    along = _along(run)
    if along is not None:
        file = out / f"probing_{run.name}_along.svg"
        write_text(file, along_drawing(along))
        parts.append(f"![Best accuracy of each variable, and exact match, over training]({file.name})")
    return "\n\n".join(parts)


def _table(frame: pd.DataFrame) -> str:
    lines = [
        "| variable | read best | accuracy | strongest control | decodable | edited best | success | control | used |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows: Any = read_and_written(frame).itertuples()
    for row in rows:
        cells = [
            f"`{row.variable}`",
            f"{site_words(str(row.read_site))}, {row.read_position} (of {row.n_probes})",
            f"{row.accuracy:.3f}",
            f"{row.accuracy_control:.3f}",
            "yes" if row.decodable else "no",
        ]
        if pd.isna(row.success):
            cells += ["", "", "", ""]
        else:
            cells += [f"{site_words(str(row.edit_site))}, {row.edit_scope}", f"{row.success:.3f}"]
            cells += [f"{row.success_control:.3f}", "yes" if row.used else "no"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


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


def heatmap_drawing(frame: pd.DataFrame, *, position: str, method: str = Method.LOGISTIC) -> str:
    """Accuracy of every variable (rows) at every layer (columns), a panel a control; 0 light … 1 dark blue, always.

    Raises:
        ValueError: no probe was scored at this position.
    """
    rows: Any = select(frame, metric=Metric.ACCURACY, method=method, position=position)
    rows = rows[rows["stratum"].isna()]
    if select(rows, control=None).empty:
        raise ValueError(f"no {method} probe was scored at {position!r}")
    variables, sites = present(select(rows, control=None), "variable"), site_order(rows["site"])
    parts = [text(_LEFT - 8, _TOP + _CELL * i + 17, name, size=11, anchor="end") for i, name in enumerate(variables)]
    left = _LEFT
    for control, title in _PANELS:
        panel = select(rows, control=control)
        if panel.empty:
            continue
        constant = control in (Control.EMBEDDING_ONLY, Control.MAJORITY_CLASS)
        columns = sites[-1:] if constant else sites
        found = {(str(r.variable), str(r.site)): float(r.estimate) for r in panel.itertuples()}  # type: ignore[arg-type]
        parts.append(text(left, 18, title, size=11))
        for c, site in enumerate(columns):
            x = left + _CELL * c
            words = "" if constant else site_words(site).replace("input", "in")
            parts.append(text(x + _CELL / 2, _TOP - 8, words, size=9, fill=QUIET, anchor="middle"))
            parts += [
                _cell(x, _TOP + _CELL * i, found[name, site])
                for i, name in enumerate(variables)
                if (name, site) in found
            ]
        left += max(_CELL * len(columns), 7 * len(title)) + 16
    return drawing(parts, width=left, height=_TOP + _CELL * len(variables) + 10, title=f"Probe accuracy at {position}")


def along_drawing(frame: pd.DataFrame, *, method: str = Method.LOGISTIC) -> str:
    """Best accuracy over layers of each variable at each checkpoint, and exact match (black), over training steps."""
    rows = select(frame, metric=Metric.ACCURACY, method=method, control=None)
    rows = rows[rows["stratum"].isna()]
    steps = sorted(set(frame["checkpoint_step"].astype(int)))
    width, height, left, top = 420, 240, 44, 16

    def point(step: int, value: float) -> tuple[float, float]:
        return left + width * steps.index(step) / max(1, len(steps) - 1), top + height * (1 - value)

    parts = [line(left, point(steps[0], v)[1], left + width, point(steps[0], v)[1]) for v in (0, 0.5, 1)]
    parts += [
        text(left - 6, point(steps[0], v)[1] + 4, f"{v:g}", size=10, fill=QUIET, anchor="end") for v in (0, 0.5, 1)
    ]
    every = max(1, len(steps) // 6)
    parts += [
        text(point(s, 0)[0], top + height + 16, f"{s:,}", size=9, fill=QUIET, anchor="middle") for s in steps[::every]
    ]
    curves = {
        name: part.groupby("checkpoint_step")["estimate"].max() for name, part in rows.groupby("variable", sort=False)
    }
    exact = select(frame, metric=Metric.EXACT_MATCH)
    if len(exact):
        curves["exact match"] = exact.groupby("checkpoint_step")["estimate"].max()
    for i, (name, values) in enumerate(curves.items()):
        color = INK if name == "exact match" else _COLORS[i % len(_COLORS)]
        dash = "" if name == "exact match" or i < len(_COLORS) else "4 3"
        parts.append(curve([point(int(s), float(v)) for s, v in values.items()], stroke=color, dash=dash))  # type: ignore[arg-type]
        parts.append(text(left + width + 12, top + 12 + 15 * i, str(name), size=10, fill=color))
    parts.append(line(left, top + height, left + width, top + height, stroke=FAINT))
    height_all = max(top + height + 26, top + 20 + 15 * len(curves))
    return drawing(parts, width=left + width + 130, height=height_all, title="What forms when, by training step")


def _cell(x: float, y: float, value: float) -> str:
    share = min(1.0, max(0.0, value))
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(_LOW, _HIGH, strict=True))
    number = f"{value:.2f}".replace("0.", ".", 1) if value < 0.995 else "1"
    box = f'<rect x="{x:g}" y="{y:g}" width="{_CELL - 2}" height="{_CELL - 2}" fill="rgb({red},{green},{blue})"/>'
    return box + text(
        x + _CELL / 2 - 1, y + 16, number, size=9, fill="#ffffff" if share > 0.5 else INK, anchor="middle"
    )
