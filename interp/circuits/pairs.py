"""Pairs of a task's contrasts: clean and corrupted inputs that differ in one thing (`interp.tasks.contrast`)."""

from __future__ import annotations

from interp.tasks import Task
from interp.tasks.contrast import Pairs

__all__ = ["Pairs", "draw_pairs"]


def draw_pairs(task: Task, contrast: str, n: int, *, seed: int, half: int | None = None) -> Pairs:
    """Draw `n` pairs of a contrast from held-out units.

    Args:
        task: the task.
        contrast: the name of one of `task.contrasts()`: an opcode, a way to freeze, a carry.
        n: number of pairs.
        seed: of the examples and of what is corrupted.
        half: 0 or 1 for one of two halves of the held-out units that share none: a circuit is chosen on one and scored
            on the other. None for all.

    Raises:
        ValueError: the task has no such contrast, or too few examples show it.
    """
    return task.contrast(contrast).draw(n, seed=seed, half=half)
