"""Variables by layers: probes and interchange interventions, each measured panel beside its controls.

Panels share the variables (rows) and one fixed scale from 0 to 1; differences stand on a diverging scale from -1 to 1.
Columns are the residual stream before the first layer ("input") and after each ("L0", "L1", …).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.figures.style import SEQUENTIAL, SIGNED, named_rows, present, site_words, with_certainty
from interp.figures.template import TEMPLATE
from interp.results import Control, Method, Metric, select, site_order

_CONSTANT = {Control.MAJORITY_CLASS, Control.EMBEDDING_ONLY, Control.UNPATCHED}  # the same at every layer

_FULL_WIDTH = 24  # columns of cells in the widest figure


@dataclass(frozen=True)
class Panel:
    """One heatmap of a row of heatmaps."""

    title: str
    rows: pd.DataFrame  # tidy rows, one a variable and site
    signed: bool = False  # from -1 to 1 about 0, not from 0 to 1
    one_column: bool = False  # the same at every layer: show one


def probe_heatmap(probes: pd.DataFrame, *, position: str, method: str = Method.LOGISTIC) -> go.Figure:
    """Probe accuracy of each variable at each layer, at one position, beside its controls, and selectivity.

    Controls that the frame holds get a panel each: the control task, an untrained model, the same variable had opcodes
    other meanings, shuffled labels, the embedding alone, the commonest class. Selectivity is accuracy minus
    control-task accuracy, from -1 to 1.

    Raises:
        ValueError: the frame has no probe accuracy at this position.
    """
    here = select(probes, position=position, method=method, stratum=None)
    accuracy = select(here, metric=Metric.ACCURACY)
    if select(accuracy, control=None).empty:
        known = present(select(probes, metric=Metric.ACCURACY, method=method), "position")
        raise ValueError(
            f"the frame has no {method} probe accuracy at position {position!r}; it has {', '.join(known) or 'none'}"
        )
    panels = [Panel("probe accuracy", select(accuracy, control=None))]
    panels += _controls(
        accuracy,
        {
            Control.CONTROL_TASK: "control task",
            Control.UNTRAINED_MODEL: "untrained model",
            Control.ALTERED_SEMANTICS: "altered semantics",
            Control.SHUFFLED_LABELS: "shuffled labels",
            Control.EMBEDDING_ONLY: "embed-<br>ding",
            Control.MAJORITY_CLASS: "majo-<br>rity",
        },
    )
    if len(selectivity := select(here, metric=Metric.SELECTIVITY, control=None)):
        panels.append(Panel("selectivity", selectivity, signed=True))
    return _panels(panels, title=f"Read off at {position}: linear probes by variable and layer, beside their controls")


def iia_heatmap(
    interventions: pd.DataFrame,
    *,
    position: str,
    pair_design: str = "independent",
    stratum: str = "changes",
    method: str = Method.FULL_VECTOR,
) -> go.Figure:
    """Interchange-intervention accuracy of each variable at each layer, at one position set, beside its controls.

    Controls that the frame holds get a panel each: the model left alone on the same pairs, the same swap at as many
    wrong positions, in an untrained model, in a random subspace of the same rank.

    Raises:
        ValueError: the frame has no IIA for this position set, pair design, stratum and method.
    """
    kind = select(interventions, metric=Metric.IIA, method=method, pair_design=pair_design, stratum=stratum)
    here = select(kind, position=position)
    if select(here, control=None).empty:
        known = present(select(kind, control=None), "position")
        raise ValueError(
            f"the frame has no {method} IIA of {pair_design} pairs in stratum {stratum!r} at {position!r}; "
            f"it has {', '.join(known) or 'none'}"
        )
    swap = {Method.FULL_VECTOR: "whole vector", Method.PROBE_SUBSPACE: "probe's subspace"}.get(Method(method), method)
    panels = [Panel(f"IIA, {swap}", select(here, control=None))]
    panels += _controls(
        here,
        {
            Control.RANDOM_SUBSPACE: "random subspace",
            Control.WRONG_SITE: "wrong positions",
            Control.UNTRAINED_MODEL: "untrained model",
            Control.UNPATCHED: "un-<br>patched",
        },
    )
    where = {"changes": "where the answer should change", "same": "where it should not", "all": "all pairs"}
    return _panels(panels, title=f"Swapped at {position}: {pair_design} pairs, {where.get(stratum, stratum)}")


def _controls(rows: pd.DataFrame, titles: dict[Control, str]) -> list[Panel]:
    found = ((control, select(rows, control=control)) for control in titles)
    return [Panel(titles[c], part, one_column=c in _CONSTANT) for c, part in found if len(part)]


def _panels(panels: list[Panel], *, title: str) -> go.Figure:
    """Panels side by side; the first decides which variables there are, and their order from the top."""
    variables = present(panels[0].rows, "variable")
    sites = site_order(panels[0].rows.site)
    columns = [sites[:1] if panel.one_column else sites for panel in panels]
    grid = make_subplots(
        rows=1,
        cols=len(panels),
        shared_yaxes=True,
        column_widths=[max(1.4, len(names)) for names in columns],
        horizontal_spacing=0.012,
        subplot_titles=[panel.title for panel in panels],
    )
    for place, (panel, names) in enumerate(zip(panels, columns, strict=True), start=1):
        grid.add_trace(_heatmap(panel, variables, names), row=1, col=place)
    used = min(1.0, (sum(map(len, columns)) + 2) / _FULL_WIDTH)  # cells are about as wide in every figure
    for axis in grid.select_xaxes():
        axis.domain = [used * end for end in axis.domain]
    for annotation in grid.layout.annotations:
        annotation.update(x=used * annotation.x, font={"size": 12})
    signed = any(panel.signed for panel in panels)
    bar = {"thickness": 12, "outlinewidth": 0, "x": used + 0.012, "xanchor": "left", "lenmode": "fraction"}
    half = {"len": 0.46, "y": 1.0, "yanchor": "top"} if signed else {"len": 1.0, "y": 0.5}
    scales = {
        "coloraxis": {
            "colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1,
            "colorbar": {**bar, **half, "title": {"text": "share right", "side": "right", "font": {"size": 12}}},
        },
        "coloraxis2": {
            "colorscale": SIGNED, "cmin": -1, "cmax": 1, "cmid": 0,
            "colorbar": {
                **bar, "len": 0.46, "y": 0.0, "yanchor": "bottom",
                "title": {"text": "difference", "side": "right", "font": {"size": 12}},
            },
        },
    }  # fmt: skip
    grid.update_layout(
        template=TEMPLATE,
        title=title,
        height=110 + 25 * len(variables),
        margin={"l": 10, "r": 10, "t": 76, "b": 30},
    )
    grid.update_layout(scales if signed else {"coloraxis": scales["coloraxis"]})
    grid.update_xaxes(showgrid=False, type="category")
    grid.update_yaxes(showgrid=False, type="category", autorange="reversed")
    return grid


def _heatmap(panel: Panel, variables: list[str], sites: list[str]) -> go.Heatmap:
    found = {(row.variable, row.site): row for row in named_rows(panel.rows)}
    cells = [[found.get((name, site)) for site in sites] for name in variables]
    name = panel.title.replace("-<br>", "").replace("<br>", " ")
    return go.Heatmap(
        x=["" if panel.one_column else site_words(site) for site in sites],
        y=variables,
        z=[[None if cell is None else cell.estimate for cell in line] for line in cells],
        coloraxis="coloraxis2" if panel.signed else "coloraxis",
        xgap=1,
        ygap=1,
        text=[["" if cell is None else _short(cell.estimate) for cell in line] for line in cells],
        texttemplate="%{text}",
        textfont={"size": 10},
        hovertext=[[_hover(name, cell) for cell in line] for line in cells],
        hoverinfo="text",
        name=name,
    )


def _short(value: float) -> str:
    """Two decimals without the leading zero, so that a number fits its cell: .93, 1, −.07, .00."""
    if math.isnan(value):
        return ""
    text = f"{value:.2f}".replace("0.", ".", 1) if abs(value) < 0.995 else f"{value:.0f}"
    return ".00" if text == "-.00" else text.replace("-", "−")


def _hover(name: str, cell: Any) -> str:
    if cell is None:
        return ""
    rank = "" if pd.isna(cell.rank) else f", rank {int(cell.rank)}"
    return f"<b>{cell.variable}</b> at {cell.position}, {site_words(cell.site)}{rank}<br>{name} {with_certainty(cell)}"
