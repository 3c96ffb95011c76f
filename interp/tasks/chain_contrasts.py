"""Contrasts of `chain`: those of one step, on its first step, judged on the first of the states to be answered.

Clean S_t are the machine's single states, of held-out programs, that have as many more steps as the chain: so none
freezes or halts there. (The task's own S_t lie on runs from the start that never come back to a state; too few
programs have such runs to leave every opcode a dozen in each half of those held out.) The corrupted S_t has its
instruction_ptr on another op of the program, as for one step. Both are shown the clean chain; what stands behind the
first next state is read by nothing that is judged.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from interp.tasks.batch import Batch
from interp.tasks.contrast import Contrast, Pairs
from interp.worlds.machine import MachineContrast, Op, States, compared_slots

if TYPE_CHECKING:
    from interp.tasks.chain import Chain


def chain_contrasts(task: Chain) -> dict[str, Contrast]:
    """Every opcode of the machine but STOP, with which no chain begins."""
    found = {}
    for name, contrast in task.world.contrasts().items():
        if contrast.kind == "instruction" and name != Op.STOP.name:
            examples = partial(_first, task, contrast)
            found[name] = Contrast(name, name, contrast.kind, partial(_pairs, task, contrast), examples)
    return found


def _pairs(task: Chain, contrast: MachineContrast, n: int, *, seed: int, half: int | None = None) -> Pairs:
    clean, corrupted, redraw_rate = contrast.draw(n, seed=seed, half=half, states=partial(_states, task))
    compared, length = compared_slots(clean, corrupted), task.spec.state_length
    expected, other = (task.expected(task.world.answer(states)) for states in (clean, corrupted))
    return Pairs(
        task=task,
        contrast=contrast.name,
        clean=task.render(clean, expected),
        corrupted=task.render(corrupted, expected),
        positions=torch.from_numpy(np.tile(task.answer_positions[:length], (n, 1))),
        clean_answer=torch.from_numpy(expected[:, :length]),
        corrupted_answer=torch.from_numpy(other[:, :length]),
        weights=torch.from_numpy(compared / compared.sum(axis=1, keepdims=True)).float(),
        groups=task.groups(clean).astype(np.int64),
        redraw_rate=redraw_rate,
    )


def _first(task: Chain, contrast: MachineContrast, n: int, seed: int) -> Batch:
    return task.render(contrast.first(n, seed=seed, states=partial(_states, task)))


def _states(task: Chain, n: int, *, seed: int, start: int) -> States:
    """Of `n` held-out states those that have `n_steps` more steps."""
    drawn = task.world.draw(n, seed=seed, start=start)
    return drawn[np.flatnonzero(task.world.run(drawn, task.n_steps, keep="last").n_steps == task.n_steps)]
