"""The whole path in one call: train, evaluate, probe, intervene, find circuits, report."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.markup import escape

from interp.commands import command
from interp.console import console, plain_table, say, show_scores, stage_display, training_display
from interp.results import Control, Method, Metric, records, select
from interp.runs import Run, load
from interp.stage_options import CircuitOptions

_CONTROLS = {  # short enough for a column
    Control.MAJORITY_CLASS: "majority",
    Control.CONTROL_TASK: "task",
    Control.SHUFFLED_LABELS: "shuffled",
    Control.EMBEDDING_ONLY: "embedding",
    Control.UNTRAINED_MODEL: "untrained",
    Control.ALTERED_SEMANTICS: "altered",
}
_TRIED = 128  # examples of a trial of threads
CIRCUITS = CircuitOptions(levels=("neuron",))  # other levels take minutes; all else is as by default
_CIRCUIT_COLUMNS = ("edges", "faithfulness", "random", "pairs")


def run_demo(out: Path, *, preset: str, fresh: bool = False) -> Run:
    """Make the run folder `out`, reusing what it already holds, and print what was found.

    Raises:
        ValueError: no such preset.
        RunError: `out` holds another run.
    """
    from interp.report import write_report
    from interp.studies.circuit_stage import circuit_stage
    from interp.studies.evaluation_stage import evaluate_stage
    from interp.studies.patch_stage import patch_stage
    from interp.studies.probe_stage import probe_stage
    from interp.training import PRESETS, train

    if preset not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}; got {preset!r}")
    began = time.perf_counter()
    config = PRESETS[preset]
    with training_display() as report:
        train(config, out, fresh=fresh, command=command("demo", "--preset", preset, "--out", out), on_progress=report)
    run = load(out)
    threads = _Threads(run)

    def measured(label: str, stage: Callable[..., pd.DataFrame]) -> pd.DataFrame:
        threads.choose()
        with stage_display(label) as progress:
            return stage(run, fresh=fresh, progress=progress)

    def left_out(label: str, why: str | None) -> bool:
        if why is not None:
            say(f"{label}: left out, since {why}")
        return why is not None

    scores, probes = measured("evaluating", evaluate_stage), measured("probing", probe_stage)
    interventions = circuits = None
    if not left_out("intervening", _cannot_be_swapped(run)):
        interventions = measured("intervening", patch_stage)
    if not left_out("finding circuits", _has_no_circuits(run)):
        circuits = measured("finding circuits", partial(circuit_stage, options=CIRCUITS))
    path = write_report(run)
    show_scores(scores, title=f"{run.name}: exact match on held-out examples")
    _show_probes(run, probes)
    if interventions is not None:
        _show_swaps(run, interventions)
    if circuits is not None:
        _show_circuits(circuits)
    minutes = (time.perf_counter() - began) / 60
    say(f"{run.path} made in {minutes:.1f} minutes; read {path}, or browse it: {command('app', run.path)}")
    return run


class _Threads:
    """How many threads the stages compute with: chosen anew before each, said where it changes."""

    def __init__(self, run: Run):
        self._run, self._bound = run, run.config.training.threads
        self._batch = run.task.sample(_TRIED, seed=0)
        self._now: int | None = None

    def choose(self) -> None:
        """Let PyTorch compute with the better of one thread and the run's bound, tried at answers to some examples."""
        import torch

        from interp.training.scoring import answered
        from interp.training.threads import choose

        if self._bound == 1:
            torch.set_num_threads(1)
            return
        model = self._run.model
        with torch.inference_mode():
            choice = choose(lambda: answered(model, self._run.task, self._batch), self._bound)
        if choice.threads != self._now:
            self._now = choice.threads
            say(f"measuring with {choice.words('batch')}")


def _best(frame: pd.DataFrame, name: str) -> dict[str, Any] | None:
    """The row of a variable with the highest estimate."""
    return max(records(select(frame, variable=name)), key=lambda row: row["estimate"], default=None)


def clearest(probes: pd.DataFrame) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Per variable, the probe that stands furthest above the strongest of its own controls, and that control's row.

    Accuracy alone would open with trivial reads: a variable at the slot that holds it is read from the embedding as
    well. Largest margin first; a variable that no probe reads better than its controls has a margin of 0 or less.

    Args:
        probes: rows of the tidy frame, controls included.
    """
    strongest: dict[tuple[str, ...], dict[str, Any]] = {}
    cell = ("variable", "site", "position", "method")
    accuracy = records(probes.loc[(probes["metric"] == Metric.ACCURACY) & probes["stratum"].isna()])
    for row in accuracy:
        key = tuple(row[name] for name in cell)
        if row["control"] is not None and row["estimate"] > strongest.get(key, {"estimate": -1.0})["estimate"]:
            strongest[key] = row
    best: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for row in accuracy:
        control = strongest.get(tuple(row[name] for name in cell))
        if row["control"] is None and control is not None:
            found = best.get(row["variable"])
            if found is None or _margin((row, control)) > _margin(found):
                best[row["variable"]] = (row, control)
    return sorted(best.values(), key=lambda pair: -_margin(pair))


def _margin(pair: tuple[dict[str, Any], dict[str, Any]]) -> float:
    return pair[0]["estimate"] - pair[1]["estimate"]


def _cannot_be_swapped(run: Run) -> str | None:
    """Why interchange has nothing to ask, in words; None where it has."""
    if "do" not in run.task.world.capabilities:
        return str(run.task.world.lacks("do"))
    if not run.task.swappable():
        return f"the task {run.task.name} has no variable that can be swapped"
    return None


def _has_no_circuits(run: Run) -> str | None:
    """Why there are no circuits to be found, in words; None where there are."""
    if "contrasts" not in run.task.world.capabilities:
        return str(run.task.world.lacks("contrasts"))
    if run.model.graph() is None:
        return f"the architecture {run.config.model.architecture} declares no graph of edges"
    return None


def _inner(run: Run, rows: pd.DataFrame) -> list[str]:
    """The sites that are neither the embedding, which edits the input, nor the last layer, which edits the answer."""
    outer = run.model.residual_hooks()
    ends = {outer[0], outer[-1]} if outer else set()
    return [site for site in dict.fromkeys(rows["site"]) if site not in ends]


def _show_probes(run: Run, probes: pd.DataFrame) -> None:
    """Per variable: the place inside the model where it is read most clearly, beside its strongest control."""
    table = plain_table(
        "Where probes stand furthest above their strongest control",
        "variable",
        "where",
        right=("margin", "probe", "strongest control"),
    )
    where = table.columns[1]
    where.no_wrap, where.overflow = False, "fold"  # so that 80 columns hold the numbers, whatever a place is called
    first = run.model.residual_hooks()[:1]  # a read there is one from the embedding
    for probe, control in clearest(probes.loc[~probes["site"].isin(first)]):
        beside = f"{_CONTROLS[control['control']]} {control['estimate']:.1%}"
        margin = f"{100 * _margin((probe, control)):+.1f}"
        table.add_row(escape(probe["variable"]), _place(run, probe), margin, f"{probe['estimate']:.1%}", beside)
    console.print(table)


def _show_swaps(run: Run, interventions: pd.DataFrame) -> None:
    """Per variable: the place where it is best swapped, beside the model without the swap."""
    swaps = select(
        # Ceilings are left out; all positions at once are the source.
        interventions.loc[
            interventions["site"].isin(_inner(run, interventions)) & (interventions["position"] != "all")
        ],
        metric=Metric.IIA,
        stratum="changes",
        method=Method.FULL_VECTOR,
        pair_design="independent",
    )
    swaps = swaps.loc[swaps["op"].isna()]
    used, unpatched = select(swaps, control=None), select(swaps, control=Control.UNPATCHED)
    table = plain_table(
        "Where it is best swapped: IIA where the answer changes", "variable", "where", right=("IIA", "unpatched")
    )
    for name in dict.fromkeys(used["variable"]):
        swap = _best(used, name)
        assert swap is not None
        alone = select(unpatched, variable=name, site=swap["site"], position=swap["position"])["estimate"].iloc[0]
        table.add_row(escape(name), _place(run, swap), f"{swap['estimate']:.1%}", f"{alone:.1%}")
    console.print(table)


def _place(run: Run, row: dict[str, Any]) -> str:
    """Layer (or hook) and position, with the brackets of the position kept from being read as markup."""
    layer = run.model.layer_of(row["site"])
    return escape(f"{row['site'] if layer is None else f'L{layer}'} {row['position']}")


def _show_circuits(circuits: pd.DataFrame) -> None:
    """Per instruction: the smallest circuit found, its faithfulness beside random circuits of the same size."""
    curve = select(circuits, metric=Metric.FAITHFULNESS, stratum="absolute")
    table = plain_table("Circuits, against random ones of the same size", "op", right=_CIRCUIT_COLUMNS)
    for op in dict.fromkeys(curve["op"]):
        own = sorted(records(select(curve, op=op, control=None)), key=lambda row: row["circuit_size"])
        row = next((row for row in own if row["estimate"] >= 0.9), own[-1])
        null = select(curve, op=op, control=Control.RANDOM_CIRCUIT, circuit_size=row["circuit_size"])["estimate"]
        random = f"{null.iloc[0]:.2f}" if len(null) else "–"
        table.add_row(op, str(row["circuit_size"]), f"{row['estimate']:.2f}", random, str(row["n"]))
    console.print(table)
