"""The report's sections on the model from inside: what can be read off, what is used, which parts carry it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cython_vm import VARIABLES
from interp.figures import (
    GLYPHS,
    OP_COLORS,
    circuit_graph,
    circuits_overview,
    faithfulness_curve,
    iia_heatmap,
    node_words,
    op_words,
    probe_heatmap,
    site_words,
)
from interp.figures.style import present, records, select, site_order
from interp.report.material import Material, Missing
from interp.report.page import Page, code, details, escape, how_to_read, missing, table
from interp.results import Control, Method, Metric

INPUT_SITE = "blocks.0.hook_resid_pre"
_WRONG = {
    Control.UNPATCHED: "left alone",
    Control.WRONG_SITE: "wrong positions",
    Control.UNTRAINED_MODEL: "untrained model",
    Control.RANDOM_SUBSPACE: "random subspace",
}
_PROBE_CONTROLS = {
    Control.CONTROL_TASK: "control task",
    Control.EMBEDDING_ONLY: "embedding",
    Control.UNTRAINED_MODEL: "untrained model",
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
    body = _stale(material, "probes") + how_to_read(
        "A probe is a linear classifier that reads one of the machine's variables off the activations at one token "
        "position after one layer. It is fitted on training programs and scored on held-out ones. “input” is the "
        "residual stream before the first layer, “L0” after layer 0, and so on.",
        "An accuracy alone says little, so its controls stand beside it: the same probe on <b>labels re-drawn</b> by "
        "input type (control task), on an <b>untrained</b> copy of the model, on the <b>embedding</b> alone, and the "
        "commonest answer (majority). <b>Selectivity</b> is accuracy minus that of the control task. A probe shows "
        "what is there; whether the model uses it is the next section's question.",
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
        numbers = _by_layer(
            select(frame, metric=Metric.ACCURACY, method=Method.LOGISTIC, position=position), Control.CONTROL_TASK
        )
        note = "Accuracy, with the control task's in parentheses."
        panels.append((position, shown + details("The numbers as a table", f"<p>{note}</p>{numbers}")))
    return body + "<h3>Every layer, position by position</h3>" + page.tabs("read at", panels) + _glossary(accuracy)


def _best_probes(frame: pd.DataFrame) -> str:
    """Per variable the place inside the model of highest selectivity (of accuracy, without a control task)."""
    inside = frame.loc[frame.site != INPUT_SITE]
    accuracy = select(inside, metric=Metric.ACCURACY, method=Method.LOGISTIC)
    judged = select(inside, metric=Metric.SELECTIVITY, method=Method.LOGISTIC, control=None)
    by, judged = ("selectivity", judged) if len(judged) else ("accuracy", select(accuracy, control=None))
    controls = [control for control in _PROBE_CONTROLS if len(select(accuracy, control=control))]
    rows = []
    for name in present(judged, "variable"):
        best = judged.loc[select(judged, variable=name).estimate.idxmax()]
        here = select(accuracy, variable=name, site=str(best.site), position=str(best.position))
        own = records(select(here, control=None))
        if not own:
            continue
        beside = [select(here, control=control).estimate for control in controls]
        rows.append(
            [
                code(name),
                f"{code(best.position)} {escape(site_words(str(best.site)))}",
                _certain(own[0]),
                *(f"{values.iloc[0]:.3f}" if len(values) else "" for values in beside),
                _certain(best) if by == "selectivity" else "",
                f"{int(own[0].n):,}",
            ]
        )
    places = len(judged.groupby(["site", "position"]))
    headings = [
        "variable",
        "best read at",
        "probe accuracy",
        *(_PROBE_CONTROLS[c] for c in controls),
        "selectivity",
        "n",
    ]
    caption = (
        f"Per variable the place of highest {by} among {places} inside the model (after layer 0 and later). The best of "
        "many is flattered by its choice; intervals are 95 %, bootstrap over programs."
    )
    return table(headings, rows, caption=caption, numbers=range(2, len(headings)))


def interventions_section(material: Material, page: Page) -> str:
    """Where each variable is best swapped, beside its controls, and the heatmaps of every position set."""
    frame = material.frames["interventions"]
    if isinstance(frame, Missing):
        return missing(frame.message, frame.command)
    swaps = select(frame, metric=Metric.IIA, stratum="changes", control=None)
    if swaps.empty:
        return missing("The run's interventions hold no IIA.", material.command("interventions"))
    body = _stale(material, "interventions") + how_to_read(
        "Take two states, a base and a source. Run the model on the base, but give it, after one layer and at one set of "
        "positions, the activations that it had on the source. If that place carries the variable X, the model must now "
        "answer what the machine answers on the base with X set to its value in the source. <b>IIA</b> "
        "(interchange-intervention accuracy) is the share of pairs where the whole predicted state is exactly that.",
        "Only pairs whose answer should change are shown: on the others doing nothing is right. Controls on the same "
        "pairs: the model <b>left alone</b>, the same swap at as many <b>wrong positions</b>, an <b>untrained</b> model, "
        "a <b>random subspace</b> of the same rank. Two ceilings are no evidence: before the first layer (“input”) a swap "
        "edits the input, and swapping <code>all</code> positions gives the model's answer on the source.",
    )
    body += _best_swaps(frame)
    panels = [(name, _swap_panel(frame, name, page)) for name in present(swaps, "position")]
    return body + "<h3>Every layer, position set by position set</h3>" + page.tabs("swapped at", panels)


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
        numbers = _by_layer(rows, Control.UNPATCHED)
        note = "IIA, with that of the model left alone in parentheses."
        body += page.figure(drawing, alt=alt, caption=caption)
        body += details("The numbers as a table", f"<p>{note}</p>{numbers}")
    return body


def _proper_swaps(frame: pd.DataFrame) -> pd.DataFrame:
    """Whole-vector swaps of independent pairs whose answer should change, without the two ceilings."""
    rows = select(frame, metric=Metric.IIA, stratum="changes", pair_design="independent", method=Method.FULL_VECTOR)
    return rows.loc[(rows.site != INPUT_SITE) & (rows.position != "all")]


def _best_swaps(frame: pd.DataFrame) -> str:
    rows = _proper_swaps(frame)
    own = select(rows, control=None)
    controls = [control for control in _WRONG if len(select(rows, control=control))]
    lines = []
    for name in present(own, "variable"):
        best = own.loc[select(own, variable=name).estimate.idxmax()]
        here = select(rows, variable=name, site=str(best.site), position=str(best.position))
        beside = [select(here, control=control).estimate for control in controls]
        lines.append(
            [
                code(name),
                f"{code(best.position)} {escape(site_words(str(best.site)))}",
                _certain(best),
                *(f"{values.iloc[0]:.3f}" if len(values) else "" for values in beside),
                f"{int(best.n):,}",
            ]
        )
    if not lines:
        return ""
    places = len(own.groupby(["site", "position"]))
    caption = (
        f"Per variable the best swap of whole activations among {places} places, the two ceilings left out (independent "
        "pairs whose answer should change). The best of many is flattered by its choice; intervals are 95 %, bootstrap "
        "over programs."
    )
    headings = ["variable", "best swapped at", "IIA", *(_WRONG[control] for control in controls), "pairs"]
    return table(headings, lines, caption=caption, numbers=range(2, len(headings)))


def swap_finding(material: Material) -> str | None:
    """The variable with the highest IIA inside the model, beside its controls, as a sentence."""
    frame = material.frames["interventions"]
    if isinstance(frame, Missing):
        return None
    rows = _proper_swaps(frame)
    own = select(rows, control=None)
    if own.empty:
        return None
    best = own.loc[own.estimate.idxmax()]
    here = select(rows, variable=str(best.variable), site=str(best.site), position=str(best.position))
    beside = [
        f"{select(here, control=control).estimate.iloc[0]:.2f} {words}"
        for control, words in _WRONG.items()
        if len(select(here, control=control))
    ]
    return (
        f"<b>Causes.</b> Swapping the activations at {code(best.position)} ({escape(site_words(str(best.site)))}) between "
        f"two states makes the model answer as the machine does with {code(best.variable)} exchanged in "
        f"{100 * best.estimate:.0f} % of {int(best.n)} pairs ({', '.join(beside)})."
    )


def circuits_section(material: Material, page: Page) -> str:
    """One circuit an instruction: overview, then each with its graph, faithfulness and strongest edges."""
    found = {op: part for op, part in material.circuits.items() if not isinstance(part, Missing)}
    lost = [part for part in material.circuits.values() if isinstance(part, Missing)]
    if not found:
        if all("yet" in part.message for part in lost):
            return missing("The run has no circuits yet.", material.command("circuits"))
        return "".join(missing(part.message, part.command) for part in lost)
    circuits = {op: circuit for op, (circuit, _) in found.items()}
    first = next(iter(circuits.values()))
    heads = f"{first.n_layers} layers × {first.n_heads} heads"
    body = how_to_read(
        f"The model is taken apart into its parts (the input, {heads}, an MLP a layer, the logits) and the "
        f"{len(first.edges)} edges by which each feeds later ones; a head has three inputs: queries, keys, values. Every "
        "edge gets a score: how much of the answer it carries (EAP-IG, a gradient estimate). Then circuits of growing "
        "size, highest scores first, are really run, with all other edges carrying what they carry on another state.",
        "<b>Pairs.</b> Clean and corrupted state share program and tape, but the corrupted one stands on another "
        "instruction. What is compared is m, the logit of the clean token minus that of the corrupted one, where the two "
        "answers differ and the two inputs agree, so that copying does not count.",
        "<b>Faithfulness</b> is the share of m that the circuit keeps: 1 is the full model, 0 the empty circuit. Beside "
        "it stand random circuits with as many edges. <b>CMD</b> (0 is best) and <b>CPR</b> (higher is better) sum this "
        "up over all sizes. Scores come from one half of the held-out programs, all else from the other.",
    )
    body += _circuit_table(circuits)
    frame = material.frames["circuits"]
    if not isinstance(frame, Missing):
        try:
            drawing = circuits_overview(frame)
        except ValueError:
            drawing = None
        if drawing is not None:
            body += page.figure(
                drawing,
                alt="Faithfulness against edges kept for each instruction, beside random circuits; numbers in the table.",
                caption="Faithfulness against the number of edges kept, by instruction. Bands: 95 % bootstrap over "
                "programs for the circuit, the middle 95 % of the draws for random circuits.",
            )
    for op, part in material.circuits.items():
        if isinstance(part, Missing):
            body += f'<div class="op"><h3>{_badge(op)}{op}</h3>{missing(part.message, part.command)}</div>'
        else:
            body += _circuit(material, part[0], part[1], page)
    return body


def _circuit_table(circuits: dict[str, Any]) -> str:
    rows = []
    for op, circuit in circuits.items():
        point = _chosen(circuit)
        rows.append(
            [
                escape(op_words(op)),
                f"{circuit.size} of {len(circuit.edges)}",
                f"{circuit.n_connected}",
                f"{point.estimate:.2f} <small>[{point.ci_low:.2f}, {point.ci_high:.2f}]</small>",
                _null(point),
                f"{100 * point.exact_match:.0f} %",
                f"{100 * circuit.exact_match:.0f} %",
                f"{circuit.cmd:.3f}" + _beside(circuit.cmd_null),
                f"{circuit.cpr:.3f}" + _beside(circuit.cpr_null),
                "" if circuit.spearman is None else f"{circuit.spearman:.2f}",
                f"{circuit.n}",
            ]
        )
    first = next(iter(circuits.values()))
    headings = [
        "instruction", "edges", "connected", "faithfulness", "random circuits", "whole states right", "full model",
        "CMD <small>(random)</small>", "CPR <small>(random)</small>", "score ~ exact", "pairs",
    ]  # fmt: skip
    caption = (
        f"The smallest circuit tried from which on faithfulness stays at {first.threshold:g} or above. “connected”: edges "
        "left after dropping those on no path from input to logits. “whole states right”: the circuit alone. "
        "“score ~ exact”: rank correlation of the scores of the top edges with the effects of really patching them."
    )
    return table(headings, rows, caption=caption, numbers=range(1, len(headings)))


def _circuit(material: Material, circuit: Any, provenance: dict[str, Any], page: Page) -> str:
    op, point = circuit.op, _chosen(circuit)
    outcomes = ", ".join(
        f"{name.replace('_', ' ').lower()} {count}" for name, count in circuit.outcomes.items() if count
    )
    method = {"eap_ig": f"EAP-IG, {circuit.steps} steps", "eap": "EAP"}.get(circuit.method, circuit.method)
    ablation = {
        "resample": "excluded edges carry what they carry on the corrupted state (resample)",
        "mean": "excluded edges carry their mean over held-out states (mean)",
        "zero": "excluded edges carry zero",
    }.get(circuit.ablation, circuit.ablation)
    text = (
        f'<div class="op" id="circuit-{op}"><h3>{_badge(op)}{op}</h3>{_note(material.other_step(provenance))}'
        f"<p>{circuit.size} of {len(circuit.edges)} edges keep {point.estimate:.2f} "
        f"[{point.ci_low:.2f}, {point.ci_high:.2f}] of the full model's m = {circuit.m_clean:.2f} (corrupted: "
        f"{circuit.m_corrupted:.2f}); {_null_sentence(circuit, point)} {_strongest(circuit)}</p>"
        f'<p class="quiet">{escape(method)}, metric {code(circuit.metric)}; {escape(ablation)}; pairs: same program and '
        f"tape, instruction pointer moved; n = {circuit.n} pairs ({escape(outcomes)}), {circuit.n_scored} others for the "
        f"scores, {100 * circuit.redraw_rate:.0f} % of draws redrawn; seed {circuit.seed}.</p>"
    )
    try:
        graph = page.figure(
            circuit_graph(circuit),
            alt=f"The circuit of {op} as a layered graph; its strongest edges are in the sentence above and the table below.",
            caption="Left to right through the model: heads in rows, MLPs below. Wider is stronger; solid blue carries "
            "the answer, dashed orange works against it. Grey nodes: no measured effect beyond its interval; pale: outside "
            "the circuit.",
        )
    except ValueError as error:
        graph = f'<p class="quiet">{escape(error)}</p>'
    curve = page.figure(
        faithfulness_curve(circuit),
        alt=f"Faithfulness of {op} against edges kept, beside random circuits; numbers in the table below.",
        caption="Edges taken by |score|. Grey: random circuits of the same size; dashed orange: whole states right.",
    )
    text += f'<div class="pair"><div>{graph}</div><div>{curve}</div></div>'
    return (
        text + details("The strongest edges, and faithfulness by size, as tables", _circuit_details(circuit)) + "</div>"
    )


def _circuit_details(circuit: Any) -> str:
    edges = [
        [
            f"{escape(node_words(edge.source))} → {escape(node_words(edge.target))}",
            f"{-edge.score:+.3f}",
            "" if edge.exact is None else f"{-edge.exact:+.3f}",
            "" if edge.exact is None else f"{-edge.exact_high:+.3f} – {-edge.exact_low:+.3f}",
            "yes" if edge.in_circuit else "no",
        ]
        for edge in sorted(circuit.edges, key=lambda edge: -abs(edge.score))[:15]
    ]
    sizes = [
        [
            f"{point.n_edges}",
            f"{point.n_connected}",
            f"{point.estimate:.3f}",
            f"{point.ci_low:.3f} – {point.ci_high:.3f}",
            _null(point),
            f"{100 * point.exact_match:.1f} %",
        ]
        for point in circuit.faithfulness
    ]
    headings = ["edge", "contribution by score", "really patched", "95 % interval", "in the circuit"]
    body = table(headings, edges, caption="The 15 edges of largest |score|.", numbers=(1, 2, 3))
    headings = ["edges", "connected", "faithfulness", "95 % interval", "random circuits", "whole states right"]
    return body + table(headings, sizes, caption="Faithfulness by size, edges by |score|.", numbers=(1, 2, 3, 4, 5))


def _strongest(circuit: Any) -> str:
    """The top three edges as a sentence."""
    top = sorted((edge for edge in circuit.edges if edge.in_circuit), key=lambda edge: -abs(edge.score))[:3]
    parts = []
    for edge in top:
        measured = f", really patched {-edge.exact:+.2f}" if edge.exact is not None else ""
        ends = f"{escape(node_words(edge.source))} → {escape(node_words(edge.target))}"
        parts.append(f"{ends} ({-edge.score:+.2f} by score{measured})")
    return f"Strongest edges: {'; '.join(parts)}." if parts else ""


def circuit_finding(material: Material) -> str | None:
    """The smallest and the largest circuit, beside random ones, as a sentence."""
    found = [part[0] for part in material.circuits.values() if not isinstance(part, Missing)]
    if not found:
        return None
    small, large = min(found, key=lambda c: c.size), max(found, key=lambda c: c.size)
    point = _chosen(small)
    null = "" if point.null_mean is None else f", where random circuits of that size keep {point.null_mean:.2f}"
    text = (
        f"<b>Circuits.</b> The smallest is that of {escape(op_words(small.op))}: {small.size} of {len(small.edges)} edges "
        f"keep {point.estimate:.2f} of the effect{null}"
    )
    more = "" if small is large else f"; the largest, of {escape(op_words(large.op))}, takes {large.size}"
    return f"{text}{more}."


def _chosen(circuit: Any) -> Any:
    """The point of the faithfulness curve at the chosen size."""
    return min(circuit.faithfulness, key=lambda point: abs(point.n_edges - circuit.size))


def _null(point: Any) -> str:
    if point.null_mean is None:
        return ""
    return f"{point.null_mean:.2f} <small>[{point.null_low:.2f}, {point.null_high:.2f}]</small>"


def _null_sentence(circuit: Any, point: Any) -> str:
    if point.null_mean is None:
        return "no random circuits were run."
    return (
        f"{point.n_null} random circuits of that size keep {point.null_mean:.2f} on average "
        f"[{point.null_low:.2f}, {point.null_high:.2f}] ({circuit.n_null_pairs} pairs)."
    )


def _beside(null: float | None) -> str:
    return "" if null is None else f" <small>({null:.3f})</small>"


def _badge(op: str) -> str:
    kind = "glyph dark" if op in ("NEXT",) else "glyph hatched" if op == "ENDW" else "glyph"
    return (
        f'<span class="{kind}" style="background-color:{OP_COLORS[op]}" aria-hidden="true">{escape(GLYPHS[op])}</span>'
    )


def _certain(row: Any) -> str:
    """ "0.930 [0.912, 0.945]"."""
    interval = "" if pd.isna(row.ci_low) else f" <small>[{row.ci_low:.3f}, {row.ci_high:.3f}]</small>"
    return f"{row.estimate:.3f}{interval}"


def _by_layer(rows: pd.DataFrame, control: Control) -> str:
    """Variables by layers: the estimate, with that of one control in parentheses."""
    own, beside = select(rows, control=None), select(rows, control=control)
    sites = site_order(own.site)
    value = {(row.variable, row.site): row.estimate for row in records(own)}
    against = {(row.variable, row.site): row.estimate for row in records(beside)}
    sizes = {row.variable: row.n for row in records(own)}

    def cell(name: str, site: str) -> str:
        if (name, site) not in value:
            return ""
        other = f" <small>({against[name, site]:.2f})</small>" if (name, site) in against else ""
        return f"{value[name, site]:.3f}{other}"

    lines = [
        [code(name), *(cell(name, site) for site in sites), f"{int(sizes[name]):,}"]
        for name in present(own, "variable")
    ]
    headings = ["variable", *map(site_words, sites), "n"]
    return table(headings, lines, numbers=range(1, len(headings)))


def _glossary(rows: pd.DataFrame) -> str:
    """What each variable is, as the machine's equations put it."""
    names = [name for name in present(rows, "variable") if name in VARIABLES]
    lines = [[code(name), VARIABLES[name].kind, escape(VARIABLES[name].equation)] for name in names]
    return details("What the variables are", table(["variable", "kind", "equation"], lines)) if lines else ""


def _note(sentence: str | None) -> str:
    return f'<div class="missing"><p>{escape(sentence)}</p></div>' if sentence else ""


def _stale(material: Material, kind: str) -> str:
    sentence = material.stale(kind)
    return missing(sentence, f"{material.command(kind)} --fresh") if sentence else ""
