"""Stages of a curriculum: a small language, or a small machine, before the whole one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cython_vm import MachineSpec, Op, States, sample, strata_weights
from cython_vm.spec import SIZES

_SIZES = (0.25, 0.5, 0.75)  # of a padded machine, before the whole


def training_weights(spec: MachineSpec, *, balance: str, loop_weight: float) -> NDArray[np.float64] | None:
    """Equal shares of strata ("op_outcome" [9, 8], "branches" [9, 8, 2]), WHILE and ENDW drawn `loop_weight` times as
    often, since loops are learned last; None for "natural"."""
    if balance == "natural":
        return None
    weights = strata_weights(spec, branches=balance == "branches").copy()
    weights[[Op.WHILE, Op.ENDW]] *= loop_weight
    return weights / weights.sum()


@dataclass(frozen=True)
class Stage:
    """What a stage draws: states of a machine with the same slots, on which some instructions or sizes are missing."""

    name: str
    whole: MachineSpec
    spec: MachineSpec
    sizes: Mapping[str, tuple[int, int]] | None = None  # of a padded machine's rows

    def draw(self, n: int, *, seed: int, start: int, split: str, weights: NDArray[np.float64] | None) -> States:
        """States of the stage as states of the whole machine; the arguments are those of `cython_vm.sample`."""
        states = sample(self.spec, n, seed=seed, start=start, split=split, weights=weights, sizes=self.sizes)
        return States.wrap(self.whole, states.rows)

    def weights(self, balance: str, loop_weight: float = 1.0) -> NDArray[np.float64] | None:
        """Shares of the stage's strata; see `training_weights`."""
        return training_weights(self.spec, balance=balance, loop_weight=loop_weight)


def language_stages(spec: MachineSpec) -> tuple[Stage, ...]:
    """Programs of moves and counts alone, then with I/O, then with loops instead; the whole language is next."""
    named = {
        "moves and counts": dataclasses.replace(spec, io=False, loops=False),
        "I/O": dataclasses.replace(spec, loops=False),
        "loops": dataclasses.replace(spec, io=False),
    }
    seen: dict[MachineSpec, Stage] = {}
    for name, small in named.items():
        if small != spec:
            seen.setdefault(small, Stage(name, spec, small))
    return tuple(seen.values())


def size_stages(spec: MachineSpec) -> tuple[Stage, ...]:
    """Rows of up to a quarter, a half, three quarters of a padded machine's sizes; all sizes are next."""
    if not spec.padded:
        raise ValueError("training curriculum 'sizes' needs a padded machine: --machine padded=true")
    least = {"n_instructions": 2, "n_cells": 1, "n_input": 0, "n_output": 0}
    stages = []
    for share in _SIZES:
        sizes = {name: (least[name], max(least[name], round(share * getattr(spec, name)))) for name in SIZES}
        stages.append(Stage(f"{share:.0%} of the sizes", spec, spec, sizes))
    return tuple(stages)


STAGES: dict[str, Callable[[MachineSpec], tuple[Stage, ...]]] = {"language": language_stages, "sizes": size_stages}
