"""Tasks: what a model is asked about the machine."""

from interp.options import TaskOptions
from interp.tasks.base import Batch, Counterfactual, Task, macro_average
from interp.tasks.chain import Chain
from interp.tasks.output import Output
from interp.tasks.step import Step
from interp.tasks.step_inplace import StepInplace
from interp.tasks.trace import Trace, TraceBatch
from interp.tasks.trace_pairs import TraceCounterfactual

TASKS: dict[str, type[Task]] = {task.name: task for task in (StepInplace, Step, Trace, Chain, Output)}

__all__ = [
    "TASKS",
    "Batch",
    "Chain",
    "Counterfactual",
    "Output",
    "Step",
    "StepInplace",
    "Task",
    "TaskOptions",
    "Trace",
    "TraceBatch",
    "TraceCounterfactual",
    "macro_average",
]
