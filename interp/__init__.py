"""TapeLens: models that learned to run programs, held against the machine that runs them exactly.

`interp.load(path)` opens a run folder. The rest lives in the submodules: `interp.tasks`, `interp.models`,
`interp.training`, `interp.interventions`, `interp.circuits`, `interp.figures`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.runs import Run, RunConfig, RunError, load

__all__ = ["Run", "RunConfig", "RunError", "load"]


def __getattr__(name: str) -> Any:
    """The public names, imported at their first use: the command line must be able to answer Ctrl-C before that."""
    if name in __all__:
        from interp import runs

        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
