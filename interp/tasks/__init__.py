"""Tasks: what a model is asked about a world.

Importing the options is cheap; the rest imports torch when first asked for.
"""

from typing import TYPE_CHECKING, Any

from interp.tasks.options import TaskOptions

if TYPE_CHECKING:
    from interp.tasks.base import Batch, Counterfactual, Task, macro_average
    from interp.tasks.chain import Chain
    from interp.tasks.output import Output
    from interp.tasks.registry import TASKS
    from interp.tasks.step import Step
    from interp.tasks.step_inplace import StepInplace
    from interp.tasks.trace import Trace, TraceBatch
    from interp.tasks.trace_pairs import TraceCounterfactual

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


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from interp.tasks import base, chain, output, registry, step, step_inplace, trace, trace_pairs

    for module in (registry, base, chain, output, step, step_inplace, trace, trace_pairs):
        if name in vars(module):
            return vars(module)[name]
    raise AttributeError(name)
