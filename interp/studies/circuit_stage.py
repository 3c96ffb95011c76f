"""The stage `circuit`: a circuit an instruction, attention → circuits.parquet, circuits/, attention.safetensors."""

from __future__ import annotations

import pandas as pd

from interp.runs import Run
from interp.stage_options import CircuitOptions
from interp.studies.holding import Progress, quiet


def circuit_stage(
    run: Run,
    options: CircuitOptions = CircuitOptions(),  # noqa: B008 (frozen)
    *,
    fresh: bool = False,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """A circuit a contrast (an instruction), mean attention patterns, and what else is asked for
    (`interp.studies.circuit_study`); what is on disk already is kept.

    Raises:
        ValueError: a world without contrasts, a model without a graph, or what `study` refuses.
    """
    from interp.studies.circuit_study import study
    from interp.studies.study_config import StudyConfig

    config = StudyConfig.asked(options)
    return study(run, ops=options.ops, config=config, seed=options.seed, fresh=fresh, progress=progress)
