"""Every task by its key."""

from interp.tasks.base import Task
from interp.tasks.chain import Chain
from interp.tasks.output import Output
from interp.tasks.step import Step
from interp.tasks.step_inplace import StepInplace
from interp.tasks.trace import Trace

TASKS: dict[str, type[Task]] = {task.name: task for task in (StepInplace, Step, Trace, Chain, Output)}
