"""Pairs of a task's contrasts: clean and corrupted inputs that differ in one thing (`interp.tasks.contrast`)."""

from __future__ import annotations

from enum import Enum

import torch

from interp.ranges import counted
from interp.tasks import Task
from interp.tasks.contrast import Pairs

__all__ = ["Pairs", "draw_pairs", "main_contrasts", "other_contrasts"]


def main_contrasts(task: Task) -> tuple[str, ...]:
    """The names of a task's contrasts of the kind that it lists first: the machine's instructions.

    Raises:
        ValueError: the task has no contrasts.
    """
    known = list(task.contrasts().values())
    if not known:
        raise ValueError(f"the task {task.name} has no contrasts, so no circuit can be looked for")
    first = known[0].kind
    return tuple(each.name for each in known if each.kind == first)


def other_contrasts(task: Task) -> tuple[str, ...]:
    """The names of all others: the machine's ways to freeze. Raises ValueError as `main_contrasts`."""
    main = main_contrasts(task)
    return tuple(name for name in task.contrasts() if name not in main)


@counted(n=1)
@torch.inference_mode(False)  # tokens made in that mode could not be read on with gradients
def draw_pairs(task: Task, contrast: str | Enum, n: int, *, seed: int, half: int | None = None) -> Pairs:
    """Draw `n` pairs of a contrast from held-out units.

    Args:
        task: the task.
        contrast: the name of one of `task.contrasts()`: an opcode, a way to freeze, a carry; or an enum's member of
            that name.
        n: number of pairs.
        seed: of the examples and of what is corrupted.
        half: 0 or 1 for one of two halves of the held-out units that share none: a circuit is chosen on one and scored
            on the other. None for all.

    Raises:
        ValueError: the task has no such contrast, or too few examples show it.
    """
    if half not in (None, 0, 1):
        raise ValueError(f"half must be 0, 1 or None for all units; got {half!r}")
    name = contrast.name if isinstance(contrast, Enum) else contrast
    return task.contrast(name).draw(n, seed=seed, half=half)
