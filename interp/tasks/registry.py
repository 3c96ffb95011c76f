"""Every task by its key."""

from __future__ import annotations

from interp.registry import Registry
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
