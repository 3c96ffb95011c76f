"""Colours, glyphs and words that all figures share, the app's too: no plotly, no pandas."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from interp.models.graph import Reader, Writer

if TYPE_CHECKING:
    import pandas as pd

GLYPHS = {
    "NEXT": ">",
    "PREV": "<",
    "INC": "+",
    "DEC": "-",
    "PUT": ".",
    "GET": ",",
    "WHILE": "[",
    "ENDW": "]",
    "STOP": "■",
}
# Okabe–Ito, one colour a pair of opcodes; ENDW shares its partner's colour and is told apart by its glyph and a hatch.
OP_COLORS = {
    "NEXT": "#0072B2",
    "PREV": "#56B4E9",
    "INC": "#009E73",
    "DEC": "#D55E00",
    "PUT": "#E69F00",
    "GET": "#F0E442",
    "WHILE": "#CC79A7",
    "ENDW": "#CC79A7",
    "STOP": "#999999",
}
# These three follow the page in the report, where a dark theme exchanges them; nothing else may use their values.
INK, MUTED, GRID = "#1F2329", "#69707A", "#DFE3E8"
DARK_TEXT = "#101418"  # on light fills, in either theme
SEQUENTIAL = "Cividis"  # 0 to 1
SIGNED = ["#A64B00", "#D97B1F", "#F2B872", "#F7F7F7", "#9CC7E6", "#3A8CC4", "#005A9C"]  # orange - … 0 … + blue
POSITIVE, NEGATIVE = "#2E86C8", "#D97B1F"  # the ends of SIGNED that read on light and on dark
PICKED = "#FF2D78"  # outline of what is picked; seen on blue, yellow and orange alike


def op_words(op: str) -> str:
    """ "+ INC": the opcode beside its sign in the classic language."""
    return f"{GLYPHS.get(op, '')} {op}".strip()


def site_words(site: str) -> str:
    """A residual hook as a short axis label: "input" before the first layer, "L0" after layer 0; others stay."""
    if site == "blocks.0.hook_resid_pre":
        return "input"
    match = re.fullmatch(r"blocks\.(\d+)\.hook_(\w+)", site)
    if match is None:
        return site
    return f"L{match[1]}" if match[2] == "resid_post" else f"L{match[1]} {match[2]}"


def node_words(node: str) -> str:
    """ "L1H3" for "a1.h3", "MLP 1" for "m1"; an input of a head is named: "the keys of L1H3"."""
    try:
        part: Reader | Writer = Reader.named(node)
    except ValueError:
        try:
            part = Writer.named(node)
        except ValueError:
            return node  # no part of a graph: its name says what it is
    if part.head is None:
        return node if part.layer is None else f"MLP {part.layer}"
    inputs = {"q": "the queries of ", "k": "the keys of ", "v": "the values of "}
    return f"{inputs.get(part.kind, '')}L{part.layer}H{part.head}"


def with_certainty(row: Any, *, digits: int = 3) -> str:
    """ "0.930 [0.912, 0.945], n = 812" from a row of the tidy frame; an absent interval or n is left out."""
    import pandas as pd

    text = f"{row.estimate:.{digits}f}"
    if pd.notna(row.ci_low) and pd.notna(row.ci_high):
        text += f" [{row.ci_low:.{digits}f}, {row.ci_high:.{digits}f}]"
    return text + (f", n = {int(row.n):,}" if pd.notna(row.n) else "")


def named_rows(frame: pd.DataFrame) -> list[Any]:
    """The rows as named tuples."""
    return list(frame.itertuples())


def present(frame: pd.DataFrame, column: str) -> list[str]:
    """The values of a column in order of appearance, absent ones left out."""
    return list(dict.fromkeys(frame[column].dropna()))
