"""The report's section on circuits: which parts of the model carry each instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.figures import (
    GLYPHS,
    OP_COLORS,
    circuit_graph,
    circuits_overview,
    dissociation_matrices,
    faithfulness_curve,
    node_words,
    op_words,
)
from interp.figures.dissociation import LEVEL_WORDS
from interp.report.material import Material, Missing
from interp.report.page import Page, code, details, escape, how_to_read, missing, table
from interp.report.rows import calibration, percent, signed
from interp.results import Control, Method, Metric, select

if TYPE_CHECKING:  # interp.circuits brings torch
    from interp.circuits import Circuit
    from interp.runs.circuit_files import FaithfulnessPoint

_METHODS = {"eap_ig": "EAP-IG", "eap": "EAP"}
_ABLATIONS = {
    "resample": "excluded edges carry what they carry on the corrupted state (resample ablation)",
    "mean": "excluded edges carry their mean over held-out states (mean ablation)",
    "zero": "excluded edges carry zero (zero ablation)",
}


def circuits_section(material: Material, page: Page) -> str:
    """One circuit an instruction: overview, then each with its graph, faithfulness and strongest edges."""
    circuits = [part[0] for part in material.circuits.values() if not isinstance(part, Missing)]
    if not circuits:
        lost = [part for part in material.circuits.values() if isinstance(part, Missing)]
        broken = [part for part in lost if not part.message.endswith("yet.")]
        if broken:
            return "".join(missing(part.message, part.command) for part in broken)
        return missing("The run has no circuits yet.", material.command("circuits"))
    body = _explained(circuits[0]) + _summary(circuits) + _overview(material, page) + _apart(material, page)
    body += (
        "<h3>Circuit by circuit</h3><p>The drawings run left to right through the model: heads in rows, MLPs below "
        "them. Wider is stronger; solid blue carries the answer, dashed orange works against it. Blue nodes are "
        "needed: corrupting them lowers m; grey ones have no effect beyond their interval, and dotted ones are outside "
        "the circuit. Beside each, faithfulness of its edges by size, in grey that of random circuits, dashed the "
        "share of whole states that the circuit alone gets right.</p>"
    )
    for op, part in material.circuits.items():
        heading = f'<div class="op" id="circuit-{op}"><h3>{_badge(op)}{op}</h3>'
        if isinstance(part, Missing):
            body += f"{heading}{missing(part.message, part.command)}</div>"
            continue
        circuit, provenance = part
        note = material.other_step(provenance)
        stale = missing(note, f"{material.command('circuits')} --ops {op} --fresh") if note else ""
        body += f"{heading}{stale}{_found(circuit)}{_sentence(material, op)}{_drawn(circuit, page)}</div>"
    return body


def circuit_finding(material: Material) -> str | None:
    """The smallest and the largest circuit, the first beside random ones, as a sentence."""
    found = [part[0] for part in material.circuits.values() if not isinstance(part, Missing)]
    if not found:
        return None
    small, large = min(found, key=lambda c: c.size), max(found, key=lambda c: c.size)
    point = _chosen(small)
    null = "" if point.null_mean is None else f" (random circuits of that size: {point.null_mean:.2f})"
    text = (
        f"<b>Circuits.</b> The smallest is that of {escape(op_words(small.op))}: {small.size} of {len(small.edges)} "
        f"edges reach faithfulness {_certain(point)}{null}, n = {small.n}"
    )
    return (
        f"{text}; the largest, of {escape(op_words(large.op))}, takes {large.size}."
        if large.size > small.size
        else f"{text}."
    )


def _explained(circuit: Circuit) -> str:
    method = _METHODS.get(circuit.method, circuit.method)
    n_crossing = sum(node.kind == "cross" for node in circuit.nodes)
    crossing = f" and {n_crossing} of cross-attention" if n_crossing else ""
    return how_to_read(
        f"The model is taken apart into its parts (the input, {circuit.n_layers} × {circuit.n_heads} heads{crossing}, "
        f"an MLP a layer, the logits) and the {len(circuit.edges)} edges by which each feeds later ones; a head has "
        "three inputs: queries, keys, values. Every edge gets a score for how much of the answer it carries "
        f"({escape(method)}, a gradient estimate). Then circuits of growing size, largest scores first, are really "
        "run, and all other edges are ablated.",
        "<b>Pairs.</b> Clean and corrupted state share program and tape, but the corrupted one stands on another "
        "instruction. The metric m is the logit of the clean token minus that of the corrupted one, where the two "
        "answers differ and the two inputs agree, so that copying does not count.",
        "<b>Faithfulness</b> places the circuit's m between that of the empty circuit, 0, and that of the full model, "
        "1. Beside it stand random circuits with as many edges. <b>CMD</b> (0 is best) and <b>CPR</b> (higher is "
        "better) sum it up over all sizes. Scores come from one half of the held-out programs, everything else from "
        "the other half.",
        *calibration({circuit.method: f"{method} gives", Method.EXACT_PATCHING: "really patching edges gives"}),
    )


def _summary(circuits: list[Circuit]) -> str:
    lines = []
    for circuit in circuits:
        point = _chosen(circuit)
        lines.append(
            [
                escape(op_words(circuit.op)),
                f"{circuit.size} of {len(circuit.edges)}",
                _certain(point),
                _null(point),
                f"{percent(point.exact_match, 0)} <small>({percent(circuit.exact_match, 0)})</small>",
                f"{circuit.cmd:.2f}{_beside(circuit.cmd_null)}",
                f"{circuit.cpr:.2f}{_beside(circuit.cpr_null)}",
                "" if circuit.spearman is None else f"{circuit.spearman:.2f}",
                f"{circuit.n}",
            ]
        )
    headings = [
        "instruction", "edges", "faithfulness", "random circuits", "states right <small>(full model)</small>",
        "CMD <small>(random)</small>", "CPR <small>(random)</small>", "score ~ exact", "pairs",
    ]  # fmt: skip
    caption = (
        f"The smallest circuit tried from which on faithfulness stays at {circuits[0].threshold:g} or above. “States "
        "right” is the share of whole next states that the circuit alone gets right; “score ~ exact” the rank "
        "correlation of the top edges' scores with the effects of really patching them."
    )
    return table(headings, lines, caption=caption, numbers=range(1, len(headings)))


def _overview(material: Material, page: Page) -> str:
    frame = material.frames["circuits"]
    if isinstance(frame, Missing):
        return missing(frame.message, frame.command)
    try:
        drawing = circuits_overview(frame)
    except ValueError as error:
        return missing(f"No overview: {error}.", material.command("circuits"))
    return material.warning("circuits") + page.figure(
        drawing,
        alt="Faithfulness against edges kept for each instruction, beside random circuits; numbers in the tables "
        "below.",
        caption="Faithfulness against the number of edges kept (log axis). Bands: 95 % bootstrap over programs for the "
        "circuit; the middle 95 % of the draws for random circuits.",
    )


def _apart(material: Material, page: Page) -> str:
    """Own and shared parts: what each instruction loses without them. Empty where it was not measured."""
    frame = material.frames["circuits"]
    if isinstance(frame, Missing):
        return ""
    try:
        drawing = dissociation_matrices(frame)
    except ValueError:
        return ""
    losses = select(frame, metric=Metric.ABLATION_LOSS, ablation="resample", control=None)
    pairs = select(frame, metric=Metric.DISSOCIATION, ablation="resample")
    said = []
    for level in dict.fromkeys(pairs["granularity"]):
        own = select(pairs, granularity=level, control=None)
        null = select(pairs, granularity=level, control=Control.RANDOM_PART)
        beyond = int((own["estimate"].to_numpy() > null["ci_high"].to_numpy()).sum())
        size = int(select(losses, granularity=level)["circuit_size"].iloc[0])
        said.append(f"of {size} {LEVEL_WORDS.get(level, level)}, {beyond} of {len(own)} pairs")
    text = (
        "<h3>What is an instruction's own?</h3><p>The units most needed by one instruction and least by any other are "
        "its own part; chosen on one half of the held-out programs, ablated on the other. Two instructions are doubly "
        "dissociated where each part hurts its own instruction more; beyond what random parts of the same size do: "
        f"{escape('; '.join(said))}.</p>"
    )
    return text + page.drawing(
        drawing,
        caption="Rows: the ablated part; columns: the instruction that is measured. 0 is spared, 1 is gone; ablated "
        "units carry what they carry on the corrupted state.",
    )


def _sentence(material: Material, op: str) -> str:
    """What was put together from measurements about this instruction."""
    from interp.studies.circuit_summary import summary_of

    found = summary_of(material.run)
    if found.get("provenance", {}).get("digest") != material.run.config.digest or op not in found["sentences"]:
        return ""
    return f"<p>{escape(found['sentences'][op])}</p>"


def _found(circuit: Circuit) -> str:
    """What was found, in a sentence, and how, in small print."""
    point, n_edges = _chosen(circuit), len(circuit.edges)
    size = f"{circuit.size} of {n_edges} edges ({circuit.n_connected} of them on a path from input to logits)"
    if circuit.size == n_edges:
        size = f"No circuit tried below the full {n_edges} edges stays at {circuit.threshold:g}; all of them"
    outcomes = ", ".join(
        f"{name.replace('_', ' ').lower()} {count}" for name, count in circuit.outcomes.items() if count
    )
    null = "No random circuits were run."
    if point.null_mean is not None:
        null = (
            f"{point.n_null} random circuits of that size reach {_null(point)} on average "
            f"({circuit.n_null_pairs} pairs)."
        )
    return (
        f"<p>{size} reach faithfulness {_certain(point)}. {null} {_strongest(circuit)}</p>"
        f'<p class="quiet">{escape(_METHODS.get(circuit.method, circuit.method))} with {circuit.steps} steps; '
        f"{escape(_ABLATIONS.get(circuit.ablation, circuit.ablation))}; metric {code(circuit.metric)}, m = "
        f"{signed(circuit.m_clean)} on clean and {signed(circuit.m_corrupted)} on corrupted states; n = {circuit.n} "
        f"pairs ({escape(outcomes)}), scores from {circuit.n_scored} pairs of other programs; "
        f"{percent(circuit.redraw_rate, 0)} of draws had nothing to compare and were redrawn; seed {circuit.seed}.</p>"
    )


def _strongest(circuit: Circuit) -> str:
    """The top three edges as a sentence."""
    top = sorted((edge for edge in circuit.edges if edge.in_circuit), key=lambda edge: -abs(edge.score))[:3]
    parts = []
    for edge in top:
        measured = "" if edge.exact is None else f", patched {signed(-edge.exact)}"
        ends = f"{escape(node_words(edge.source))} → {escape(node_words(edge.target))}"
        parts.append(f"{ends} (score {signed(-edge.score)}{measured})")
    return f"Strongest edges, by how much m they carry: {'; '.join(parts)}." if parts else ""


def _drawn(circuit: Circuit, page: Page) -> str:
    """The graph beside its faithfulness, and both as tables."""
    try:
        graph = page.drawing(circuit_graph(circuit))
    except ValueError as error:
        graph = f'<p class="quiet">{escape(error)}</p>'
    curve = page.figure(
        faithfulness_curve(circuit),
        alt=f"Faithfulness of {circuit.op} against edges kept, beside random circuits; numbers in the table below.",
    )
    tables = details("The strongest edges, and faithfulness by size, as tables", _tables(circuit))
    return f'<div class="pair"><div>{graph}</div><div>{curve}</div></div>{tables}'


def _tables(circuit: Circuit) -> str:
    edges = []
    for edge in sorted(circuit.edges, key=lambda edge: -abs(edge.score))[:15]:
        patched = interval = ""
        if edge.exact is not None and edge.exact_low is not None and edge.exact_high is not None:
            patched, interval = signed(-edge.exact), f"{signed(-edge.exact_high)} to {signed(-edge.exact_low)}"
        ends = f"{escape(node_words(edge.source))} → {escape(node_words(edge.target))}"
        edges.append([ends, signed(-edge.score), patched, interval, "yes" if edge.in_circuit else "no"])
    sizes = [
        [
            f"{point.n_edges}",
            f"{point.n_connected}",
            f"{point.estimate:.3f}",
            f"{point.ci_low:.3f} – {point.ci_high:.3f}",
            _null(point),
            percent(point.exact_match, 1),
        ]
        for point in circuit.faithfulness
    ]
    caption = "The 15 edges of largest |score|: how much of m each carries, estimated by its score and really patched."
    headings = ["edge", "by score", "really patched", "95 % interval", "in the circuit"]
    body = table(headings, edges, caption=caption, numbers=(1, 2, 3))
    headings = ["edges", "connected", "faithfulness", "95 % interval", "random circuits", "whole states right"]
    return body + table(headings, sizes, caption="Faithfulness by size, edges by |score|.", numbers=(1, 2, 3, 4, 5))


def _chosen(circuit: Circuit) -> FaithfulnessPoint:
    """The point of the faithfulness curve at the chosen size."""
    return min(circuit.faithfulness, key=lambda point: abs(point.n_edges - circuit.size))


def _certain(point: FaithfulnessPoint) -> str:
    return f"{point.estimate:.2f} <small>[{point.ci_low:.2f}, {point.ci_high:.2f}]</small>"


def _null(point: FaithfulnessPoint) -> str:
    if point.null_mean is None:
        return ""
    return f"{point.null_mean:.2f} <small>[{point.null_low:.2f}, {point.null_high:.2f}]</small>".replace(
        "-0.00", "0.00"
    )


def _beside(null: float | None) -> str:
    return "" if null is None else f" <small>({null:.2f})</small>"


def _badge(op: str) -> str:
    """The opcode's sign on its colour; ENDW is hatched, since it shares its partner's."""
    if op not in GLYPHS:  # no instruction: its name says it
        return ""
    kind = {"NEXT": "glyph dark", "ENDW": "glyph hatched"}.get(op, "glyph")
    colour, glyph = OP_COLORS[op], escape(GLYPHS[op])
    return f'<span class="{kind}" style="background-color:{colour}" aria-hidden="true">{glyph}</span>'
