"""The part of docs/diffusion.md about whole runs: what scratch slots gain over one pass, and whether they are used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from interp.figures.svg import FAINT, PALETTE, QUIET, curve, dot, drawing, line, text
from interp.pages.diffusion_rows import way
from interp.pages.markdown import table
from interp.results import Aggregation, Control, Metric, records, select

RUNS_FIGURE = "diffusion_runs.svg"


def is_of_runs(frame: pd.DataFrame) -> bool:
    """Whether the rows are about whole runs, by how many steps these have."""
    return bool(_spans(frame))


def _spans(frame: pd.DataFrame) -> list[str]:
    """The bins of steps and, behind them, all long runs and all runs."""
    macro = records(select(frame, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO))
    return list(dict.fromkeys(row["stratum"] for row in macro if row["stratum"]))


def _ways(frame: pd.DataFrame) -> list[tuple[int, str]]:
    rows = records(select(frame, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO))
    return list(dict.fromkeys((int(row["time"]), row["method"]) for row in rows))


def _right(frame: pd.DataFrame, time: int, method: str, span: str) -> dict[str, Any]:
    chosen = select(frame, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO, stratum=span)
    return next(row for row in records(chosen) if (int(row["time"]), row["method"]) == (time, method))


def _gain(frame: pd.DataFrame, time: int, method: str) -> dict[str, Any] | None:
    rows = records(select(frame, metric=Metric.GAIN))
    return next((row for row in rows if (int(row["time"]), row["method"]) == (time, method)), None)


def runs_part(frames: Mapping[str, pd.DataFrame], layers: Mapping[str, int], words: Mapping[str, str]) -> list[str]:
    """The joint table of all runs, then each run's order and edits.

    Args:
        frames: by the run's name.
        layers: how many blocks each goes through in a pass.
        words: what each writes, in a few words.
    """
    spans = _spans(next(iter(frames.values())))
    *bins, long, _ = spans
    lines = []
    for name, frame in frames.items():
        for time, method in _ways(frame):
            found, gained = _right(frame, time, method, long), _gain(frame, time, method)
            lines.append(
                [
                    f"`{name}`, {words[name]}",
                    f"{time}, {way(method)}" if method.startswith("denoise") else "as it answers",
                    str(time * layers[name]),
                    *(f"{100 * _right(frame, time, method, each)['estimate']:.1f}" for each in bins),
                    f"{100 * found['estimate']:.2f} [{100 * found['ci_low']:.2f}, {100 * found['ci_high']:.2f}]",
                    "" if gained is None else _points(gained),
                    f"{found['n']:,}",
                ]
            )
    head = ["model", "passes", "layers run", *(each.removesuffix(" steps") for each in bins), f"{long}, %"]
    return [
        "The model is given a program and its input, and fills in what the program prints. Held-out programs, the same "
        "for all, as many of every number of steps; shares are averages over numbers of steps, each counted once, in "
        "%. Layers run are passes times the blocks that one goes through: what a model of one pass may be held "
        "against. The gain over the model's own one pass is taken program by program, in points.",
        table([*head, "gain", "n"], lines),
    ]


def _points(row: Mapping[str, Any]) -> str:
    return f"{100 * row['estimate']:+.2f} [{100 * row['ci_low']:+.2f}, {100 * row['ci_high']:+.2f}]"


def fact_edits(frame: pd.DataFrame) -> list[str]:
    """What an answer does when a fact that stands before it is another's."""
    rows = records(select(frame, part="one written fact"))
    if not rows:
        return []
    found = {(row["position"], row["metric"], row["control"]): row for row in rows}
    lines = []
    for position in dict.fromkeys(row["position"] for row in rows):
        followed, ignored = (found[position, str(metric), None] for metric in (Metric.IIA, Metric.RETURN))
        plain = found[position, str(Metric.RETURN), str(Control.UNPATCHED)]
        rest = 1 - followed["estimate"] - ignored["estimate"]
        shares = [followed["estimate"], ignored["estimate"], max(0.0, rest), plain["estimate"]]
        lines.append([position, *(f"{100 * each:.1f}" for each in shares), f"{followed['n']:,}"])
    return [
        "**Is what is written used?** The facts up to a step are given as they are, but one (a cell or a pointer), "
        "which is another example's; the rest is filled in. Followed: the output of the run in which the "
        "variable was so set; ignored: base's own. Examples in which these differ; beside it, how often the output is "
        "right where nothing was edited.",
        table(["fact of", "followed, %", "ignored, %", "neither, %", "right without the edit, %", "n"], lines),
    ]


def runs_findings(frames: Mapping[str, pd.DataFrame], layers: Mapping[str, int]) -> list[str]:
    """What was found of whole runs, in sentences: the best number of passes beside one, of every model."""
    said = []
    for name, frame in frames.items():
        long = _spans(frame)[-2]
        ways = _ways(frame)
        once = _right(frame, *ways[0], long)
        if len(ways) == 1:
            said.append(
                f"`{name}`, through {layers[name]} layers at once, is right in {100 * once['estimate']:.1f} % of "
                f"programs of {long}."
            )
            continue
        best = max(ways[1:], key=lambda each: _right(frame, *each, long)["estimate"])
        gained = _gain(frame, *best)
        assert gained is not None
        said.append(
            f"`{name}` is right in {100 * once['estimate']:.1f} % of programs of {long} in one pass, and in "
            f"{100 * _right(frame, *best, long)['estimate']:.1f} % at its best, in {best[0]} passes {way(best[1])}: "
            f"{_points(gained)} points."
        )
    return said


def runs_drawing(frames: Mapping[str, pd.DataFrame]) -> str:
    """Right by how many steps programs run: of every model one pass, dashed, and its best number of passes."""
    width, top, bottom, left = 560, 40, 260, 56
    parts = [text(8, 20, "outputs right by how many steps the program runs", fill=QUIET)]
    rows = {name: records(select(frame, metric=Metric.EXACT_MATCH)) for name, frame in frames.items()}
    numbered = {
        name: [
            row
            for row in own
            if row["stratum"] and row["stratum"].split()[0].isdigit() and " to " not in row["stratum"]
        ]
        for name, own in rows.items()
    }
    least = min(row["estimate"] for own in numbered.values() for row in own)
    floor = int(10 * least) / 10
    most = max(int(row["stratum"].split()[0]) for own in numbered.values() for row in own)

    def point(row: Mapping[str, Any]) -> tuple[float, float]:
        x = left + width * (int(row["stratum"].split()[0]) - 1) / max(1, most - 1)
        return x, bottom - (bottom - top) * (row["estimate"] - floor) / max(1e-9, 1 - floor)

    for share in (floor, 1.0):
        y = bottom - (bottom - top) * (share - floor) / max(1e-9, 1 - floor)
        parts.append(line(left, y, left + width, y, stroke=FAINT))
        parts.append(text(left - 6, y + 4, f"{100 * share:.0f} %", anchor="end", size=11, fill=QUIET))
    for k, (name, frame) in enumerate(frames.items()):
        ways, long = _ways(frame), _spans(frame)[-2]
        best = max(ways, key=lambda each: _right(frame, *each, long)["estimate"])
        for each, dash in dict.fromkeys([(ways[0], "4 3" if len(ways) > 1 else ""), (best, "")]):
            points = [point(row) for row in numbered[name] if (int(row["time"]), row["method"]) == each]
            parts.append(curve(points, stroke=PALETTE[k], dash=dash))
        y = bottom + 34 + 16 * k
        parts.append(dot(left + 4, y - 4, fill=PALETTE[k]))
        words = f"{name}: one pass dashed, {best[0]} passes {way(best[1])}" if len(ways) > 1 else f"{name}: one pass"
        parts.append(text(left + 14, y, words, size=11))
    parts.append(text(left, bottom + 15, "1 step", size=11, fill=QUIET))
    parts.append(text(left + width, bottom + 15, f"{most}", anchor="end", size=11, fill=QUIET))
    height = bottom + 34 + 16 * len(frames)
    return drawing(parts, width=left + width + 20, height=height, title="Outputs right by steps run")
