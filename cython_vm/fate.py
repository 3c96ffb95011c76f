"""How a run ends: it halts, freezes, or goes round in a cycle for ever."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from cython_vm._fate import fate_rows
from cython_vm._isa import Outcome
from cython_vm.arguments import check_kind
from cython_vm.states import States


class Fate(IntEnum):
    """What becomes of a run. The machine is deterministic: a run that meets one state twice goes round for ever."""

    HALTED = 0  # it reached STOP
    FROZE = 1  # it reached a step that cannot be made; `outcome` says which
    LOOPS = 2  # it met a state for the second time
    UNDECIDED = 3  # none of these within the limit


@dataclass(frozen=True, eq=False)
class Fates:
    """How the runs of n states end. Every array is [n]; −1 = does not apply."""

    fate: NDArray[np.uint8]  # numbers of `Fate`
    outcome: NDArray[np.uint8]  # numbers of `Outcome`, of the step after the last; RAN where the run goes on
    n_steps: NDArray[np.int64]  # steps to the end, to the first state met twice (cycle_start + period), or the limit
    cycle_start: NDArray[np.int64]  # steps before the first state of the cycle
    period: NDArray[np.int64]  # length of the cycle
    loop_iterations: NDArray[np.int64]  # how often an ENDW jumped back in those n_steps
    final: States  # the state after n_steps: the last one, or the first of the cycle
    executed: NDArray[np.bool_]  # [n, n_instructions]: which slots ran; STOP and a frozen instruction do not

    def __len__(self) -> int:
        return len(self.fate)

    @property
    def n_states(self) -> NDArray[np.int64]:
        """How many different states the run meets up to n_steps, int64 [n]."""
        return self.n_steps + (self.fate != Fate.LOOPS)


def run_fate(states: States, max_steps: int) -> Fates:
    """How the run from every state ends.

    LOOPS is exact, by comparing whole states, never guessed: a run LOOPS if and only if two of its first max_steps + 1
    states are equal, whatever the length of the cycle (R. P. Brent, BIT 20, 1980). A row that ends costs its own steps;
    one that loops, about four times those to the second meeting; one that stays undecided, twice max_steps, or four
    times if its cycle closes only later. Raises TypeError or ValueError on a max_steps that is no integer from 0.
    """
    check_kind("states", states, States)
    limit = check_steps("max_steps", max_steps)
    n, spec = len(states), states.spec
    rows = states.rows.copy()
    n_steps, cycle_start, period, jumps = np.empty((4, n), dtype=np.int64)
    outcome = np.empty(n, dtype=np.uint8)
    executed = np.zeros((n, spec.n_instructions), dtype=np.uint8)
    fate_rows(spec, rows, limit, n_steps, outcome, cycle_start, period, jumps, executed)
    fate = np.full(n, Fate.FROZE, dtype=np.uint8)
    fate[outcome == Outcome.HALTED] = Fate.HALTED
    fate[outcome == Outcome.RAN] = Fate.UNDECIDED
    fate[period > 0] = Fate.LOOPS
    return Fates(fate, outcome, n_steps, cycle_start, period, jumps, States.wrap(spec, rows), executed.view(bool))


def check_steps(name: str, value: int) -> int:
    """`value` as an integer ≥ 0; TypeError or ValueError naming the argument."""
    try:
        limit = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if not 0 <= limit < 2**62:
        raise ValueError(f"{name} must be from 0 to 2^62 − 1, got {limit}")
    return limit
