"""The report's section on probes: what can be read off the activations."""

from __future__ import annotations

import pandas as pd

from interp.figures import probe_heatmap
from interp.figures.style import named_rows, present
from interp.report.material import Material, Missing
from interp.report.page import Page, code, details, escape, how_to_read, missing, table
from interp.report.rows import INPUT_SITE, beside, by_layer, calibration, certain, place
from interp.results import Control, Method, Metric, select
from interp.worlds import World

_CONTROLS = {
    Control.CONTROL_TASK: "control task",
    Control.EMBEDDING_ONLY: "embedding",
    Control.UNTRAINED_MODEL: "untrained",
    Control.MAJORITY_CLASS: "majority",
}


def probes_section(material: Material, page: Page) -> str:
    """Where each variable is best decoded, beside its controls, and the heatmaps of every position."""
    frame = material.frames["probes"]
    if isinstance(frame, Missing):
        return missing(frame.message, frame.command)
    accuracy = select(frame, metric=Metric.ACCURACY, method=Method.LOGISTIC, control=None)
    if accuracy.empty:
        return missing("The run's probes hold no accuracy.", material.command("probes"))
    positions = present(accuracy, "position")
    body = material.warning("probes") + how_to_read(
        "A probe is a linear classifier that reads one of the world's variables off the activations at one token "
        "position after one layer. It is fitted on training examples and scored on held-out ones. “input” is the "
        "residual stream before the first layer, “L0” after layer 0, and so on.",
        "An accuracy alone says little, so its controls stand beside it: the same probe on <b>labels re-drawn</b> by "
        "input type (control task), on an <b>untrained</b> copy of the model, on the <b>embedding</b> alone, and the "
        "commonest answer (majority). <b>Selectivity</b> is accuracy minus that of the control task. A probe shows "
        "what is there; whether the model uses it is the next section's question.",
        *calibration({Method.LOGISTIC: "a logistic probe"}),
    )
    body += _best_probes(frame)
    panels = []
    for position in positions:
        alt = f"Probe accuracy by variable and layer at {position}, with controls; numbers in the table below it."
        caption = (
            f"Linear probes at {code(position)}. Colour runs from 0 to 1, for selectivity from −1 to 1. A hover shows "
            "the 95 % bootstrap interval over programs and n."
        )
        shown = page.figure(probe_heatmap(frame, position=position), alt=alt, caption=caption)
        numbers = by_layer(
            select(frame, metric=Metric.ACCURACY, method=Method.LOGISTIC, position=position), Control.CONTROL_TASK
        )
        note = "Accuracy, with the control task's in parentheses."
        panels.append((position, shown + details("The numbers as a table", f"<p>{note}</p>{numbers}")))
    body += "<h3>Every layer, position by position</h3>" + page.tabs("read at", panels)
    return body + _glossary(accuracy, material.run.config.world)


def _best_probes(frame: pd.DataFrame) -> str:
    """Per variable the place inside the model of highest selectivity (of accuracy, without a control task)."""
    inside = frame.loc[frame.site != INPUT_SITE]
    accuracy = select(inside, metric=Metric.ACCURACY, method=Method.LOGISTIC)
    selectivity = select(inside, metric=Metric.SELECTIVITY, method=Method.LOGISTIC, control=None)
    judged = selectivity if len(selectivity) else select(accuracy, control=None)
    controls = [control for control in _CONTROLS if len(select(accuracy, control=control))]
    lines = []
    for name in present(judged, "variable"):
        best = judged.loc[select(judged, variable=name).estimate.idxmax()]
        here = select(accuracy, variable=name, site=str(best.site), position=str(best.position), control=None)
        if here.empty:
            continue
        row = named_rows(here)[0]
        gap = certain(best) if len(selectivity) else ""
        lines.append([code(name), place(row), certain(row), *beside(accuracy, controls, row), gap, f"{int(row.n):,}"])
    if not lines:
        return ""
    places = len(judged.groupby(["site", "position"]))
    caption = (
        f"Per variable the place of highest {'selectivity' if len(selectivity) else 'accuracy'} among the {places} "
        "inside the model (after layer 0 and later). The best of many is flattered by its choice. Intervals: 95 %, "
        "bootstrap over programs."
    )
    headings = ["variable", "best read at", "probe accuracy", *(_CONTROLS[c] for c in controls), "selectivity", "n"]
    return table(headings, lines, caption=caption, numbers=range(2, len(headings)))


def _glossary(rows: pd.DataFrame, world: World) -> str:
    """What each variable is, as the world's equations put it; members of families are left out."""
    known = world.variables()
    names = [name for name in present(rows, "variable") if name in known and "[" not in name]
    lines = [[code(name), known[name].kind, escape(known[name].equation)] for name in names]
    return details("What the variables are", table(["variable", "kind", "equation"], lines)) if lines else ""
