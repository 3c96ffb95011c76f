"""Runs of many steps, and the quantities that only a run has."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cython_vm._isa import Op, Outcome
from cython_vm._run import count_iterations, record_rows, run_rows
from cython_vm.arguments import check_kind, whole_number
from cython_vm.states import States


@dataclass(frozen=True, eq=False)
class Trace:
    """A run of n states. A row's run ends where it halts or freezes, so rows have different lengths.

    With keep="all", `states` holds all rows' states one after the other: row i has states[offsets[i] : offsets[i + 1]],
    its first state to its last, n_steps[i] + 1 of them. With keep="last" both are None.
    """

    final: States  # the last state of every row
    n_steps: NDArray[np.int64]  # [n], steps that ran
    outcome: NDArray[np.uint8]  # [n], of the step after the last: RAN where the limit ended the run
    states: States | None
    offsets: NDArray[np.int64] | None  # [n + 1]

    def __len__(self) -> int:
        return len(self.final)

    @property
    def stopped(self) -> NDArray[np.bool_]:
        """Which rows halted or froze within the limit, bool [n]."""
        return self.outcome != Outcome.RAN

    def row(self, index: int) -> States:
        """All states of one row, in order."""
        states, offsets = self._recorded()
        index = whole_number("row", index, low=-(2**63))
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of a trace of {len(self)} rows")
        return states[offsets[index] : offsets[index + 1]]

    def at(self, t: int) -> States:
        """The state of every row after t steps; rows that ended before stay in their last state."""
        states, offsets = self._recorded()
        t = whole_number("t", t)
        return states[offsets[:-1] + np.minimum(t, self.n_steps)]

    @property
    def row_index(self) -> NDArray[np.int64]:
        """The row that each of `states` belongs to."""
        self._recorded()
        return np.repeat(np.arange(len(self)), self.n_steps + 1)

    @property
    def time(self) -> NDArray[np.int64]:
        """The number of steps before each of `states`."""
        states, offsets = self._recorded()
        return np.arange(len(states)) - np.repeat(offsets[:-1], self.n_steps + 1)

    def loop_depth(self) -> NDArray[np.int64]:
        """How many loops enclose instruction_ptr in each of `states`."""
        states, _ = self._recorded()
        return loop_depth(states)

    def loop_iteration(self) -> NDArray[np.int64]:
        """How often the innermost loop around instruction_ptr has jumped back since it was entered, or since the start
        of the run, in each of `states`; −1 outside loops. The loop's ENDW is inside it, its WHILE is not."""
        states, offsets = self._recorded()
        iteration = np.empty(len(states), dtype=np.int64)
        count_iterations(states.spec, states.rows, offsets, iteration)
        return iteration

    def steps_to_halt(self) -> NDArray[np.int64]:
        """How many steps run before one halts or freezes, from each of `states`; −1 where the limit ended the run."""
        self._recorded()
        remaining = np.repeat(self.n_steps, self.n_steps + 1) - self.time
        return np.where(np.repeat(self.stopped, self.n_steps + 1), remaining, -1)

    def _recorded(self) -> tuple[States, NDArray[np.int64]]:
        if self.states is None or self.offsets is None:
            raise ValueError('this trace kept only the last states; use run(…, keep="all")')
        return self.states, self.offsets


def run(states: States, n_steps: int, *, keep: Literal["all", "last"] = "all") -> Trace:
    """At most n_steps of every state. A row that halts or freezes ends there and costs nothing more.

    keep: "all" records every state on the way, "last" only the last one. Raises ValueError on a negative n_steps.
    """
    check_kind("states", states, States)
    try:
        limit = operator.index(n_steps)
    except TypeError:
        raise TypeError(f"n_steps must be an integer, got {n_steps!r}") from None
    if not 0 <= limit < 2**63:
        raise ValueError(f"n_steps must not be negative, nor pass 2^63 − 1; got {limit}")
    if not isinstance(keep, str) or keep not in ("all", "last"):
        raise ValueError(f'keep must be "all" or "last", got {keep!r}')
    n = len(states)
    last = states.rows.copy()
    counts = np.empty(n, dtype=np.int64)
    outcome = np.empty(n, dtype=np.uint8)
    run_rows(states.spec, last, limit, counts, outcome)
    final = States.wrap(states.spec, last)
    if keep == "last":
        return Trace(final, counts, outcome, None, None)
    offsets = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(counts + 1, out=offsets[1:])
    recorded = np.empty((int(offsets[-1]), states.spec.row_bytes), dtype=np.uint8)
    record_rows(states.spec, states.rows.copy(), counts, offsets, recorded)
    return Trace(final, counts, outcome, States.wrap(states.spec, recorded), offsets)


def loop_depth(states: States) -> NDArray[np.int64]:
    """How many loops enclose instruction_ptr: WHILEs less ENDWs in the slots before it, int64 [n]."""
    brackets = (states.program == Op.WHILE).astype(np.int64) - (states.program == Op.ENDW)
    before = np.arange(states.spec.n_instructions) < states.instruction_ptr[:, None]
    return (brackets * before).sum(axis=1)
