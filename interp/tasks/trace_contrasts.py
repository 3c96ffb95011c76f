"""Contrasts of `trace`: two streams that differ in one token, and the first answer that depends on it.

    NEXT, PREV, INC, DEC    one such token of the stream exchanged for another of these
    GET                     the value that one GET read exchanged for another
    PUT, WHILE, ENDW        the value that it reads: the last token that changed the cell is exchanged, the value that
                            a GET put there, or INC for DEC

What comes after the exchanged token stays, so that both streams say the same of every later instruction. Told so, the
machine goes on from another state; judged is the first answer (what PUT emits, a branch) in which it would then differ,
at the token of its instruction. Exchanges after which the same instructions would not run until there, because one
freezes, are drawn again. STOP decides no answer, and has no contrast.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast, Pairs
from interp.tasks.trace_pairs import JUDGED
from interp.worlds.base import half as half_of
from interp.worlds.machine import Op, Outcome, States

if TYPE_CHECKING:
    from interp.tasks.trace import Trace
    from interp.tasks.trace_batch import TraceBatch

EXCHANGED = (Op.NEXT, Op.PREV, Op.INC, Op.DEC)  # without an answer of their own, and without a partner
_WRITES = (Op.INC, Op.DEC, Op.GET)
_BLOCK = 256  # streams drawn at a time
_MAX_BLOCKS = 200


@dataclass(frozen=True)
class Exchange:
    """One token of a stream in the place of another."""

    step: int  # the executed instruction that it belongs to
    op: Op  # the instruction told of instead
    value: int | None = None  # of a GET: the value told of instead


def trace_contrasts(task: Trace) -> dict[str, Contrast]:
    """Every opcode of the machine but STOP."""
    return {
        op.name: Contrast(op.name, op.name, "instruction", partial(_draw, task, op), partial(_examples, task, op))
        for op in task.spec.ops
        if op != Op.STOP
    }


def _draw(task: Trace, op: Op, n: int, *, seed: int, half: int | None = None) -> Pairs:
    """Pairs of held-out streams, one a stream. Raises ValueError where too few streams have one."""
    found: list[tuple[States, Exchange, int]] = []
    tried = 0
    for block, starts in enumerate(_blocks(task, seed)):
        if half is not None:
            starts = starts[np.flatnonzero(half_of(task.groups(starts)) == half)]
        rng = np.random.default_rng([seed, block, int(op)])
        run = Executed(task, starts)
        for row in range(len(starts)):
            exchange = run.exchange(row, op, rng) if len(found) < n else None
            if exchange is None:
                continue
            tried += 1
            judged = run.first_difference(row, exchange)
            if judged is not None and (op in EXCHANGED or op == Op.GET or run.op[row][judged] == op):
                found.append((starts[row : row + 1], exchange, judged))
        if len(found) == n:
            break
    if len(found) < n:
        raise ValueError(f"only {len(found)} of the {n} pairs asked for {op.name} in {_MAX_BLOCKS * _BLOCK} streams")
    return pairs_of_streams(task, op.name, found, redraw_rate=1 - n / tried)


def _examples(task: Trace, op: Op, n: int, seed: int) -> Batch:
    """The first `n` held-out streams that execute the op; fewer if it is rare."""
    parts: list[States] = []
    for starts in _blocks(task, seed):
        run = Executed(task, starts)
        parts.append(starts[np.array([row for row in range(len(starts)) if op in run.op[row]], dtype=np.int64)])
        if sum(map(len, parts)) >= n:
            break
    return task.render(States.concatenate(parts)[:n])


def _blocks(task: Trace, seed: int) -> Iterator[States]:
    for block in range(_MAX_BLOCKS):
        yield task.draw(_BLOCK, seed=seed, start=block * _BLOCK)


class Executed:
    """The instructions that runs execute: op and cell of each, by run; those that freeze or halt left out."""

    def __init__(self, task: Trace, starts: States):
        self.task, self.world = task, task.world
        runs = self.world.run(starts, task.n_steps)
        assert runs.states is not None and runs.offsets is not None
        self.states, self.begin = runs.states, runs.offsets[:-1]
        op, n_steps = self.world.step(runs.states).latents["op"].astype(np.int64), runs.n_steps
        ends = self.begin + n_steps
        self.op = [op[a:b] for a, b in zip(self.begin, ends, strict=True)]
        self.cell = [runs.states.array_ptr[a:b] for a, b in zip(self.begin, ends, strict=True)]

    def exchange(self, row: int, op: Op, rng: np.random.Generator) -> Exchange | None:
        """A token of the run to exchange, uniform over those that serve the contrast; None where there is none."""
        if op in EXCHANGED or op == Op.GET:
            steps = np.flatnonzero(self.op[row] == op)
        else:
            reading = np.flatnonzero(self.op[row] == op)
            steps = np.array([step for at in reading.tolist() if (step := self._written(row, at)) >= 0], dtype=np.int64)
        if not len(steps):
            return None
        step = int(rng.choice(steps))
        executed = Op(int(self.op[row][step]))
        if executed == Op.GET:
            state = self.states[self.begin[row] + step : self.begin[row] + step + 1]
            values = [value for value in range(self.task.spec.max_value + 1) if value != state.input[0, 0]]
            return Exchange(step, executed, int(rng.choice(values)))
        # What a reading instruction reads is moved inside the cell; the pointer stays.
        among = (Op.INC, Op.DEC) if op not in EXCHANGED else EXCHANGED
        others = [other for other in among if other != executed and other in self.task.spec.ops]
        return Exchange(step, others[int(rng.integers(len(others)))]) if others else None

    def _written(self, row: int, reading: int) -> int:
        """The step that last changed the cell which an instruction reads; -1 where an answer told it since, or none."""
        before = np.flatnonzero(self.cell[row][:reading] == self.cell[row][reading])
        touched = [int(step) for step in before if self.op[row][step] in (*_WRITES, *JUDGED)]
        return touched[-1] if touched and self.op[row][touched[-1]] in _WRITES else -1

    def first_difference(self, row: int, exchange: Exchange) -> int | None:
        """The first answered step whose answer the exchange changes; None where it changes none, or where another
        instruction than the stream tells of would run before."""
        at = self.begin[row] + exchange.step
        state = self.states[at : at + 1]
        moved = self._after(state, exchange)
        left = len(self.op[row]) - exchange.step - 1
        if moved is None or not left:
            return None
        clean = self.world.step(self.states[at + 1 : at + 1 + left])
        other = self.world.run(moved, left)
        assert other.states is not None
        runs = self.world.step(other.states)
        for place in range(min(left, len(other.states))):
            if runs.latents["op"][place] != clean.latents["op"][place] or runs.outcome[place] != Outcome.RAN:
                return None
            if clean.latents["op"][place] in JUDGED:
                both = [
                    self.task.answer_tokens({name: values[place : place + 1] for name, values in each.latents.items()})
                    for each in (clean, runs)
                ]
                if both[0] != both[1]:
                    return exchange.step + 1 + place
        return None

    def _after(self, state: States, exchange: Exchange) -> States | None:
        """The state after the instruction that is told of instead; None where that would freeze."""
        if exchange.value is not None:
            moved = self.world.step(state).next
            cells = moved.cells.copy()
            cells[0, state.array_ptr[0]] = exchange.value
            return moved.replace("cells", cells)
        program = state.program.copy()
        program[0, state.instruction_ptr[0]] = exchange.op
        taken = self.world.step(state.replace("program", program))
        return taken.next.replace("program", state.program) if taken.outcome[0] == Outcome.RAN else None

    def answer(self, row: int, exchange: Exchange, judged: int) -> int:
        """The token that answers `judged` after the exchange."""
        moved = self._after(self.states[self.begin[row] + exchange.step :][:1], exchange)
        assert moved is not None
        there = self.world.run(moved, judged - exchange.step - 1, keep="last").final
        return int(self.task.answer_tokens(self.world.step(there).latents)[0])


def pairs_of_streams(
    task: Trace, contrast: str, found: list[tuple[States, Exchange, int]], *, redraw_rate: float
) -> Pairs:
    """Pairs from starts, exchanges and judged steps."""
    starts = States.concatenate([state for state, _, _ in found])
    clean: TraceBatch = task.render(starts)
    run = Executed(task, starts)
    tokens, n = clean.tokens.clone(), len(found)
    steps = np.array([exchange.step for _, exchange, _ in found])
    judged = np.array([step for _, _, step in found])
    place = clean.op_position(steps)
    for row, (_, exchange, _) in enumerate(found):
        if exchange.value is not None:  # the value stands behind the op
            tokens[row, place[row] + 1] = task.spec.number_id(exchange.value)
        else:
            tokens[row, place[row]] = task.spec.op_id(exchange.op)
    positions = torch.from_numpy(clean.op_position(judged))[:, None]
    answers = [run.answer(row, exchange, step) for row, (_, exchange, step) in enumerate(found)]
    return Pairs(
        task=task,
        contrast=contrast,
        clean=clean,
        corrupted=Batch(tokens, clean.targets, clean.loss_mask, starts),
        positions=positions,
        clean_answer=clean.targets.gather(1, positions),
        corrupted_answer=torch.tensor(answers)[:, None],
        weights=torch.ones(n, 1),
        groups=task.groups(starts).astype(np.int64),
        redraw_rate=redraw_rate,
    )
