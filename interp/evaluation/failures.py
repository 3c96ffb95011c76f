"""Answers that are wrong, kept as examples and told in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from cython_vm import Op, Outcome, States, encode, format_program, step
from interp.tasks import Batch


@dataclass(frozen=True, eq=False)
class Failure:
    """One state whose next state the model got wrong."""

    row: int  # of the evaluation's stream of states: (seed, row) draws it again
    op: str
    outcome: str
    state: States  # S_t, one row
    answer: np.ndarray  # tokens [state_length]

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the positions that are wrong."""
        layout, expected = self.state.spec.layout, step(self.state).tokens()[0]
        return tuple(layout.names[place] for place in np.flatnonzero(self.answer != expected))

    def words(self) -> str:
        """What was asked, what is right, and what was answered."""
        spec, state = self.state.spec, self.state
        expected, before = step(state).tokens()[0], encode(state)[0]
        wrong = []
        for place in np.flatnonzero(self.answer != expected):
            was, right, said = (spec.vocab[int(tokens[place])] for tokens in (before, expected, self.answer))
            wrong.append(f"{spec.layout.names[place]} was {was}, is {right} next, answered {said}")
        program = format_program(state.program[0], classic=True)
        return (
            f"row {self.row}: `{program}`, instruction_ptr {int(state.instruction_ptr[0])} ({self.op}, "
            f"{self.outcome.replace('_', ' ').lower()}), array_ptr {int(state.array_ptr[0])}, "
            f"cells {_values(state.cells[0])}, input {_values(state.input[0][: state.input_length[0]])}, "
            f"output {_values(state.output[0][: state.output_length[0]])}: {'; '.join(wrong)}"
        )


def _values(values: np.ndarray) -> str:
    return " ".join(map(str, values.tolist())) or "empty"


class Failures:
    """An observer of `evaluate` for tasks whose answer is the next state: counts errors, keeps examples."""

    # kept: how many examples of an op and outcome, the first that come

    def __init__(self, *, kept: int = 3):
        self._kept = kept
        self._counts: dict[tuple[str, str], int] = {}
        self.examples: list[Failure] = []

    @property
    def n_wrong(self) -> int:
        """How many answers are not wholly right."""
        return sum(self._counts.values())

    def __call__(self, batch: Batch, answer: Tensor, first: int) -> None:
        transition, given = step(batch.examples), answer.cpu().numpy()
        for row in np.flatnonzero((given != transition.tokens()).any(axis=1)):
            stratum = (Op(int(transition.latents["op"][row])).name, Outcome(int(transition.outcome[row])).name)
            self._counts[stratum] = self._counts.get(stratum, 0) + 1
            if self._counts[stratum] <= self._kept:
                self.examples.append(Failure(first + int(row), *stratum, batch.examples[[row]], given[row].copy()))
