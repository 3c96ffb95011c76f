"""The report's section on interchange interventions: what the model uses."""

from __future__ import annotations

import pandas as pd

from interp.figures import iia_heatmap, op_words, where_kept
from interp.figures.style import named_rows, present
from interp.report.material import Material, Missing
from interp.report.page import Page, code, details, escape, how_to_read, missing, table
from interp.report.rows import INPUT_SITE, beside, by_layer, calibration, certain, place
from interp.results import Control, Method, Metric, select, site_order

_CONTROLS = {
    Control.UNPATCHED: "left alone",
    Control.WRONG_SITE: "wrong positions",
    Control.UNTRAINED_MODEL: "untrained model",
    Control.RANDOM_SUBSPACE: "random subspace",
}


def interventions_section(material: Material, page: Page) -> str:
    """Where each variable is best swapped, beside its controls, and the heatmaps of every position set."""
    frame = material.frames["interventions"]
    if isinstance(frame, Missing):
        return missing(frame.message, frame.command)
    swaps = select(frame, metric=Metric.IIA, stratum="changes", control=None, op=None)
    if swaps.empty:
        return missing("The run's interventions hold no IIA.", material.command("interventions"))
    body = material.warning("interventions") + how_to_read(
        "Take two states, a base and a source. Run the model on the base, but give it, after one layer and at one set "
        "of positions, the activations that it had on the source. If that place carries the variable X, the model must "
        "now answer what the machine answers on the base with X set to its value in the source. <b>IIA</b> "
        "(interchange-intervention accuracy) is the share of pairs where the whole predicted state is exactly that.",
        "Only pairs whose answer should change are shown: on the others doing nothing is right. Controls on the same "
        "pairs: the model <b>left alone</b>, the same swap at as many <b>wrong positions</b>, an <b>untrained</b> "
        "model, a <b>random subspace</b> of the same rank. Three ceilings are no evidence: before the first layer "
        "(“input”) a swap edits the input, after the last one it exchanges the output, and swapping <code>all</code> "
        "positions gives the model's answer on the source.",
        *calibration({Method.FULL_VECTOR: "swapping whole vectors gives"}),
    )
    body += _best_swaps(frame) + _by_stratum(frame, material) + _kept(frame, material, page)
    panels = [(name, _swap_panel(frame, name, page)) for name in present(swaps, "position")]
    return body + "<h3>Every layer, position set by position set</h3>" + page.tabs("swapped at", panels)


def _by_stratum(frame: pd.DataFrame, material: Material) -> str:
    """The best swap of each variable, stratum by stratum: three numbers, the model left alone, the same value."""
    rows = frame.loc[frame["op"].notna() & (frame["pair_design"] == "stratified") & (frame["stratum"] == "changes")]
    own = select(rows, metric=Metric.IIA, control=None, method=Method.FULL_VECTOR)
    if own.empty:
        return ""
    world, lines = material.run.config.world, []
    for row in named_rows(own):
        key = {"variable": row.variable, "site": row.site, "position": row.position, "op": row.op}
        here = select(rows, method=Method.FULL_VECTOR, **key)
        beside_it = [
            select(here, metric=metric, control=control).estimate
            for metric, control in (
                (Metric.EFFECT_ACCURACY, None),
                (Metric.SIDE_ACCURACY, None),
                (Metric.IIA, Control.UNPATCHED),
            )
        ]
        same = select(frame, metric=Metric.IIA, control=Control.SAME_VALUE, method=Method.FULL_VECTOR, **key).estimate
        cells = [f"{values.iloc[0]:.2f}" if len(values) else "" for values in (*beside_it, same)]
        lines.append(
            [code(row.variable), place(row), escape(op_words(row.op)), certain(row), *cells, f"{int(row.n):,}"]
        )
    caption = (
        f"The swap of each variable that moves most over all pairs, {world.stratum_title} by {world.stratum_title}, on "
        "pairs whose answer should change. “What should change” is the share of those parts of the answer that come "
        "out as they should, “what should stay” that of the others: a place that holds more than the variable moves "
        "what should change and spoils what should stay. “Same value”: swapped from a source in which the variable is "
        "the same, the answer must stay."
    )
    headings = [
        "variable", "swapped at", world.stratum_title, "whole answer (IIA)", "what should change", "what should stay",
        "left alone", "same value", "pairs",
    ]  # fmt: skip
    shown = table(headings, lines, caption=caption, numbers=range(3, len(headings)))
    return f"<h3>{escape(world.stratum_title.capitalize())} by {escape(world.stratum_title)}</h3>{shown}"


def _kept(frame: pd.DataFrame, material: Material, page: Page) -> str:
    """Every variable, position set and layer at once, the probe's accuracy below."""
    probes = material.frames.get("probes")
    try:
        drawing = where_kept(frame, probes if isinstance(probes, pd.DataFrame) else None)
    except ValueError:
        return ""
    return "<h3>Where is each variable kept, and until when is it used?</h3>" + page.figure(
        drawing,
        alt="IIA of every variable by position set and layer, above the accuracy of a probe; numbers below.",
        caption="Above: bright where swapping the place changes the answer as the variable should. Below: what a probe "
        "reads there. A variable can often be read long after, or far from, where it is used.",
    )


def _swap_panel(frame: pd.DataFrame, position: str, page: Page) -> str:
    """All heatmaps of one position set: the whole vector in both designs, the probe's subspace."""
    kinds = {
        (
            "independent",
            Method.FULL_VECTOR,
        ): "Base and source are drawn independently; the whole activation is swapped.",
        ("independent", Method.PROBE_SUBSPACE): "Only the subspace that the variable's probe reads is swapped.",
        (
            "minimal",
            Method.FULL_VECTOR,
        ): "Minimal pairs: the source is the base with one edit that changes the variable. "
        "They cannot tell a variable from what follows from it, and are weaker evidence.",
    }
    body = ""
    for (design, method), words in kinds.items():
        rows = select(frame, metric=Metric.IIA, stratum="changes", pair_design=design, method=method, position=position)
        if select(rows, control=None).empty:
            continue
        drawing = iia_heatmap(frame, position=position, pair_design=design, method=method)
        ranks = sorted({int(rank) for rank in rows["rank"].dropna()})
        rank = f" Rank {', '.join(map(str, ranks))}." if ranks else ""
        alt = f"IIA by variable and layer at {position}, {design} pairs, with controls; numbers in the table below it."
        caption = (
            f"{words}{rank} Colour runs from 0 to 1; a hover shows the 95 % bootstrap interval over programs and n."
        )
        numbers = by_layer(rows, Control.UNPATCHED)
        note = "IIA, with that of the model left alone in parentheses."
        body += page.figure(drawing, alt=alt, caption=caption)
        body += details("The numbers as a table", f"<p>{note}</p>{numbers}")
    return body


def _proper(frame: pd.DataFrame) -> pd.DataFrame:
    """Whole-vector swaps of independent pairs whose answer should change, at places that are no ceiling.

    Left out are all positions together, the input (before the first layer) and the output (after the last).
    """
    rows = select(frame, metric=Metric.IIA, stratum="changes", pair_design="independent", method=Method.FULL_VECTOR)
    ends = {INPUT_SITE, *site_order(rows.site)[-1:]}
    return rows.loc[~rows.site.isin(list(ends)) & (rows.position != "all")]


def _best_swaps(frame: pd.DataFrame) -> str:
    """Per variable the proper place of highest IIA, beside its controls."""
    rows = _proper(frame)
    own = select(rows, control=None)
    controls = [control for control in _CONTROLS if len(select(rows, control=control))]
    lines = []
    for name in present(own, "variable"):
        best = own.loc[select(own, variable=name).estimate.idxmax()]
        lines.append([code(name), place(best), certain(best), *beside(rows, controls, best), f"{int(best.n):,}"])
    if not lines:
        return ""
    caption = (
        f"Per variable the best swap of whole activations among {len(own.groupby(['site', 'position']))} places, the "
        "three ceilings left out (independent pairs whose answer should change). The best of many is flattered by its "
        "choice. Intervals: 95 %, bootstrap over programs."
    )
    headings = ["variable", "best swapped at", "IIA", *(_CONTROLS[control] for control in controls), "pairs"]
    return table(headings, lines, caption=caption, numbers=range(2, len(headings)))


def swap_finding(material: Material) -> str | None:
    """The variable with the highest IIA inside the model, beside its controls, as a sentence."""
    frame = material.frames["interventions"]
    if isinstance(frame, Missing):
        return None
    rows = _proper(frame)
    own = select(rows, control=None)
    if own.empty:
        return None
    best = own.loc[own.estimate.idxmax()]
    held = [
        f"{value} {words}"
        for words, value in zip(_CONTROLS.values(), beside(rows, list(_CONTROLS), best), strict=True)
        if value
    ]
    return (
        f"<b>Causes.</b> Swapping the activations at {place(best)} between two states makes the model answer as the "
        f"machine does with {code(best.variable)} exchanged: IIA {certain(best)} over {int(best.n)} pairs "
        f"({', '.join(held)})."
    )
