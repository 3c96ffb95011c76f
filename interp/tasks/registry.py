"""Every task by its key."""

from __future__ import annotations

from typing import TYPE_CHECKING

from interp.registry import Registry

if TYPE_CHECKING:  # brings torch, which the list of tasks does not need
    from interp.tasks.base import Task

TASKS: Registry[type[Task]] = Registry(
    "task",
    {
        "step_inplace": "interp.tasks.step_inplace:StepInplace",
        "step": "interp.tasks.step:Step",
        "trace": "interp.tasks.trace:Trace",
        "chain": "interp.tasks.chain:Chain",
        "output": "interp.tasks.output:Output",
    },
)
