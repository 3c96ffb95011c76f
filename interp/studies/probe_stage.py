"""The stage `probe`: variables x layers x positions → probes.parquet, probe_errors.parquet, probes.safetensors."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from interp.runs import Run
from interp.studies.holding import Progress, quiet


def probe_stage(
    run: Run,
    *,
    variables: Sequence[str] = (),
    positions: Sequence[str] = (),
    hooks: Sequence[str] = (),
    methods: Sequence[str] = ("logistic",),
    n: int | None = None,
    n_edits: int | None = None,
    controls: bool = True,
    seed: int = 3,
    fresh: bool = False,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """The probe sweep (`interp.studies.probe_sweep`). `n` defaults to what the task says (`Task.n_probed`), `n_edits`
    to 64."""
    from interp.probing import SweepConfig
    from interp.studies.probe_sweep import probe_run

    config = SweepConfig(
        variables=tuple(variables),
        places=tuple(positions),
        hooks=tuple(hooks),
        methods=tuple(methods),
        n=run.task.n_probed if n is None else n,
        seed=seed,
        controls=controls,
    )
    edits = 64 if n_edits is None else n_edits
    return probe_run(run, config=config, n_edits=edits, fresh=fresh, progress=progress)
