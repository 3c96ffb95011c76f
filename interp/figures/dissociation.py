"""Which instruction breaks when another's own part is ablated: matrices of losses, beside random parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from interp.figures.style import DARK_TEXT, MUTED, PICKED, named_rows, op_words, present, with_certainty
from interp.figures.svg import INHERITED, Drawing, drawing, text
from interp.results import Control, Metric, select

LEVEL_WORDS = {"node": "heads and MLPs", "neuron": "neurons", "subspace": "directions"}  # units of a level
RANDOM = "random parts"
_CELL, _LEFT, _TOP = 30, 132, 62


def loss_matrix(circuits: pd.DataFrame, *, level: str, ablation: str) -> tuple[list[str], dict[tuple[str, str], Any]]:
    """(instructions, cells): the row of the frame for (part, instruction); parts are instructions, "shared", "random".

    Raises:
        ValueError: the frame has no dissociation of that level and ablation.
    """
    rows = select(circuits, metric=Metric.ABLATION_LOSS, granularity=level, ablation=ablation)
    ops = present(select(rows, control=None), "op")
    if not ops:
        raise ValueError(f"the frame has no dissociation at level {level!r} under {ablation} ablation")
    cells: dict[tuple[str, str], Any] = {}
    for row in named_rows(select(rows, control=None)):
        cells[str(row.stratum).removeprefix("own:"), row.op] = row
    for row in named_rows(select(rows, control=Control.RANDOM_PART)):
        cells[RANDOM, row.op] = row
    return ops, cells


def dissociation_matrices(
    circuits: pd.DataFrame,
    *,
    ablation: str = "resample",
    level: str | None = None,
    marked: str = "",
    inside: bool = True,
) -> Drawing:
    """Loss of each instruction (columns) when a part is ablated (rows): a matrix a level that the frame holds.

    The scale is fixed from 0, spared, light, to 1, gone, dark blue. A clean double dissociation is dark on the diagonal
    alone; the last two rows are what all instructions share, and the mean over random parts of the same size. The one
    drawing that the report, the pages in docs/ and the app share.

    Args:
        circuits: the tidy frame of a run's circuits.
        ablation: of parts.
        level: only the matrix of this level.
        marked: an instruction whose row and column are outlined.
        inside: to stand inside an HTML page (`interp.figures.svg.drawing`); else a file of its own.

    Raises:
        ValueError: the frame has no dissociation under this ablation.
    """
    measured = present(select(circuits, metric=Metric.ABLATION_LOSS, ablation=ablation), "granularity")
    levels = [name for name in LEVEL_WORDS if name in measured and level in (None, name)]
    if not levels:
        raise ValueError(f"the frame has no dissociation under {ablation} ablation; tapelens circuit measures it")
    parts: list[str] = []
    left, height = float(_LEFT), 0
    for name in levels:
        ops, cells = loss_matrix(circuits, level=name, ablation=ablation)
        owners = [*ops, "shared", RANDOM]
        parts.append(text(left, 16, f"{_size(cells)} {LEVEL_WORDS[name]}", size=13, fill=INHERITED))
        if name == levels[0]:
            parts += [
                text(_LEFT - 8, _TOP + _CELL * row + 19, _part_words(owner), size=11, fill=INHERITED, anchor="end")
                for row, owner in enumerate(owners)
            ]
        parts += _matrix(ops, owners, cells, left)
        if marked in ops:
            parts += _outlines(ops.index(marked), len(ops), len(owners), left)
        left += _CELL * len(ops) + 24
        height = max(height, _TOP + _CELL * len(owners) + 6)
    title = f"Share of the logit difference lost under {ablation} ablation of each part, by instruction"
    return drawing(parts, width=left, height=height, title=title, inside=inside)


def _matrix(ops: Sequence[str], owners: Sequence[str], cells: Mapping[tuple[str, str], Any], left: float) -> list[str]:
    """The cells of one level, their values in them, instructions above."""
    parts = []
    for column, op in enumerate(ops):
        x = left + _CELL * column
        above = text(0, 0, op, size=9, fill=INHERITED)
        parts.append(f'<g transform="translate({x + _CELL / 2 + 2:g},{_TOP - 6}) rotate(-55)">{above}</g>')
        for row, owner in enumerate(owners):
            cell = cells.get((owner, op))
            if cell is not None:
                parts.append(_cell(x, _TOP + _CELL * row, cell, f"{_part_words(owner)} ablated: {op} loses"))
    return parts


def _cell(x: float, y: float, cell: Any, words: str) -> str:
    value = float(cell.estimate)
    share = min(1.0, max(0.0, value))
    low, high = ((0xF7, 0x9C), (0xF7, 0xC7), (0xF7, 0xE6)), ((0x9C, 0x00), (0xC7, 0x5A), (0xE6, 0x9C))
    ends, at = (low, 2 * share) if share < 0.5 else (high, 2 * share - 1)
    fill = ",".join(f"{round(a + (b - a) * at)}" for a, b in ends)
    ink = "#ffffff" if share > 0.7 else DARK_TEXT
    number = text(x + _CELL / 2 - 1, y + 18, _short(value), size=10, fill=ink, anchor="middle")
    box = f'<rect x="{x:g}" y="{y:g}" width="{_CELL - 2}" height="{_CELL - 2}" fill="rgb({fill})"/>'
    tip = f"{words} {with_certainty(cell)} of its logit difference"
    return f"<g><title>{escape(tip)}</title>{box}{number}</g>"


def _outlines(place: int, n_columns: int, n_rows: int, left: float) -> list[str]:
    """Frames around one instruction's row and column."""
    frame = f'fill="none" stroke="{PICKED}" stroke-width="1.5"'
    offset = _CELL * place
    return [
        f'<rect x="{left - 1:g}" y="{_TOP + offset - 1:g}" width="{_CELL * n_columns}" height="{_CELL}" {frame}/>',
        f'<rect x="{left + offset - 1:g}" y="{_TOP - 1:g}" width="{_CELL}" height="{_CELL * n_rows}" {frame}/>',
    ]


def along_curves(circuits: pd.DataFrame) -> go.Figure:
    """Jaccard of each checkpoint's circuit with the final one over training, a line an instruction, beside chance.

    Raises:
        ValueError: the frame has no circuits along a run.
    """
    rows = select(circuits, metric=Metric.JACCARD, stratum="final")
    own, chance = select(rows, control=None), select(rows, control=Control.RANDOM_CIRCUIT)
    if own.empty:
        raise ValueError("the frame has no circuits along the run; tapelens circuit --along measures them")
    from interp.figures.style import OP_COLORS
    from interp.figures.template import figure

    traces = []
    for op in present(own, "op"):
        line = select(own, op=op).sort_values("checkpoint_step")
        traces.append(
            go.Scatter(
                x=[max(1, int(step)) for step in line["checkpoint_step"]],
                y=line["estimate"],
                name=op_words(op).replace("<", "&lt;"),
                mode="lines+markers",
                line={"color": OP_COLORS.get(op, MUTED), "dash": "dash" if op == "ENDW" else "solid"},
            )
        )
    mean = chance.groupby("checkpoint_step")["estimate"].mean()
    steps = [max(1, int(step)) for step in mean.index]  # type: ignore[call-overload]
    traces.append(go.Scatter(x=steps, y=mean, name="chance", mode="lines", line={"color": MUTED, "dash": "dot"}))
    drawn = figure(
        traces, title="The circuit at each checkpoint, held against the final one", height=360,
        margin={"l": 10, "r": 10, "t": 46, "b": 40},
    )  # fmt: skip
    drawn.update_xaxes(title="optimizer step (step 0 at 1)", type="log")
    drawn.update_yaxes(title="Jaccard of edges", range=[0, 1.02])
    return drawn


def _size(cells: dict[tuple[str, str], Any]) -> int:
    return int(next(iter(cells.values())).circuit_size)


def _part_words(part: str) -> str:
    return part if part == RANDOM else "shared by all" if part == "shared" else f"own part of {part}"


def _short(value: float) -> str:
    words = f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.0f}"
    return ".00" if words == "-.00" else words.replace("-", "−")
