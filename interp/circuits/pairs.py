"""Clean and corrupted states that differ in which instruction is executed, and the metric between them.

For an opcode, the clean state executes it, and the corrupted one has the same program, tape and buffers but its
`instruction_ptr` on another op of the program, so that the contrast is the same for all nine opcodes.

The metric compares the two answers where they differ and the two inputs agree, so that copying does not count:

    m = mean over examples of the mean over such positions of logit(clean token) - logit(corrupted token)

Pairs without such a position (both instructions freeze, say) are redrawn and the rate is kept. States are drawn from
the machine's natural distribution restricted to the op, freezing and branching as often as it does there; the corrupted
op is uniform over the other ops that the program holds, then over their slots.

A way to freeze has pairs of its own, in which the same instruction freezes and runs: `interp.circuits.freezes`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cython_vm import Op, Outcome, States, encode, program_hash, sample, step
from interp.circuits.freezes import FREEZES, unfrozen
from interp.tasks import Batch, Task

Contrast = Op | Outcome
_BLOCK = 4096
_MAX_BLOCKS = 100


@dataclass(frozen=True)
class Pairs:
    """Clean and corrupted inputs of one opcode, or of one way to freeze."""

    task: Task
    op: Contrast
    clean: Batch
    corrupted: Batch  # a task that shows the answer shows the clean one here too
    clean_answer: Tensor  # long [n, state_length]
    corrupted_answer: Tensor  # long [n, state_length]
    weights: Tensor  # float [n, state_length]: 1 / number of compared slots at each of them, 0 elsewhere
    programs: np.ndarray  # hash of each pair's program, [n]
    redraw_rate: float  # share of drawn pairs without a position to compare

    def __len__(self) -> int:
        return len(self.clean)

    def __getitem__(self, rows: slice) -> Pairs:
        def part(batch: Batch) -> Batch:
            return Batch(batch.tokens[rows], batch.targets[rows], batch.loss_mask[rows], batch.examples[rows])

        return replace(
            self,
            clean=part(self.clean),
            corrupted=part(self.corrupted),
            clean_answer=self.clean_answer[rows],
            corrupted_answer=self.corrupted_answer[rows],
            weights=self.weights[rows],
            programs=self.programs[rows],
        )

    def logit_difference(self, logits: Tensor) -> Tensor:
        """Each example's m from logits [..., n, pos, d_vocab]: [..., n]."""
        lead = logits.shape[:-3]
        seen = self.task.next_state_logits(logits.reshape(-1, *logits.shape[-2:]))
        seen = seen.reshape(*lead, *self.clean_answer.shape, -1)
        choice = torch.stack([self.clean_answer, self.corrupted_answer], dim=-1)
        values = seen.gather(-1, choice.expand(*lead, *choice.shape))
        return ((values[..., 0] - values[..., 1]) * self.weights).sum(-1)

    def exact(self, logits: Tensor) -> Tensor:
        """Whether each example's whole answer is the clean one, bool [..., n], from logits [..., n, pos, d_vocab]."""
        lead = logits.shape[:-3]
        seen = self.task.next_state_logits(logits.reshape(-1, *logits.shape[-2:])).argmax(-1)
        return (seen.reshape(*lead, *self.clean_answer.shape) == self.clean_answer).all(-1)

    def outcomes(self) -> dict[str, int]:
        """How many clean states end in each outcome."""
        found = step(self.clean.examples).outcome
        return {outcome.name: int((found == outcome).sum()) for outcome in Outcome if (found == outcome).any()}


def draw_pairs(task: Task, op: Contrast, n: int, *, seed: int, half: int | None = None) -> Pairs:
    """Draw `n` pairs for an opcode, or a way to freeze, from held-out programs.

    Args:
        task: the task.
        op: the opcode that the clean state executes, or the outcome that it ends in.
        n: number of pairs.
        seed: of the states and of the corrupted instruction.
        half: 0 or 1 for one of two halves of the held-out programs that share none: a circuit is chosen on one and
            scored on the other. None for all.

    Raises:
        ValueError: the machine's language lacks the op, or too few states execute it against another op.
    """
    clean_parts, corrupted_parts, found, compared = [], [], 0, 0
    for block, clean in enumerate(_executing(task, op, seed=seed)):
        if half is not None:
            clean = clean[np.flatnonzero((program_hash(clean) // 20) % 2 == half)]
        clean, corrupted = _contrasted(clean, op, np.random.default_rng([seed, block]))
        rows = np.flatnonzero(compared_slots(clean, corrupted).any(axis=1))
        compared += len(clean)
        found += len(rows)
        clean_parts.append(clean[rows])
        corrupted_parts.append(corrupted[rows])
        if found >= n:
            break
    if found < n:
        raise ValueError(f"only {found} of the {n} pairs asked for {op.name} in {_MAX_BLOCKS * _BLOCK} states")
    clean = States.concatenate(clean_parts)[:n]
    corrupted = States.concatenate(corrupted_parts)[:n]
    slots = compared_slots(clean, corrupted)
    return Pairs(
        task=task,
        op=op,
        clean=task.render(clean),
        corrupted=task.render(corrupted, step(clean).tokens()),
        clean_answer=_answers(clean),
        corrupted_answer=_answers(corrupted),
        weights=torch.from_numpy(slots / slots.sum(axis=1, keepdims=True)).float(),
        programs=program_hash(clean).astype(np.int64),
        redraw_rate=1 - found / max(compared, 1),
    )


def first_states(task: Task, op: Op, n: int, *, seed: int) -> States:
    """The first `n` held-out states of the machine's natural distribution that execute `op`; fewer if it is rare."""
    parts: list[States] = []
    for states in _executing(task, op, seed=seed):
        parts.append(states)
        if sum(map(len, parts)) >= n:
            break
    return States.concatenate(parts)[:n]


def _contrasted(clean: States, op: Contrast, rng: np.random.Generator) -> tuple[States, States]:
    """Clean states that have a corrupted one, and these."""
    if isinstance(op, Outcome):
        return clean, unfrozen(clean, op, rng)
    slots = _other_instruction(clean, rng)
    rows = np.flatnonzero(slots >= 0)
    return clean[rows], clean[rows].replace("instruction_ptr", slots[rows])


def _executing(task: Task, op: Contrast, *, seed: int) -> Iterator[States]:
    """Held-out states that execute `op`, or end in that outcome, block by block."""
    if isinstance(op, Outcome):
        if op not in FREEZES:
            raise ValueError(
                f"{op.name} has no pairs of its own; the ways to freeze are {', '.join(f.name for f in FREEZES)}"
            )
        for states in _executing(task, FREEZES[op], seed=seed):
            yield states[np.flatnonzero(step(states).outcome == op)]
        return
    if op not in task.spec.ops:
        raise ValueError(f"this machine has no {op.name}; its ops are {', '.join(o.name for o in task.spec.ops)}")
    for block in range(_MAX_BLOCKS):
        states = sample(task.spec, _BLOCK, seed=seed, start=block * _BLOCK, split="evaluation")
        yield states[np.flatnonzero(states.program[np.arange(_BLOCK), states.instruction_ptr] == op)]


def compared_slots(clean: States, corrupted: States) -> np.ndarray:
    """Where the two next states differ and the two states agree, bool [n, state_length]."""
    differ = step(clean).tokens() != step(corrupted).tokens()
    return differ & (encode(clean) == encode(corrupted))


def _answers(states: States) -> Tensor:
    return torch.from_numpy(step(states).tokens().astype(np.int64))


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
