"""Tasks: what a model is asked about the machine."""

from interp.options import TaskOptions
from interp.tasks.base import Batch, Counterfactual, Task, macro_average
from interp.tasks.step import Step
from interp.tasks.step_inplace import StepInplace
from interp.tasks.trace import Trace, TraceBatch

TASKS: dict[str, type[Task]] = {task.name: task for task in (StepInplace, Step, Trace)}

__all__ = [
    "TASKS",
    "Batch",
    "Counterfactual",
    "Step",
    "StepInplace",
    "Task",
    "TaskOptions",
    "Trace",
    "TraceBatch",
    "macro_average",
]
