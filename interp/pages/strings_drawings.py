"""The figures of docs/strings.md, as SVG made from rows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from interp.figures.svg import FAINT, PALETTE, QUIET, curve, dot, drawing, line, text

_LEAST = 1e-5  # nats; what is less is drawn there


def floors_drawing(
    floors: dict[int, list[dict[str, float]]], points: Sequence[tuple[int, int | None, float, str]]
) -> str:
    """KL against context: the floor of each N as a line, runs as dots (n, context or None, kl, name)."""
    width, height, left, bottom = 640, 320, 60, 270
    most = max(len(some) for some in floors.values())

    def x(k: int | None) -> float:
        return left + 62 * (most if k is None else k)

    def y(kl: float) -> float:
        return bottom - 46 * (math.log10(max(kl, _LEAST)) - math.log10(_LEAST))

    parts = [text(left - 10, 18, "KL to the rule, nats a character (log scale)", fill=QUIET)]
    for power in range(-5, 1):
        parts += [
            line(left, y(10**power), width - 20, y(10**power)),
            text(left - 8, y(10**power) + 4, f"1e{power}", anchor="end", fill=QUIET, size=11),
        ]
    for k in [*range(most), None]:
        parts.append(text(x(k), bottom + 20, "all" if k is None else str(k), anchor="middle", fill=QUIET))
    parts.append(text(x(most // 2), bottom + 40, "characters that a model sees", anchor="middle", fill=QUIET))
    for color, (n, some) in zip(PALETTE, floors.items(), strict=False):
        parts.append(curve([(x(k), y(each["kl"])) for k, each in enumerate(some)], stroke=color, dash="4 3"))
        parts.append(text(width - 90, 40 + 18 * n, f"N = {n}: floor", fill=color))
    for n, k, kl, name in points:
        color = PALETTE[list(floors).index(n)] if n in floors else QUIET
        parts += [dot(x(k), y(kl), fill=color, radius=5), text(x(k) + 8, y(kl) - 6, name, size=10)]
    return drawing(parts, width=width, height=height, title="KL to the rule against the context, runs beside the floor")


def phases_drawing(kl: pd.DataFrame, heads: pd.DataFrame) -> str:
    """Two panels over training steps (log): KL to three distributions; induction by head."""
    steps = [max(int(step), 1) for step in kl.index]
    span = math.log10(steps[-1]) or 1.0
    parts = []
    for panel, (title, frame, top) in enumerate(
        (
            ("KL of each distribution to the model, nats", kl, float(kl.to_numpy().max())),
            ("attention on what followed", heads, 1.0),
        )
    ):
        left, bottom, width, height = 60 + panel * 350, 220, 260, 170
        parts.append(text(left, 24, title, fill=QUIET))
        for share in (0, 0.5, 1):
            parts += [
                line(left, bottom - height * share, left + width, bottom - height * share, stroke=FAINT),
                text(left - 6, bottom - height * share + 4, f"{top * share:.2g}", anchor="end", size=11, fill=QUIET),
            ]
        for step in (1, 10, 100, 1000):
            if step <= steps[-1]:
                parts.append(
                    text(
                        left + width * math.log10(step) / span,
                        bottom + 16,
                        f"{step:,}",
                        anchor="middle",
                        size=11,
                        fill=QUIET,
                    )
                )
        for number, name in enumerate(frame.columns):
            values = [float(value) / top for value in frame[name]]
            points = [
                (left + width * math.log10(s) / span, bottom - height * v) for s, v in zip(steps, values, strict=True)
            ]
            parts.append(curve(points, stroke=PALETTE[number]))
            short = str(name).replace("blocks.", "layer ").replace(".attn.hook_pattern", "")
            parts.append(text(left + 4 + 84 * number, bottom + 36, short, fill=PALETTE[number], size=11))
    return drawing(
        parts, width=700, height=270, title="Phases over training: uniform, unigram, bigram; induction by head"
    )


def embeddings_drawing(vectors: NDArray[np.float64], names: Sequence[str], classes: Sequence[int]) -> str:
    """Tokens at the first two principal components of their embeddings, coloured by class."""
    centred = vectors - vectors.mean(axis=0)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes[:2].T
    share = sizes[:2] ** 2 / (sizes**2).sum()
    scale = 120 / max(float(np.abs(flat).max()), 1e-9)
    words = f"components 1 and 2: {share[0]:.0%} and {share[1]:.0%} of the variance"
    parts = [text(10, 18, words, fill=QUIET), line(160, 30, 160, 290), line(20, 160, 300, 160)]
    for (a, b), name, kind in zip(flat, names, classes, strict=True):
        at = (160 + scale * float(a), 160 - scale * float(b))
        parts += [dot(*at, fill=PALETTE[kind], radius=5), text(at[0] + 8, at[1] + 4, name, size=13)]
    for number, name in enumerate(("lower case", "upper case", "digits", "start")):
        parts.append(text(320, 60 + 20 * number, name, fill=PALETTE[number]))
    return drawing(parts, width=430, height=310, title="Embeddings of characters by class")
