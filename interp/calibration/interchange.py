"""Interchange: is IIA 1 where the answer key says, and low elsewhere?

true_subspace   All places that hold a variable are swapped together, each in its true subspace (`Swap` of the key).
                Controls: random subspaces of the same ranks, the same subspaces at the positions outside the set, an
                untrained model. The same positions with the whole vector are rows of `full_vector`, granularity "set".
full_vector     The sweep that trained models get (`iia_sweep` over layers x default position sets). A place is right
                where a whole true set lies within its positions; wrong where nothing live of the variable does. All
                positions together, the embedding and the last layer are left out, being ceilings. `found` is IIA of
                at least `FOUND` in the stratum "changes".
das             The subspace that `fit_das` finds at the true set, for variables that one place holds: its IIA on other
                programs, beside a random subspace, and its largest principal angle to the true one.

All IIA are in the stratum "changes", where the counterfactual answer is not the answer on base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.calibration.places import standing
from interp.calibration.settings import CalibrationSettings
from interp.compiled.key import AnswerKey, Place, orthonormal
from interp.interventions import (
    Patch,
    SharedPairs,
    Site,
    collect,
    iia_sweep,
    patched,
    random_basis,
    residual_sites,
)
from interp.interventions.das import DasConfig, fit_das, principal_angles
from interp.models import Transformer
from interp.results import Aggregation, Control, Method, Metric, wilson_interval
from interp.tasks.machine_task import NextStateTask

FOUND = 0.5
DAS_VARIABLES = ("op", "operand", "outcome", "output_length")  # held in one place, each by another kind of component
Rows = list[dict[str, Any]]
Report = Callable[[float], None]
Part = tuple[str, Tensor | None]  # positions, and the basis to swap there; None: the whole vector


def true_set_calibration(
    model: Transformer, key: AnswerKey, task: NextStateTask, settings: CalibrationSettings, report: Report
) -> Rows:
    """IIA of every variable at each of its true sets, with controls."""
    rows: Rows = []
    names = [name for name in task.swappable() if name in key.variables and key.variables[name].swaps]
    blank = Transformer(model.cfg).eval()
    generator = torch.Generator().manual_seed(settings.seed)
    for done, name in enumerate(names):
        pairs = SharedPairs.draw(
            task, [name], n_pairs=settings.n_swaps, n_changing=settings.n_swaps, seed=settings.seed
        )
        for swap in key.variables[name].swaps:
            true = [(place.positions, key.basis(place)) for place in swap.places]
            random = [(positions, random_basis(*basis.shape, generator=generator)) for positions, basis in true]
            union = _union(positions for positions, _ in true)
            whole: list[Part] = [(union, None)]
            runs: list[tuple[Method, Control | None, Any, Sequence[Part]]] = [
                (Method.TRUE_SUBSPACE, None, model, true),
                (Method.TRUE_SUBSPACE, Control.RANDOM_SUBSPACE, model, random),
                (Method.TRUE_SUBSPACE, Control.UNTRAINED_MODEL, blank, true),
                (Method.FULL_VECTOR, None, model, whole),
            ]
            if outside := _outside(task, union):
                elsewhere = [(outside, basis) for _, basis in true]
                runs.append((Method.TRUE_SUBSPACE, Control.WRONG_SITE, model, elsewhere))
            for method, control, subject, parts in runs:
                share, n = swap_together(subject, task, pairs, name, swap.hook, parts)
                low, high = wilson_interval(share * n, n)
                rows.append(
                    {
                        "method": method,
                        "control": control,
                        "variable": name,
                        "site": swap.hook,
                        "position": " & ".join(place.positions for place in swap.places),
                        "rank": None if method == Method.FULL_VECTOR else sum(len(basis) for _, basis in true),
                        "granularity": "set",
                        "pair_design": "independent",
                        "stratum": "changes",
                        "metric": Metric.IIA,
                        "aggregation": Aggregation.MEAN,
                        "estimate": share,
                        "ci_low": low,
                        "ci_high": high,
                        "interval_kind": "wilson",
                        "n": n,
                    }
                )
        report((done + 1) / len(names))
    return rows


@torch.no_grad()
def swap_together(
    model: Any, task: NextStateTask, pairs: SharedPairs, name: str, hook: str, parts: Sequence[Part]
) -> tuple[float, int]:
    """(IIA, pairs) where the counterfactual changes the answer, with all parts taken from the source at once."""
    changes = torch.from_numpy(pairs.changes[name])
    rows = pairs.members[name][pairs.changes[name]]
    base, source = pairs.base[rows], pairs.source[rows]
    named = "+".join(positions for positions, _ in parts)
    keep = np.intersect1d(standing(task, named, base), standing(task, named, source))
    base, source = base[keep], source[keep]
    target = pairs.targets[name][changes][keep]
    sites = {positions: Site(hook, positions) for positions, _ in parts}
    taken = collect(model, source, list(sites.values()), task=task)
    patches = [
        Patch(hook, task.resolve(positions, base), taken[sites[positions]], basis=basis) for positions, basis in parts
    ]
    with patched(model, patches):
        answers = task.next_state_logits(model(base.tokens)).argmax(-1)
    return float((answers == target).all(-1).float().mean()), len(base)


def _union(sets: Iterable[str]) -> str:
    """One name for several position sets, each part once."""
    return "+".join(dict.fromkeys(part for positions in sets for part in positions.split("+")))


def _outside(task: NextStateTask, positions: str) -> str | None:
    """The positions that belong to a set in no state; None where there are none."""
    inside: set[int] = set()
    for part in positions.split("+"):
        name = part.split("[@")[0]
        inside |= {i for i, other in enumerate(task.position_names) if other == name or other.startswith(f"{name}[")}
    left = [name for i, name in enumerate(task.position_names) if i not in inside]
    return "+".join(left) or None


def sweep_calibration(
    model: Transformer, key: AnswerKey, task: NextStateTask, settings: CalibrationSettings, report: Report
) -> Rows:
    """Recall and false-positive rate of the places that the default sweep of whole vectors finds."""
    sets = [name for name in task.position_sets() if name != "all"]
    names = [name for name in task.swappable() if name in key.variables]
    found = iia_sweep(
        model,
        task,
        names,
        residual_sites(model, sets)[len(sets) : -len(sets)],
        n_pairs=settings.n_swaps,
        n_changing=settings.n_swaps // 2,
        seed=settings.seed,
        wrong_site=False,
        progress=report,
    )
    iia = {
        (row["variable"], row["site"], row["position"]): row["estimate"]
        for row in found
        if row["metric"] == Metric.IIA and row["stratum"] == "changes" and row["control"] is None
    }
    right, wrong = [], []
    for (name, hook, positions), value in iia.items():
        truth = _holds(key, task, name, hook, positions)
        if truth is not None:
            (right if truth else wrong).append(value)
    row = {"method": Method.FULL_VECTOR, "stratum": "sweep", "granularity": "cell", "aggregation": Aggregation.MEAN}
    return [
        {**row, "metric": metric, "estimate": float(np.mean(np.array(values) >= FOUND)), "n": len(values)}
        for metric, values in ((Metric.RECALL, right), (Metric.FALSE_POSITIVE_RATE, wrong))
        if values
    ]


def _holds(key: AnswerKey, task: NextStateTask, name: str, hook: str, positions: str) -> bool | None:
    """Whether a true set lies within these positions; None where they hold a part of one."""
    mine = _slots(task, positions)
    for swap in key.variables[name].swaps:
        if swap.hook == hook and all(_slots(task, place.positions) <= mine for place in swap.places):
            return True
    point = key.hooks.index(hook)
    live = [c for c in key.variables[name].carriers if c.first <= point <= c.last]
    touched = any(_slots(task, c.place.positions, widest=True) & _slots(task, positions, widest=True) for c in live)
    return None if touched else False


def _slots(task: NextStateTask, positions: str, *, widest: bool = False) -> set[str]:
    """Position names of a set; a pointed slot stands for itself or, at its widest, for all of its block."""
    slots: set[str] = set()
    for part in positions.split("+"):
        block = part.split("[@")[0]
        if "[@" in part:
            slots.add(part)
        if "[@" not in part or widest:
            slots |= {name for name in task.position_names if name == block or name.startswith(f"{block}[")}
    if not widest:  # a block holds each of its pointed slots
        slots |= {f"{part}[@{pointer}]" for part in positions.split("+") for pointer in _POINTERS.get(part, ())}
    return slots


_POINTERS = {"cells": ("array_ptr",), "instructions": ("instruction_ptr",), "output": ("output_length",)}


def das_calibration(
    model: Transformer, key: AnswerKey, task: NextStateTask, settings: CalibrationSettings, report: Report
) -> Rows:
    """Held-out IIA of fitted subspaces, and their largest principal angle to the true ones."""
    rows: Rows = []
    names = [name for name in DAS_VARIABLES if name in key.variables and key.variables[name].swaps]
    config = DasConfig(n_pairs=8 * settings.n_swaps, n_held_out=2 * settings.n_swaps, steps=settings.das_steps)
    for done, name in enumerate(names):
        swap = key.variables[name].swaps[0]
        (place,) = swap.places
        true = differences(key, place)
        site = Site(swap.hook, place.positions)
        fit = fit_das(model, task, name, site, rank=len(true), config=config, seed=settings.seed)
        here = {
            "method": Method.DAS,
            "variable": name,
            "site": swap.hook,
            "position": place.positions,
            "rank": fit.rank,
            "granularity": "set",
            "pair_design": "independent",
            "stratum": "changes",
            "aggregation": Aggregation.MEAN,
            "n": fit.n,
        }
        low, high = wilson_interval(fit.iia * fit.n, fit.n)
        interval = {"ci_low": low, "ci_high": high, "interval_kind": "wilson"}
        rows.append({**here, "metric": Metric.IIA, "estimate": fit.iia, **interval})
        generator = torch.Generator().manual_seed(settings.seed)
        random = random_basis(*fit.basis.shape, generator=generator)
        for control, basis in ((None, fit.basis), (Control.RANDOM_SUBSPACE, random)):
            angles = principal_angles(basis, true)
            for which, angle in (("median", np.median(angles)), ("largest", angles.max())):
                what = {"stratum": which, "metric": Metric.PRINCIPAL_ANGLE, "estimate": float(angle)}
                rows.append({**here, "control": control, **what})
        pairs = SharedPairs.draw(
            task, [name], n_pairs=settings.n_swaps, n_changing=settings.n_swaps, seed=settings.seed
        )
        share, n = swap_together(model, task, pairs, name, swap.hook, [(place.positions, random)])
        rows.append({**here, "control": Control.RANDOM_SUBSPACE, "metric": Metric.IIA, "estimate": share, "n": n})
        report((done + 1) / len(names))
    return rows


def differences(key: AnswerKey, place: Place) -> Tensor:
    """Orthonormal rows that span the differences between a place's features: all that a swap of one-hots moves."""
    rows = key.directions[list(place.features)]
    return orthonormal(rows - rows.mean(0)) if len(rows) > 1 else key.basis(place)
