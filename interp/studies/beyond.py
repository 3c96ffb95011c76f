"""Beyond the trained length: the same weights on longer runs, on a world with room for them.

A run of twice as many executed instructions is told in twice as many tokens; its program and its buffers get twice the
room, the tape stays. Nothing is trained further, and the rule of what is held out stays: streams of the longer world
have units of their own. Runs end early where the world freezes or halts, so that how long the drawn ones really are is
a row beside their score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from interp.models import resize
from interp.ranges import require_count
from interp.reading import RunError
from interp.results import Aggregation, Metric, records, rows_frame
from interp.runs import Run
from interp.runs.further_frames import BEYOND
from interp.stage_options import BeyondOptions
from interp.tasks import TASKS, Batch, Task
from interp.training.scoring import evaluate
from interp.worlds import as_world

Progress = Callable[[float, float, str], None]
_TAPE = "tape"  # the group of sizes that stays: a longer tape would be another language of cells


def longer_task(task: Task, n_steps: int) -> Task:
    """The task with runs of `n_steps`, on a world whose program and buffers have grown as much.

    Raises:
        RunError: the task tells no runs.
    """
    require_count("n_steps", n_steps)
    if not task.tells_stream:
        raise RunError(f"the task {task.name} tells no runs, which could be longer")
    trained = task.n_steps  # type: ignore[attr-defined]
    settings = task.world.to_dict()
    for group, names in task.world.sizes().items():
        if group != _TAPE:
            settings |= {name: math.ceil(settings[name] * n_steps / trained) for name in names}
    world = as_world(type(task.world).from_dict(settings))
    return TASKS[task.name](world, replace(task.options, n_steps=n_steps))


def beyond_curve(
    run: Run,
    n_steps: Sequence[int],
    *,
    n: int = BeyondOptions.n,
    seed: int = BeyondOptions.seed,
    progress: Progress = lambda done, total, at: None,
) -> pd.DataFrame:
    """Exact match by the number of executed instructions, on held-out runs.

    Args:
        run: of a task that tells runs. Its model is resized (`interp.models.resize`).
        n_steps: lengths, in executed instructions; the trained one is measured too.
        n, seed: of the runs of each length.
        progress: called with (lengths done, of how many, which).

    Returns:
        Rows of the tidy frame, `stratum` the length ("48 steps"): macro averages of exact match over op × outcome,
        whole runs where the task counts them, and the mean number of executed instructions (metric `run_steps`).

    Raises:
        RunError: the task tells no runs.
    """
    require_count("n", n)
    task = run.task
    if not task.tells_stream:
        raise RunError(f"the task {task.name} tells no runs, which could be longer")
    lengths = sorted({task.n_steps, *n_steps})  # type: ignore[attr-defined]
    rows: list[dict[str, Any]] = []
    world: Any = run.config.world  # whose programs run, as those of every task that tells streams do
    for done, length in enumerate(lengths):
        progress(done, len(lengths), f"{length} steps")
        longer = longer_task(task, length)
        model = resize(run.model, replace(run.model.cfg, n_ctx=longer.n_ctx))
        spans: list[np.ndarray] = []

        def note(
            batch: Batch, answer: Any, first: int, *, spans: list[np.ndarray] = spans, length: int = length
        ) -> None:
            spans.append(world.run(batch.examples, length, keep="last").n_steps)

        found = records(evaluate(model, longer, n=n, seed=seed, observers=[note]))
        kept = [row for row in found if row["aggregation"] == Aggregation.MACRO]
        kept += [row for row in found if row["metric"] == Metric.SEQUENCE_MATCH]
        rows += [row | {"stratum": f"{length} steps"} for row in kept]
        steps = np.concatenate(spans)
        rows.append(
            {
                "metric": Metric.RUN_STEPS,
                "aggregation": Aggregation.MEAN,
                "estimate": float(steps.mean()),
                "n": len(steps),
                "stratum": f"{length} steps",
            }
        )
    return rows_frame(rows)


def beyond_stage(
    run: Run,
    options: BeyondOptions = BeyondOptions(),  # noqa: B008 (frozen)
    *,
    fresh: bool = False,
    progress: Progress = lambda done, total, at: None,
) -> pd.DataFrame:
    """`beyond_curve` kept in RUN/beyond.parquet; the same request reads what is there."""
    settings = {"n_steps": list(options.n_steps), "n": options.n, "seed": options.seed}
    if not fresh:
        try:
            frame = BEYOND.read(run)
        except RunError:
            pass
        else:
            made = frame.attrs["provenance"]
            if made.get("settings") == settings and made.get("step") == run.step:
                return frame
    rows = beyond_curve(run, options.n_steps, n=options.n, seed=options.seed, progress=progress)
    BEYOND.write(run, rows, settings=settings)
    return rows
