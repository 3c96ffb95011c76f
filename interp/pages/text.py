"""docs/text.md: models of one text side by side, from the rows of `tapelens bench text` alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.commands import command
from interp.figures.svg import FAINT, PALETTE, QUIET, dot, drawing, line, text
from interp.files import write_text
from interp.reading import BrokenFileError

_WIDEST = 8.0  # bits that are drawn at most: what needs more is drawn at the edge
Rows = Mapping[str, Mapping[str, Any]]
_BOUNDS = ("masked_diffusion", "diffusion_lm")  # whose bits are a bound, not a likelihood


def write_text_page(source: Path, folder: Path) -> Path:
    """Write text.md and its figure from the rows in a JSON file; returns the page's path.

    Raises:
        FileNotFoundError: there is no such file.
        BrokenFileError: it holds other rows.
    """
    rows = {row["name"]: row for row in json.loads(source.read_text(encoding="utf-8"))}
    names = [name.removeprefix("bits_") for name in rows if name.startswith("bits_")]
    if not names or "nanogpt_bits" not in rows:
        raise BrokenFileError(f"{source} is not what tapelens bench text --json writes: it has no rows nanogpt_, bits_")
    write_text(folder / "text_bits.svg", bits_drawing({name: rows[f"bits_{name}"]["ours"] for name in names}))
    parts = [
        "# Text",
        _opening(rows, names),
        "![Bits a character of held-out text, by architecture](text_bits.svg)",
        f"Written by `tapelens text-page` from the rows of `tapelens bench text` (`{source.name}`). The text is the "
        "documentation that Python brings (`pydoc_data.topics`), character by character, held out by blocks of 2,048; "
        "bits are of all held-out blocks, read once, in windows that lie side by side. Seconds are processor time of "
        "one thread. Nothing was chosen on the held-out blocks.",
        "## The baseline beside nanoGPT",
        _baseline(rows),
        "## Every architecture, as many seconds",
        _architectures(rows, names),
        f"Each was trained for {rows['seconds']['ours']:g} seconds of processor time, from one seed, with AdamW at one "
        "rate for all, which suits some better than others: the order of near ones says little. *distinct-2*: share of "
        "different ones among all pairs of words that it wrote behind the beginnings of held-out windows; *copied*: "
        f"share of its stretches of four words that occur in training. Held-out text itself has "
        f"{_own(rows, names, 'distinct_2')} and {_own(rows, names, 'copied_4')}. –: it wrote no such stretch of words.",
        *_remarks(names),
        "## What length costs",
        *_lengths(rows),
        "## Again",
        "\n".join(["```", *_commands(rows, source), "```"]),
    ]
    write_text(folder / "text.md", "\n\n".join(parts) + "\n")
    return folder / "text.md"


def _commands(rows: Rows, source: Path) -> list[str]:
    """What makes a run like the bundled one, what it can be asked, and what makes this page."""
    steps, seconds = (f"{rows[name]['ours']:g}" for name in ("nanogpt_steps", "seconds"))
    return [
        command("train", "--preset", "text_small"),
        command("generate", "runs/text_small", "--prompt", "The "),
        command("chat", "runs/text_small"),
        f"python -m benchmarks.text --steps {steps} --seconds {seconds} > {source.name}",
        command("text-page", source.name),
    ]


def _opening(rows: Rows, names: Sequence[str]) -> str:
    bits = {name: rows[f"bits_{name}"]["ours"] for name in names}
    exact = {name: value for name, value in bits.items() if name not in _BOUNDS}
    best, worst = min(exact, key=lambda name: exact[name]), max(exact, key=lambda name: exact[name])
    step, normed, anchor = rows["nanogpt_step"], rows["nanogpt_step_normed"], rows["nanogpt_bits"]
    said = [
        f"{len(names)} kinds of models read the same text and say which character comes next, each trained for "
        f"{rows['seconds']['ours']:g} seconds of one processor core.",
        f"The `{best}` needs the fewest bits for a character of text that it never saw, {bits[best]:.2f}; the "
        f"`{worst}` needs {bits[worst]:.2f}.",
        f"So short a time says who begins fast, not who ends well: the transformer is at {bits['transformer']:.2f}."
        if "transformer" in bits
        else "",
        f"At nanoGPT's own setting, after {rows['nanogpt_steps']['ours']:,.0f} steps, our "
        f"transformer needs {anchor['ours']:.2f} bits, and the plain module "
        f"{anchor['peer']:.2f}.",
        f"A step of ours, with all its hook points, takes {step['ours'] / step['peer']:.2f} times as long; with "
        f"RMSNorm and normalised queries and keys {normed['ours'] / normed['peer']:.2f} times.",
    ]
    if some := [f"{bits[name]:.2f} (`{name}`)" for name in _BOUNDS if name in bits]:
        even = math.log2(rows["vocabulary"]["ours"])
        said.append(
            f"Models that fill in can only be held to a bound, which is {' and '.join(some)}; an even guess needs "
            f"{even:.2f}" + (", so a bound above that says nothing yet." if _loose(bits, even) else ".")
        )
    longest = max(_lengths_of(rows), default=None)
    if longest is not None and f"memory_gru_{longest}" in rows:
        held = rows[f"memory_gru_{longest}"]
        said.append(
            f"With {longest:,} characters read the transformer holds {held['peer']:.1f} MiB to go on from, and a GRU "
            f"{_amount(held['ours'])}, whatever it has read."
        )
    return " ".join(sentence for sentence in said if sentence)


def _loose(bits: Mapping[str, float], even: float) -> bool:
    """Whether a bound is worse than an even guess."""
    return any(bits.get(name, 0.0) > even for name in _BOUNDS)


def _baseline(rows: Rows) -> str:
    lines = [
        "| | ours | ours with RMSNorm and QK-norm | plain module | ratios, above 1: ours is better |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for name, words, form in (
        ("nanogpt_bits", "bits a character, held out", ".3f"),
        ("nanogpt_step", "milliseconds a step", ".1f"),
        ("nanogpt_parameters", "parameters", ",.0f"),
    ):
        row, normed = rows[name], rows[f"{name}_normed"]
        ratios = "" if name == "nanogpt_parameters" else f"{row['ratio']:.2f} and {normed['ratio']:.2f}"
        lines.append(f"| {words} | {row['ours']:{form}} | {normed['ours']:{form}} | {row['peer']:{form}} | {ratios} |")
    return "\n".join(lines) + (
        f"\n\n4 layers, 4 heads, 128 wide, 64 characters asked for at a time, batches of 12, "
        f"{rows['nanogpt_steps']['ours']:,.0f} steps on the same batches, in turns in one process. Ours has the "
        "plain module's very shape: with its weights it gives its logits. It has all its hook points, first weights of "
        "its own and a peak rate of 2e-3; the plain module is as nanoGPT has it, at 1e-3. In the second column ours "
        "has the norms of this package's other transformers, at the same rate. None has dropout."
    )


def _remarks(names: Sequence[str]) -> list[str]:
    """What has to be said of single architectures that are there."""
    said = {
        "path": "`path` is the transformer with PaTH positions.",
        "iterative": "`iterative` is the iterative-thinking model with a set number of steps: halting looks at a whole "
        "row, and a text is read from left to right.",
        "ngram": "The n-gram counts all pairs before a character, is done long before the time is up, and has larger "
        "tables than the others have weights.",
        "masked_diffusion": "Masked diffusion and `diffusion_lm` write by filling in, behind the same beginnings and "
        "behind one character; their bits are upper bounds, each estimated from eight draws a window.",
    }
    return [" ".join(words for name, words in said.items() if name in names)] if set(said) & set(names) else []


def _architectures(rows: Rows, names: Sequence[str]) -> str:
    lines = [
        "| architecture | bits a character | parameters | steps | distinct-2 | copied |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in sorted(names, key=lambda each: rows[f"bits_{each}"]["ours"]):
        at_most = "≤ " if name in _BOUNDS else ""
        lines.append(
            f"| {name.replace('_', ' ')} | {at_most}{rows[f'bits_{name}']['ours']:.3f} | "
            f"{rows[f'parameters_{name}']['ours']:,.0f} | {rows[f'steps_{name}']['ours']:,.0f} | "
            f"{_share(rows[f'distinct_2_{name}']['ours'])} | {_share(rows[f'copied_4_{name}']['ours'])} |"
        )
    return "\n".join(lines)


def _own(rows: Rows, names: Sequence[str], what: str) -> str:
    return _share(rows[f"{what}_{names[0]}"]["peer"])


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}".replace("%", " %")


def _lengths_of(rows: Rows) -> list[int]:
    return sorted({int(name.rpartition("_")[2]) for name in rows if name.startswith("write_")})


def _lengths(rows: Rows) -> list[str]:
    lengths = _lengths_of(rows)
    names = list(dict.fromkeys(name[6:].rpartition("_")[0] for name in rows if name.startswith("write_")))
    if not lengths:
        return ["Not measured yet."]
    found = []
    for kind, words, form in (
        ("write", "Tokens a second that are written, one text, with so many tokens read:", lambda v: f"{v:,.0f}"),
        ("memory", "What is held to go on from there:", lambda v: _amount(v)),
    ):
        lines = [
            "| architecture | " + " | ".join(f"{length:,}" for length in lengths) + " |",
            "| --- |" + " ---: |" * len(lengths),
        ]
        for name in names:
            cells = [rows.get(f"{kind}_{name}_{length}") for length in lengths]
            shown = [form(cell["ours"]) if cell else "–" for cell in cells]
            lines.append(f"| {name.replace('_', ' ')} | {' | '.join(shown)} |")
        found += [words, "\n".join(lines)]
    found.append(
        "Random weights, which change neither. –: it keeps nothing, and reads everything again for each token, or "
        "fills in so many tokens together, over its number of passes: what these write a second is of another kind."
    )
    return found


def _amount(mebibytes: float) -> str:
    return f"{mebibytes:,.1f} MiB" if mebibytes >= 1 else f"{mebibytes * 1024:,.1f} KiB"


def bits_drawing(bits: Mapping[str, float]) -> str:
    """One row an architecture, the best on top: its bits a character as a dot."""
    width, left, row = 640, 140, 24
    most = min(max(bits.values()), _WIDEST) * 1.05
    bottom = 40 + row * len(bits)

    def x(value: float) -> float:
        return left + (width - left - 90) * value / most

    parts = [text(left, 18, "Bits a character of held-out text; less is better", fill=QUIET)]
    for tick in range(int(most) + 1):
        parts += [
            line(x(tick), 28, x(tick), bottom, stroke=FAINT),
            text(x(tick), bottom + 16, str(tick), anchor="middle"),
        ]
    for number, name in enumerate(sorted(bits, key=lambda each: bits[each])):
        y = 46 + row * number
        bound = name in _BOUNDS
        parts += [
            text(left - 10, y + 4, name.replace("_", " "), anchor="end"),
            line(x(0), y, (to := x(min(bits[name], most))), y, stroke=PALETTE[0], width=2),
            dot(to, y, fill="none" if bound else PALETTE[0], stroke=PALETTE[0], radius=5),
            text(to + 12, y + 4, f"{'≤ ' if bound else ''}{bits[name]:.2f}"),
        ]
    return drawing(parts, width=width, height=bottom + 26, title="Bits a character of held-out text, by architecture")
