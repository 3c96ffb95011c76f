"""The rows of `tapelens bench throughput` drawn as one picture, forward beside training.

tapelens bench throughput --json > docs/throughput.json
python -m benchmarks.throughput_figure docs/throughput.json docs/throughput.svg
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from interp.figures import svg

PANEL, HEIGHT, LEFT, TOP, GAP = 340, 260, 76, 56, 78  # of the drawing, in its own units
KINDS = {"forward": "Forward", "training": "Forward and backward"}
PEER = "transformer"
_NOTE = (
    "A batch goes from 16 rows to 1: a cost linear in the length is level, unless all rows are advanced at once, as in "
    "rnn, gru and lstm."
)


def series(rows: list[dict[str, Any]], kind: str) -> dict[str, list[tuple[int, float]]]:
    """Architecture → (tokens of a sequence, tokens a second), by rising length; the peer's own first."""
    found: dict[str, dict[int, float]] = {PEER: {}}
    for row in rows:
        of, _, rest = row["name"].partition("_")
        name, _, length = rest.rpartition("_")
        if of == kind:
            found.setdefault(name, {})[int(length)] = row["ours"]
            found[PEER][int(length)] = row["peer"]
    return {name: sorted(points.items()) for name, points in found.items()}


def drawing(rows: list[dict[str, Any]]) -> str:
    """The SVG: both axes logarithmic, so that a cost that is linear in the length is a level line."""
    panels = {kind: series(rows, kind) for kind in KINDS}
    speeds = [speed for lines in panels.values() for points in lines.values() for _, speed in points]
    lengths = sorted({length for points in panels["forward"].values() for length, _ in points})
    low, high = 10 ** math.floor(math.log10(min(speeds))), 10 ** math.ceil(math.log10(max(speeds)))
    width = LEFT + len(KINDS) * PANEL + GAP + 160
    parts = [
        svg.text(LEFT, 22, "Tokens a second by length of the sequence, 4,096 tokens a batch", size=15),
        svg.text(LEFT, TOP + HEIGHT + 62, _NOTE, size=11, fill=svg.QUIET),
    ]
    for number, (kind, words) in enumerate(KINDS.items()):
        parts += _panel(panels[kind], words, LEFT + number * (PANEL + GAP), lengths, (low, high))
    for number, name in enumerate(panels["forward"]):
        y = TOP + 18 + 20 * number
        x = LEFT + len(KINDS) * PANEL + GAP + 14
        parts += [
            svg.curve([(x, y - 4), (x + 22, y - 4)], stroke=svg.PALETTE[number], dash=_dash(name), width=2),
            svg.text(x + 28, y, name.replace("_", " ")),
        ]
    return svg.drawing(
        parts, width=width, height=TOP + HEIGHT + 76,
        title=f"Tokens a second of {len(panels['forward'])} architectures at {lengths[0]} to {lengths[-1]} tokens",
    )  # fmt: skip


def _panel(
    lines: dict[str, list[tuple[int, float]]], words: str, left: float, lengths: list[int], limits: tuple[float, float]
) -> Iterable[str]:
    low, high = (math.log10(limit) for limit in limits)
    first, last = math.log2(lengths[0]), math.log2(lengths[-1])

    def x(length: float) -> float:
        return left + PANEL * (math.log2(length) - first) / (last - first)

    def y(speed: float) -> float:
        return TOP + HEIGHT * (high - math.log10(speed)) / (high - low)

    yield svg.text(left, TOP - 10, words, fill=svg.QUIET)
    for power in range(round(low), round(high) + 1):
        yield svg.line(left, y(10**power), left + PANEL, y(10**power))
        yield svg.text(left - 6, y(10**power) + 4, f"{10**power:,}", anchor="end", size=11, fill=svg.QUIET)
    for length in lengths:
        yield svg.text(x(length), TOP + HEIGHT + 18, f"{length:,}", anchor="middle", size=11, fill=svg.QUIET)
    yield svg.text(left + PANEL / 2, TOP + HEIGHT + 38, "tokens of a sequence", anchor="middle", fill=svg.QUIET)
    for number, (name, points) in enumerate(lines.items()):
        places = [(x(length), y(speed)) for length, speed in points]
        yield svg.curve(places, stroke=svg.PALETTE[number], width=2, dash=_dash(name))
        yield from (svg.dot(*place, fill=svg.PALETTE[number]) for place in places)


def _dash(name: str) -> str:
    return "5 4" if name == PEER else ""


def main() -> None:
    """Read the rows, write the picture."""
    source, target = (Path(argument) for argument in sys.argv[1:3])
    target.write_text(drawing(json.loads(source.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main()
