"""What the machine does from some states on, as it is or with variables set at one executed step."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from cython_vm import Outcome, States, Transition, advance, run, step, variable
from interp.worlds.machine.relative import offset_of, read_relative, set_relative


class MachineAnswer:
    """The run from each state, in which `do` is true at step `at`; computed when it is asked for.

    Args:
        states: where the runs begin, [n].
        do: variable → values [n]; None for the machine as it is.
        at: the executed step at which `do` acts, [n] or one for all.
    """

    def __init__(self, states: States, do: Mapping[str, NDArray[np.integer]] | None, at: int | NDArray[np.int64]):
        self.states, self.do = states, do
        self.at: NDArray[np.int64] = np.broadcast_to(np.asarray(at, dtype=np.int64), len(states))

    @cached_property
    def before(self) -> States:
        """The states in which step `at` is taken."""
        return advance(self.states, self.at) if self.at.any() else self.states

    @cached_property
    def _set(self) -> tuple[States, Mapping[str, NDArray[np.integer]] | None, NDArray[np.bool_]]:
        """`before` with relative cells set, the rest of `do`, and where these could be set."""
        if not any(offset_of(name) is not None for name in self.do or {}):
            return self.before, self.do, np.ones(len(self.states), dtype=bool)
        return set_relative(self.before, self.do or {})

    @cached_property
    def transition(self) -> Transition:
        """Step `at`, with `do`."""
        before, rest, _ = self._set
        return step(before, do=rest)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Whether there is an answer: the run comes to step `at`, and the variables can have the values."""
        possible = self.transition.valid & self._set[2]
        if not self.at.any():
            return possible
        arrives = run(self.states, int(self.at.max(initial=0)), keep="last").n_steps >= self.at
        return possible & arrives

    def after(self, n_steps: int | NDArray[np.int64]) -> States:
        """The states so many steps from the start; those before step `at` as they are, those after it as they would be.

        A run that halts or freezes stays in its last state.
        """
        wanted = np.broadcast_to(np.asarray(n_steps, dtype=np.int64), len(self.states))
        later = advance(self.transition.next, np.maximum(wanted - self.at - 1, 0))
        early = wanted <= self.at
        if not early.any():
            return later
        rows = np.flatnonzero(early)
        sooner = advance(self.states[rows], wanted[rows])
        order = np.arange(len(later))
        order[rows] = len(later) + np.arange(len(rows))
        return States.concatenate([later, sooner])[order]

    def later(self, name: str, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """A variable's value, with `do`, at executed steps after the one where `do` acts, int64 of the shape of `at`.

        at: [n], or several steps of each run [n, m]. −1 at the step of `do` and before it, and where the run has ended.
        """
        since = np.asarray(at, dtype=np.int64) - self.at.reshape(-1, *[1] * (np.ndim(at) - 1)) - 1
        # A step that froze has no next: what stands there is the state before it.
        ran = (self.transition.outcome == Outcome.RAN).reshape(-1, *[1] * (np.ndim(at) - 1))
        return np.where(ran, read_at(self.transition.next, name, since), -1)

    def ran(self, n_steps: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether the run, with `do`, takes so many steps without halting or freezing, bool [n]."""
        own = self.transition.outcome == Outcome.RAN
        left = np.maximum(n_steps - self.at - 1, 0)
        rest = run(self.transition.next, int(left.max(initial=0)), keep="last").n_steps >= left
        return self.valid & ((n_steps <= self.at) | (own & rest))


def read_at(states: States, name: str, at: int | NDArray[np.int64]) -> NDArray[np.int64]:
    """A variable at executed steps of the runs from these states; see `World.read`. −1 where a run has no such step."""
    offset, times = offset_of(name), np.asarray(at, dtype=np.int64)
    chosen = variable(states.spec, name).read if offset is None else partial(read_relative, offset=offset)
    if not times.any():
        values = chosen(states)
        return np.broadcast_to(values[:, None], times.shape).copy() if times.ndim == 2 else values
    runs = run(states, max(0, int(times.max(initial=0))))
    assert runs.states is not None and runs.offsets is not None
    shape = (len(states), *[1] * (times.ndim - 1)) if times.ndim else (len(states),)
    times = np.broadcast_to(times, (len(states), *times.shape[1:]) if times.ndim else shape)
    # A run that has ended before has no such step.
    there = (times >= 0) & (times <= runs.n_steps.reshape(shape))
    rows = runs.offsets[:-1].reshape(shape) + np.where(there, times, 0)
    return np.where(there, chosen(runs.states)[rows], -1)
