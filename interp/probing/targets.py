"""What the probes of a place are fitted to, and what is said of them: each accuracy beside its controls, as rows.

Beside each accuracy, on the same held-out examples:

    majority_class     the commonest class of the fit
    control_task       labels re-drawn per input type (Hewitt & Liang 2019); `selectivity` is the paired difference
    shuffled_labels    the labels in random order
    embedding_only     the same probe before the first layer
    untrained_model    the same probe on the weights that training began from
    altered_semantics  the same probe for the world under permuted meanings (`World.altered`), with the paired
                       difference as `semantic_gap`; left out where there is no such world, or its variable is the true
                       one relabelled

`compression` is that of the online code of the fit's labels (Voita & Titov 2020): how easily, not only how well, the
variable is read. Intervals redraw whole units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from interp.probing.errors import probe_errors
from interp.probing.estimators import make_probe, predict_in_parts
from interp.probing.examples import Examples
from interp.probing.label_sets import ControlledLabels, LabelSets, probeable_variables, require_units, whole_families
from interp.probing.readout import Readout
from interp.results import Aggregation, Control, IntervalKind, Method, Metric
from interp.tasks import Task
from interp.worlds import Variable
from probes import Bootstrap, LinearProbe, LogisticProbe, online_code_length
from probes.controls import majority_label

AGES = ((-1, -1), (0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 31), (32, 4096))
_N_RESAMPLES = 200
_LABELS = 1 << 21  # labels that are fitted at once
_CODE_TOLERANCE = 1e-3  # nats a row: what a code may be too long by


@dataclass(frozen=True, eq=False)
class Targets:
    """The label sets that every hook of a place is probed for."""

    place: str
    names: list[str]  # the variables
    n_values: list[int]  # of each
    fit: Examples
    held: Examples
    fit_sets: LabelSets
    held_sets: LabelSets
    usable: np.ndarray  # bool [variables]: altered labels are worth a probe
    seed: int
    draws: Bootstrap
    whole: dict[str, list[int]]  # families that are probed for whole -> the numbers of their members, in order
    titles: dict[str, str]  # family -> how its pooled rows name it
    embedding: dict[str, np.ndarray] = field(default_factory=dict)  # method -> right before the first layer

    @classmethod
    def of(
        cls,
        names: list[str],
        variables: Mapping[str, Variable],
        fit: Examples,
        held: Examples,
        *,
        at: str,
        seed: int,
        controls: bool,
        asked: bool,
    ) -> Targets:
        """Draw the controls.

        Args:
            names: the variables, as in fit.labels and held.labels.
            variables: all of the world.
            at: the place.
            seed: of the controls and the bootstrap.
            controls: draw those that need fits of their own.
            asked: somebody asked for these variables; else those that cannot be probed here are left out.

        Raises:
            ValueError: too few units, or a variable without two values or ten labels.
        """
        require_units(fit, held)
        keep = probeable_variables(names, fit, held, at=at, asked=asked)
        names = [names[v] for v in keep]
        sets = ControlledLabels({None: fit.labels[keep]}, {None: held.labels[keep]}, np.zeros(len(names), dtype=bool))
        if controls:
            sets.add_control_task(fit.types[keep], held.types[keep], at=at, seed=seed)
            sets.add_shuffled(seed=seed)
            if fit.altered is not None and held.altered is not None:
                pairs = ((fit.labels, fit.altered), (held.labels, held.altered))
                sets.add_altered(*(np.where(labels >= 0, altered, -1)[keep] for labels, altered in pairs))
        whole, titles = whole_families(names, variables)
        return cls(
            place=at,
            names=names,
            n_values=[variables[name].n_values for name in names],
            fit=fit,
            held=held,
            fit_sets=sets.fit,
            held_sets=sets.held,
            usable=sets.usable,
            seed=seed,
            draws=Bootstrap(held.groups, seed=seed, n_resamples=_N_RESAMPLES),
            whole=whole,
            titles=titles,
        )

    def measure(
        self,
        hook: str,
        method: str,
        x: dict[str, Tensor],
        blank: dict[str, Tensor] | None,
        *,
        task: Task,
        is_embedding: bool,
        code_length: bool = True,
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[tuple[str, str], Readout]]:
        """Rows at one hook, the probes' errors, and what linear probes read, by (variable, place).

        Args:
            hook: the hook.
            method: a key of `probes.PROBES`.
            x: activations of "fit" and "held", [m, d].
            blank: those of the untrained model; None: without that control.
            task: spells the examples that the worst errors are made in.
            is_embedding: the hook is before the first layer; else `embed` was called before, where there is one.
            code_length: measure it, where there are controls.
        """
        right, predicted, probe = self._fitted(method, x)
        majority = majority_label(self.fit_sets[None])[:, None] == self.held_sets[None]
        everything: dict[Control | None, np.ndarray] = {Control.MAJORITY_CLASS: majority} | right
        if is_embedding:
            self.embedding.setdefault(method, right[None])
        if method in self.embedding:
            everything[Control.EMBEDDING_ONLY] = self.embedding[method]
        if blank is not None:
            everything[Control.UNTRAINED_MODEL] = self._fitted(method, blank, only_true=True)[0][None]
        altered = everything.pop(Control.ALTERED_SEMANTICS, None)
        columns = {"site": hook, "position": self.place, "method": method}
        rows: list[dict[str, Any]] = []
        for control, values in everything.items():
            rows += self._rows(values, columns | {"control": control, "metric": Metric.ACCURACY})
            for family in self.whole:
                rows += self._family_rows(family, values, columns | {"control": control})
        rows += self._difference_rows(right, altered, columns)
        if code_length and method == Method.LOGISTIC and Control.CONTROL_TASK in right:
            rows += self._code_rows(x["fit"], columns)
        truth = self.held_sets[None]
        errors = []
        for v, name in enumerate(self.names):
            named = columns | {"variable": name}
            errors += probe_errors(probe, v, x["held"], truth[v], predicted[v], self.held, named, spell=task.spell)
        if not isinstance(probe, LinearProbe):
            return rows, errors, {}
        labels, fit = self.fit_sets[None], x["fit"].cpu()
        readouts = {
            (name, self.place): Readout.of(probe.coef_[v], probe.intercept_[v], probe.classes_, fit, labels[v])
            for v, name in enumerate(self.names)
        }
        return rows, errors, readouts

    def embed(self, method: str, read: Callable[[], dict[str, Tensor]]) -> None:
        """The control before the first layer, where the sweep has not been: `read` gives x as in `measure`."""
        if method not in self.embedding:
            self.embedding[method] = self._fitted(method, read(), only_true=True)[0][None]

    def _fitted(
        self, method: str, x: dict[str, Tensor], *, only_true: bool = False
    ) -> tuple[LabelSets, np.ndarray, Any]:
        """For each set of labels which held-out examples are right, bool [variables, m]; what the probe of the true
        ones predicts, [variables, m]; and the probes, those of the true labels first.

        Sets are fitted as one stack, in which they share the Gram matrix of the activations, unless they are too large.
        """
        kinds = [None] if only_true else list(self.fit_sets)
        chosen = {kind: self.usable if kind == Control.ALTERED_SEMANTICS else slice(None) for kind in kinds}
        labels = {kind: self.fit_sets[kind][chosen[kind]] for kind in kinds}
        together = sum(y.size for y in labels.values()) <= _LABELS
        stacks = [kinds] if together else [[kind] for kind in kinds if len(labels[kind])]
        right: LabelSets = {kind: np.zeros(self.held_sets[kind].shape, dtype=bool) for kind in kinds}
        first: tuple[np.ndarray, Any] | None = None
        for some in stacks:
            probe = make_probe(method).fit(x["fit"], np.concatenate([labels[kind] for kind in some]))
            predicted = predict_in_parts(probe, x["held"])
            first = first or (predicted[: len(self.names)], probe)
            ends = np.cumsum([len(labels[kind]) for kind in some])
            for kind, guess in zip(some, np.split(predicted, ends[:-1]), strict=True):
                right[kind][chosen[kind]] = guess == self.held_sets[kind][chosen[kind]]
        assert first is not None
        return right, *first

    def _difference_rows(
        self, right: LabelSets, altered: np.ndarray | None, columns: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Selectivity; accuracy under altered meanings, and the semantic gap; each where its control was fitted."""
        true, rows = right[None].astype(np.int8), []
        if Control.CONTROL_TASK in right:
            difference = true - right[Control.CONTROL_TASK].astype(np.int8)
            rows += self._rows(difference, columns | {"metric": Metric.SELECTIVITY})
        if altered is not None and self.usable.any():
            where = (self.held_sets[Control.ALTERED_SEMANTICS] >= 0) & self.usable[:, None]
            measured = columns | {"control": Control.ALTERED_SEMANTICS, "metric": Metric.ACCURACY}
            rows += self._rows(altered, measured, where)
            rows += self._rows(true - altered.astype(np.int8), columns | {"metric": Metric.SEMANTIC_GAP}, where)
        return rows

    def _code_rows(self, x: Tensor, columns: dict[str, Any]) -> list[dict[str, Any]]:
        """Compression of each variable's online code, on the labels of the fit."""
        labels = self.fit_sets[None]
        code = online_code_length(
            LogisticProbe(C=0.1, tol=_CODE_TOLERANCE),
            x,
            labels,
            seed=self.seed,
            groups=self.fit.groups,
            n_classes=self.n_values,
        )  # type: ignore[arg-type]
        measured = columns | {"metric": Metric.COMPRESSION, "aggregation": Aggregation.MEAN}
        return [
            measured | {"variable": name, "estimate": float(value), "n": int((y >= 0).sum())}
            for name, value, y in zip(self.names, code.compression, labels, strict=True)
        ]

    def _rows(self, values: np.ndarray, columns: dict[str, Any], where: np.ndarray | None = None) -> list[dict]:
        """A row a variable: the mean of `values` [variables, m] where defined."""
        defined = self.held_sets[None] >= 0 if where is None else where
        return [
            columns | {"variable": name} | row
            for name, row in zip(self.names, self._means(values, defined), strict=True)
            if row["n"]
        ]

    def _family_rows(self, family: str, right: np.ndarray, columns: dict[str, Any]) -> list[dict[str, Any]]:
        """A family as a whole: all members pooled, the same by age, and every member right at once."""
        members = self.whole[family]
        labels, those = self.held_sets[None][members], right[members]
        known = labels >= 0
        columns = columns | {"variable": self.titles[family]}
        strata: list[tuple[str | None, np.ndarray]] = [(None, known)]
        if (ages := self.held.ages.get(family)) is not None:
            for low, high in AGES:
                words = "never revealed" if low < 0 else f"revealed {low}–{high} steps before"
                words = f"revealed {low} steps before" if low == high >= 0 else words
                strata.append((words, known & (ages >= low) & (ages <= high)))
        rows = []
        for stratum, where in strata:
            if where.any():  # one number a token: its members count together
                share = (those & where).sum(axis=0) / np.maximum(where.sum(axis=0), 1)
                (row,) = self._means(share[None], np.any(where, axis=0, keepdims=True))
                rows.append(columns | {"stratum": stratum, "metric": Metric.ACCURACY} | row)
        exact, whole = np.all(those | ~known, axis=0, keepdims=True), np.all(known, axis=0, keepdims=True)
        (row,) = self._means(exact, whole)
        return [*rows, columns | {"metric": Metric.JOINT_EXACTNESS} | row]

    def _means(self, values: np.ndarray, defined: np.ndarray) -> list[dict[str, Any]]:
        """Mean, interval over units and count of each row of `values` [k, m] where defined."""
        found = self.draws.mean(values, defined=defined)
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
