"""Contrasts of `chain`: those of one step, on its first step, judged on the first of the states to be answered.

Clean S_t are the task's own, so that no instruction halts or freezes there; the corrupted one has its instruction_ptr
on another op of the program, as for one step. Both are shown the clean chain; what stands behind the first next state
is read by nothing that is judged.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from interp.tasks.base import Batch
from interp.tasks.contrast import Contrast, Pairs
from interp.worlds.machine import MachineContrast, Op, compared_slots

if TYPE_CHECKING:
    from interp.tasks.chain import Chain

_BLOCK = 512  # states drawn at a time: each comes of a long run


def chain_contrasts(task: Chain) -> dict[str, Contrast]:
    """Every opcode of the machine but STOP, with which no chain begins."""
    found = {}
    for name, contrast in task.world.contrasts().items():
        if contrast.kind == "instruction" and name != Op.STOP.name:
            examples = partial(_first, task, contrast)
            found[name] = Contrast(name, name, contrast.kind, partial(_pairs, task, contrast), examples)
    return found


def _pairs(task: Chain, contrast: MachineContrast, n: int, *, seed: int, half: int | None = None) -> Pairs:
    clean, corrupted, redraw_rate = contrast.draw(n, seed=seed, half=half, states=task.draw, block=_BLOCK)
    compared, length = compared_slots(clean, corrupted), task.spec.state_length
    told, other = (task.expected(task.world.answer(states)) for states in (clean, corrupted))
    return Pairs(
        task=task,
        contrast=contrast.name,
        clean=task.render(clean, told),
        corrupted=task.render(corrupted, told),
        positions=torch.from_numpy(np.tile(task.answer_positions[:length], (n, 1))),
        clean_answer=torch.from_numpy(told[:, :length]),
        corrupted_answer=torch.from_numpy(other[:, :length]),
        weights=torch.from_numpy(compared / compared.sum(axis=1, keepdims=True)).float(),
        groups=task.groups(clean).astype(np.int64),
        redraw_rate=redraw_rate,
    )


def _first(task: Chain, contrast: MachineContrast, n: int, seed: int) -> Batch:
    return task.render(contrast.first(n, seed=seed, states=task.draw, block=_BLOCK))
