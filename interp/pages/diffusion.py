"""docs/diffusion.md: how models that write otherwise come to their answers, every number from their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp.commands import command
from interp.files import write_text
from interp.pages.diffusion_drawing import diffusion_drawing, embeddings_drawing
from interp.pages.diffusion_findings import findings
from interp.pages.diffusion_rows import (
    by_time,
    exact_matches,
    fetching_places,
    unswapped,
    way,
)
from interp.pages.diffusion_runs import (
    RUNS_FIGURE,
    fact_edits,
    is_of_runs,
    runs_drawing,
    runs_findings,
    runs_part,
)
from interp.results import Aggregation, Control, Method, Metric, records, select
from interp.runs import Run

FIGURE, EMBEDDINGS = "diffusion.svg", "diffusion_embeddings.svg"


_DEFAULTS = {"n": 1_000, "seed": 3}  # of the verb


def write_diffusion_page(
    runs: Sequence[Run],
    rows: Sequence[pd.DataFrame],
    out: Path,
    *,
    n: int = _DEFAULTS["n"],
    seed: int = _DEFAULTS["seed"],
) -> Path:
    """Write diffusion.md and its figures into a folder, from each run's rows, which are of these n and seed; returns
    its path."""
    frames = {run.name: frame for run, frame in zip(runs, rows, strict=True)}
    paths = [run.path for run in runs]
    write_text(out / FIGURE, diffusion_drawing(frames))
    figures = [FIGURE]
    if any(len(select(frame, metric=Metric.COSINE)) for frame in frames.values()):
        write_text(out / EMBEDDINGS, embeddings_drawing(frames))
        figures.append(EMBEDDINGS)
    of_runs = [run for run in runs if is_of_runs(frames[run.name])]
    if of_runs:
        write_text(out / RUNS_FIGURE, runs_drawing({run.name: frames[run.name] for run in of_runs}))
    layers = {run.name: sum(len(part.rows) for part in run.config.model.attention_parts) for run in of_runs}
    words = {run.name: f"{_written(run.task)} ({_seen(run):,} runs seen)" for run in of_runs}
    path = out / "diffusion.md"
    asked = [f"--{name}={value}" for name, value in (("n", n), ("seed", seed)) if value != _DEFAULTS[name]]
    writes = command("diffusion", *paths, *asked, "--out", out)
    again = command("diffusion", *paths, "--seed", str(seed + 1), "--out", "runs/again")
    write_text(path, diffusion_page(frames, writes, figures, layers, words, again))
    return path


def _seen(run: Run) -> int:
    """Records of its training."""
    return run.config.training.steps * run.config.training.batch_size


def _written(task: Any) -> str:
    """What a model of whole runs writes, in a few words."""
    if times := list(dict.fromkeys(fact[1] for fact in task.facts() if fact)):
        return f"where the run is after {', '.join(map(str, times[:2]))} … {times[-1]} steps, and the output"
    return "the output alone" if task.shows_answer else "the output, in place"


def diffusion_page(
    frames: dict[str, pd.DataFrame],
    command: str,
    figures: Sequence[str] = (FIGURE,),
    layers: Mapping[str, int] | None = None,
    words: Mapping[str, str] | None = None,
    again: str = "",
) -> str:
    """The page as Markdown.

    Args:
        frames: rows by the run's name.
        command: what writes the page.
        figures: the first, and that of the embeddings where there is one.
        layers, words: of the runs whose rows are about whole runs, see `runs_part`.
        again: what measures it from another seed.
    """
    of_runs = {name: frames[name] for name in layers or {}}
    of_steps = {name: frame for name, frame in frames.items() if name not in of_runs}
    said = " ".join(words for name, frame in of_steps.items() for words in findings(name, frame))
    parts = [
        "# Models that write otherwise",
        "The next state has a fixed size, so a model need not write it from left to right: it can fill it in, denoise "
        f"it, or read the state on a side of its own. {said}",
        f"![When slots are decided, where the instruction is fetched, what is carried between passes]({figures[0]})",
    ]
    if of_runs:
        parts += [
            "Of a whole run an answer in several passes can be more than one in one pass, if what is written first is "
            f"of use: {' '.join(runs_findings(of_runs, layers or {}))}",
            f"![Outputs right by how many steps the program runs]({RUNS_FIGURE})",
        ]
    anew = f" From another seed, beside the rows that the runs hold: `{again}`." if again else ""
    parts.append(f"Written by `{command}`; every number comes from its rows.{anew}")
    if of_runs:
        parts += ["## Whole runs", *runs_part(of_runs, layers or {}, words or {})]
    for name, frame in frames.items():
        section = fact_edits(frame) + _order_part(frame) + _calibration_part(frame)
        section = _section(frame) if name in of_steps else section
        parts += [f"## {name}", *section] if section else []
    if len(figures) > 1:
        parts += ["### The geometry of the embeddings", f"![The cosine of every two embeddings]({figures[1]})"]
    return "\n\n".join(parts) + "\n"


def _section(frame: pd.DataFrame) -> list[str]:
    parts: list[str] = []
    if exact := exact_matches(frame):
        parts += [
            "**Passes and orders.** Exact match, macro average over op × outcome. One pass is an ordinary classifier: "
            "the next state is a function of the state, so a gain is what lies beyond that row.",
            _table(
                ["passes", "how", "right, %", "95 % interval", "n"],
                [
                    [
                        str(int(row["time"])),
                        way(row["method"]),
                        f"{100 * row['estimate']:.2f}",
                        f"[{100 * row['ci_low']:.2f}, {100 * row['ci_high']:.2f}]",
                        f"{row['n']:,}",
                    ]
                    for row in exact
                ],
            ),
        ]
        if broken := _broken(frame):
            parts += ["Where answers are wrong, by instruction, %:", broken]
    parts += _order_part(frame) + _edit_part(frame) + _place_part(frame) + _carried_part(frame)
    return parts + _calibration_part(frame)


def _broken(frame: pd.DataFrame) -> str:
    """Exact match by op where something is wrong."""
    rows = records(select(frame, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MEAN))
    ways = list(dict.fromkeys((int(row["time"]), row["method"]) for row in rows))
    right: dict[tuple[str, tuple[int, str]], list[float]] = {}
    for row in rows:
        if row["op"]:
            right.setdefault((row["op"], (int(row["time"]), row["method"])), []).append(row["estimate"])
    ops = [op for op in dict.fromkeys(op for op, _ in right) if any(min(right[op, way]) < 1 for way in ways)]
    lines = [[op, *(f"{100 * sum(right[op, way]) / len(right[op, way]):.1f}" for way in ways)] for op in ops]
    heads = [f"{count} {way(method)}" for count, method in ways]
    return _table(["op", *heads], lines) if lines else ""


def _order_part(frame: pd.DataFrame) -> list[str]:
    found = records(select(frame, metric=Metric.SPEARMAN))
    if not found:
        return []
    decided = records(select(frame, metric=Metric.DECIDED_AT))
    null = {row["position"]: row["estimate"] for row in decided if row["part"]}
    return [
        f"**In which order are slots decided?** In {int(found[0]['time'])} passes by confidence, over slots that are "
        "no punctuation: rank correlations within an example of the pass that decides a slot, with the pass in which "
        "its confidence from full mask alone would have it decided (its own difficulty, the null), and with the "
        + (
            "executed step after which the world has decided it."
            if is_of_runs(frame)
            else "causal depth of the variable that stands in it."
        ),
        _table(
            ["with", "rank correlation", "95 % interval", "n"],
            [
                [
                    row["part"],
                    f"{row['estimate']:.3f}",
                    f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]",
                    f"{row['n']:,}",
                ]
                for row in found
            ],
        ),
        "When each block is decided, 0 the first pass and 1 the last:",
        _table(
            ["block", "decided", "by own difficulty alone"],
            [
                [row["position"], f"{row['estimate']:.2f}", f"{null[row['position']]:.2f}"]
                for row in decided
                if not row["part"]
            ],
        ),
    ]


def _edit_part(frame: pd.DataFrame) -> list[str]:
    parts: list[str] = []
    if edits := records(select(frame, part="one decided slot")):
        n = {int(row["time"]): row["n"] for row in edits}
        ignored, mended = (by_time(frame, m, "one decided slot") for m in (Metric.SIDE_ACCURACY, Metric.RETURN))
        parts += [
            "**An edit between two passes.** After a pass one decided slot is set to another answer's token. Slots of "
            "a next state are siblings: an edit of one implies nothing for the others. Ignored: all other slots are as "
            "without the edit. Mended: masked again, with all others shown, the slot gets its old token.",
            _table(
                ["after pass", "ignored, %", "mended, %", "n"],
                [[str(t), f"{100 * ignored[t]:.1f}", f"{100 * mended[t]:.1f}", f"{n[t]:,}"] for t in sorted(ignored)],
            ),
        ]
    swaps = records(select(frame, pair_design="independent", method=Method.FULL_VECTOR))
    swaps = [row for row in swaps if row["variable"] and not row["part"]]
    if swaps:
        keys = list(
            dict.fromkeys(
                (row["variable"], row["site"], row["time"], row["control"])
                for row in swaps
                if row["control"] != Control.SAME_VALUE
            )
        )
        found = {(row["variable"], row["site"], row["time"], row["control"], row["metric"]): row for row in swaps}

        def share(key: tuple[Any, ...], metric: Metric) -> str:
            row = found.get((*key, str(metric)))
            return "–" if row is None else f"{100 * row['estimate']:.1f}"

        parts += [
            "**Variables at each pass.** The residual stream at a variable's place is source's in one pass, or in all; "
            "pairs whose answer should change; the layer was chosen on validation, in one pass. Same value: as many "
            "pairs whose sources have base's own value there, so that the whole answer must stay. Before the first "
            "layer (`blocks.0.hook_resid_pre`) a place holds its token alone.",
            _table(
                [
                    "variable, at",
                    "pass",
                    "whole answer, %",
                    "what should change, %",
                    "what should stay, %",
                    "n",
                    "same value: stays, %",
                ],
                [
                    [
                        f"`{key[0]}`, {key[1]}",
                        "none" if key[3] == Control.UNPATCHED else "all" if key[2] is None else str(int(key[2])),
                        share(key, Metric.IIA),
                        share(key, Metric.EFFECT_ACCURACY),
                        share(key, Metric.SIDE_ACCURACY),
                        f"{found[*key, str(Metric.IIA)]['n']:,}",
                        "" if key[3] else share((*key[:3], str(Control.SAME_VALUE)), Metric.IIA),
                    ]
                    for key in keys
                ],
            ),
        ]
    return parts


def _place_part(frame: pd.DataFrame) -> list[str]:
    if not (places := fetching_places(frame)):
        return []
    every = records(select(frame, pair_design="minimal", stratum="changes"))
    side = {(row["part"], row["metric"]): row for row in every if row["control"] is None}
    plain = unswapped(frame)
    lines = []
    for part, effect in places:
        iia = side[part, str(Metric.IIA)]
        stays = side.get((part, str(Metric.SIDE_ACCURACY)))
        lines.append(
            [
                part,
                f"{100 * effect:.1f}",
                "–" if stays is None else f"{100 * stays['estimate']:.1f}",
                f"{100 * iia['estimate']:.1f}",
                f"{iia['n']:,}",
            ]
        )
    if plain:
        lines.append(["nowhere", f"{100 * plain[0]['estimate']:.1f}", "", "", f"{plain[0]['n']:,}"])
    parts = [
        "**Where is `op` fetched?** Minimal pairs: source is base with the instruction or the pointer edited, so that "
        "`op` is another and all else is equal. Swapped at one place, how much of what `op` should change changes, "
        "and does the rest stay? The instruction's own slot is also what the answer copies.",
        _table(["swapped", "what should change, %", "what should stay, %", "whole answer, %", "n"], lines),
    ]
    stratified = records(select(frame, pair_design="stratified", stratum="changes"))
    if stratified:
        parts += [
            "By instruction, independent pairs: what should change, %; in brackets what should stay when the source's "
            "`op` is base's own (same value), where a perfect place has 100.",
            _table(*_by_op(stratified)),
        ]
    return parts


def _by_op(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    places = list(dict.fromkeys(row["part"] for row in rows))
    ops = list(dict.fromkeys(row["op"] for row in rows))
    found = {(row["op"], row["part"], row["control"], row["metric"]): row["estimate"] for row in rows}
    lines = []
    for op in ops:
        cells = []
        for part in places:
            effect = found.get((op, part, None, str(Metric.EFFECT_ACCURACY)))
            same = found.get((op, part, str(Control.SAME_VALUE), str(Metric.SIDE_ACCURACY)))
            cells.append(
                ("–" if effect is None else f"{100 * effect:.0f}") + ("" if same is None else f" ({100 * same:.0f})")
            )
        lines.append([op, *cells])
    return ["op", *places], lines


def _carried_part(frame: pd.DataFrame) -> list[str]:
    if not by_time(frame, Metric.RETURN, "both"):
        return []
    lines, n = [], 0
    for part in ("sample", "prediction", "both"):
        back, source = (by_time(frame, metric, part) for metric in (Metric.RETURN, Metric.IIA))
        for t in sorted(back):
            rest = max(0.0, 1 - back[t] - source[t])
            lines.append([part, str(t), f"{100 * back[t]:.1f}", f"{100 * source[t]:.1f}", f"{100 * rest:.1f}"])
    n = max(row["n"] for row in records(select(frame, metric=Metric.RETURN, part="both")))
    return [
        "**What is carried between passes.** The sample x_t, the prediction that the next pass is conditioned on, or "
        f"both are another example's from one pass on, the prompt is base's ({n:,} pairs that are answered "
        "differently).",
        _table(["put in", "before pass", "base's again, %", "source's, %", "neither, %"], lines),
    ]


def _calibration_part(frame: pd.DataFrame) -> list[str]:
    errors = records(select(frame, metric=Metric.CALIBRATION_ERROR))
    if not errors:
        return []
    ways = list(dict.fromkeys((int(row["time"]), row["method"]) for row in errors))
    right = {
        (int(row["time"]), row["position"]): row
        for row in records(select(frame, metric=Metric.TOKEN_ACCURACY))
        if row["method"] in {method for _, method in ways}
    }
    lines = []
    for row in errors:
        own = right[int(row["time"]), row["position"]]
        wrong = round((1 - own["estimate"]) * own["n"])
        lines.append(
            [
                str(int(row["time"])),
                row["position"] or "all slots",
                f"{100 * row['estimate']:.3f}",
                f"{wrong:,} of {own['n']:,}",
            ]
        )
    bins = records(select(frame, metric=Metric.RELIABILITY))
    mean = {
        (int(row["time"]), row["stratum"]): row["estimate"] for row in records(select(frame, metric=Metric.CONFIDENCE))
    }
    return [
        "**Does the confidence know where it errs?** Expected calibration error of a slot's confidence, in points:",
        _table(["passes", "block", "calibration error", "slots wrong"], lines),
        "Reliability of all slots:",
        _table(
            ["passes", "confidence", "slots", "mean confidence, %", "right, %"],
            [
                [
                    str(int(row["time"])),
                    row["stratum"],
                    f"{row['n']:,}",
                    f"{100 * mean[int(row['time']), row['stratum']]:.2f}",
                    f"{100 * row['estimate']:.2f}",
                ]
                for row in bins
            ],
        ),
    ]


def _table(head: list[str], lines: list[list[str]]) -> str:
    rows = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
