"""Probes: is what they call decodable where the variable is?

A cell is a variable at a hook and a position, over the sweep that trained models get (`interp.probing.probe_sweep`).

    decodable   held-out accuracy above both the majority class and the control task by `MARGIN`
    live        by the answer key the variable stands there and a component, on a path to the logits, is yet to read it
    left out    cells where several positions hold the variable only together, or that are live in some states alone;
                and live cells at which even an edit in the true subspace changes no answer in any of the pairs

Recall is the share of live cells called decodable, the false-positive rate that of cells that are not live; `stratum`
says what else was asked:

    decodable   nothing (a study of Tracr models found recall 1.00 and a false-positive rate of .947)
    window      only layers between the variable's first write and its last read count as cells
    embedding   decodable, and by as much better than the embedding-only and the untrained control too
    edit        decodable, and swapping the probe's subspace at that position alone moves the answer to the machine's
                counterfactual, in at least `MOVED` of the pairs and more often than a random subspace of its rank
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.calibration.places import Cell, Place, true_places
from interp.calibration.settings import CalibrationSettings
from interp.compiled.key import AnswerKey
from interp.interventions import SharedPairs, Site, interchange, interchange_answers, random_basis
from interp.interventions.das import principal_angles
from interp.models import Transformer
from interp.probing import ProbeSweep, probe_sweep
from interp.results import Aggregation, Control, Method, Metric
from interp.tasks.machine_task import NextStateTask

MARGIN = 0.1
MOVED = 0.05
Rows = list[dict[str, Any]]
Report = Callable[[float], None]


def probe_calibration(
    method: Method,
    model: Transformer,
    key: AnswerKey,
    task: NextStateTask,
    settings: CalibrationSettings,
    report: Report,
    *,
    edits: bool,
) -> Rows:
    """Recall and false-positive rate of a probe; with `edits` also beside the causal test, and how far its subspaces
    are from the true ones."""
    variables = _probed(task, settings)
    sweep = probe_sweep(
        model,
        task,
        untrained=untrained_copy(model),
        variables=variables,
        methods=[method],
        n=settings.n_states,
        seed=settings.seed,
        subspaces_everywhere=True,
        progress=lambda done, total, at: report((0.3 if edits else 1.0) * done / total),
    )
    batch = task.sample(256, seed=settings.seed)
    places = true_places(key, task, variables, batch)
    above = _above(sweep)
    decodable = {cell for cell in places if above[cell]["own"] >= MARGIN}
    beyond = {cell for cell in decodable if above[cell]["inputs"] >= MARGIN}
    moved: dict[Cell, bool] = {}
    rows: Rows = []
    if edits:
        moved, idle = _edits(model, task, settings, places, decodable, sweep, lambda share: report(0.3 + 0.7 * share))
        declared = {cell: place for cell, place in places.items() if place.live}
        rows += _rates(Method.TRUE_SUBSPACE, "edit", declared, set(declared) - idle)
        places = {cell: place for cell, place in places.items() if cell not in idle}
    rows += _rates(method, "decodable", places, decodable)
    in_window = {cell: place for cell, place in places.items() if place.in_window}
    rows += _rates(method, "window", in_window, decodable)
    rows += _rates(method, "embedding", places, beyond)
    if edits:
        acting = {cell for cell in decodable if moved.get(cell, False)}
        rows += _rates(method, "edit", places, acting)
        rows += _angles(sweep, places)
    return rows


def untrained_copy(model: Transformer) -> Transformer:
    """A model of the same shape with the weights that training would begin from."""
    return Transformer(model.cfg).eval()


def _probed(task: NextStateTask, settings: CalibrationSettings) -> list[str]:
    """The sweep's default variables, without those that this machine gives one value only."""
    batch = task.sample(512, seed=settings.seed, split="train")
    return [
        name for name in task.variables() if len({int(label) for label in task.labels(batch, name) if label >= 0}) > 1
    ]


def _above(sweep: ProbeSweep) -> dict[Cell, dict[str, float]]:
    """By how much each probe's accuracy exceeds the better of its controls: of the labels, and of the inputs."""
    accuracy: dict[Cell, dict[str | None, float]] = {}
    for row in sweep.rows:
        if row["metric"] == Metric.ACCURACY:
            accuracy.setdefault((row["variable"], row["site"], row["position"]), {})[row["control"]] = row["estimate"]
    labels = (Control.MAJORITY_CLASS, Control.CONTROL_TASK)
    inputs = (Control.EMBEDDING_ONLY, Control.UNTRAINED_MODEL)
    return {
        cell: {
            "own": values[None] - max(values[control] for control in labels),
            "inputs": values[None] - max(values[control] for control in inputs),
        }
        for cell, values in accuracy.items()
    }


def _edits(
    model: Any,
    task: NextStateTask,
    settings: CalibrationSettings,
    places: dict[Cell, Place],
    decodable: set[Cell],
    sweep: ProbeSweep,
    report: Report,
) -> tuple[dict[Cell, bool], set[Cell]]:
    """Which decodable cells an edit along the probe's subspace acts at; and live cells where no edit does."""
    variables = list(dict.fromkeys(name for name, _, _ in places))
    generator = torch.Generator().manual_seed(settings.seed)
    moved: dict[Cell, bool] = {}
    idle: set[Cell] = set()
    for done, name in enumerate(variables):
        tried: list[tuple[Cell, str, Tensor]] = []
        for cell, place in places.items():
            if cell[0] != name:
                continue
            if cell in decodable:
                basis = sweep.subspaces[name, Site(*cell[1:])]
                tried.append((cell, "probe", basis))
                tried.append((cell, "random", random_basis(*basis.shape, generator=generator)))
            if place.basis is not None:
                tried.append((cell, "true", place.basis))
        if tried and task.world.variable(name).settable:
            shares = _moved(model, task, name, settings, [(Site(*c[1:]), basis) for c, _, basis in tried])
            found = {(cell, kind): share for (cell, kind, _), share in zip(tried, shares, strict=True)}
            for cell, kind, _ in tried:
                if kind == "probe":
                    share = found[cell, "probe"]
                    moved[cell] = bool(share >= MOVED and share > found[cell, "random"])
                elif kind == "true" and found[cell, "true"] == 0:
                    idle.add(cell)
        report((done + 1) / len(variables))
    return moved, idle


def _moved(
    model: Any, task: NextStateTask, name: str, settings: CalibrationSettings, swaps: Sequence[tuple[Site, Tensor]]
) -> np.ndarray:
    """For each swap, the share of pairs in which it changes a token, and to the machine's counterfactual one.

    Pairs are those whose counterfactual differs from the answer on base.
    """
    pairs = SharedPairs.draw(task, [name], n_pairs=settings.n_edits, n_changing=settings.n_edits, seed=settings.seed)
    rows = pairs.members[name][pairs.changes[name]]
    target = pairs.targets[name][torch.from_numpy(pairs.changes[name])]
    base, source = pairs.base[rows], pairs.source[rows]
    sites, bases = [site for site, _ in swaps], [basis for _, basis in swaps]
    answers = interchange_answers(
        model,
        base.tokens,
        source.tokens,
        interchange(task, sites, base, source, bases=bases),
        answer=lambda logits: task.next_state_logits(logits).argmax(-1),
    )
    changed = (answers[:-1] == target) & (answers[:-1] != answers[-1])
    return changed.any(-1).float().mean(-1).numpy()


def _rates(method: Method, stratum: str, places: dict[Cell, Place], found: set[Cell]) -> Rows:
    rows = []
    for live, metric in ((True, Metric.RECALL), (False, Metric.FALSE_POSITIVE_RATE)):
        cells = [cell for cell, place in places.items() if place.live == live]
        if cells:
            rows.append(
                {
                    "method": method,
                    "stratum": stratum,
                    "granularity": "cell",
                    "metric": metric,
                    "aggregation": Aggregation.MEAN,
                    "estimate": sum(cell in found for cell in cells) / len(cells),
                    "n": len(cells),
                }
            )
    return rows


def _angles(sweep: ProbeSweep, places: dict[Cell, Place]) -> Rows:
    """For each variable the mean, over its live cells, of the largest principal angle to the true subspace."""
    angles: dict[str, list[float]] = {}
    for (name, hook, position), place in places.items():
        basis = sweep.subspaces.get((name, Site(hook, position)))
        if place.basis is not None and basis is not None:
            angles.setdefault(name, []).append(float(principal_angles(basis, place.basis).max()))
    return [
        {
            "method": Method.PROBE_SUBSPACE,
            "variable": name,
            "granularity": "cell",
            "metric": Metric.PRINCIPAL_ANGLE,
            "aggregation": Aggregation.MEAN,
            "estimate": float(np.mean(found)),
            "n": len(found),
        }
        for name, found in angles.items()
    ]
