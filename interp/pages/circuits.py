"""docs/circuits.md: what was found about circuits, run by run, in words and figures made from rows alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from interp.circuits.pairs import main_contrasts
from interp.figures import dissociation_matrices
from interp.files import write_text
from interp.pages.circuits_drawings import seeds_drawing
from interp.pages.circuits_graphs import circuits_drawing, faithfulness_drawing
from interp.pages.circuits_interchange import interchange_part, markdown_table
from interp.pages.circuits_tables import along_part, approximation_part, circuit_table, estimated, failure_part
from interp.pages.openings import circuits_opening
from interp.results import Control, Method, Metric, records, rows_frame, select
from interp.runs import Run
from interp.runs.circuit_files import Circuit, read_circuit
from interp.studies.circuit_summary import SUMMARY, summary_of
from interp.studies.seeds import seed_agreement


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
        circuit_table(circuits, frame),
        "In words, put together from measurements:\n",
        *[f"- {text}" for text in summary["sentences"].values()],
        "",
    ]
    parts += _shared_part(summary, circuits)
    parts += interchange_part(run, out)
    for ablation in ("resample", "mean", "zero"):
        parts += _dissociation_part(run, frame, out, ablation)
    parts += approximation_part(run, frame, out)
    parts += _position_part(run, frame)
    parts += along_part(run, frame, out)
    parts += failure_part(run, circuits, frame)
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
            words.append(f"{row['site']} at {row['position']} {estimated(row)}" + "".join(f" ({x:.1f})" for x in there))
        lines.append([op, "; ".join(words)])
    if lines:
        parts += [
            "### Where edges work\n",
            "Edges resolved by the block of positions: the strongest by EAP-IG, and in brackets what patching that "
            "edge at those positions alone does, in logits of the logit difference.\n",
            markdown_table(["instruction", "edge and positions"], lines),
        ]
    if len(paths := select(frame, metric=Metric.EFFECT, granularity="path")):
        lines = [[str(row["op"]), f"`{row['site']}`", estimated(row)] for row in records(paths)]
        parts += ["Paths patched alone:\n", markdown_table(["instruction", "path", "effect, logits"], lines)]
    return parts


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
