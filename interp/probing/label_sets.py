"""Labels that the probes of a place are fitted to and scored on: the true ones, and those of the controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from interp.probing.examples import Examples
from interp.results import Control
from interp.worlds import Variable
from probes import control_labels, shuffled_labels

LabelSets = dict[Control | None, np.ndarray]  # None: the true labels; each [variables, m]
_MIN_UNITS = 10


@dataclass
class ControlledLabels:
    """Labels to fit and to score on, beside which those of the controls are put."""

    fit: LabelSets
    held: LabelSets
    usable: np.ndarray  # bool [variables]: altered labels are worth a probe

    def add_control_task(self, fit_types: np.ndarray, held_types: np.ndarray, *, at: str, seed: int) -> None:
        """Labels drawn per input type [variables, m]; ValueError at a place whose types are too few."""
        true = self.fit[None]
        for draw in range(seed, seed + 100):  # where all types of a variable drew one label, draw again
            control = control_labels(true, fit_types, seed=draw, reference=true)
            if all(len(np.unique(row[row >= 0])) > 1 for row in control):
                break
        else:
            raise ValueError(f"no control task at {at!r}: the types of some variable are too few for two labels")
        self.fit[Control.CONTROL_TASK] = control
        self.held[Control.CONTROL_TASK] = control_labels(self.held[None], held_types, seed=draw, reference=true)

    def add_shuffled(self, *, seed: int) -> None:
        """The labels of the fit in random order."""
        self.fit[Control.SHUFFLED_LABELS] = shuffled_labels(self.fit[None], seed=seed)
        self.held[Control.SHUFFLED_LABELS] = self.held[None]

    def add_altered(self, fit: np.ndarray, held: np.ndarray) -> None:
        """Labels of the world under permuted meanings, worth a probe where they are not the true ones relabelled."""
        self.usable = np.array(
            [
                probeable(*pair) and not relabelled(true, pair[0])
                for true, *pair in zip(self.fit[None], fit, held, strict=True)
            ],
            dtype=bool,
        )
        self.fit[Control.ALTERED_SEMANTICS], self.held[Control.ALTERED_SEMANTICS] = fit, held


def require_units(fit: Examples, held: Examples) -> None:
    """Raise ValueError where examples come from too few units to fit and to score on."""
    for data in (fit, held):
        if (units := len(np.unique(data.groups))) < _MIN_UNITS:
            raise ValueError(
                f"{len(fit) + len(held)} examples come from {units} {data.unit}s; probes need at least "
                f"{_MIN_UNITS} to fit on and as many to score: raise n"
            )


def probeable_variables(names: list[str], fit: Examples, held: Examples, *, at: str, asked: bool) -> list[int]:
    """The numbers of the variables that can be probed; ValueError names one that cannot, where all must or none can."""
    keep = [v for v in range(len(names)) if probeable(fit.labels[v], held.labels[v])]
    for v, name in enumerate(names):
        if v not in keep and (asked or not keep):
            found = np.unique(fit.labels[v][fit.labels[v] >= 0])
            what = (
                "is never determined"
                if not len(found)
                else f"takes one value only ({found[0]})"
                if len(found) == 1
                else "is determined too rarely"
            )
            raise ValueError(f"variable {name!r} {what} at {at!r}: nothing to probe for")
    return keep


def whole_families(names: list[str], variables: Mapping[str, Variable]) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Families that are probed for whole: the numbers of their members, and how pooled rows name them."""
    members: dict[str, list[str]] = {}
    for name, each in variables.items():
        if name != each.family:
            members.setdefault(each.family, []).append(name)
    whole = {
        family: [names.index(name) for name in some] for family, some in members.items() if set(some) <= set(names)
    }
    return whole, {family: family_title(variables[members[family][0]]) for family in whole}


def family_title(member: Variable) -> str:
    """How rows about a whole family name it: the block where its members stand (`cells`), else the family itself."""
    return member.family if member.place is None else member.place.partition("[")[0]


def probeable(fit: np.ndarray, held: np.ndarray) -> bool:
    """Whether labels have two classes and ten rows to fit, and rows to score."""
    return len(np.unique(fit[fit >= 0])) > 1 and int((fit >= 0).sum()) >= 10 and bool((held >= 0).any())


def relabelled(y: np.ndarray, other: np.ndarray) -> bool:
    """Whether labels `other` are labels `y` under other names, wherever both are defined: [m], -1 undefined."""
    both = (y >= 0) & (other >= 0)
    pairs = np.unique(np.stack([y[both], other[both]]), axis=1)
    return len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
