"""Every task by its key."""

from __future__ import annotations

from typing import Any

from interp.registry import Registry

TASKS: Registry[Any] = Registry(  # classes of Task
    "task",
    {
        "step_inplace": "interp.tasks.step_inplace:StepInplace",
        "step": "interp.tasks.step:Step",
        "trace": "interp.tasks.trace:Trace",
        "chain": "interp.tasks.chain:Chain",
        "output": "interp.tasks.output:Output",
        "scratchpad": "interp.tasks.scratchpad:Scratchpad",
        "strings": "interp.tasks.strings:Strings",
        "addition": "interp.tasks.addition:AdditionTask",
        "text": "interp.tasks.text:Text",
        "slots": "interp.tasks.slots:SlotsTask",
    },
)
