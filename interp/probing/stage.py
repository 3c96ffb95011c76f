"""The probe stage of a run on streams, and of any run at every checkpoint that it kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd
import torch

from interp.probing.editing import EditPairs, edit_stream_rows, wrong_hooks
from interp.probing.readout import Edit
from interp.probing.steps import residual_hooks
from interp.probing.streams import StreamSweepConfig, stream_sweep
from interp.results import Aggregation, Metric, records, rows_frame, select
from interp.runs import Run, RunError
from interp.tasks import macro_average
from interp.tasks.trace import Trace

Progress = Callable[[float, float, str], None]


def stream_stage(
    run: Run,
    *,
    config: StreamSweepConfig,
    n_edits: int = 64,
    edits: Sequence[Edit] = ("mean",),
    fresh: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Probes and edits of a `trace` run, saved after every hook, so that an interrupted sweep goes on.

    n_edits: pairs that the edits of a variable are judged on; 0: none. edits: ways of editing (`readout`).
    """
    from interp.stages import measured

    task = run.task
    if not isinstance(task, Trace):
        raise RunError(f"{run.path} was trained on the task {run.config.task}, whose examples are no streams")
    settings = asdict(config) | {"n_edits": n_edits, "edits": list(edits)}
    found = None if fresh else measured(run, "probes", settings)
    rows = [] if found is None else records(found)
    done = {(row["site"], row["position"], row["method"]) for row in rows}
    hooks = list(config.hooks) or residual_hooks(run.model.cfg.n_layers)
    away = wrong_hooks(hooks)
    pairs: dict[str, EditPairs] = {}
    results = stream_sweep(
        run.model,
        task,
        untrained=run.untrained_model(),
        config=config,
        skip=lambda hook, place, method: (hook, place, method) in done,
        progress=progress,
    )
    for result in results:
        rows += result.rows
        if n_edits and result.readouts:
            rows += edit_stream_rows(
                run.model,
                task,
                result.readouts,
                hook=result.hook,
                other_hook=away[result.hook],
                method=result.method,
                n_pairs=n_edits,
                seed=config.seed + 1,
                kinds=edits,
                pairs=pairs,
            )
        run.write_frame("probes", rows_frame(rows), settings=settings)
    return run.frame("probes")


def probe_along(run: Run, stage: Callable[[Run, Progress], pd.DataFrame], *, progress: Progress) -> pd.DataFrame:
    """`stage` at every checkpoint that the run kept, with the behaviour there; each has its own steps/STEP/ folder.

    Raises:
        RunError: the run kept no checkpoints.
    """
    if not run.steps:
        raise RunError(f"{run.path} keeps no checkpoints along its training: train with --training.steps-along N")
    frames = []
    for index, step in enumerate(run.steps):

        def report(done: float, total: float, at: str, index: int = index, step: int = step) -> None:
            progress(index + done / max(1, total), len(run.steps), f"step {step}: {at}")

        then = run.at_step(step)
        rows = stage(then, report)
        if select(rows, metric=Metric.EXACT_MATCH).empty:
            settings = rows.attrs["provenance"].get("settings")
            rows = pd.concat([rows, rows_frame([behaviour(then)])], ignore_index=True)
            then.write_frame("probes", rows, settings=settings)
        frames.append(then.frame("probes"))
    progress(len(run.steps), len(run.steps), "")
    return pd.concat(frames, ignore_index=True)


@torch.no_grad()
def behaviour(run: Run, *, n: int = 256, seed: int = 2) -> dict[str, Any]:
    """A row: exact match on held-out examples, macro over strata, of a model while it learns."""
    batch = run.task.sample(n, seed=seed, split="evaluation")
    scores = run.task.score(run.task.answer(run.model, batch), batch)
    return {
        "metric": Metric.EXACT_MATCH,
        "aggregation": Aggregation.MACRO,
        "estimate": macro_average(scores),
        "n": int(select(scores, metric=Metric.EXACT_MATCH)["n"].to_numpy().sum()),
    }
