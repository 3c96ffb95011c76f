"""The tables of docs/circuits.md: the circuits with their evidence, approximations, checkpoints, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp.circuits.pairs import main_contrasts
from interp.circuits.scorers import SCORERS
from interp.figures.style import present
from interp.files import write_text
from interp.pages.circuits_drawings import along_drawing, approximation_drawing
from interp.pages.circuits_interchange import failures as interchange_failures
from interp.pages.circuits_interchange import markdown_table
from interp.results import Control, Method, Metric, method_named, records, select
from interp.runs import Run
from interp.runs.circuit_files import Circuit
from interp.runs.findings import findings

_METHODS = {method_named(name): scorer.words for name, scorer in SCORERS.items() if scorer.approximates}
_METHODS[Method.ATTRIBUTION_PATCHING] = "attribution patching, nodes"


def circuit_table(circuits: Sequence[Circuit], frame: pd.DataFrame) -> str:
    """A line an instruction: the circuit and the evidence for it; and how the columns were measured."""
    headings = ["instruction", "edges", "faithfulness", "mean ablation", "zero", "random edges", "random paths",
                "pairs, 5–95 %", "incompleteness", "least needed node", "stability", "CPR", "CMD"]  # fmt: skip
    lines = []
    for circuit in circuits:
        own = select(frame, op=circuit.op)
        point = min(circuit.faithfulness, key=lambda each: abs(each.n_edges - circuit.size))
        chosen = {"metric": Metric.FAITHFULNESS, "stratum": "chosen"}
        lines.append(
            [
                circuit.op,
                f"{circuit.n_connected} of {len(circuit.edges)}",
                f"{point.estimate:.2f} [{point.ci_low:.2f}, {point.ci_high:.2f}]",
                first_row(own, estimated, metric=Metric.FAITHFULNESS, stratum="ablation", ablation="mean"),
                first_row(own, estimated, metric=Metric.FAITHFULNESS, stratum="ablation", ablation="zero"),
                first_row(own, spread, **chosen, control=Control.RANDOM_CIRCUIT),
                first_row(own, spread, **chosen, control=Control.RANDOM_PATHS),
                first_row(own, spread, metric=Metric.FAITHFULNESS, stratum="examples"),
                first_row(own, estimated, metric=Metric.COMPLETENESS),
                first_row(own, lambda row: f"{row['site']} {row['estimate']:.2f}", metric=Metric.MINIMALITY),
                first_row(own, estimated, metric=Metric.JACCARD, stratum="resampled", control=None),
                f"{circuit.cpr:.2f}",
                f"{circuit.cmd:.2f}",
            ]
        )
    filled = [column for column in range(len(headings)) if any(line[column] != "–" for line in lines)]
    headings, lines = [headings[k] for k in filled], [[line[k] for k in filled] for line in lines]
    first = circuits[0]
    words = (
        f"Scores by {SCORERS[first.method].words} on {first.n_scored} pairs an instruction, faithfulness on "
        f"{first.n} of other programs; the circuit is the smallest tried that stays at {first.threshold:g}. Mean "
        "ablation, zero: the same edges kept, all others carrying their mean over held-out states, or "
        f"nothing{_evidence_sizes(frame)}. "
        "Random: circuits of as many edges, uniform or as unions of paths, mean and the middle 95 %. Pairs: median "
        "share kept, and its spread over pairs. Incompleteness: how far circuit and model part when the same nodes go "
        "from both, 0 is best. Stability: mean pairwise Jaccard of circuits from resampled pairs.\n"
    )
    return markdown_table(headings, lines) + "\n" + words


def _evidence_sizes(frame: pd.DataFrame) -> str:
    """On how many pairs the columns of evidence rest."""
    sizes = {
        "spread": select(frame, metric=Metric.FAITHFULNESS, stratum="examples")["n"],
        "random circuits": select(frame, metric=Metric.FAITHFULNESS, stratum="chosen")["n"],
        "incompleteness and need": select(frame, metric=Metric.COMPLETENESS)["n"],
    }
    said = [f"{words} {int(n.iloc[0])}" for words, n in sizes.items() if len(n)]
    return f" (pairs: {', '.join(said)})" if said else ""


def first_row(frame: pd.DataFrame, form: Callable[[dict[str, Any]], str], **columns: Any) -> str:
    """A frame's first row with these columns, as `form` writes it; a dash where there is none."""
    rows = records(select(frame, **columns))
    return form(rows[0]) if rows else "–"


def estimated(row: dict[str, Any]) -> str:
    """An estimate with two digits."""
    return f"{row['estimate']:z.2f}"


def spread(row: dict[str, Any]) -> str:
    """An estimate with its interval."""
    return f"{row['estimate']:z.2f} [{row['ci_low']:z.2f}, {row['ci_high']:z.2f}]"


def approximation_part(run: Run, frame: pd.DataFrame, out: Path) -> list[str]:
    """Methods against exact patching of every edge, as table and figure; [] where it was not measured."""
    found = frame.loc[frame["metric"].isin([Metric.AUROC, Metric.SPEARMAN]) & frame["control"].isna()]
    found = found.loc[found["method"].isin(list(_METHODS)) & (found["circuit_size"].notna())]
    found = found.loc[(found["metric"] == Metric.AUROC) | (found["stratum"] == "absolute")]
    found = found.loc[found["position"].isna() | (found["position"] == "one gradient")]
    auroc = select(found, metric=Metric.AUROC)
    if auroc.empty:
        return []
    methods = [method for method in _METHODS if (found["method"] == method).any()]
    lines = []
    order = main_contrasts(run.task)
    ops = sorted(present(auroc, "op"), key=lambda op: order.index(op) if op in order else len(order))
    for op in ops:
        line = [str(op), first_row(select(auroc, op=op, granularity="edge"), lambda row: str(row["circuit_size"]))]
        for method in methods:
            here = select(found, op=op, method=method)
            rank = select(here, metric=Metric.SPEARMAN, stratum="absolute")
            line.append(f"{first_row(rank, estimated)} / {first_row(select(here, metric=Metric.AUROC), estimated)}")
        lines.append(line)
    drawn: dict[str, dict[str, dict[str, float]]] = {
        "rank correlation with the effect": {},
        "AUROC of what matters": {},
    }
    by_op = sorted(records(found.loc[found["granularity"] == "edge"]), key=lambda row: ops.index(row["op"]))
    for row in by_op:
        panel = list(drawn)[row["metric"] == Metric.AUROC]
        drawn[panel].setdefault(row["op"], {})[row["method"]] = row["estimate"]
    file = f"circuits-{run.name}-approximations.svg"
    by_edge = {str(method): _METHODS[method] for method in methods if method != Method.ATTRIBUTION_PATCHING}
    write_text(Path(out) / file, approximation_drawing(drawn, by_edge))
    settings = [
        each.provenance["settings"]
        for each in findings(run.path, "approximations", digest=run.config.digest, step=run.step)
    ]
    searched = ", ".join(str(n) for n in sorted({each["n_search"] for each in settings}))
    n = max(row["n"] for row in records(auroc))
    return [
        "### Approximations against exact patching of every edge\n",
        f"![Approximations against exact patching]({file})\n",
        "Rank correlation of |score| with the mean |effect| / AUROC of finding the edges that matter alone (1 % of the "
        f"gap). {n} pairs an instruction; the search ran on {searched} of them.\n",
        markdown_table(["instruction", "edges that matter", *(_METHODS[method] for method in methods)], lines),
    ]


def along_part(run: Run, frame: pd.DataFrame, out: Path) -> list[str]:
    """Circuits at the kept steps of training, as table and figure; [] where there are none."""
    try:
        svg = along_drawing(frame)
    except ValueError:
        return []
    file = f"circuits-{run.name}-along.svg"
    write_text(Path(out) / file, svg)
    final = select(frame, metric=Metric.FAITHFULNESS, stratum="along:final")
    steps = sorted({int(step) for step in select(frame, metric=Metric.JACCARD, stratum="final")["checkpoint_step"]})
    lines = []
    for step in steps:
        here = select(frame, checkpoint_step=step)
        overlap = select(here, metric=Metric.JACCARD, stratum="final", control=None)["estimate"].mean()
        exact = select(here, metric=Metric.EXACT_MATCH, stratum="along")["estimate"].mean()
        values = select(final, checkpoint_step=step)["estimate"]
        own = select(here, metric=Metric.FAITHFULNESS, stratum="along:own")["estimate"]
        lines.append(
            [
                f"{step:,}",
                f"{exact:.2f}",
                f"{overlap:.2f}",
                f"{own.mean():.2f}" if len(own) else "–",
                f"{values.mean():.2f}" if len(values) else "–",
                str(len(values)),
            ]
        )
    headings = ["step", "exact match", "Jaccard with final", "own circuit", "final circuit", "instructions with a gap"]
    return [
        "### Over training\n",
        f"![Circuits over training]({file})\n",
        "Means over instructions; faithfulness of the checkpoint's own top edges and of the final circuit's edges in "
        "the checkpoint, of instructions whose gap is a logit or more. The last row is the final model on other pairs: "
        "its Jaccard is as high as agreement can come.\n",
        markdown_table(headings, lines),
    ]


def failure_part(run: Run, circuits: Sequence[Circuit], frame: pd.DataFrame) -> list[str]:
    """What did not work, by rules that are the same for every run."""
    said = []
    whole = [circuit.op for circuit in circuits if circuit.size == len(circuit.edges)]
    if whole:
        said.append(f"no circuit smaller than the model stays faithful for {', '.join(whole)}")
    shares = {circuit.op: circuit.n_connected / len(circuit.edges) for circuit in circuits}
    if large := [f"{op} ({share:.0%})" for op, share in shares.items() if share > 0.25]:
        said.append(f"circuits that hold more than a quarter of all edges are no small mechanism: {', '.join(large)}")
    for ablation in ("mean", "zero"):
        rows = select(frame, metric=Metric.FAITHFULNESS, stratum="ablation", ablation=ablation)
        if low := [f"{row['op']} ({row['estimate']:z.2f})" for row in records(rows) if abs(row["estimate"] - 1) > 0.3]:
            said.append(f"found under resample ablation, under {ablation} ablation the circuit does not do what the "
                        f"model does for {', '.join(low)}")  # fmt: skip
    stable = select(frame, metric=Metric.JACCARD, stratum="resampled", control=None)
    if low := [row["op"] for row in records(stable) if row["estimate"] < 0.6]:
        said.append(f"stability over resampled pairs is below .60 for {', '.join(low)}")
    holes = select(frame, metric=Metric.COMPLETENESS)
    if low := [f"{row['op']} ({row['estimate']:.2f})" for row in records(holes) if row["estimate"] > 0.3]:
        said.append(f"incompleteness is above .30 for {', '.join(low)}")
    least = select(frame, metric=Metric.MINIMALITY)
    if low := [row["op"] for row in records(least) if row["estimate"] < 0.02]:
        said.append(f"not minimal: they hold a node that nothing tried shows to be needed, {', '.join(low)}")
    losses = select(frame, metric=Metric.ABLATION_LOSS, granularity="neuron", ablation="resample", control=None)
    weak = [row["op"] for row in records(losses) if row["stratum"] == f"own:{row['op']}" and row["estimate"] < 0.1]
    if weak:
        said.append(f"the neurons most their own carry less than a tenth of {', '.join(weak)}")
    for level in present(select(frame, metric=Metric.DISSOCIATION, ablation="resample"), "granularity"):
        found = select(frame, metric=Metric.DISSOCIATION, ablation="resample", granularity=level)
        own, null = select(found, control=None), select(found, control=Control.RANDOM_PART)
        within = int((own["estimate"].to_numpy() <= null["ci_high"].to_numpy()).sum())
        if within:
            said.append(f"at {level} level {within} of {len(own)} pairs of instructions come no further apart than "
                        "random parts do")  # fmt: skip
    said += interchange_failures(run)
    return ["### What failed\n", *[f"- {clause[0].upper()}{clause[1:]}." for clause in said], ""] if said else []
