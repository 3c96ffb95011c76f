"""The probe stage of a run, and of any run at every checkpoint that it kept.

    probes.parquet         every accuracy beside its controls, code length, edits, localisation
    probe_errors.parquet   confusion counts and worst examples (`interp.runs.probe_errors`)
    probes.safetensors     directions of probes at pointed slots, for the interventions

All three are written after every hook, and the same request goes on where it stopped.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save_file

from interp.files import atomic_path
from interp.probing import HookResult, SweepConfig, default_hooks, directions, sweep_hooks
from interp.probing.editing import edit_rows, wrong_hooks
from interp.probing.edits import EditPairs
from interp.probing.readout import Edit
from interp.reading import read_tensors
from interp.results import Aggregation, Metric, records, rows_frame, select
from interp.runs import Run, RunError, provenance
from interp.runs.probe_errors import read_errors, write_errors
from interp.studies.holding import held
from interp.studies.read_and_written import WINDOW, localisation_rows
from interp.tasks import macro_average

Progress = Callable[[float, float, str], None]
SUBSPACES = "probes.safetensors"
_log = logging.getLogger(__name__)


def probe_run(
    run: Run,
    *,
    config: SweepConfig,
    n_edits: int = 0,
    edits: Sequence[Edit] = ("mean",),
    fresh: bool = False,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Probe a run, with edits along its linear probes, into the run's folder. Returns the frame of probes.parquet.

    Args:
        run: of any task.
        config: what to probe for, where and how.
        n_edits: pairs that the edits of a variable are judged on; 0, or a world without `do`: none.
        edits: ways of editing (`readout`).
        fresh: measure again what the files hold already.
        progress: called with (done, of how many, what is going on).

    Raises:
        RunError: it holds probes with other settings, and not `fresh`.
        ValueError: as the sweep.
    """
    kept = _Kept.of(run, asdict(config) | {"n_edits": n_edits, "edits": list(edits)}, fresh=fresh)
    done = {(row["site"], row["position"], row["method"]) for row in kept.rows}
    away = wrong_hooks(list(config.hooks) or default_hooks(run.model))
    pairs: dict[str, EditPairs] = {}

    def skip(hook: str, place: str, method: str) -> bool:
        return (hook, place, method) in done

    untrained = run.untrained_model() if config.controls else None
    results = sweep_hooks(run.model, run.task, untrained=untrained, config=config, skip=skip, progress=progress)
    for result in results:
        kept.add(result)
        if n_edits and result.readouts:
            kept.rows += edit_rows(
                run.model,
                run.task,
                result,
                other_hook=away[result.hook],
                n_pairs=n_edits,
                seed=config.seed + 1,
                kinds=edits,
                pairs=pairs,
            )
        kept.write()
    if n_edits and not kept.complete:
        kept.complete_with(localisation_rows(rows_frame(kept.rows)))
    _log.info("%s: %d probes, %.0f MB resident at most", run.name, n_probes(kept.rows), peak_megabytes())
    return run.frame("probes")


@dataclass
class _Kept:
    """What the three files of a run hold, to which a sweep adds hook by hook."""

    run: Run
    settings: dict[str, Any]
    rows: list[dict[str, Any]]
    errors: list[dict[str, Any]]
    subspaces: dict[str, torch.Tensor]
    complete: bool  # whether the rows hold what is made of the whole

    @classmethod
    def of(cls, run: Run, settings: dict[str, Any], *, fresh: bool) -> _Kept:
        """Raises RunError where the run holds probes with other settings, and not `fresh`."""
        found = None if fresh else held(run, "probes", settings)
        rows = [] if found is None else records(found)
        complete = any(row["stratum"] == WINDOW for row in rows)
        rows = [row for row in rows if row["stratum"] != WINDOW]  # made anew from the whole
        errors: list[dict[str, Any]] = []
        if rows:
            try:
                errors = _plain(read_errors(run))
            except RunError:
                rows, complete = [], False
        subspaces = _stored(run.path / SUBSPACES) if rows and not run.task.token_places() else {}
        return cls(run, settings, rows, errors, subspaces, complete)

    def add(self, result: HookResult) -> None:
        """Take in a hook; some of its places may have been there."""
        self.complete = False
        self.rows = [row for row in self.rows if not _of(row, result)] + result.rows
        self.errors = [row for row in self.errors if not _of(row, result)] + result.errors
        if not self.run.task.token_places():  # else there are no directions at single positions
            found = directions(self.run.task, result)
            new = {f"{name}|{site.hook}|{site.positions}": basis for (name, site), basis in found.items()}
            self.subspaces = new | self.subspaces  # those of the first linear method stay

    def write(self) -> None:
        """All three files."""
        self.run.write_frame("probes", rows_frame(self.rows), settings=self.settings)
        write_errors(self.run, self.errors, settings=self.settings)
        if not self.run.task.token_places():
            with atomic_path(self.run.path / SUBSPACES) as temporary:
                header = {"provenance": json.dumps(provenance(self.run.config, step=self.run.step))}
                save_file(self.subspaces, temporary, metadata=header)

    def complete_with(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write the frame with what is made of the whole."""
        self.run.write_frame("probes", rows_frame([*self.rows, *rows]), settings=self.settings)


def n_probes(rows: Sequence[dict[str, Any]]) -> int:
    """How many probes of true labels a sweep's rows report: among so many, the best is chosen."""
    kinds = ("variable", "site", "position", "method")
    return len(
        {
            tuple(row[k] for k in kinds)
            for row in rows
            if row["metric"] == Metric.ACCURACY and row.get("control") is None
        }
    )


def peak_megabytes() -> float:
    """The most memory that this process has held at once, in MB of 10^6 bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _of(row: dict[str, Any], result: HookResult) -> bool:
    """Whether a row of an earlier attempt is about what this result measured again."""
    here = row["site"] == result.hook and row["position"] in result.places
    return here and result.method in (row["method"], row.get("granularity"))


def _stored(path: Path) -> dict[str, torch.Tensor]:
    return read_tensors(path, "pt")[0] if path.exists() else {}


def _plain(errors: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as they were before they were written: absent is None, a start is a list."""
    rows: list[dict[str, Any]] = errors.astype(object).to_dict("records")  # type: ignore[assignment]
    for row in rows:
        row["start"] = None if row["start"] is None else list(row["start"])
        for name in ("margin", "step"):
            row[name] = None if pd.isna(row[name]) else row[name]
        row["step"] = None if row["step"] is None else int(row["step"])
    return rows


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
            rows = pd.concat([rows, rows_frame(behaviour(then))], ignore_index=True)
            then.write_frame("probes", rows, settings=settings)
        frames.append(then.frame("probes"))
    progress(len(run.steps), len(run.steps), "")
    return pd.concat(frames, ignore_index=True)


@torch.no_grad()
def behaviour(run: Run, *, n: int = 512, seed: int = 2) -> list[dict[str, Any]]:
    """Exact match on held-out examples of a model while it learns: macro over strata, and for each instruction."""
    weights = run.task.strata_weights("op_outcome")
    batch = run.task.sample(n, seed=seed, split="evaluation", weights=weights)
    scores = run.task.score(run.task.answer(run.model, batch), batch)
    exact = select(scores, metric=Metric.EXACT_MATCH)
    rows: list[dict[str, Any]] = []
    for op in [None, *dict.fromkeys(exact["op"].dropna())]:
        part = exact if op is None else select(exact, op=op)
        rows.append(
            {
                "op": op,
                "metric": Metric.EXACT_MATCH,
                "aggregation": Aggregation.MACRO,
                "estimate": macro_average(part),
                "n": int(part["n"].to_numpy().sum()),
            }
        )
    return rows
