"""The probe sweep over streams (the task `trace`), where pointer and cells are never in the input.

For every hook in turn, activations at the chosen tokens are read, all variables are fitted in one stack with their
controls, scored on streams of held-out programs, and let go: memory holds one hook's activations at a time. Rows beside
each accuracy, on the same held-out tokens:

    majority_class     the commonest class of the fit
    control_task       labels re-drawn per input type, here (token, position): all that the embedding sees
    shuffled_labels    the labels in random order
    embedding_only     the same probe before the first layer
    untrained_model    the same probe on the weights that training began from
    altered_semantics  the same probe for the run under permuted meanings of the opcodes (`semantics`), with the paired
                       difference as metric `semantic_gap`, both where that run has not ended

The variable `cells` is the tape: accuracy pools all cells, also by the steps since the stream last revealed the cell
(`stratum`), and joint exactness is the share of tokens at which every cell is right at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cython_vm import variable
from interp.interventions.activations import stop_layer
from interp.probing.estimators import PROBES, check_methods, predict_in_parts
from interp.probing.readout import Readout
from interp.probing.steps import residual_hooks
from interp.probing.stream_data import StreamTokens, draw_tokens, stream_variables
from interp.results import Aggregation, Control, IntervalKind, Method, Metric
from interp.tasks.trace import Trace
from probes import LinearProbe, bootstrap_mean, control_labels, shuffled_labels
from probes.controls import majority_label

TAPE = "cells"
EMBEDDING = "blocks.0.hook_resid_pre"
AGES = ((-1, -1), (0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 4096))
_N_RESAMPLES = 200
_MIN_PROGRAMS = 10


@dataclass(frozen=True)
class StreamSweepConfig:
    """What a sweep over streams asks."""

    variables: tuple[str, ...] = ()  # () is `stream_variables`
    places: tuple[str, ...] = ("stream",)
    hooks: tuple[str, ...] = ()  # () is the residual stream before the first layer and after each
    methods: tuple[str, ...] = (Method.LOGISTIC,)
    n: int = 16_000  # tokens in all, half to fit and half to score
    per_stream: int = 16  # tokens of one stream at most
    seed: int = 3
    controls: bool = True  # control task, shuffled labels, altered semantics and the untrained model


@dataclass(frozen=True)
class HookResult:
    """What was found at one hook and place with one method."""

    hook: str
    place: str
    method: str
    rows: list[dict[str, Any]]
    readouts: dict[str, Readout]  # by variable; empty where the probe is not linear


def stream_sweep(
    model: Any,
    task: Trace,
    *,
    untrained: Any,
    config: StreamSweepConfig = StreamSweepConfig(),
    skip: Callable[[str, str, str], bool] = lambda hook, place, method: False,
    progress: Callable[[float, float, str], None] | None = None,
) -> Iterator[HookResult]:
    """Fit and score probes at one hook after the other.

    Args:
        model: the hooked model, in eval mode.
        task: draws the streams and knows the machine.
        untrained: the same architecture with initial weights.
        config: what to probe for, where and how.
        skip: (hook, place, method) that are measured already and left out.
        progress: called with (done, of how many, what is going on).

    Raises:
        ValueError: an unknown method, variable, place or hook, a variable without two values at a place, or too few
            tokens for ten programs.
    """
    check_methods(config.methods)
    names = list(config.variables) or stream_variables(task.spec)
    for name in names:
        variable(task.spec, name)
    hooks = list(config.hooks) or residual_hooks(model.cfg.n_layers)
    if missing := [hook for hook in hooks if hook not in model.hook_dict]:
        raise ValueError(f"the model has no hook {missing[0]!r}")
    total = len(config.places) * len(hooks) * len(config.methods)
    report = progress or (lambda done, total, at: None)
    done = 0
    for place in config.places:
        todo = [(hook, m) for hook in hooks for m in config.methods if not skip(hook, place, m)]
        done += len(hooks) * len(config.methods) - len(todo)
        if not todo:
            continue
        report(done, total, f"streams at {place}")
        sweep = _PlaceSweep.draw(task, names, place, config)
        for hook in hooks:
            methods = [m for h, m in todo if h == hook]
            if not methods:
                continue
            x = {part: token_activations(model, data, hook) for part, data in sweep.parts.items()}
            blank = None
            if config.controls:
                blank = {part: token_activations(untrained, data, hook) for part, data in sweep.parts.items()}
            for method in methods:
                report(done, total, f"{method}, {hook}, {place}")
                if hook != EMBEDDING and method not in sweep.embedding:
                    sweep.embed(model, method)
                rows, readouts = sweep.measure(hook, method, x, blank)
                done += 1
                yield HookResult(hook, place, method, rows, readouts)
    report(total, total, "")


@torch.no_grad()
def token_activations(model: Any, data: StreamTokens, hook: str, *, batch_size: int = 64) -> Tensor:
    """The activation at each chosen token, float32 [m, d]; heads are laid side by side.

    Forward passes stop after the hook's layer, and nothing but the chosen tokens is kept.
    """
    stop = stop_layer(model, [hook])
    found: list[Tensor] = []
    kept: list[Tensor] = []

    def keep(activation: Tensor, hook: Any) -> None:
        kept.append(activation)

    for start in range(0, len(data.tokens), batch_size):
        low, high = np.searchsorted(data.row, [start, start + batch_size])
        if low == high:
            continue
        row, position = (torch.from_numpy(part[low:high]) for part in (data.row - start, data.position))
        tokens = data.tokens[start : start + batch_size]
        with model.hooks(fwd_hooks=[(hook, keep)]):
            model(tokens, stop_at_layer=stop) if stop is not None else model(tokens)
        found.append(kept.pop()[row, position].flatten(1).float())
    return torch.cat(found)


@dataclass(frozen=True, eq=False)
class _PlaceSweep:
    """The tokens of one place, and the label sets that every hook is probed for, each [variables, m]."""

    task: Trace
    names: list[str]
    place: str
    parts: dict[str, StreamTokens]  # fit and held
    fit_sets: dict[Control | None, np.ndarray]
    held_sets: dict[Control | None, np.ndarray]
    usable: np.ndarray  # bool [variables]: altered labels have two classes and rows to score
    embedding: dict[str, np.ndarray]  # method -> right before the first layer
    seed: int

    @classmethod
    def draw(cls, task: Trace, names: list[str], place: str, config: StreamSweepConfig) -> _PlaceSweep:
        half = {"fit": ("train", config.n // 2), "held": ("evaluation", config.n - config.n // 2)}
        parts = {
            part: draw_tokens(
                task,
                n,
                variables=names,
                place=place,
                per_stream=config.per_stream,
                seed=config.seed,
                split="train" if split == "train" else "evaluation",
            )
            for part, (split, n) in half.items()
        }
        fit, held = parts["fit"], parts["held"]
        for data in (fit, held):
            if (programs := len(np.unique(data.programs))) < _MIN_PROGRAMS:
                raise ValueError(
                    f"{config.n} tokens come from {programs} programs; probes need at least {_MIN_PROGRAMS} to fit on "
                    f"and as many to score: raise n"
                )
        if not config.variables:  # of those nobody asked for, keep what can be probed here
            keep = [v for v in range(len(names)) if _probeable(fit.labels[v], held.labels[v])]
            names = [names[v] for v in keep]
            parts = {part: _variables(data, keep) for part, data in parts.items()}
            fit, held = parts["fit"], parts["held"]
        for name, y, held_y in zip(names, fit.labels, held.labels, strict=True):
            if not _probeable(y, held_y):
                values = len(np.unique(y[y >= 0]))
                what = "is never determined" if values == 0 else f"takes {values} value(s) in too few tokens"
                raise ValueError(f"variable {name!r} {what} at {place!r}: nothing to probe for")
        fit_sets: dict[Control | None, np.ndarray] = {None: fit.labels}
        held_sets: dict[Control | None, np.ndarray] = {None: held.labels}
        usable = np.zeros(len(names), dtype=bool)
        if config.controls:
            for seed in range(config.seed, config.seed + 100):
                control = control_labels(fit.labels, fit.types, seed=seed, reference=fit.labels)
                if all(len(np.unique(row[row >= 0])) > 1 for row in control):
                    break
            else:
                raise ValueError(f"no control task at {place!r}: the types of some variable are too few for two labels")
            fit_sets[Control.CONTROL_TASK] = control
            held_sets[Control.CONTROL_TASK] = control_labels(held.labels, held.types, seed=seed, reference=fit.labels)
            fit_sets[Control.SHUFFLED_LABELS] = shuffled_labels(fit.labels, seed=config.seed)
            held_sets[Control.SHUFFLED_LABELS] = held.labels
            both = [np.where(data.labels >= 0, data.altered, -1) for data in (fit, held)]
            usable = np.array([_probeable(*pair) for pair in zip(*both, strict=True)])
            fit_sets[Control.ALTERED_SEMANTICS], held_sets[Control.ALTERED_SEMANTICS] = both
        return cls(task, names, place, parts, fit_sets, held_sets, usable, {}, config.seed)

    def measure(
        self, hook: str, method: str, x: dict[str, Tensor], blank: dict[str, Tensor] | None
    ) -> tuple[list[dict[str, Any]], dict[str, Readout]]:
        """Rows at one hook, and what the linear probes read."""
        right, probe = self._fitted(method, x)
        majority = majority_label(self.fit_sets[None])[:, None] == self.held_sets[None]
        everything: dict[Control | None, np.ndarray] = {Control.MAJORITY_CLASS: majority} | right
        if hook == EMBEDDING:
            self.embedding[method] = right[None]
        everything[Control.EMBEDDING_ONLY] = self.embedding[method]
        if blank is not None:
            everything[Control.UNTRAINED_MODEL] = self._fitted(method, blank, only_true=True)[0][None]
        altered = everything.pop(Control.ALTERED_SEMANTICS, None)
        columns = {"site": hook, "position": self.place, "method": method}
        rows: list[dict[str, Any]] = []
        for control, values in everything.items():
            rows += self._rows(values, columns | {"control": control, "metric": Metric.ACCURACY})
            rows += self._tape_rows(values, columns | {"control": control})
        if Control.CONTROL_TASK in right:
            difference = right[None].astype(float) - right[Control.CONTROL_TASK]
            rows += self._rows(difference, columns | {"metric": Metric.SELECTIVITY})
        if altered is not None and self.usable.any():
            where = (self.held_sets[Control.ALTERED_SEMANTICS] >= 0) & self.usable[:, None]
            measured = columns | {"control": Control.ALTERED_SEMANTICS, "metric": Metric.ACCURACY}
            rows += self._rows(altered, measured, where)
            gap = right[None].astype(float) - altered
            rows += self._rows(gap, columns | {"metric": Metric.SEMANTIC_GAP}, where)
        if not isinstance(probe, LinearProbe):
            return rows, {}
        labels = self.fit_sets[None]
        return rows, {
            name: Readout.of(probe.coef_[v], probe.intercept_[v], probe.classes_, x["fit"], labels[v])
            for v, name in enumerate(self.names)
        }

    def embed(self, model: Any, method: str) -> None:
        """The control before the first layer, where the sweep has not been."""
        x = {part: token_activations(model, data, EMBEDDING) for part, data in self.parts.items()}
        self.embedding[method] = self._fitted(method, x, only_true=True)[0][None]

    def _fitted(
        self, method: str, x: dict[str, Tensor], *, only_true: bool = False
    ) -> tuple[dict[Control | None, np.ndarray], Any]:
        """For each set of labels which held-out tokens are right, bool [variables, m]; and the probe of the true ones.

        All sets are fitted as one stack: they share the Gram matrix of the activations.
        """
        kinds = [None] if only_true else list(self.fit_sets)
        chosen = {kind: self.usable if kind == Control.ALTERED_SEMANTICS else slice(None) for kind in kinds}
        probe = PROBES[method]().fit(x["fit"], np.concatenate([self.fit_sets[k][chosen[k]] for k in kinds]))
        predicted = predict_in_parts(probe, x["held"])
        right: dict[Control | None, np.ndarray] = {}
        start = 0
        for kind in kinds:
            truth = self.held_sets[kind]
            right[kind] = np.zeros(truth.shape, dtype=bool)
            count = len(truth[chosen[kind]])
            right[kind][chosen[kind]] = predicted[start : start + count] == truth[chosen[kind]]
            start += count
        return right, probe

    def _rows(self, values: np.ndarray, columns: dict[str, Any], where: np.ndarray | None = None) -> list[dict]:
        """A row a variable: the mean of `values` [variables, m] where defined."""
        defined = self.held_sets[None] >= 0 if where is None else where
        return [
            columns | {"variable": name} | row
            for name, row in zip(self.names, self._means(values, defined), strict=True)
            if row["n"]
        ]

    def _tape_rows(self, right: np.ndarray, columns: dict[str, Any]) -> list[dict[str, Any]]:
        """The tape as a whole: all cells pooled, the same by age, and every cell right at once."""
        cells = [v for v, name in enumerate(self.names) if name.startswith("cell[")]
        if len(cells) < self.task.spec.n_cells:
            return []
        held = self.parts["held"]
        labels, tape = self.held_sets[None][cells], right[cells]
        known = labels >= 0
        ages = held.ages[[int(self.names[v][5:-1]) for v in cells]]
        strata: list[tuple[str | None, np.ndarray]] = [(None, known)]
        for low, high in AGES:
            words = "never revealed" if low < 0 else f"revealed {low}–{high} steps before"
            words = f"revealed {low} steps before" if low == high >= 0 else words
            strata.append((words, known & (ages >= low) & (ages <= high)))
        rows = []
        for stratum, where in strata:
            if where.any():  # one number a token: its cells count together
                share = (tape & where).sum(axis=0) / np.maximum(where.sum(axis=0), 1)
                (row,) = self._means(share[None], np.any(where, axis=0, keepdims=True))
                rows.append(columns | {"variable": TAPE, "stratum": stratum, "metric": Metric.ACCURACY} | row)
        exact, whole = np.all(tape | ~known, axis=0, keepdims=True), np.all(known, axis=0, keepdims=True)
        (row,) = self._means(exact, whole)
        return [*rows, columns | {"variable": TAPE, "metric": Metric.JOINT_EXACTNESS} | row]

    def _means(self, values: np.ndarray, defined: np.ndarray) -> list[dict[str, Any]]:
        """Mean, interval over programs and count of each row of `values` [k, m] where defined."""
        found = bootstrap_mean(
            values, self.parts["held"].programs, seed=self.seed, defined=defined, n_resamples=_N_RESAMPLES
        )
        return [
            {
                "estimate": float(estimate),
                "ci_low": float(low),
                "ci_high": float(high),
                "aggregation": Aggregation.MEAN,
                "interval_kind": IntervalKind.BOOTSTRAP_PROGRAMS,
                "n": int(where.sum()),
            }
            for estimate, low, high, where in zip(found.estimate, found.low, found.high, defined, strict=True)
        ]


def _probeable(fit: np.ndarray, held: np.ndarray) -> bool:
    """Whether labels have two classes and ten rows to fit, and rows to score."""
    return len(np.unique(fit[fit >= 0])) > 1 and int((fit >= 0).sum()) >= 10 and bool((held >= 0).any())


def _variables(data: StreamTokens, keep: list[int]) -> StreamTokens:
    return replace(data, labels=data.labels[keep], altered=data.altered[keep])
