"""Learning curves: exact match on held-out programs against records seen, macro average and by opcode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from interp.figures.style import OP_COLORS
from interp.figures.svg import FAINT, INK, PALETTE, QUIET, curve, dot, drawing, line, text
from interp.results import Aggregation, Method, Metric, select
from interp.runs import Run

ORIGINAL = Path(__file__).with_name("original_learning_curve.csv")
_TICKS = (0.0, 0.5, 0.9, 0.99, 0.999, 0.9999)


@dataclass(frozen=True)
class LearningCurve:
    """One run: exact match at each evaluation of its training."""

    name: str
    records: tuple[int, ...]  # seen before each evaluation
    n: int  # states of each evaluation
    macro: tuple[float, ...]
    by_op: dict[str, tuple[float, ...]]  # averaged over outcomes


def learning_curve_of(run: Run, *, name: str | None = None) -> LearningCurve:
    """The curve that a run's training logged.

    Raises:
        RunError: the run has no metrics.
        ValueError: they hold no evaluation made while training.
    """
    metrics = run.frame("metrics")
    whole = select(metrics, metric=Metric.EXACT_MATCH, method=Method.GREEDY)
    macro = select(whole, aggregation=Aggregation.MACRO).sort_values("n", kind="stable")
    macro = macro.drop_duplicates("checkpoint_step").sort_values("checkpoint_step")  # the final one is larger
    macro = macro.loc[macro["checkpoint_step"] > 0]
    if macro.empty:
        raise ValueError(f"{run.path} holds no evaluation made while training, so there is no curve to draw")
    steps = macro["checkpoint_step"].tolist()
    strata = select(whole, aggregation=Aggregation.MEAN).sort_values("n", kind="stable")
    strata = strata.drop_duplicates(["checkpoint_step", "op", "stratum"])
    by_op: dict[str, tuple[float, ...]] = {}
    for op in run.config.world.stratum_names:
        found = select(strata, op=op).groupby("checkpoint_step")["estimate"].agg("mean").to_dict()
        if set(steps) <= set(found):
            by_op[op] = tuple(float(found[step]) for step in steps)
    return LearningCurve(
        name or run.name,
        tuple(int(step) * run.config.training.batch_size for step in steps),
        int(macro["n"].min()),
        tuple(float(value) for value in macro["estimate"]),
        by_op,
    )


def original_curve() -> LearningCurve:
    """The original project's own figures: an 85M-parameter causal transformer, exact match on states as they come."""
    table = pd.read_csv(ORIGINAL, comment="#")
    records = tuple(int(value) for value in table["records"])
    return LearningCurve(
        "the original, 85M parameters",
        records,
        2000,  # its shares are multiples of 1 / 2,000 or so; none is 1
        tuple(float(value) for value in table["exact_match"]),
        {},
    )


def learning_curves_drawing(curves: Sequence[LearningCurve]) -> str:
    """One panel of macro averages with the original's points beside them, then a panel a run by opcode; SVG text.

    Both axes are logarithmic, the vertical one in the share of wrong answers, so that 99 % and 99.9 % are as far apart
    as 90 % and 99 %. Where no answer was wrong the point stands at half an error.

    Raises:
        ValueError: there are no curves.
    """
    if not curves:
        raise ValueError("expected at least one run to draw")
    original = original_curve()
    everything = [*curves, original]
    low = min(each.records[0] for each in everything)
    high = max(each.records[-1] for each in everything)
    width, height = 760, 300
    parts = [
        text(
            16, 22, "Exact match on held-out programs against records seen (macro average over op × outcome)", size=14
        ),
        text(60, 38, "no error in an evaluation: drawn at half an error", size=10, fill=QUIET),
    ]
    panel = _Panel(60, 48, width - 280, height - 88, low, high)
    parts += panel.frame()
    for place, each in enumerate(everything):
        theirs = each is original
        color = INK if theirs else PALETTE[place % len(PALETTE)]
        points = panel.points(each.records, each.macro, each.n)
        parts.append(curve(points, stroke=color, width=1.2 if theirs else 2, dash="2 3" if theirs else ""))
        parts += [dot(x, y, fill="#ffffff" if theirs else color, stroke=color) for x, y in points]
        y = 52 + 18 * place
        parts += [
            line(width - 206, y - 4, width - 186, y - 4, stroke=color, width=2),
            text(width - 180, y, each.name, size=11),
        ]
    parts.append(text(width - 206, 52 + 18 * len(everything), "(its own evaluation, not averaged", size=10, fill=QUIET))
    parts.append(text(width - 206, 64 + 18 * len(everything), "over op × outcome)", size=10, fill=QUIET))
    top, size = float(height), 250
    with_ops = [each for each in curves if each.by_op]
    for place, each in enumerate(with_ops):
        left = 60 + (place % 2) * (width / 2)
        y = top + 30 + (place // 2) * (size + 20)
        parts.append(text(left - 44, y - 12, f"{each.name}, by opcode", size=13))
        panel = _Panel(left, y, width / 2 - 140, size - 70, min(each.records), max(each.records))
        parts += panel.frame()
        for row, (op, shares) in enumerate(each.by_op.items()):
            dash = "4 2" if op == "ENDW" else ""
            color = OP_COLORS.get(op, PALETTE[row % len(PALETTE)])
            points = panel.points(each.records, shares, each.n // len(each.by_op))
            parts.append(curve(points, stroke=color, dash=dash))
            key = left + width / 2 - 130, y + 10 + 16 * row
            ends = [(key[0], key[1] - 4), (key[0] + 14, key[1] - 4)]
            parts.append(curve(ends, stroke=color, width=2, dash=dash))
            parts.append(text(key[0] + 18, key[1], op, size=10, fill=QUIET))
    total = top + (size + 20) * math.ceil(len(with_ops) / 2) + 10
    return drawing(parts, width=width, height=total, title="Learning curves: exact match against records seen")


@dataclass(frozen=True)
class _Panel:
    """Axes: records on a logarithmic scale, exact match on one of its error."""

    left: float
    top: float
    width: float
    height: float
    low: float
    high: float

    def x(self, records: float) -> float:
        span = math.log(self.high / self.low) or 1.0
        return self.left + self.width * math.log(records / self.low) / span

    def y(self, share: float) -> float:
        nines = -math.log10(max(1 - share, 1e-5))
        return self.top + self.height * (1 - min(nines, 4.3) / 4.3)

    def points(self, records: Sequence[int], shares: Sequence[float], n: int) -> list[tuple[float, float]]:
        top = 1 - 0.5 / n
        return [(self.x(seen), self.y(min(share, top))) for seen, share in zip(records, shares, strict=True)]

    def frame(self) -> list[str]:
        parts = []
        for tick in _TICKS:
            y = self.y(tick)
            parts.append(line(self.left, y, self.left + self.width, y))
            parts.append(text(self.left - 6, y + 4, f"{100 * tick:g} %", size=10, fill=QUIET, anchor="end"))
        for exponent in range(2, 9):
            for factor, label in ((1, True), (3, False)):
                records = factor * 10**exponent
                if self.low <= records <= self.high:
                    x = self.x(records)
                    parts.append(line(x, self.top, x, self.top + self.height, stroke=FAINT, width=1 if label else 0.5))
                    words = f"{records // 1000:,}k" if 1000 <= records < 10**6 else f"{records:,}"
                    words = f"{records // 10**6}M" if records >= 10**6 else words
                    parts.append(text(x, self.top + self.height + 14, words, size=10, fill=QUIET, anchor="middle"))
        parts.append(text(self.left + self.width, self.top + self.height + 28, "records seen", size=10, anchor="end"))
        return parts
