"""The stage `circuit`: a circuit an instruction, attention → circuits.parquet, circuits/, attention.safetensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pandas as pd

from interp.runs import Run
from interp.studies.holding import Progress, quiet

if TYPE_CHECKING:
    from interp.circuits.faithfulness import Ablation as CircuitAblation
    from interp.circuits.faithfulness import Grid
    from interp.circuits.parts import Level
    from interp.studies.circuit_study import Measure


def circuit_stage(
    run: Run,
    *,
    ops: Sequence[str] = (),
    n_pairs: int = 128,
    seed: int = 5,
    measure: Sequence[Measure] = ("dissociation", "roles", "edges"),
    levels: Sequence[Level] = ("neuron",),
    ablations: Sequence[CircuitAblation] = ("resample",),
    freezes: bool = False,
    along: bool = False,
    paths: Sequence[str] = (),
    n_exact_pairs: int = 16,
    n_search_pairs: int = 6,
    method: str = "eap_ig",
    grid: Grid = "log",
    fresh: bool = False,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """A circuit a contrast (an instruction), mean attention patterns, and what else is asked for
    (`interp.studies.circuit_study`); what is on disk already is kept.

    Raises:
        ValueError: a world without contrasts, a model without a graph, or what `study` refuses.
    """
    from interp.circuits import CircuitConfig
    from interp.studies.circuit_study import StudyConfig, study

    config = StudyConfig(
        circuit=CircuitConfig(n_pairs=n_pairs, method=method, grid=grid),
        freezes=freezes,
        measure=tuple(measure),
        levels=tuple(levels),
        ablations=tuple(ablations),
        along=along,
        paths=tuple(paths),
        n_exact_pairs=n_exact_pairs,
        n_search_pairs=n_search_pairs,
    )
    return study(run, ops=ops, config=config, seed=seed, fresh=fresh, progress=progress)
