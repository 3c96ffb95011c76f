"""The stages of a run: each measures one thing, writes its files whole, and is skipped when they are already there.

    evaluate    exact match on held-out programs        → metrics.parquet
    probe       variables x layers x positions          → probes.parquet, probes.safetensors
    patch       interchange interventions               → interventions.parquet
    circuit     a circuit an instruction, attention     → circuits.parquet, circuits/, attention.safetensors

A file counts as there when it was measured on these weights (the config's digest and the training step) with the
same settings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from cython_vm import variable
from interp.files import atomic_path
from interp.interventions import Site, deepen, jobs_done, run_interventions
from interp.interventions import default_variables as default_swaps
from interp.results import Aggregation, Metric, read_frame, records, rows_frame
from interp.runs import Run, RunError, provenance, require_next_state
from interp.tasks.base import PairDesign

if TYPE_CHECKING:
    from interp.circuits.evaluation import Ablation as CircuitAblation
    from interp.circuits.parts import Level
    from interp.circuits.study import Measure

Progress = Callable[[float, float, str], None]
EVALUATION_SEED = 2  # of the final figures; the training curve uses another
SUBSPACES = "probes.safetensors"


def _quiet(done: float, total: float, at: str) -> None:
    """Report to nobody."""


def measured(run: Run, kind: str, settings: dict[str, Any]) -> pd.DataFrame | None:
    """The run's frame of this kind if it was measured on these weights with these settings, else None."""
    try:
        frame = run.frame(kind)
    except RunError:
        return None
    found = frame.attrs["provenance"]
    current = found.get("step") == run.step and found.get("settings") == json.loads(json.dumps(settings))
    return frame if current else None


def evaluate_run(
    run: Run,
    *,
    n: int = 20_000,
    seed: int = EVALUATION_SEED,
    programs: int = 0,
    progress: Progress = _quiet,
) -> pd.DataFrame:
    """Exact match, partial credit and calibration on `n` held-out states, as rows of the tidy frame; rollout of as many
    `programs` where the task answers with a state."""
    from interp.evaluation.measure import measure

    return measure(run, n=n, seed=seed, programs=programs, progress=progress).rows


def evaluate_stage(
    run: Run, *, n: int = 20_000, programs: int = 200, fresh: bool = False, progress: Progress = _quiet
) -> pd.DataFrame:
    """The final evaluation, added to the training curve in metrics.parquet. Returns its rows."""
    curve = read_frame(run.path / "metrics.parquet")
    settings = {"evaluated": n, "seed": EVALUATION_SEED, "programs": programs}
    if (before := curve.attrs["provenance"].get("settings", {}).get("evaluated")) is not None:
        headline = (curve["metric"] == Metric.EXACT_MATCH) & (curve["aggregation"] == Aggregation.MACRO)
        final = int(np.flatnonzero(headline & (curve["n"] == before))[-1])
        if not fresh and measured(run, "metrics", settings) is not None:
            return curve.iloc[final:]
        curve = curve.iloc[:final]  # what was evaluated before makes room
    scores = evaluate_run(run, n=n, programs=programs, progress=progress)
    run.write_frame("metrics", pd.concat([curve, scores], ignore_index=True), settings=settings)
    return scores


def probe_stage(
    run: Run,
    *,
    variables: Sequence[str] = (),
    positions: Sequence[str] = (),
    hooks: Sequence[str] = (),
    methods: Sequence[str] = ("logistic",),
    n: int | None = None,
    n_edits: int | None = None,
    seed: int = 3,
    fresh: bool = False,
    progress: Progress = _quiet,
) -> pd.DataFrame:
    """The probe sweep, over single steps or streams; the directions of probes at pointed slots are kept for the
    interventions. `n` defaults to 4,000 states or 16,000 tokens, `n_edits` to none in steps and 64 in streams."""
    from safetensors.torch import save_file

    from interp.probing import StreamSweepConfig, probe_sweep
    from interp.probing.stage import stream_stage

    if run.config.task == "trace":
        config = StreamSweepConfig(
            variables=tuple(variables),
            places=tuple(positions) or StreamSweepConfig.places,
            hooks=tuple(hooks),
            methods=tuple(methods),
            n=StreamSweepConfig.n if n is None else n,
            seed=seed,
        )
        edits = 64 if n_edits is None else n_edits
        return stream_stage(run, config=config, n_edits=edits, fresh=fresh, progress=progress)
    require_next_state(run, "the probe sweep")
    settings = {
        "variables": list(variables),
        "positions": list(positions),
        "methods": list(methods),
        "n": 4_000 if n is None else n,
        "seed": seed,
    }
    if hooks:
        settings["hooks"] = list(hooks)
    if n_edits:
        settings["n_edits"] = n_edits
    if not fresh and (found := measured(run, "probes", settings)) is not None:
        return found
    sweep = probe_sweep(
        run.model,
        run.task,
        untrained=run.untrained_model(),
        variables=variables,
        positions=positions,
        hooks=hooks,
        methods=methods,
        n=4_000 if n is None else n,
        n_edits=n_edits or 0,
        seed=seed,
        progress=progress,
    )
    tensors = {f"{name}|{site.hook}|{site.positions}": basis for (name, site), basis in sweep.subspaces.items()}
    with atomic_path(run.path / SUBSPACES) as temporary:
        save_file(tensors, temporary, metadata={"provenance": json.dumps(provenance(run.config, step=run.step))})
    frame = rows_frame(sweep.rows)
    run.write_frame("probes", frame, settings=settings)
    return run.frame("probes")


def probe_subspaces(run: Run, variables: Sequence[str]) -> dict[tuple[str, Site], torch.Tensor]:
    """Probe directions on disk, for variables that can be set, after the embedding; {} where none were fitted."""
    from safetensors.torch import load_file

    file = run.path / SUBSPACES
    if not file.exists():
        return {}
    found = {}
    for key, basis in load_file(file).items():
        name, hook, positions = key.split("|")
        wanted = name in variables and positions in ("instructions[@instruction_ptr]", "cells[@array_ptr]")
        if wanted and variable(run.config.spec, name).settable and hook != "blocks.0.hook_resid_pre":
            found[name, Site(hook, positions)] = basis
    return found


def patch_stage(
    run: Run,
    *,
    variables: Sequence[str] = (),
    designs: Sequence[PairDesign] = ("independent",),
    methods: Sequence[str] = (),
    pairs_of: Sequence[str] = (),
    rank: int = 4,
    n_pairs: int = 256,
    seed: int = 4,
    fresh: bool = False,
    progress: Progress = _quiet,
) -> pd.DataFrame:
    """Interchange interventions, saved after every sweep, so that an interrupted stage goes on where it stopped.

    `methods` (of `interp.interventions.METHODS`) and `pairs_of` ("op+operand") go on from the sweep of whole vectors.
    """
    require_next_state(run, "interchange")
    groups = [tuple(group.split("+")) for group in pairs_of]
    for name in {name for group in groups for name in group}:
        variable(run.config.spec, name)
    names = list(variables) or default_swaps(run.config.spec)
    swept = list(dict.fromkeys([*names, *(name for group in groups for name in group)]))
    settings = {"n_pairs": n_pairs, "seed": seed}
    frame = None if fresh else measured(run, "interventions", settings)
    rows = [] if frame is None else records(frame)
    done = {(row["variable"], row["pair_design"]) for row in rows if row["metric"] == Metric.REDRAW_RATE}
    untrained = run.untrained_model()

    def save(new: list[dict[str, Any]]) -> None:
        rows.extend(new)
        run.write_frame("interventions", rows_frame(rows), settings=settings)

    run_interventions(
        run.model,
        run.task,
        variables=swept,
        designs=designs if not (methods or groups) else tuple(dict.fromkeys(["independent", *designs])),
        n_pairs=n_pairs,
        seed=seed,
        subspaces=probe_subspaces(run, swept),
        untrained=untrained,
        done=done,
        save=save,
        progress=progress,
    )
    if methods or groups:
        deepen(
            run.model,
            run.task,
            rows,
            variables=names,
            methods=methods,
            pairs_of=groups,
            rank=rank,
            n_pairs=n_pairs,
            untrained=untrained,
            done=jobs_done(rows),
            seed=seed,
            save=save,
            progress=progress,
        )
    return run.frame("interventions")


def circuit_stage(
    run: Run,
    *,
    ops: Sequence[str] = (),
    n_pairs: int = 128,
    seed: int = 5,
    measure: Sequence[Measure] = ("dissociation", "roles"),
    levels: Sequence[Level] = ("neuron",),
    ablations: Sequence[CircuitAblation] = ("resample",),
    freezes: bool = False,
    along: bool = False,
    paths: Sequence[str] = (),
    fresh: bool = False,
    progress: Progress = _quiet,
) -> pd.DataFrame:
    """A circuit an instruction, mean attention patterns, and what else is asked for (`interp.circuits.study`); what is
    on disk already is kept."""
    from interp.circuits import CircuitConfig
    from interp.circuits.study import StudyConfig, study

    require_next_state(run, "the search for circuits")
    config = StudyConfig(
        circuit=CircuitConfig(n_pairs=n_pairs),
        freezes=freezes,
        measure=tuple(measure),
        levels=tuple(levels),
        ablations=tuple(ablations),
        along=along,
        paths=tuple(paths),
    )
    return study(run, ops=ops, config=config, seed=seed, fresh=fresh, progress=progress)
