"""Strata weights from names: which op × outcome is drawn how often."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from cython_vm import MachineSpec, Op, Outcome, strata_weights

Balance = Literal["natural", "op_outcome", "branches"]


def named_weights(spec: MachineSpec, balance: Balance, factors: Mapping[str, float]) -> np.ndarray | None:
    """Weights for `cython_vm.sample`, [9, 8] or [9, 8, 2]; None for the natural distribution.

    Strata that can occur begin equal: op × outcome, or (`branches`) with loops split by whether they jump. Each factor
    multiplies the strata that its name covers: `WHILE`, `STOP` (an opcode) or `PUT:OUTPUT_FULL` (one stratum).

    Raises ValueError on an unknown name, a negative factor, and factors beside `natural`.
    """
    if balance == "natural":
        if factors:
            raise ValueError("weights multiply equal strata; with them balance must be op_outcome or branches")
        return None
    weights = strata_weights(spec, branches=balance == "branches").copy()
    for name, factor in factors.items():
        op, _, outcome = name.partition(":")
        if op not in Op.__members__ or (outcome and outcome not in Outcome.__members__):
            raise ValueError(
                f"weights name an opcode ({', '.join(Op.__members__)}) or OP:OUTCOME "
                f"({', '.join(Outcome.__members__)}), got {name!r}"
            )
        if not (np.isfinite(factor) and factor >= 0):
            raise ValueError(f"the weight of {name} must be finite and not negative, got {factor}")
        weights[(Op[op], Outcome[outcome]) if outcome else Op[op]] *= factor
    if not weights.sum() > 0:
        raise ValueError("weights leave no stratum to draw from")
    return weights / weights.sum()
