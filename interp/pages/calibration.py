"""docs/calibration.md: one page, every number of it from the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp.calibration.edges import RESOLUTION
from interp.calibration.settings import CalibrationSettings
from interp.calibration.subjects import N_CHECKED, SETTINGS
from interp.calibration.summary import mean, short
from interp.circuits import CircuitConfig
from interp.circuits.scorers import SCORERS
from interp.files import write_text
from interp.pages.calibration_drawing import precision_drawing
from interp.pages.calibration_strings import string_networks
from interp.pages.openings import calibration_opening
from interp.results import Control, Method, Metric, method_named, select

_NAMES = {
    Method.LOGISTIC: "logistic probe",
    Method.RIDGE: "ridge probe",
    Method.MEAN_DIFFERENCE: "mean-difference probe",
    Method.MLP: "MLP probe",
    **{method_named(name): scorer.words for name, scorer in SCORERS.items()},
    Method.EAP_IG: f"{SCORERS['eap_ig'].words} ({CircuitConfig().steps} steps)",
    Method.ATTRIBUTION_PATCHING: "attribution patching",
}
_EDGE_METHODS = tuple(method_named(name) for name in reversed(list(SCORERS)))  # the most exact first
_DRAWN = (
    ("EAP, soft", "soft", Method.EAP),
    ("EAP, 12 nats", "rotated", Method.EAP),
    ("EAP, saturated", "saturated", Method.EAP),
    ("EAP-IG, soft", "soft", Method.EAP_IG),
    ("EAP-IG, 12 nats", "rotated", Method.EAP_IG),
    ("EAP-IG, saturated", "saturated", Method.EAP_IG),
    ("ACDC, 12 nats", "rotated", Method.ACDC),
    ("exact patching, 12 nats", "rotated", Method.EXACT_PATCHING),
    ("exact patching, redundant", "redundant", Method.EXACT_PATCHING),
)


def write_page(folder: Path, frame: pd.DataFrame, settings: CalibrationSettings) -> Path:
    """Write calibration.md and calibration.svg into a folder; returns the page's path."""
    write_text(folder / "calibration.svg", precision_drawing(frame, [(a, b, str(c)) for a, b, c in _DRAWN]))
    path = folder / "calibration.md"
    write_text(path, page(frame, settings))
    return path


def page(frame: pd.DataFrame, settings: CalibrationSettings) -> str:
    """The page as Markdown."""
    sections = (_head, _probes, _interchange, _states, string_networks, _attribution, _evaluation, _roles, _limits)
    return "\n\n".join(told for section in sections if (told := section(frame, settings))) + "\n"


def _head(frame: pd.DataFrame, settings: CalibrationSettings) -> str:
    spec = settings.spec
    models = [name for name in SETTINGS if name in set(frame.run)]
    lines = [[f"`{name}`", SETTINGS[name].words, f"{SETTINGS[name].sharpness:g}"] for name in models]
    return (
        f"# What each method can be trusted with\n\n{calibration_opening(_facts(frame))}\n\n"
        "![Share of true edges found at true size](calibration.svg)\n\n"
        "Written by `tapelens calibrate`; every number below comes from its rows. Each method is run, with the "
        "functions that trained models are measured with, on transformers whose weights were written and not trained "
        "(`interp.compiled`), so that where every variable is and which edges every instruction uses is known.\n\n"
        f"The machine: {spec.n_instructions} instructions, {spec.n_cells} cells, {spec.bits} bits, buffers of "
        f"{spec.n_input} and {spec.n_output}: with the default settings that of the bundled run, so that a score here "
        f"and a result there are about the same task. Every model takes {N_CHECKED} of {N_CHECKED} held-out steps "
        "right, evenly drawn over op × outcome. “Nats” is by how much the key attended to outscores the others.\n\n"
        + table(["model", "disguise", "nats"], lines)
    )


def _facts(frame: pd.DataFrame) -> dict[str, float]:
    """What the opening says, as far as it was measured."""
    probe = select(frame, run="distracted", method=Method.LOGISTIC, granularity="cell")
    sets = select(frame, run="rotated", granularity="set", metric=Metric.IIA)
    own, edges = select(sets, method=Method.TRUE_SUBSPACE), select(frame, granularity="edge", ablation="resample")
    scores = select(edges, metric=Metric.AUROC, control=None)
    found = {
        "recall": mean(probe, stratum="decodable", metric=Metric.RECALL),
        "false": mean(probe, stratum="decodable", metric=Metric.FALSE_POSITIVE_RATE),
        "edit_recall": mean(probe, stratum="edit", metric=Metric.RECALL),
        "edit_false": mean(probe, stratum="edit", metric=Metric.FALSE_POSITIVE_RATE),
        "true": mean(own, control=None),
        "random": mean(own, control=Control.RANDOM_SUBSPACE),
        "whole": mean(sets, method=Method.FULL_VECTOR, control=None),
        "exact": mean(scores, run="rotated", method=Method.EXACT_PATCHING),
        "eap_ig": mean(scores, run="rotated", method=Method.EAP_IG),
        "eap": mean(scores, run="rotated", method=Method.EAP),
        "saturated": mean(scores, run="saturated", method=Method.EAP),
    }
    return {name: value for name, value in found.items() if value is not None}


def _probes(frame: pd.DataFrame, settings: CalibrationSettings) -> str:
    strata = ("decodable", "window", "embedding", "edit")
    lines = []
    for method in (Method.LOGISTIC, Method.RIDGE, Method.MEAN_DIFFERENCE, Method.MLP):
        for model in models_of(frame, method):
            rows = select(frame, run=model, method=method, granularity="cell")
            cells = [_pair(rows, stratum) for stratum in strata]
            lines.append([_NAMES[method], f"`{model}`", *cells])
    acts = select(frame, method=Method.TRUE_SUBSPACE, stratum="edit")
    return (
        "## Probes: readable is not used\n\n"
        "Recall / false-positive rate of “decodable” (held-out accuracy at least 0.1 above the majority class and the "
        "control task) against the places where a variable is live: it stands there, and a component on a path to the "
        "logits is yet to read it.\n\n"
        + table(["probe", "model", "plain", "inside the window", "beyond the embedding", "and its edit works"], lines)
        + "\n\nA probe misses nothing and says too much: a variable stays readable after its last reader, and at "
        "positions that nothing reads. Knowing the layers between first write and last read (the window) hardly helps, "
        "since the wrong calls are wrong *positions*. Asking for more than the embedding shows throws out stored slots "
        "that are live. What helps is the edit: swap the probe's own directions at that one position and ask whether "
        "the answer moves to the machine's counterfactual. It costs recall where the probe's directions are not the "
        f"ones read (see `probe_subspace` below). Of the places declared live, {short(mean(acts))} can change an "
        "answer at all; the others are not counted. For scale: a published study of Tracr models found recall 1.00 "
        "with a false-positive rate of .947."
    )


def _pair(rows: pd.DataFrame, stratum: str) -> str:
    values = (mean(rows, stratum=stratum, metric=metric) for metric in (Metric.RECALL, Metric.FALSE_POSITIVE_RATE))
    recall, false = values
    return "" if recall is None and false is None else f"{short(recall)} / {short(false)}"


def _interchange(frame: pd.DataFrame, settings: CalibrationSettings) -> str:
    at_set = select(frame, granularity="set", metric=Metric.IIA)
    lines = []
    for model in models_of(frame, Method.TRUE_SUBSPACE):
        rows = select(at_set, run=model)
        own = select(rows, method=Method.TRUE_SUBSPACE)
        values = [mean(own, control=control) for control in (None, *_CONTROLS)]
        values += [mean(rows, method=method, control=None) for method in (Method.FULL_VECTOR, Method.DAS)]
        sweep = _pair(select(frame, run=model, method=Method.FULL_VECTOR), "sweep")
        lines.append([f"`{model}`", *map(short, values), sweep])
    worst = select(at_set, method=Method.TRUE_SUBSPACE, control=None)
    angles = [
        [f"`{name}`", *(short(mean(some, **what), 0) for what in _ANGLES)]
        for name, some in select(frame, metric=Metric.PRINCIPAL_ANGLE).groupby("variable", sort=False)
    ]
    return (
        "## Interchange: right about what is swapped, blind to what is carried along\n\n"
        "IIA where the answer should change. “True” swaps every place that holds the variable, together, in its true "
        "subspace; its controls are random subspaces of the same ranks, the same subspaces at all other positions, and "
        "an untrained model. The last column is recall / false-positive rate of the default sweep (whole vectors, "
        "layers × position sets, found at IIA 0.5).\n\n"
        + table(["model", "true", "random", "elsewhere", "untrained", "whole vector there", "DAS", "sweep"], lines)
        + f"\n\nOver {len(worst)} true sets of {worst.variable.nunique()} variables the lowest IIA is "
        f"{short(None if worst.empty else float(worst.estimate.min()), 3)}. The whole vector at the same positions "
        "fails wherever other variables live there too, and no single block holds a variable that is told to every "
        "position. So a *high* IIA of a whole vector is evidence, a low one says nothing: search sets of positions and "
        "subspaces. DAS gets there in function and not in place. Its fit reaches nearly the true subspace's IIA on "
        "other programs; principal angles to the true subspace, in degrees (90 is unrelated), say that it is *a* "
        "subspace that will do, not the one that is used:\n\n"
        + table(["variable", "DAS, median", "DAS, largest", "random, median", "probe, largest"], angles)
    )


_CONTROLS = (Control.RANDOM_SUBSPACE, Control.WRONG_SITE, Control.UNTRAINED_MODEL)
_ANGLES: tuple[dict[str, Any], ...] = (
    {"method": Method.DAS, "stratum": "median", "control": None},
    {"method": Method.DAS, "stratum": "largest", "control": None},
    {"method": Method.DAS, "stratum": "median", "control": Control.RANDOM_SUBSPACE},
    {"method": Method.PROBE_SUBSPACE},
)


def _states(frame: pd.DataFrame, settings: CalibrationSettings) -> str:
    rows = select(frame, granularity="state")
    if rows.empty:
        return ""
    both: dict[tuple[str, str, str], float] = {}  # of an interpreter's own variable, and of its rival
    lines = []
    for name in dict.fromkeys(rows["run"]):
        for method in dict.fromkeys(select(rows, run=name)["method"]):
            cells = [f"`{name}`", str(method).replace("_", " ")]
            for stratum in ("own", "rival"):
                of = select(rows, run=name, method=method, stratum=stratum)
                pair = [mean(of, metric=metric) or 0.0 for metric in (Metric.IIA, Metric.SIDE_ACCURACY)]
                both[name, str(method), stratum] = min(pair)
                cells += [short(value) for value in pair]
            lines.append(cells)
    own, rival = ([value for key, value in both.items() if key[2] == stratum] for stratum in ("own", "rival"))
    apart = all(both[name, method, "own"] > both[name, method, "rival"] for name, method, _ in both)
    return (
        "## State interchange: a tape at its places, or one that shifts with the pointer\n\n"
        "Two recurrent interpreters of `trace`, hand-set and exact, keep the tape at absolute places (`absolute_tape`) "
        "or relative to the pointer (`relative_tape`). Each is asked for a cell by its place and by its distance from "
        "the pointer: one is its own, the other its rival, whose value no part holds. *Moved*: IIA where the two "
        "streams' pointers differ; *stayed*: answers about other cells that did not move. A part is as good as the "
        "lesser of the two.\n\n"
        + table(["interpreter", "method", "own: moved", "stayed", "rival: moved", "stayed"], lines)
        + f"\n\n{'Every' if apart else 'Not every'} method scores the own variable above its rival: {min(own):.2f} to "
        f"{max(own):.2f} against at most {max(rival):.2f}. So a rival can look half found, and only the distance "
        "between the two says how a tape is kept. The true subspace asked of a rival is that of the cell, or the "
        "distance, of the same number."
    )


def _attribution(frame: pd.DataFrame, settings: CalibrationSettings) -> str:
    rows = select(frame, control=None)
    return (
        "## Attribution and search: trust what is found, mind attention\n\n"
        f"True edges and nodes change the metric when they alone are patched, on the same {settings.n_pairs} pairs an "
        "instruction; in `redundant`, whatever either copy would use alone. Mean over instructions, and the worst.\n\n"
        + _found_table(rows)
        + "\n\nWhere it goes wrong, by the kind of input that a true edge feeds (share found at true size):\n\n"
        + _kinds_table(rows)
        + "\n\nA sharp softmax has almost no gradient: what reaches a head through queries and keys is what EAP misses "
        "first, and all of it where attention is saturated. EAP-IG averages gradients on the way between two patterns "
        "and holds up, but WHILE and ENDW, which hang on where heads look through two hops, stay its worst. In "
        "`redundant` the gradient at the clean run is zero at both copies, since either will do: EAP misses what "
        "patching finds. STOP is another matter: its few true edges are those that matter *alone*, but halting is "
        "decided twice, so that most of its mechanism matters only jointly, and no score of single edges shows it. "
        f"Scores below {RESOLUTION:g} of the largest count as ties: rounding errors must not rank.\n\n"
        "What is true depends on the ablation, too. Held against it, AUROC:\n\n"
        + _ablations_table(rows)
        + "\n\nAttribution and exact edge patching swap in a corrupted state alone (left column: their own ablation; "
        "the others, with a star, ask how far the same scores serve another claim: not far). Nodes of `redundant` are "
        f"found by exact patching at AUROC {_nodes(frame, 'redundant', 'zero')} under zero and "
        f"{_nodes(frame, 'redundant', 'resample')} under resample ablation, but under zero a copy is told from an idle "
        "head by what attention leaks alone, thousands of times below a real effect: read sizes, not only ranks. "
        "For scale: an audit of InterpBench found edge "
        "AUROC .868 for EAP and .894 for EAP-IG."
    )


def _found_table(rows: pd.DataFrame) -> str:
    """How well each method finds what is true, model by model."""
    lines = []
    for granularity, methods in (
        ("edge", _EDGE_METHODS),
        ("node", (Method.EXACT_PATCHING, Method.ATTRIBUTION_PATCHING)),
    ):
        for method in methods:
            some = select(rows, method=method, granularity=granularity, ablation="resample")
            for model in models_of(some, method):
                lines.append([granularity, _NAMES[method], f"`{model}`", *_quality(select(some, run=model))])
    return table(["", "method", "model", "AUROC", "worst", "precision at true size", "worst"], lines)


def _kinds_table(rows: pd.DataFrame) -> str:
    """The share found at true size, by the kind of input that an edge feeds."""
    kinds = ("q", "k", "v", "mlp", "logits")
    lines = [
        [_NAMES[method], f"`{model}`", *(short(mean(_of(rows, model, method), site=kind)) for kind in kinds)]
        for method in _EDGE_METHODS
        for model in models_of(rows, method)
        if not _of(rows, model, method).empty
    ]
    return table(["method", "model", *kinds], lines)


def _ablations_table(rows: pd.DataFrame) -> str:
    """AUROC against what is true under each ablation."""
    lines = [
        [_NAMES[method], granularity, *(_ablation(rows, method, granularity, kind) for kind in _ABLATIONS)]
        for granularity, methods in (
            ("edge", _EDGE_METHODS),
            ("node", (Method.ATTRIBUTION_PATCHING, Method.EXACT_PATCHING)),
        )
        for method in methods
    ]
    return table(["method", "", *(f"true under {kind}" for kind in _ABLATIONS)], lines)


_ABLATIONS = ("resample", "mean", "zero")


def _of(rows: pd.DataFrame, model: str, method: str) -> pd.DataFrame:
    return select(rows, run=model, method=method, granularity="edge", ablation="resample", metric=Metric.RECALL)


def _quality(rows: pd.DataFrame) -> list[str]:
    cells = []
    for metric in (Metric.AUROC, Metric.PRECISION_AT_SIZE):
        some = select(rows, metric=metric)
        worst = some.loc[some.estimate.idxmin()]
        cells += [short(mean(some), 3), f"{short(float(worst.estimate))} ({worst.op})"]
    return cells


def _nodes(frame: pd.DataFrame, model: str, ablation: str) -> str:
    rows = select(frame, run=model, method=Method.EXACT_PATCHING, granularity="node", ablation=ablation)
    return short(mean(select(rows, metric=Metric.AUROC, control=None)), 3)


def _ablation(rows: pd.DataFrame, method: str, granularity: str, ablation: str) -> str:
    some = select(rows, method=method, granularity=granularity, ablation=ablation, metric=Metric.AUROC)
    own = some.empty or bool((some.stratum == "own").all())
    value = short(mean(some), 3)
    return value if own else f"{value} *"


def _evaluation(frame: pd.DataFrame, settings: CalibrationSettings) -> str:
    rows = select(frame, method=Method.CIRCUIT_RUN)
    kinds = ("dropped", "swapped", "added", "half")
    lines = []
    for model in models_of(rows, Method.CIRCUIT_RUN):
        for metric in (Metric.FAITHFULNESS, Metric.COMPLETENESS, Metric.MINIMALITY):
            some = select(rows, run=model)
            beaten = [short(mean(some, metric=Metric.AUROC, stratum=str(metric), site=kind)) for kind in kinds]
            lines.append([f"`{model}`", metric, short(mean(some, metric=metric, stratum=None), 3), *beaten])
    return (
        "## Evaluation metrics: good at what is missing, blind to what is too much\n\n"
        "The true circuit here is one that suffices: all edges that carry anything, less those that can go (the "
        "edges that matter alone need not suffice). Its value, and the share of mutants it beats (ties count half, "
        "so .50 is blind): an edge dropped, an edge swapped for a false one, as many false edges added, and in "
        "`redundant`, under zero ablation, one of two copies left out.\n\n"
        + table(["model", "criterion", "true circuit", *kinds], lines)
        + "\n\nOn a mechanism without copies all three see most edges that are missing or wrong; where it is written "
        "twice, less. Edges that carry nothing are seen only by minimality, and only where they bring in a node that "
        "is not needed: report the size beside all three. The true circuit's own "
        "minimality can be low: a node whose work shows in few pairs is hidden by a mean over pairs."
    )


def _roles(frame: pd.DataFrame, settings: CalibrationSettings) -> str:
    rows = select(frame, method=Method.HEAD_ROLE)
    lines = [
        [
            f"`{model}`",
            short(mean(select(rows, run=model), stratum="variable", metric=Metric.RECALL)),
            short(mean(select(rows, run=model), stratum="attention", metric=Metric.RECALL)),
            short(mean(select(rows, run=model), stratum="variable", metric=Metric.FALSE_POSITIVE_RATE)),
        ]
        for model in models_of(rows, Method.HEAD_ROLE)
    ]
    return (
        "## Generated sentences about heads\n\n"
        "Of the heads that an instruction uses and whose variable can be set: share whose sentence names the right "
        "variable, and the right positions to look at; of all other heads, share for which it names a variable.\n\n"
        + table(["model", "right variable", "right positions", "a variable for an idle head"], lines)
    )


def _limits(frame: pd.DataFrame, settings: CalibrationSettings) -> str:
    return (
        "## What this does not say\n\n"
        "A compiled model is sparse, exact and without norms; a trained one is none of these. A method that fails here "
        "should not be believed there; one that succeeds here has passed the easiest exam there is. Edges are not "
        f"resolved by position. {settings.n_pairs} pairs an instruction, one seed, one machine: differences in the "
        "second digit are noise."
    )


def models_of(frame: pd.DataFrame, method: str) -> list[str]:
    """The models on which a method was measured, in the order of the settings."""
    found = set(select(frame, method=method).run)
    return [name for name in SETTINGS if name in found]


def table(headings: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a sentence where there is nothing to show."""
    if not lines:
        return "*(not measured)*"
    rows = [list(headings), ["---"] * len(headings), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
