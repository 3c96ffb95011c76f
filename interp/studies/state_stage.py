"""The stage `patch --part`: state interchange → states.parquet.

Rows are kept after every variable, and the same request goes on where it stopped. With another seed, or other numbers
of pairs, than the file holds, rows are measured and returned beside those that are kept, which stay: so a row of a page
is measured again from the weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from interp.interventions import FITTED, Carrier, SubspaceFit, parts_of, state_rows
from interp.reading import RunError
from interp.results import Metric, records, rows_frame
from interp.runs import Run
from interp.runs.further_frames import STATES
from interp.stage_options import PatchOptions, StateOptions
from interp.studies.holding import Progress, quiet

SUBSPACES = "subspaces"


@dataclass(frozen=True)
class StateRows:
    """What was measured, and what the run holds."""

    asked: pd.DataFrame  # the rows of what was asked for
    kept: pd.DataFrame | None  # those of the file, where they were measured with other settings; None: they are `asked`

    @cached_property
    def headlines(self) -> pd.DataFrame:
        """IIA where the edit changes the answer, pooled over delays and instructions, a line a variable and part."""
        return headlines(self.asked)


def headlines(frame: pd.DataFrame) -> pd.DataFrame:
    """The pooled rows of IIA in the stratum "changes"."""
    pooled = frame["lag"].isna() & frame["op"].isna()
    return frame.loc[pooled & (frame["metric"] == Metric.IIA) & (frame["stratum"] == "changes")]


def state_stage(
    run: Run,
    *,
    variables: Sequence[str] = (),
    parts: Sequence[str] = ("all", "layers", "groups", SUBSPACES),
    n_pairs: int = PatchOptions.n_pairs,
    seed: int = PatchOptions.seed,
    fit: SubspaceFit = SubspaceFit(),  # noqa: B008 (frozen)
    fresh: bool = False,
    progress: Progress = quiet,
) -> StateRows:
    """State interchange of a run.

    Args:
        run: of a task that tells streams.
        variables: the task's `state_variables` where empty.
        parts: names of parts (`carrier_parts`), or of subspaces: probe_subspace, mean_difference, das, or `subspaces`.
        n_pairs: pairs a variable whose answer should change.
        seed: of everything random.
        fit: how subspaces are fitted.
        fresh: replace what the file holds.
        progress: called with (variables done, of how many, what is going on).

    Raises:
        RunError: the task tells no stream.
        ValueError: an unknown variable or part, or a model that carries nothing.
    """
    if not run.task.has_state_pairs:
        raise RunError(f"the task {run.task.name} tells no stream through which a state is carried")
    carrier = Carrier.of(run.model)
    wanted = [name for part in parts for name in (FITTED if part == SUBSPACES else (part,))]
    fitted = [name for name in wanted if name in FITTED] if carrier.is_state else []
    masks = [part.name for part in parts_of(carrier, [name for name in wanted if name not in FITTED])]
    names = list(variables) or run.task.state_variables()
    for name in names:
        run.task.world.settable(name)
    settings = json.loads(json.dumps({"n_pairs": n_pairs, "seed": seed, "fit": vars(fit)}))
    kept = None if fresh else _current(run)
    other = kept is not None and kept.attrs["provenance"].get("settings") != settings
    rows: list[dict[str, Any]] = [] if kept is None or other else records(kept)
    untrained = run.untrained_model() if fitted else None
    for done, name in enumerate(names):
        have = {row["part"] for row in rows if row["variable"] == name}
        left = [part for part in masks if part not in have]
        methods = [method for method in fitted if str(method) not in have]
        progress(done, len(names), name)
        if not left and not methods:
            continue
        rows += state_rows(
            run.model,
            run.task,
            name,
            parts=left,
            methods=methods,
            n_pairs=n_pairs,
            seed=seed,
            untrained=untrained,
            fit=fit,
            report=lambda share, done=done, name=name: progress(done + share, len(names), name),
        )
        if not other:
            STATES.write(run, rows_frame(rows), settings=settings)
    asked = rows_frame(row for row in rows if row["variable"] in names)
    return StateRows(asked, kept if other else None)


def carried_stage(
    run: Run,
    options: StateOptions = StateOptions(),  # noqa: B008 (frozen)
    *,
    progress: Progress = quiet,
) -> pd.DataFrame:
    """`state_stage` as one verb of many, which keeps what the run holds."""
    return state_stage(run, **vars(options), progress=progress).asked


def _current(run: Run) -> pd.DataFrame | None:
    """The rows of the run's file, None where it has none of these weights."""
    try:
        frame = STATES.read(run)
    except RunError:
        return None
    return frame if frame.attrs["provenance"].get("step") == run.step else None
