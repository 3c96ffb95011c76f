"""What stands in the scratch slots of `output`: where the run is after evenly spaced steps.

A run of at most n_steps is cut into scratch + 1 parts of equal length; between two of them stand a few tokens that say
all that the rest of the run depends on, beside the program and its input:

    t+4.instruction_ptr  t+4.array_ptr  t+4.input_length  t+4.output_length  t+4.cells[0]  t+4.cells[1] …

Pointers and lengths are tokens of their own, #0 #1 …, behind the machine's. A run that has ended stays where it is.
The machine knows these facts, so they are learned as an answer is, and a model writes them before the answer or beside
it; what is judged is the output alone.
"""

from __future__ import annotations

import numpy as np

from interp.worlds.machine import MachineAnswer, MachineWorld

_COUNTED = ("instruction_ptr", "array_ptr", "input_length", "output_length")


class Scratch:
    """The scratch slots of a machine.

    Args:
        world: of the machine.
        n_steps: of the longest run.
        count: how many times facts are told; 0: none.

    Raises:
        ValueError: more times than there are steps between.
    """

    def __init__(self, world: MachineWorld, n_steps: int, count: int):
        if count >= n_steps:
            raise ValueError(f"scratch must be below n_steps = {n_steps}, so that a step lies between; got {count}")
        self.world, self.spec = world, world.spec
        self.times = tuple(round(n_steps * (part + 1) / (count + 1)) for part in range(count))
        self.fields = (*_COUNTED, *(f"cells[{cell}]" for cell in range(self.spec.n_cells)))

    @property
    def further_tokens(self) -> tuple[str, ...]:
        """What the vocabulary has behind the machine's: a token for each pointer's place and each length."""
        spec = self.spec
        most = max(spec.n_instructions, spec.n_cells, spec.n_input + 1, spec.n_output + 1)
        return tuple(f"#{number}" for number in range(most)) if self.times else ()

    @property
    def names(self) -> tuple[str, ...]:
        """Of the positions, time by time."""
        return tuple(f"t+{time}.{field}" for time in self.times for field in self.fields)

    @property
    def facts(self) -> tuple[tuple[str, int], ...]:
        """Of the positions: the variable that is told, and after how many steps."""
        return tuple((field.replace("cells", "cell"), time) for time in self.times for field in self.fields)

    @property
    def roles(self) -> tuple[int, ...]:
        """From 0, one a field: the same at every time."""
        return tuple(range(len(self.fields))) * len(self.times)

    @property
    def indices(self) -> tuple[int, ...]:
        """The number of the time, from 0."""
        return tuple(part for part in range(len(self.times)) for _ in self.fields)

    def tokens(self, answer: MachineAnswer) -> np.ndarray:
        """The facts of each run, int64 [n, slots]."""
        first_count, first_number = len(self.spec.vocab), self.spec.vocab.index("NUM_0")
        parts = [np.empty((len(answer.states), 0), dtype=np.int64)]
        for time in self.times:
            states = answer.after(time)
            counted = [first_count + self.world.read(states, name) for name in _COUNTED]
            cells = [first_number + self.world.read(states, f"cell[{cell}]") for cell in range(self.spec.n_cells)]
            parts.append(np.stack([*counted, *cells], axis=1).astype(np.int64))
        return np.concatenate(parts, axis=1)
