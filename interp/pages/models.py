"""docs/models.md: what runs can do, side by side, every number from their cards."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.figures.svg import FAINT, PALETTE, QUIET, curve, dot, drawing, line, text
from interp.files import write_text
from interp.pages.card_page import duration, interval, overlap_rows, percent, rows_of, table
from interp.pages.cards import read_card
from interp.pages.openings import models_opening
from interp.results import Aggregation, Metric


def write_models_page(runs: Sequence[Path], out: Path) -> Path:
    """Write `models.md` into `out`, and `models_output.svg` where a run's task is `output`; returns the page's path.

    Args:
        runs: run folders, each with its card.
        out: the folder.

    Raises:
        ValueError: no run.
        RunError: a run without a card, or with one of another version.
    """
    if not runs:
        raise ValueError("the page needs at least one run, got none")
    cards = {path: read_card(path) for path in runs}
    page = [
        "# The bundled models\n",
        models_opening([(path.name, card) for path, card in cards.items()]) + "\n",
        "Written by `tapelens model-page` from their cards, each made by `tapelens card`. Greedy answers on programs "
        "that no training sees: right, macro average over op × outcome (of `output`, over numbers of steps) with its "
        "95 % interval; of streams and chains, whole ones without an error; where one state is asked for, wrong "
        "answers in all. Records and time of a run that begins with another's weights are its own alone.\n",
        table(
            ["run", "task", "parameters", "records", "time to train", "right", "whole", "wrong", "measured on"],
            [_line(card, path, out) for path, card in cards.items()],
        ),
    ]
    limits = {path: card for path, card in cards.items() if card["config"]["task"] == "output"}
    if limits:
        page.insert(2, "![Whole outputs right by steps run](models_output.svg)\n")
    if any("overlap" in card for card in cards.values()):
        page.append(_old(cards))
    if limits:
        write_text(Path(out) / "models_output.svg", reach_drawing(list(limits.values())))
        page.append(
            "\n## How far a model sees\n\n"
            "The task `output` asks for all that a program prints, in one pass. Whole outputs right, by the number of "
            "steps that the program runs, up to 32 (grey: 95 % intervals):\n\n"
            "![Whole outputs right by steps run](models_output.svg)"
        )
    path = Path(out) / "models.md"
    write_text(path, "\n".join(page) + "\n")
    return path


def _line(card: dict[str, Any], path: Path, out: Path) -> list[str]:
    macro = rows_of(card, Metric.EXACT_MATCH, Aggregation.MACRO)[0]
    whole = rows_of(card, Metric.SEQUENCE_MATCH, Aggregation.MEAN)
    training, n = card["training"], card["evaluation"]["n"]
    wrong, start = card["n_wrong"], card["config"].get("start")
    before = f" after {Path(start['path']).name}" if start else ""
    return [
        f"[{path.name}]({Path(os.path.relpath(path / 'card.md', out)).as_posix()})",
        f"`{card['config']['task']}`",
        f"{card['parameters']:,}",
        "not recorded" if training["records"] is None else f"{training['records']:,.0f}{before}",
        "not recorded" if training["seconds"] is None else duration(training["seconds"]),
        f"{percent(macro)} {interval(macro)}",
        percent(whole[0]) if whole else "–",
        "–" if wrong is None else f"{wrong:,}",
        f"{n:,}",
    ]


def _old(cards: Mapping[Path, dict[str, Any]]) -> str:
    """How much of what runs are measured on they had seen, and their scores without it."""
    lines = []
    for path, card in cards.items():
        if "overlap" not in card:
            continue
        share, scores = overlap_rows(card)
        unseen = {row["metric"]: row for row in scores["unseen units"]}
        exact, whole = unseen[Metric.EXACT_MATCH], unseen.get(Metric.SEQUENCE_MATCH)
        lines.append(
            [
                path.name,
                f"{card['overlap']['trained']:,}",
                f"{round(share['estimate'] * share['n']):,} of {share['n']:,}",
                f"{percent(share)} {interval(share)}",
                f"{percent(exact)} {interval(exact)}",
                percent(whole) if whole else "–",
            ]
        )
    return (
        "\n## Old examples among the held-out ones\n\n"
        "Programs are held out whole, but two that differ where no run comes look the same to a model that is shown "
        "a run, or what it prints. Below: how many held-out examples a run had been shown in training (its own and "
        "that of the runs it began from), and what it gets right of the others. New runs of these tasks hold out what "
        "the model is shown.\n\n"
        + table(["run", "trained on", "seen", "share", "right without them", "whole without them"], lines)
    )


def reach_drawing(cards: Sequence[dict[str, Any]]) -> str:
    """Whole outputs right against the number of steps run, a line a card, with 95 % intervals; SVG text."""
    width, height, left, top = 720.0, 280.0, 60.0, 44.0
    wide, high = width - 240, height - 100
    curves = {card["name"]: _reach(card) for card in cards}
    last = max(step for points in curves.values() for step, *_ in points)

    def place(step: int, share: float) -> tuple[float, float]:
        return left + wide * step / last, top + high * (1 - share)

    parts = [text(16, 22, "Whole outputs right, by the number of steps that the program runs", size=14)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        _, y = place(0, share)
        parts += [line(left, y, left + wide, y), text(left - 6, y + 4, f"{share:.0%}", fill=QUIET, anchor="end")]
    for step in range(0, last + 1, max(1, last // 8)):
        x, y = place(step, 0)
        parts.append(text(x, y + 18, str(step), fill=QUIET, anchor="middle"))
    parts.append(text(left + wide, top + high + 36, "steps run", anchor="end"))
    for row, (name, points) in enumerate(curves.items()):
        color, key = PALETTE[row % len(PALETTE)], top + 8 + 18 * row
        drawn = [place(step, share) for step, share, _, _ in points]
        ends = [(place(step, low), place(step, high)) for step, _, low, high in points]
        parts += [line(*bottom, *end, stroke=FAINT, width=3) for bottom, end in ends]
        parts += [curve(drawn, stroke=color, width=2), *(dot(x, y, fill=color) for x, y in drawn)]
        parts += [line(width - 166, key - 4, width - 146, key - 4, stroke=color, width=2)]
        parts.append(text(width - 140, key, name))
    return drawing(parts, width=width, height=height, title="Whole outputs right by steps run")


def _reach(card: dict[str, Any]) -> list[tuple[int, float, float, float]]:
    """Steps run, share right and its interval, in order of steps; runs that are cut off have no number of steps."""
    rows = [row for row in rows_of(card, Metric.EXACT_MATCH, Aggregation.MEAN) if row["stratum"][0].isdigit()]
    return sorted(
        (int(row["stratum"].split()[0]), *(row[name] for name in ("estimate", "ci_low", "ci_high"))) for row in rows
    )
