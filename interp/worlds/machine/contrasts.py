"""Pairs of states that differ in which instruction is executed, or in whether it freezes.

For an opcode, the clean state executes it, and the corrupted one has the same program, tape and buffers but its
`instruction_ptr` on another op of the program, so that the contrast is the same for all nine opcodes. For a way to
freeze, the same instruction freezes and runs (`freezes`).

Two answers are compared where they differ and the two states agree, so that copying does not count. Pairs without such
a slot (both instructions freeze, say) are redrawn and the rate is kept. States are drawn from the machine's natural
distribution restricted to the op, freezing and branching as often as it does there; the corrupted op is uniform over
the other ops that the program holds, then over their slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from cython_vm import MachineSpec, Op, Outcome, States, encode, program_hash, sample, step
from interp.worlds.base import half as half_of
from interp.worlds.machine.freezes import FREEZES, freezes, unfrozen

_BLOCK = 4096
_MAX_BLOCKS = 100


class DrawStates(Protocol):
    """Draws at most `n` held-out states; which ones depends on `seed` and `start` alone."""

    def __call__(self, n: int, *, seed: int, start: int) -> States: ...


@dataclass(frozen=True)
class MachineContrast:
    """One opcode, or one way to freeze."""

    spec: MachineSpec
    of: Op | Outcome

    @property
    def name(self) -> str:
        """As people know it, and as it names files."""
        return self.of.name

    @property
    def kind(self) -> str:
        """What it contrasts: "instruction" (with another) or "freeze" (with running)."""
        return "freeze" if isinstance(self.of, Outcome) else "instruction"

    def draw(
        self, n: int, *, seed: int, half: int | None = None, states: DrawStates | None = None
    ) -> tuple[States, States, float]:
        """`n` pairs of held-out programs.

        Args:
            n: number of pairs.
            seed: of the states and of the corrupted instruction.
            half: 0 or 1 for one of two halves of the held-out programs that share none. None for all.
            states: where clean states come from; the machine's natural distribution by default.

        Returns:
            clean, corrupted, and the share of drawn pairs that had no slot to compare.

        Raises:
            ValueError: too few states execute the op against another.
        """
        clean_parts, corrupted_parts, found, compared = [], [], 0, 0
        for number, clean in enumerate(self.executing(seed=seed, states=states)):
            if half is not None:
                clean = clean[np.flatnonzero(half_of(program_hash(clean)) == half)]
            clean, corrupted = self._contrasted(clean, np.random.default_rng([seed, number]))
            rows = np.flatnonzero(compared_slots(clean, corrupted).any(axis=1))
            compared += len(clean)
            found += len(rows)
            clean_parts.append(clean[rows])
            corrupted_parts.append(corrupted[rows])
            if found >= n:
                break
        if found < n:
            raise ValueError(f"only {found} of the {n} pairs asked for {self.name} in {_MAX_BLOCKS * _BLOCK} states")
        clean, corrupted = (States.concatenate(parts)[:n] for parts in (clean_parts, corrupted_parts))
        return clean, corrupted, 1 - found / max(compared, 1)

    def first(self, n: int, *, seed: int, states: DrawStates | None = None) -> States:
        """The first `n` held-out states that execute it; fewer if it is rare."""
        parts: list[States] = []
        for some in self.executing(seed=seed, states=states):
            parts.append(some)
            if sum(map(len, parts)) >= n:
                break
        return States.concatenate(parts)[:n]

    def executing(self, *, seed: int, states: DrawStates | None = None) -> Iterator[States]:
        """Held-out states that execute the op, or end in that outcome, block by block; arguments as for `draw`."""
        op = FREEZES[self.of] if isinstance(self.of, Outcome) else self.of
        draw = partial(sample, self.spec, split="evaluation") if states is None else states
        for number in range(_MAX_BLOCKS):
            some = draw(_BLOCK, seed=seed, start=number * _BLOCK)
            some = some[np.flatnonzero(some.program[np.arange(len(some)), some.instruction_ptr] == op)]
            if isinstance(self.of, Outcome):
                some = some[np.flatnonzero(step(some).outcome == self.of)]
            yield some

    def _contrasted(self, clean: States, rng: np.random.Generator) -> tuple[States, States]:
        """Clean states that have a corrupted one, and these."""
        if isinstance(self.of, Outcome):
            return clean, unfrozen(clean, self.of, rng)
        slots = _other_instruction(clean, rng)
        rows = np.flatnonzero(slots >= 0)
        return clean[rows], clean[rows].replace("instruction_ptr", slots[rows])


def contrasts_of(spec: MachineSpec) -> dict[str, MachineContrast]:
    """Every opcode of the machine, then every way to freeze that another value would free."""
    return {of.name: MachineContrast(spec, of) for of in (*spec.ops, *freezes(spec))}


def compared_slots(clean: States, corrupted: States) -> np.ndarray:
    """Where the two next states differ and the two states agree, bool [n, state_length]."""
    differ = step(clean).tokens() != step(corrupted).tokens()
    return differ & (encode(clean) == encode(corrupted))


def _other_instruction(states: States, rng: np.random.Generator) -> np.ndarray:
    """A slot that holds another op than the one executed: op uniform over those present, then slot; -1 where none."""
    program = states.program.astype(np.int64)
    executed = program[np.arange(len(states)), states.instruction_ptr]
    present = np.zeros((len(states), len(Op)), dtype=bool)
    np.put_along_axis(present, program, True, axis=1)
    present[np.arange(len(states)), executed] = False
    op = np.where(present, rng.random(present.shape), -1.0).argmax(axis=1)
    holds = program == op[:, None]
    slot = np.where(holds, rng.random(program.shape), -1.0).argmax(axis=1)
    return np.where(present.any(axis=1), slot, -1)
