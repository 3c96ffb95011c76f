"""Which instruction breaks when another's own part is ablated: matrices of losses, beside random parts."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.figures.style import MUTED, TEMPLATE, named_rows, op_words, present, with_certainty
from interp.results import Control, Metric, select

_LOSS = [[0.0, "#F7F7F7"], [0.5, "#9CC7E6"], [1.0, "#005A9C"]]
_LEVELS = {"node": "heads and MLPs", "neuron": "neurons", "subspace": "directions"}
RANDOM = "random parts"


def loss_matrix(
    circuits: pd.DataFrame, *, level: str, ablation: str
) -> tuple[list[str], dict[tuple[str, str], object]]:
    """(instructions, cells): the row of the frame for (part, instruction); parts are instructions, "shared", "random".

    Raises:
        ValueError: the frame has no dissociation of that level and ablation.
    """
    rows = select(circuits, metric=Metric.ABLATION_LOSS, granularity=level, ablation=ablation)
    ops = present(select(rows, control=None), "op")
    if not ops:
        raise ValueError(f"the frame has no dissociation at level {level!r} under {ablation} ablation")
    cells: dict[tuple[str, str], object] = {}
    for row in named_rows(select(rows, control=None)):
        cells[str(row.stratum).removeprefix("own:"), row.op] = row
    for row in named_rows(select(rows, control=Control.RANDOM_PART)):
        cells[RANDOM, row.op] = row
    return ops, cells


def dissociation_heatmap(circuits: pd.DataFrame, *, ablation: str = "resample") -> go.Figure:
    """Loss of each instruction (columns) when a part is ablated (rows): a panel a level that the frame holds.

    The scale is fixed from 0, spared, to 1, gone. A clean double dissociation is dark on the diagonal alone; the last
    two rows are what all instructions share, and the mean over random parts of the same size.

    Raises:
        ValueError: the frame has no dissociation under this ablation.
    """
    levels = present(select(circuits, metric=Metric.ABLATION_LOSS, ablation=ablation), "granularity")
    levels = [level for level in _LEVELS if level in levels]
    if not levels:
        raise ValueError(f"the frame has no dissociation under {ablation} ablation; tapelens circuit measures it")
    found = {level: loss_matrix(circuits, level=level, ablation=ablation) for level in levels}
    sizes = {level: _size(cells) for level, (_, cells) in found.items()}
    grid = make_subplots(
        rows=1,
        cols=len(levels),
        shared_yaxes=True,
        horizontal_spacing=0.02,
        subplot_titles=[f"{sizes[level]} {_LEVELS[level]}" for level in levels],
    )
    for column, level in enumerate(levels, start=1):
        ops, cells = found[level]
        parts = [*ops, "shared", RANDOM]
        table = [[cells.get((part, op)) for op in ops] for part in parts]
        grid.add_trace(
            go.Heatmap(
                x=ops,
                y=[_part_words(part) for part in parts],
                z=[[getattr(cell, "estimate", None) for cell in line] for line in table],
                coloraxis="coloraxis",
                xgap=1,
                ygap=1,
                text=[[_short(cell) for cell in line] for line in table],
                texttemplate="%{text}",
                textfont={"size": 10},
                hovertext=[
                    [_hover(part, op, cell) for op, cell in zip(ops, line, strict=True)]
                    for part, line in zip(parts, table, strict=True)
                ],
                hoverinfo="text",
                name=level,
            ),
            row=1,
            col=column,
        )
    n_parts = max(len(ops) for ops, _ in found.values()) + 2
    grid.update_layout(
        template=TEMPLATE,
        title="What is lost when a part is ablated: own parts (rows) by instruction (columns)",
        height=120 + 27 * n_parts,
        margin={"l": 10, "r": 10, "t": 76, "b": 30},
        coloraxis={
            "colorscale": _LOSS, "cmin": 0, "cmax": 1,
            "colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"text": "lost", "side": "right"}},
        },
    )  # fmt: skip
    grid.update_xaxes(showgrid=False, type="category", tickangle=-60, tickfont={"size": 10})
    grid.update_yaxes(showgrid=False, type="category", autorange="reversed")
    return grid


def along_curves(circuits: pd.DataFrame) -> go.Figure:
    """Jaccard of each checkpoint's circuit with the final one over training, a line an instruction, beside chance.

    Raises:
        ValueError: the frame has no circuits along a run.
    """
    rows = select(circuits, metric=Metric.JACCARD, stratum="final")
    own, chance = select(rows, control=None), select(rows, control=Control.RANDOM_CIRCUIT)
    if own.empty:
        raise ValueError("the frame has no circuits along the run; tapelens circuit --along measures them")
    from interp.figures.style import OP_COLORS, figure

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


def _size(cells: dict[tuple[str, str], object]) -> int:
    return int(next(iter(cells.values())).circuit_size)  # type: ignore[attr-defined]


def _part_words(part: str) -> str:
    return part if part == RANDOM else "shared by all" if part == "shared" else f"own part of {part}"


def _short(cell: object) -> str:
    if cell is None:
        return ""
    value = float(cell.estimate)  # type: ignore[attr-defined]
    text = f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.0f}"
    return ".00" if text == "-.00" else text.replace("-", "−")


def _hover(part: str, op: str, cell: object) -> str:
    if cell is None:
        return ""
    return f"<b>{_part_words(part)}</b> ablated<br>{op} loses {with_certainty(cell)} of its logit difference"
