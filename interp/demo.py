"""The whole path in one call: train, evaluate, probe, intervene, find circuits, report."""

from __future__ import annotations

import time
from pathlib import Path

import pandas as pd
from rich.table import Table

from interp.console import console, show_scores, stage_display, training_display
from interp.results import Aggregation, Control, Method, Metric
from interp.runs import Run, load


def run_demo(out: Path, *, preset: str, fresh: bool = False) -> Run:
    """Make the run folder `out`, reusing what it already holds, and print what was found.

    Raises:
        ValueError: no such preset.
        RunError: `out` holds another run.
    """
    from interp.report import write_report
    from interp.stages import circuit_stage, evaluate_stage, patch_stage, probe_stage
    from interp.training import PRESETS, train

    if preset not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}; got {preset!r}")
    began = time.perf_counter()
    config = PRESETS[preset]
    with training_display() as report:
        train(config, out, fresh=fresh, command=f"tapelens demo --preset {preset} --out {out}", on_progress=report)
    run = load(out)
    with stage_display("evaluating") as progress:
        scores = evaluate_stage(run, fresh=fresh, progress=progress)
    with stage_display("probing") as progress:
        probes = probe_stage(run, fresh=fresh, progress=progress)
    with stage_display("intervening") as progress:
        interventions = patch_stage(run, fresh=fresh, progress=progress)
    with stage_display("finding circuits") as progress:
        circuits = circuit_stage(run, fresh=fresh, progress=progress)
    path = write_report(run)
    show_scores(scores, title=f"{run.name}: exact match on held-out programs")
    _show_findings(probes, interventions)
    _show_circuits(circuits)
    minutes = (time.perf_counter() - began) / 60
    console.print(f"{run.path} made in {minutes:.1f} minutes; read {path}, or browse it: tapelens app {run.path}")
    return run


def _best(frame: pd.DataFrame, name: str) -> pd.Series | None:
    rows = frame[frame.variable == name]
    return rows.loc[rows.estimate.idxmax()] if len(rows) else None


def _show_findings(probes: pd.DataFrame, interventions: pd.DataFrame) -> None:
    """Per variable: the most decodable and the most used place inside the model, each beside a control."""
    inside = probes[(probes.metric == Metric.ACCURACY) & (probes.site != "blocks.0.hook_resid_pre")]
    task, controls = inside[inside.control.isna()], inside[inside.control == Control.CONTROL_TASK]
    swaps = interventions[
        (interventions.stratum == "changes")
        & (interventions.method == Method.FULL_VECTOR)
        & (interventions.pair_design == "independent")
        & (interventions.site != "blocks.0.hook_resid_pre")
        & (interventions.position != "all")
    ]
    used, unpatched = swaps[swaps.control.isna()], swaps[swaps.control == Control.UNPATCHED]
    table = Table(title="variables: where best decoded, and where best swapped (IIA where the answer changes)")
    for heading in ("variable", "probe", "control task", "where", "IIA", "unpatched", "swapped at"):
        table.add_column(
            heading, justify="right" if heading in ("probe", "control task", "IIA", "unpatched") else "left"
        )
    for name in dict.fromkeys(task.variable):
        probe, swap = _best(task, name), _best(used, name)
        assert probe is not None
        same = (controls.variable == name) & (controls.site == probe.site) & (controls.position == probe.position)
        cells = [name, f"{probe.estimate:.1%}", f"{controls[same].estimate.iloc[0]:.1%}", _place(probe)]
        if swap is None:
            table.add_row(*cells, "–", "–", "–")
            continue
        beside = unpatched[(unpatched.variable == name) & (unpatched.site == swap.site)].estimate.iloc[0]
        table.add_row(*cells, f"{swap.estimate:.1%}", f"{beside:.1%}", _place(swap))
    console.print(table)


def _place(row: pd.Series) -> str:
    return f"{row.site.removeprefix('blocks.').replace('.hook_', ' ')} · {row.position}"


def _show_circuits(circuits: pd.DataFrame) -> None:
    """Per instruction: the smallest circuit found, its faithfulness beside random circuits of the same size."""
    curve = circuits[(circuits.metric == Metric.FAITHFULNESS) & (circuits["aggregation"] == Aggregation.MEAN)]
    table = Table(title="circuits: faithfulness of the highest-scored edges, against random circuits of the same size")
    for heading in ("op", "edges", "faithfulness", "random", "pairs"):
        table.add_column(heading, justify="left" if heading == "op" else "right")
    for op in dict.fromkeys(curve.op):
        own = curve[(curve.op == op) & curve.control.isna()].sort_values("circuit_size")
        null = curve[(curve.op == op) & (curve.control == Control.RANDOM_CIRCUIT)].set_index("circuit_size").estimate
        good = own[own.estimate >= 0.9]
        row = good.iloc[0] if len(good) else own.iloc[-1]
        random = f"{null[row.circuit_size]:.2f}" if row.circuit_size in null.index else "–"
        table.add_row(op, str(row.circuit_size), f"{row.estimate:.2f}", random, str(row.n))
    console.print(table)
