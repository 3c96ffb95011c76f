"""What a stream of instructions says about the machine at each of its tokens.

A token belongs to one executed instruction, the step S_k → S_{k+1}, and is labelled with the variables of that step as
far as the stream *up to and including the token* determines them. Runs start at array pointer 0 with cells 0, so most
variables are determined. Not determined, hence -1:

- at the first token, everything that depends on the instruction, which is not shown yet;
- at the token of GET, what it will read (known at the value behind it), and whether it reads at all;
- the rest of the input, and steps_to_halt until the run has halted or frozen;
- instruction_ptr after a loop was skipped whose end was not met before: it is counted from the start, along jumps to
  places that were met. The same holds for jump_target, next_instruction_ptr and instruction[i].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cython_vm import MachineSpec, Op, Outcome, Transition, step, variable
from cython_vm import Trace as MachineRun
from interp.worlds.machine.relative import offset_of, read_relative

_NEVER = np.iinfo(np.int64).max
_BEFORE_ANY = ("array_ptr", "operand", "instruction_ptr", "output_length", "loop_depth")  # of the step; known at once
_READ_BY_GET = ("input_head", "input[0]", "outcome", "result", "next_instruction_ptr")  # known once GET's value is


@dataclass(frozen=True, eq=False)
class StreamLabels:
    """Labels of the states of some runs, flat as `run.states`; of each state as it is about to be executed."""

    spec: MachineSpec
    run: MachineRun

    def read(self, name: str, *, seen: str) -> np.ndarray:
        """The variable for every state of the runs, int64 [states], -1 where the stream does not determine it.

        seen: how much of the step is shown: "nothing" (not even its instruction), "op", or "answer" (all of it).

        Raises:
            ValueError: the machine has no such variable.
        """
        offset = offset_of(name)
        family = name.partition("[")[0] if offset is not None else variable(self.spec, name).name.partition("[")[0]
        values = self._value(name, family) if offset is None else self._relative(offset)
        if seen == "nothing" and family not in ("cell", "output", *_BEFORE_ANY):
            # The last slot holds STOP by the rules of the language.
            return np.where(family == "instruction" and int(name[12:-1]) == self.spec.n_instructions - 1, values, -1)
        if seen == "op":
            hidden = name in _READ_BY_GET or (family == "next_cell" and self._array_ptr == int(name[10:-1]))
            values = np.where(self._is_get & hidden, -1, values)
        return values

    def _value(self, name: str, family: str) -> np.ndarray:
        """The variable where the whole of the step is shown."""
        states = self.run.states
        assert states is not None
        if name in ("op", "operand", "output_length", "outcome", "branch_taken", "result", "emitted", "next_array_ptr"):
            return self._step.latents[name].astype(np.int64)
        if name == "input_head" or name == "input[0]":
            return np.where(self._is_get, self._step.latents["input_head"], -1).astype(np.int64)
        if name == "steps_to_halt":
            return np.where((self._step.outcome != Outcome.RAN) & ~self._is_get, 0, -1)
        if family in ("input", "input_length"):
            return np.full(len(states), -1)
        values = variable(self.spec, name).read(states)
        if name == "instruction_ptr":
            return np.where(self._counted, values, -1)
        if name == "jump_target":
            return np.where(self._partner_met, values, -1)
        if name == "next_instruction_ptr":
            taken = self._step.latents["branch_taken"] == 1
            return np.where(np.where(taken, self._partner_met, self._counted), values, -1)
        if family == "instruction":
            slot = int(name[12:-1])
            met = self._first_met[self.run.row_index, slot] <= self.run.time
            return np.where(met | (slot == self.spec.n_instructions - 1), values, -1)
        return values

    def _relative(self, offset: int) -> np.ndarray:
        """The cell at an offset from the pointer where the run has been at it, -1 elsewhere: what was never visited
        holds 0 and says nothing."""
        assert self.run.states is not None
        values, place = read_relative(self.run.states, offset), self._array_ptr.astype(np.int64) + offset
        visited = self.visited[np.arange(len(place)), place.clip(0, self.spec.n_cells - 1)]
        return np.where((values >= 0) & visited, values, -1)

    @cached_property
    def visited(self) -> np.ndarray:
        """Whether the pointer has been at each cell, now or before, bool [states, n_cells]."""
        run = self.run
        assert run.states is not None and run.offsets is not None
        here = self._array_ptr[:, None] == np.arange(self.spec.n_cells)
        latest = np.maximum.accumulate(np.where(here, np.arange(len(here))[:, None], -1), axis=0)
        return latest >= run.offsets[:-1][run.row_index][:, None]

    @cached_property
    def _step(self) -> Transition:
        assert self.run.states is not None
        return step(self.run.states)

    @cached_property
    def _is_get(self) -> np.ndarray:
        return self._step.latents["op"] == Op.GET

    @cached_property
    def _array_ptr(self) -> np.ndarray:
        assert self.run.states is not None
        return self.run.states.array_ptr

    @property
    def _counted(self) -> np.ndarray:
        return self._places[0]

    @property
    def _partner_met(self) -> np.ndarray:
        return self._places[1]

    @property
    def _first_met(self) -> np.ndarray:
        return self._places[2]

    @cached_property
    def _places(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Whether instruction_ptr is known [states], whether the partner's slot is [states], and the step at which
        each slot of each run was first met at a known place, [runs, n_instructions]."""
        run = self.run
        assert run.states is not None and run.offsets is not None
        slots = run.states.instruction_ptr.astype(np.int64)
        target = self._step.latents["jump_target"].astype(np.int64)
        taken = self._step.latents["branch_taken"] == 1
        counted, partner_met = np.zeros((2, len(slots)), dtype=bool)
        first_met = np.full((len(run), self.spec.n_instructions), _NEVER)
        known = np.ones(len(run), dtype=bool)
        for time in range(int(run.n_steps.max(initial=-1)) + 1):
            rows = np.flatnonzero(run.n_steps >= time)
            at = run.offsets[rows] + time
            counted[at] = known[rows]
            met = rows[known[rows]]
            slot = slots[run.offsets[met] + time]
            first_met[met, slot] = np.minimum(first_met[met, slot], time)
            partner_met[at] = (target[at] > 0) & (first_met[rows, np.maximum(target[at] - 1, 0)] <= time)
            known[rows] = np.where(taken[at], partner_met[at], known[rows])
        return counted, partner_met, first_met

    @cached_property
    def steps_since_revealed(self) -> tuple[np.ndarray, np.ndarray]:
        """For each state and cell, how many steps ago the stream last revealed the cell's value; -1: never.

        PUT and GET reveal a value; WHILE and ENDW reveal it where they show it to be 0. Two arrays, int64
        [states, n_cells]: before the step's own answer, and after it.
        """
        run = self.run
        assert run.states is not None and run.offsets is not None
        latents = self._step.latents
        shows = np.isin(latents["op"], (Op.PUT, Op.GET)) & (self._step.outcome == Outcome.RAN)
        shows |= (latents["branch_taken"] >= 0) & (latents["operand"] == 0)
        at_cell = shows[:, None] & (self._array_ptr[:, None] == np.arange(self.spec.n_cells))
        moment = np.where(at_cell, np.arange(len(shows))[:, None], -1)
        latest = np.maximum.accumulate(moment, axis=0)
        begins = run.offsets[:-1][run.row_index][:, None]
        previous = np.vstack([np.full((1, self.spec.n_cells), -1), latest[:-1]])
        now = np.arange(len(shows))[:, None]
        before, after = (np.where(seen >= begins, now - seen, -1) for seen in (previous, latest))
        return before, after
