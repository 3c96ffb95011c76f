"""Attention patterns of all heads as small pictures, in rows of layers; each can be picked."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from app.components.clickable import pickable
from app.theme import CIVIDIS


def colored(values: np.ndarray) -> np.ndarray:
    """Values in [0, 1], any shape, as cividis colours of their square roots, uint8 [..., 3]."""
    stops = np.array([[int(color[i : i + 2], 16) for i in (1, 3, 5)] for color in CIVIDIS], dtype=float)
    at = np.sqrt(np.clip(np.nan_to_num(values), 0, 1))
    where = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(at, where, stops[:, c]) for c in range(3)], axis=-1).round().astype(np.uint8)


def head_grid(
    patterns: np.ndarray,
    *,
    picked: tuple[int, int] | None,
    rows: Sequence[int] | None = None,
    layers: Sequence[int] | None = None,
    first_head: int = 0,
) -> str:
    """HTML of patterns [row, head, query_pos, key_pos]; a pick reports "row.head".

    Where only a part of the model is shown: `rows` are the rows as picks and `picked` count them, `layers` what they
    are called, `first_head` the head of patterns[:, 0].
    The colours run from 0 to 1, whatever the pattern: pictures can be compared.
    """
    n_rows, n_heads = patterns.shape[:2]
    rows = range(n_rows) if rows is None else rows
    figures = []
    for index, (row, layer) in enumerate(zip(rows, rows if layers is None else layers, strict=True)):
        for column in range(n_heads):
            head, pattern = column + first_head, patterns[index, column]
            now = " now" if (row, head) == picked else ""
            focus = describe(pattern)
            attributes = pickable(f"{row}.{head}", f"layer {layer} head {head}, {focus}")
            figures.append(
                f"<figure class='head{now}' {attributes} title='{focus}'>"
                f"<img alt='' src='{_picture(pattern)}'><figcaption>L{layer}H{head}</figcaption></figure>"
            )
    columns = f"grid-template-columns:repeat({n_heads},minmax(54px,118px))"
    return f"<div class='scroll'><div class='heads' style='{columns}'>{''.join(figures)}</div></div>"


def describe(pattern: np.ndarray) -> str:
    """How sharp a pattern [query_pos, key_pos] is, in words."""
    return f"its strongest key gets {pattern.max(axis=-1).mean():.2f} on average over queries"


def _picture(pattern: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(colored(pattern)).save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
