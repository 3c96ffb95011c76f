"""TapeLens: models that learned to run programs, held against the machine that runs them exactly.

`interp.load(path)` opens a run folder. The rest lives in the submodules: `interp.tasks`, `interp.models`,
`interp.training`, `interp.interventions`, `interp.circuits`, `interp.figures`.
"""

from interp.runs import Run, RunConfig, RunError, load

__all__ = ["Run", "RunConfig", "RunError", "load"]
