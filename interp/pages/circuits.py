"""docs/circuits.md: what was found about circuits, run by run, in words and figures made from rows alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp.circuits.pairs import main_contrasts
from interp.circuits.scorers import SCORERS
from interp.figures import dissociation_matrices
from interp.figures.style import present
from interp.files import write_text
from interp.pages.circuits_drawings import along_drawing, approximation_drawing, seeds_drawing
from interp.pages.circuits_graphs import circuits_drawing, faithfulness_drawing
from interp.pages.circuits_interchange import failures as interchange_failures
from interp.pages.circuits_interchange import interchange_part, markdown_table
from interp.pages.openings import circuits_opening
from interp.results import Control, Method, Metric, method_named, records, rows_frame, select
from interp.runs import Run
from interp.runs.circuit_files import Circuit, read_circuit
from interp.runs.findings import Finding, findings
from interp.studies.circuit_study import SUMMARY, summary_of
from interp.studies.seeds import seed_agreement

_METHODS = {method_named(name): scorer.words for name, scorer in SCORERS.items() if scorer.approximates}
_METHODS[Method.ATTRIBUTION_PATCHING] = "attribution patching, nodes"


def write_circuit_page(runs: Sequence[Run], out: Path, *, n_null: int = 200) -> Path:
    """Write `circuits.md` into `out`, with its figures beside it, and return its path.

    Args:
        runs: runs with circuits; those that differ from the first in their seed alone also get their agreement.
        out: the folder.
        n_null: random pairings of heads.

    Raises:
        ValueError: no run.
        RunError: a run whose circuits were not measured.
    """
    if not runs:
        raise ValueError("the page needs at least one run, got none")
    names = " ".join(run.name for run in runs)
    parts = [
        "# Circuits and where variables are kept\n",
        *_opening(runs[0], out),
        f"Written by `tapelens circuit-page` about {names}; every number below comes from rows that `tapelens circuit` "
        "and `tapelens patch` measured. A circuit is a set of edges of the residual stream; all others carry what they "
        "carry when the same state executes another instruction (resample ablation). Faithfulness: 1 = the full "
        "model, 0 = nothing. Pairs are of held-out programs, circuits chosen on one half of them and scored on the "
        "other.\n",
    ]
    for run in runs:
        parts += _run_part(run, out)
    if len(alike := _alike(runs)) > 1:
        parts += _seeds_part(alike, n_null, out)
    path = Path(out) / "circuits.md"
    write_text(path, "\n".join(parts))
    return path


def _alike(runs: Sequence[Run]) -> list[Run]:
    """The first run, and those that differ from it in their seed alone."""

    def shape(run: Run) -> tuple[str, Any, Any]:
        config = run.config
        return config.task, config.world, dataclasses.replace(config.model, seed=0)

    return [run for run in runs if shape(run) == shape(runs[0])]


def _opening(run: Run, out: Path) -> list[str]:
    """What was found in the first run, and the circuits as one picture."""
    every, ops = _circuits(run), set(main_contrasts(run.task))
    circuits = [circuit for circuit in every if circuit.op in ops]
    if not circuits:
        return []
    swaps = run.frame("interventions") if (run.path / "interventions.parquet").exists() else None
    opening = circuits_opening(circuits, summary_of(run), run.frame("circuits"), swaps)
    file = f"circuits-{run.name}-graphs.svg"
    return [f"{opening}\n", f"![The circuit of each instruction in {run.name}]({file})\n"]


def _run_part(run: Run, out: Path) -> list[str]:
    frame, summary = run.frame("circuits"), summary_of(run)
    circuits = _circuits(run)
    cfg = run.config.model
    parts = [
        f"## {run.name}\n",
        f"`{run.config.task}`, {cfg.n_layers} layers of {cfg.n_heads} heads, d_model {cfg.d_model}, seed "
        f"{run.config.seed}, step {run.step:,}.\n",
        *_drawings(run, circuits, summary, out),
        _circuit_table(circuits, frame),
        "In words, put together from measurements:\n",
        *[f"- {text}" for text in summary["sentences"].values()],
        "",
    ]
    parts += _shared_part(summary, circuits)
    parts += interchange_part(run, out)
    for ablation in ("resample", "mean", "zero"):
        parts += _dissociation_part(run, frame, out, ablation)
    parts += _approximation_part(run, frame, out)
    parts += _position_part(run, frame)
    parts += _along_part(run, frame, out)
    parts += _failures(run, circuits, frame)
    return parts


def _drawings(run: Run, circuits: Sequence[Circuit], summary: dict[str, Any], out: Path) -> list[str]:
    """The circuits side by side, and their faithfulness by size."""
    ops = [circuit for circuit in circuits if circuit.op in set(main_contrasts(run.task))]
    if not ops:
        return []
    shared = summary.get("shared", {}).get("edges", ())
    own = summary.get("own", {})
    graphs, curves = f"circuits-{run.name}-graphs.svg", f"circuits-{run.name}-faithfulness.svg"
    drawn = circuits_drawing(ops, shared=shared, own=lambda op: own.get(op, {}).get("edges", ()))
    write_text(Path(out) / graphs, drawn)
    write_text(Path(out) / curves, faithfulness_drawing(ops))
    return [f"![The circuit of each instruction]({graphs})\n", f"![Faithfulness by size]({curves})\n"]


def _circuits(run: Run) -> list[Circuit]:
    found = [read_circuit(path)[0] for path in sorted((run.path / "circuits").glob("*.json")) if _is_circuit(path)]
    order = main_contrasts(run.task)
    return sorted(found, key=lambda circuit: order.index(circuit.op) if circuit.op in order else len(order))


def _is_circuit(path: Path) -> bool:
    return path.name != SUMMARY


def _one(frame: pd.DataFrame, form: Callable[[dict[str, Any]], str], **columns: Any) -> str:
    rows = records(select(frame, **columns))
    return form(rows[0]) if rows else "–"


def _estimate(row: dict[str, Any]) -> str:
    return f"{row['estimate']:z.2f}"


def _spread(row: dict[str, Any]) -> str:
    return f"{row['estimate']:z.2f} [{row['ci_low']:z.2f}, {row['ci_high']:z.2f}]"


def _circuit_table(circuits: Sequence[Circuit], frame: pd.DataFrame) -> str:
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
                _one(own, _estimate, metric=Metric.FAITHFULNESS, stratum="ablation", ablation="mean"),
                _one(own, _estimate, metric=Metric.FAITHFULNESS, stratum="ablation", ablation="zero"),
                _one(own, _spread, **chosen, control=Control.RANDOM_CIRCUIT),
                _one(own, _spread, **chosen, control=Control.RANDOM_PATHS),
                _one(own, _spread, metric=Metric.FAITHFULNESS, stratum="examples"),
                _one(own, _estimate, metric=Metric.COMPLETENESS),
                _one(own, lambda row: f"{row['site']} {row['estimate']:.2f}", metric=Metric.MINIMALITY),
                _one(own, _estimate, metric=Metric.JACCARD, stratum="resampled", control=None),
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


def _shared_part(summary: dict[str, Any], circuits: Sequence[Circuit]) -> list[str]:
    if "shared" not in summary:
        return []
    nodes = ", ".join(f"`{node}`" for node in summary["shared"]["nodes"]) or "none"
    own = {op: len(kinds["edges"]) for op, kinds in summary["own"].items()}
    listed = ", ".join(f"{op} {count}" for op, count in own.items())
    return [
        f"All {len(own)} circuits share {len(summary['shared']['edges'])} edges, and the nodes {nodes}: what every "
        "instruction needs. "
        f"Edges in no other instruction's circuit: {listed}.\n"
    ]


def _dissociation_part(run: Run, frame: pd.DataFrame, out: Path, ablation: str) -> list[str]:
    try:
        svg = dissociation_matrices(frame, ablation=ablation, inside=False)
    except ValueError:
        return []
    file = f"circuits-{run.name}-dissociation-{ablation}.svg"
    write_text(Path(out) / file, svg)
    lines = []
    for level in dict.fromkeys(select(frame, metric=Metric.DISSOCIATION, ablation=ablation)["granularity"]):
        found = select(frame, metric=Metric.DISSOCIATION, ablation=ablation, granularity=level)
        own, null = select(found, control=None), select(found, control=Control.RANDOM_PART)
        beyond = int((own["estimate"].to_numpy() > null["ci_high"].to_numpy()).sum())
        best = max(records(own), key=lambda row: row["estimate"])
        pair = f"{best['op']} and {str(best['stratum']).removeprefix('against:')}"
        values: Any = own["estimate"]
        lines.append(
            [
                str(level),
                str(int(own["circuit_size"].iloc[0])),
                f"{int((values > 0).sum())} of {len(own)}",
                f"{beyond} of {len(own)}",
                f"{values.median():.2f}",
                f"{pair} {best['estimate']:.2f}",
            ]
        )
    headings = ["level", "units a part", "above 0", "above the null's 97.5 %", "median", "largest"]
    return [
        f"### Double dissociation, {ablation} ablation\n",
        f"![What is lost when a part is ablated]({file})\n",
        "Rows are the ablated parts, columns the instructions measured; 0 is spared, 1 gone. The dissociation of two "
        "instructions is the lesser of the two margins by which a part hurts its own instruction more:\n",
        markdown_table(headings, lines),
    ]


def _position_part(run: Run, frame: pd.DataFrame, most: int = 5) -> list[str]:
    """The block of positions that the strongest edges work at, and what named paths carry."""
    found = select(frame, metric=Metric.EFFECT, granularity="edge by position")
    scored, exact = (select(found, method=method) for method in (Method.EAP_IG, Method.EXACT_PATCHING))
    parts, lines = [], []
    for op in (op for op in main_contrasts(run.task) if len(select(scored, op=op))):
        strongest: Any = select(scored, op=op).sort_values("estimate", key=abs, ascending=False, kind="stable")[:most]
        words = []
        for row in records(strongest):
            there = select(exact, op=op, site=row["site"], position=row["position"])["estimate"]
            words.append(f"{row['site']} at {row['position']} {_estimate(row)}" + "".join(f" ({x:.1f})" for x in there))
        lines.append([op, "; ".join(words)])
    if lines:
        parts += [
            "### Where edges work\n",
            "Edges resolved by the block of positions: the strongest by EAP-IG, and in brackets what patching that "
            "edge at those positions alone does, in logits of the logit difference.\n",
            markdown_table(["instruction", "edge and positions"], lines),
        ]
    if len(paths := select(frame, metric=Metric.EFFECT, granularity="path")):
        lines = [[str(row["op"]), f"`{row['site']}`", _estimate(row)] for row in records(paths)]
        parts += ["Paths patched alone:\n", markdown_table(["instruction", "path", "effect, logits"], lines)]
    return parts


def _approximation_part(run: Run, frame: pd.DataFrame, out: Path) -> list[str]:
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
        line = [str(op), _one(select(auroc, op=op, granularity="edge"), lambda row: str(row["circuit_size"]))]
        for method in methods:
            here = select(found, op=op, method=method)
            rank = select(here, metric=Metric.SPEARMAN, stratum="absolute")
            line.append(f"{_one(rank, _estimate)} / {_one(select(here, metric=Metric.AUROC), _estimate)}")
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
    settings = [each.provenance["settings"] for each in _findings(run, "approximations")]
    searched = ", ".join(str(n) for n in sorted({each["n_search"] for each in settings}))
    n = max(row["n"] for row in records(auroc))
    return [
        "### Approximations against exact patching of every edge\n",
        f"![Approximations against exact patching]({file})\n",
        "Rank correlation of |score| with the mean |effect| / AUROC of finding the edges that matter alone (1 % of the "
        f"gap). {n} pairs an instruction; the search ran on {searched} of them.\n",
        markdown_table(["instruction", "edges that matter", *(_METHODS[method] for method in methods)], lines),
    ]


def _findings(run: Run, kind: str) -> list[Finding]:
    return findings(run.path, kind, digest=run.config.digest, step=run.step)


def _along_part(run: Run, frame: pd.DataFrame, out: Path) -> list[str]:
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


def _failures(run: Run, circuits: Sequence[Circuit], frame: pd.DataFrame) -> list[str]:
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


def _seeds_part(runs: Sequence[Run], n_null: int, out: Path) -> list[str]:
    try:
        frame = rows_frame(seed_agreement(runs, n_null=n_null))
    except ValueError as error:
        return ["## Across seeds\n", f"Not compared: {error}.\n"]
    own, null = select(frame, control=None), select(frame, control=Control.RANDOM_MATCHING)
    lines, above = [], 0
    for op in dict.fromkeys(own["op"]):
        mine, chance = select(own, op=op)["estimate"], select(null, op=op)
        beyond = int((mine.to_numpy() > chance["ci_high"].to_numpy()).sum())
        above += beyond
        lines.append([str(op), f"{mine.mean():.2f}", f"{chance['estimate'].mean():.2f}", f"{beyond} of {len(mine)}"])
    verdict = f"{above} of {len(own)} comparisons are above what random pairing gives"
    if above <= 0.05 * len(own):
        verdict += ": paired by where they look, heads of two seeds are wired no more alike than heads paired at random"
    write_text(Path(out) / "circuits-seeds.svg", seeds_drawing(frame))
    return [
        "## Across seeds\n",
        "![Agreement across seeds](circuits-seeds.svg)\n",
        "Heads are paired within layers by where they look, and the second model's circuit renamed by the pairing. "
        "Mean Jaccard over pairs of runs, and with heads paired at random:\n",
        markdown_table(["instruction", "matched by role", "random pairing", "pairs above the null's 97.5 %"], lines),
        f"{verdict}.\n",
    ]
