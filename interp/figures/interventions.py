"""Where the model keeps each variable, and until when it is used: every variable, position set and layer at once."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from interp.figures.style import SEQUENTIAL, named_rows, present, site_words, with_certainty
from interp.figures.template import TEMPLATE
from interp.results import Method, Metric, select, site_order


def where_kept(
    interventions: pd.DataFrame,
    probes: pd.DataFrame | None = None,
    *,
    pair_design: str = "independent",
    method: str = Method.FULL_VECTOR,
    probe: str = Method.LOGISTIC,
) -> go.Figure:
    """IIA of each variable (rows) by position set and layer (columns), and below it what a probe reads there.

    Above, swapping the place must make the model answer with the source's value: bright where the variable is kept and
    still to be used, dark again after its last use. Below, the accuracy of a probe, bright wherever it can be read.
    Both run from 0 to 1; pairs are those whose answer should change. Before the first layer a swap edits the input,
    after the last it exchanges the output, and `all` gives the source's answer: these are ceilings.

    Args:
        interventions: tidy rows of interchange.
        probes: tidy rows of probes; None leaves the lower part out.
        pair_design: "independent" or "minimal".
        method: what was swapped.
        probe: which probe.

    Raises:
        ValueError: the frame has no such IIA.
    """
    iia = select(
        interventions, metric=Metric.IIA, method=method, pair_design=pair_design, stratum="changes", control=None
    )
    if iia.empty:
        raise ValueError(f"the frame has no {method} IIA of {pair_design} pairs whose answer should change")
    parts = [("used: interchange accuracy (IIA)", iia)]
    if probes is not None:
        read = select(probes, metric=Metric.ACCURACY, method=probe, control=None)
        if len(read := read.loc[read.variable.isin(list(iia.variable.unique()))]):
            parts.append((f"readable: accuracy of the {probe} probe", read))
    variables = present(iia, "variable")
    figure: Any = make_subplots(
        rows=len(parts), cols=1, vertical_spacing=0.2 if len(parts) > 1 else 0, subplot_titles=[t for t, _ in parts]
    )
    for row, (title, rows) in enumerate(parts, start=1):
        figure.add_trace(_cells(title, rows, variables), row=row, col=1)
    figure.update_layout(
        template=TEMPLATE,
        title="Where each variable is kept, and until when it is used",
        height=len(parts) * (150 + 20 * len(variables)),
        margin={"l": 10, "r": 10, "t": 64, "b": 40},
        coloraxis={
            "colorscale": SEQUENTIAL,
            "cmin": 0,
            "cmax": 1,
            "colorbar": {"thickness": 12, "outlinewidth": 0, "title": {"text": "share right", "side": "right"}},
        },
    )
    for annotation in figure.layout.annotations:
        annotation.update(font={"size": 12})
    figure.update_xaxes(showgrid=False, tickfont={"size": 9})
    figure.update_yaxes(showgrid=False, type="category", autorange="reversed")
    return figure


def _cells(title: str, rows: pd.DataFrame, variables: list[str]) -> go.Heatmap:
    """One heatmap whose columns are layers within positions."""
    sites = site_order(rows.site)
    columns = [(position, site) for position in present(rows, "position") for site in sites]
    found = {(row.variable, row.position, row.site): row for row in named_rows(rows)}
    cells = [[found.get((name, *column)) for column in columns] for name in variables]
    return go.Heatmap(
        x=[[position for position, _ in columns], [site_words(site) for _, site in columns]],
        y=variables,
        z=[[None if cell is None else cell.estimate for cell in line] for line in cells],
        hovertext=[
            [
                ""
                if cell is None
                else f"<b>{cell.variable}</b> at {cell.position}, {site_words(cell.site)}<br>{with_certainty(cell)}"
                for cell in line
            ]
            for line in cells
        ],
        hoverinfo="text",
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        name=title,
    )
