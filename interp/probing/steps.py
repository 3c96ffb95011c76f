"""The probe sweep over single steps: variables x layers x positions of a model, each probe beside its controls.

Probes are fitted on programs of the training split and scored on programs of the evaluation split, both drawn evenly
over op x outcome. Every accuracy is a row, and so is each control on the same held-out states:

    majority_class    the commonest class of the fit
    control_task      the same probe on labels re-drawn per input type (`Task.control_types`); selectivity is the
                      difference, with an interval that pairs the two
    embedding_only    the same probe on the embedding at that position, before the first layer
    untrained_model   the same probe on the same model with the weights that training began from
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cython_vm import MachineSpec, program_hash, strata_weights, variable
from interp.interventions import Site, collect, resolve
from interp.probing.editing import edit_step_rows, wrong_hooks
from interp.probing.estimators import PROBES, check_methods
from interp.probing.readout import Readout
from interp.results import Aggregation, Control, IntervalKind, Method, Metric
from interp.tasks import Batch, Task
from probes import (
    LinearProbe,
    MajorityProbe,
    Probe,
    bootstrap_mean,
    control_labels,
)

Progress = Callable[[float, float, str], None]
_POINTED = {"instruction_ptr": ("instruction_ptr", "instructions"), "array_ptr": ("array_ptr", "cells")}


@dataclass(frozen=True)
class ProbeSweep:
    """What a sweep found."""

    rows: list[dict[str, Any]]
    subspaces: dict[tuple[str, Site], Tensor]  # (variable, pointed site) -> orthonormal rows [rank, d_model]


def default_variables(spec: MachineSpec) -> list[str]:
    """Both pointers and every derived variable of one step; single cells and buffer slots left out."""
    names = [name for name in spec.variables() if "[" not in name]
    derived = [name for name in names if variable(spec, name).kind in ("fetch", "decide", "result")]
    return ["instruction_ptr", "array_ptr", *derived]


def default_positions(spec: MachineSpec) -> list[str]:
    """The pointed slots, the first slot of every block, and the opening brace."""
    pointed = [f"{block}[@{pointer}]" for pointer, blocks in _POINTED.items() for block in blocks]
    first = [f"{block}[0]" for block in spec.layout.blocks if f"{block}[0]" in spec.layout.names]
    return [*pointed, *first, "{"]


def residual_hooks(n_layers: int) -> list[str]:
    """The residual stream before the first layer and after each."""
    return ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(n_layers))]


def probe_sweep(
    model: Any,
    task: Task,
    *,
    untrained: Any,
    variables: Sequence[str] = (),
    positions: Sequence[str] = (),
    hooks: Sequence[str] = (),
    methods: Sequence[str] = (Method.LOGISTIC,),
    n: int = 4000,
    seed: int = 3,
    n_edits: int = 0,
    subspaces_everywhere: bool = False,
    progress: Progress | None = None,
) -> ProbeSweep:
    """Fit and score probes of `variables` at every layer's residual stream and each named position.

    Args:
        model: the hooked model, in eval mode.
        task: draws the states and knows the machine.
        untrained: the same architecture with initial weights.
        variables: names; default `default_variables`.
        positions: names of single positions; default `default_positions`.
        hooks: where to read besides the embedding; default the residual stream after each layer.
        methods: keys of `PROBES`; the subspaces are those of the first linear one.
        n: states in all, half to fit and half to score.
        seed: of the states, the control task and the bootstrap.
        n_edits: edits along each linear probe at the pointed slots, judged by the machine (`editing`); 0: none.
        subspaces_everywhere: keep the probes' directions at every position, not at the pointed slots alone.
        progress: called with (probes' sites done, of how many, what is going on).

    Raises:
        ValueError: an unknown method, variable or position, a name of several positions, or a variable with one
            value.
    """
    check_methods(methods)
    spec = task.spec
    chosen = list(variables) or default_variables(spec)
    names = list(positions) or default_positions(spec)
    weights = strata_weights(spec)
    fit = task.sample(n // 2, seed=seed, split="train", weights=weights)
    held = task.sample(n - n // 2, seed=seed, split="evaluation", weights=weights)
    for name in names:
        width = resolve(task.position_names, name, held.states[:1]).shape[1]
        if width != 1:
            raise ValueError(f"a probe reads one position; {name!r} names {width}")
    fit_labels = np.stack([task.labels(fit, name) for name in chosen])
    held_labels = np.stack([task.labels(held, name) for name in chosen])
    for name, labels in zip(chosen, fit_labels, strict=True):
        if len(np.unique(labels[labels >= 0])) < 2:
            raise ValueError(f"variable {name!r} takes one value only on this machine: nothing to probe for")
    sweep = _Sweep(task, fit, held, chosen, names, fit_labels, held_labels, seed)
    control_fit, control_held = sweep.control_task()
    residual = residual_hooks(model.cfg.n_layers)
    hooks = [residual[0], *(hook for hook in hooks if hook != residual[0])] if hooks else residual
    rows: list[dict[str, Any]] = []
    subspaces: dict[tuple[str, Site], Tensor] = {}
    readouts: dict[tuple[str, Site], Readout] = {}
    report = progress or (lambda done, total, at: None)
    report(0, len(hooks) * len(methods), "activations")
    read = {name: sweep.activations(model, hooks, batch) for name, batch in (("fit", fit), ("held", held))}
    blank = {name: sweep.activations(untrained, hooks, batch) for name, batch in (("fit", fit), ("held", held))}
    done = 0
    for method in methods:
        embedding: np.ndarray | None = None
        for hook in hooks:
            report(done, len(hooks) * len(methods), f"{method}, {hook}")
            probe = PROBES[method]().fit(read["fit"][hook], fit_labels)
            right = _right(probe, read["held"][hook], held_labels)
            control = PROBES[method]().fit(read["fit"][hook], control_fit)
            control_right = _right(control, read["held"][hook], control_held)
            blank_right = _right(PROBES[method]().fit(blank["fit"][hook], fit_labels), blank["held"][hook], held_labels)
            embedding = right if embedding is None else embedding
            for values, kind in (
                (right, None),
                (sweep.majority_right(), Control.MAJORITY_CLASS),
                (control_right, Control.CONTROL_TASK),
                (embedding, Control.EMBEDDING_ONLY),
                (blank_right, Control.UNTRAINED_MODEL),
            ):
                rows += sweep.rows(hook, values, method=method, metric=Metric.ACCURACY, control=kind)
            rows += sweep.rows(hook, right - control_right, method=method, metric=Metric.SELECTIVITY)
            if isinstance(probe, LinearProbe) and n_edits:
                readouts |= sweep.readouts(hook, probe, read["fit"][hook])
            if isinstance(probe, LinearProbe):
                subspaces = sweep.subspaces(hook, probe, everywhere=subspaces_everywhere) | subspaces
            done += 1
        if readouts:
            report(done, len(hooks) * len(methods), f"{method}, edits")
            away = wrong_hooks(hooks)
            rows += edit_step_rows(
                model, task, readouts, other_hook=away, method=method, n_pairs=n_edits, seed=seed + 1
            )
            readouts.clear()
    report(done, done, "")
    return ProbeSweep(rows, subspaces)


def _right(probe: Probe, activations: Tensor, labels: np.ndarray) -> np.ndarray:
    """1.0 where the probe is right, 0.0 where wrong, [position, variable, state]."""
    return (probe.predict(activations) == labels).astype(np.float64)


@dataclass
class _Sweep:
    """The data that every layer of a sweep shares. Arrays are [position, variable, state]."""

    task: Task
    fit: Batch
    held: Batch
    variables: list[str]
    positions: list[str]
    fit_labels: np.ndarray  # [variable, state]
    held_labels: np.ndarray
    seed: int

    def activations(self, model: Any, hooks: Sequence[str], batch: Batch) -> dict[str, Tensor]:
        """For each hook [position, 1, state, d]."""
        sites = {hook: [Site(hook, position) for position in self.positions] for hook in hooks}
        everything = [site for some in sites.values() for site in some]
        found = collect(model, batch, everything, position_names=self.task.position_names)
        return {
            hook: torch.stack([found[site][:, 0].flatten(1) for site in some])[:, None] for hook, some in sites.items()
        }

    def majority_right(self) -> np.ndarray:
        probe = MajorityProbe().fit(np.zeros((len(self.fit), 1)), self.fit_labels)
        right = probe.predict(np.zeros((len(self.held), 1))) == self.held_labels
        return np.repeat(right[None], len(self.positions), axis=0).astype(np.float64)

    def control_task(self) -> tuple[np.ndarray, np.ndarray]:
        """Control labels of the fit and the held-out states, [variable, state]; a type has one label in both."""
        fit_types, held_types = (
            np.stack([self.task.control_types(batch, name) for name in self.variables])
            for batch in (self.fit, self.held)
        )
        for seed in range(self.seed, self.seed + 100):  # where all types of a variable drew one label, draw again
            fit = control_labels(self.fit_labels, fit_types, seed=seed, reference=self.fit_labels)
            if all(len(np.unique(row[row >= 0])) > 1 for row in fit):
                held = control_labels(self.held_labels, held_types, seed=seed, reference=self.fit_labels)
                return fit, held
        raise ValueError("no control task: the types of some variable are too few to be given two labels")

    def subspaces(self, hook: str, probe: LinearProbe, *, everywhere: bool) -> dict[tuple[str, Site], Tensor]:
        """Each variable's probe directions at the pointed positions, or at all; orthonormal over the classes it saw."""
        found = {}
        for p, position in enumerate(self.positions):
            if "@" not in position and not everywhere:
                continue
            for v, name in enumerate(self.variables):
                seen = np.isfinite(probe.intercept_[p, v])
                if not seen.any():  # nothing to read at a position that never changes
                    continue
                weights = probe.coef_[p, v][seen]
                weights = weights - weights.mean(axis=0)
                _, sizes, directions = np.linalg.svd(weights, full_matrices=False)
                rank = int((sizes > 1e-6 * sizes[0]).sum())
                basis = torch.from_numpy(directions[:rank]).float().contiguous()
                found[name, Site(hook, position)] = basis
        return found

    def readouts(self, hook: str, probe: LinearProbe, x: Tensor) -> dict[tuple[str, Site], Readout]:
        """What the probes of settable variables read at pointed slots that vary; x is [position, 1, state, d]."""
        return {
            (name, Site(hook, position)): Readout.of(
                probe.coef_[p, v], probe.intercept_[p, v], probe.classes_, x[p, 0], self.fit_labels[v]
            )
            for p, position in enumerate(self.positions)
            if "@" in position and float(x[p, 0].var(0).max()) > 0
            for v, name in enumerate(self.variables)
            if variable(self.task.spec, name).settable
        }

    def rows(
        self, hook: str, values: np.ndarray, *, method: str, metric: Metric, control: Control | None = None
    ) -> list[dict[str, Any]]:
        """One row a position and variable: the mean of `values` [position, variable, state] over defined states."""
        defined = np.broadcast_to(self.held_labels >= 0, values.shape)
        groups = program_hash(self.held.states).astype(np.int64)
        interval = bootstrap_mean(values, groups, seed=self.seed, defined=defined, n_resamples=200)
        rows = []
        for p, position in enumerate(self.positions):
            for v, name in enumerate(self.variables):
                rows.append(
                    {
                        "site": hook,
                        "position": position,
                        "variable": name,
                        "method": method,
                        "control": control,
                        "metric": metric,
                        "aggregation": Aggregation.MEAN,
                        "estimate": float(interval.estimate[p, v]),
                        "ci_low": float(interval.low[p, v]),
                        "ci_high": float(interval.high[p, v]),
                        "interval_kind": IntervalKind.BOOTSTRAP_PROGRAMS,
                        "n": int(defined[p, v].sum()),
                    }
                )
        return rows
