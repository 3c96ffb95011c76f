"""The stage `probe`: variables x layers x positions → probes.parquet, probe_errors.parquet, probes.safetensors."""

from __future__ import annotations

import pandas as pd

from interp.runs import Run
from interp.stage_options import ProbeOptions
from interp.studies.holding import Progress, quiet


def probe_stage(
    run: Run,
    options: ProbeOptions = ProbeOptions(),  # noqa: B008 (frozen)
    *,
    fresh: bool = False,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """The probe sweep (`interp.studies.probe_sweep`); where no `n` is asked for, on as many examples as the task says
    (`Task.n_probed`)."""
    from interp.probing import SweepConfig
    from interp.studies.probe_sweep import probe_run

    config = SweepConfig(
        variables=tuple(options.variables),
        places=tuple(options.positions),
        hooks=tuple(options.sites),
        methods=tuple(options.methods),
        n=run.task.n_probed if options.n is None else options.n,
        seed=options.seed,
        controls=options.controls,
    )
    return probe_run(run, config=config, n_edits=options.edits, fresh=fresh, progress=progress)
