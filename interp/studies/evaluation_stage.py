"""The stage `evaluate`: exact match on held-out units, added to the training curve in metrics.parquet."""

from __future__ import annotations

import numpy as np
import pandas as pd

from interp.results import Aggregation, Metric
from interp.runs import Run
from interp.stage_options import EvaluationOptions
from interp.studies.holding import Progress, measured, quiet


def evaluate_run(
    run: Run,
    options: EvaluationOptions = EvaluationOptions(),  # noqa: B008 (frozen)
    *,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """Exact match, partial credit and reliability on held-out states, as rows of the tidy frame; rollout of programs
    where the task answers with a state."""
    from interp.evaluation.measure import measure

    return measure(run, **vars(options), progress=progress).rows


def evaluate_stage(
    run: Run,
    options: EvaluationOptions = EvaluationOptions(),  # noqa: B008 (frozen)
    *,
    fresh: bool = False,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """The final evaluation, added to the training curve in metrics.parquet. Returns its rows."""
    curve = run.frame("metrics")
    made_on = {"hardware": made["hardware"]} if "hardware" in (made := curve.attrs["provenance"]) else {}
    settings = {"evaluated": options.n, "seed": options.seed, "programs": options.programs}
    if (before := curve.attrs["provenance"].get("settings", {}).get("evaluated")) is not None:
        headline = (curve["metric"] == Metric.EXACT_MATCH) & (curve["aggregation"] == Aggregation.MACRO)
        final = int(np.flatnonzero(headline & (curve["n"] == before))[-1])
        if not fresh and measured(run, "metrics", settings) is not None:
            return curve.iloc[final:]
        curve = curve.iloc[:final]  # what was evaluated before makes room
    scores = evaluate_run(run, options, progress=progress)
    run.write_frame("metrics", pd.concat([curve, scores], ignore_index=True), settings=settings, **made_on)
    return scores
