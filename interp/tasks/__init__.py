"""Tasks: what a model is asked about a world.

Importing the options is cheap; the rest imports torch when first asked for, and a world with the first task about it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interp.tasks.options import TaskOptions

if TYPE_CHECKING:
    from interp.tasks.answers import macro_average
    from interp.tasks.base import Task
    from interp.tasks.batch import Batch
    from interp.tasks.chain import Chain
    from interp.tasks.contrast import Contrast, Pairs
    from interp.tasks.counterfactual import Counterfactual, PairDesign
    from interp.tasks.output import Output
    from interp.tasks.registry import TASKS
    from interp.tasks.sites import Site
    from interp.tasks.step import Step
    from interp.tasks.step_inplace import StepInplace
    from interp.tasks.trace import Trace
    from interp.tasks.trace_batch import TraceBatch

_FROM = {
    "answers": ("macro_average",),
    "base": ("Task",),
    "batch": ("Batch",),
    "chain": ("Chain",),
    "contrast": ("Contrast", "Pairs"),
    "counterfactual": ("Counterfactual", "PairDesign"),
    "output": ("Output",),
    "registry": ("TASKS",),
    "sites": ("Site",),
    "step": ("Step",),
    "step_inplace": ("StepInplace",),
    "trace": ("Trace",),
    "trace_batch": ("TraceBatch",),
}

__all__ = [
    "TASKS",
    "Batch",
    "Chain",
    "Contrast",
    "Counterfactual",
    "Output",
    "PairDesign",
    "Pairs",
    "Site",
    "Step",
    "StepInplace",
    "Task",
    "TaskOptions",
    "Trace",
    "TraceBatch",
    "macro_average",
]


def __getattr__(name: str) -> Any:
    for module, names in _FROM.items():
        if name in names:
            return getattr(import_module(f"interp.tasks.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
