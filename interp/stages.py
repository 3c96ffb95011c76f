"""The stages of a run: each measures one thing, writes its files whole, and is skipped when they are already there.

    evaluate    exact match on held-out programs        → metrics.parquet
    probe       variables x layers x positions          → probes.parquet, probe_errors.parquet, probes.safetensors
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
from interp.interventions import (
    Site,
    deepen,
    default_position_sets,
    jobs_done,
    named_sites,
    run_interventions,
    site_column,
)
from interp.interventions import default_variables as default_swaps
from interp.reading import read_tensors, reading
from interp.results import Aggregation, Method, Metric, records, rows_frame
from interp.runs import Run, RunError, require_next_state
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


def held(run: Run, kind: str, settings: dict[str, Any]) -> pd.DataFrame | None:
    """As `measured`, but what was measured on these weights with other settings is not replaced: RunError says how."""
    if (frame := measured(run, kind, settings)) is not None:
        return frame
    try:
        found = run.frame(kind).attrs["provenance"]
    except RunError:
        return None
    others, asked = found.get("settings"), json.loads(json.dumps(settings))
    if found.get("step") != run.step or others is None:
        return None
    names = [name for name in {**others, **asked} if others.get(name) != asked.get(name)]
    have, want = (", ".join(f"{name} {json.dumps(each.get(name))}" for name in names) for each in (others, asked))
    raise RunError(
        f"{run.path} holds {kind} measured with {have}, and {want} is asked for; give the same, or replace them with "
        "--fresh"
    )


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
    curve = run.frame("metrics")
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
    controls: bool = True,
    seed: int = 3,
    fresh: bool = False,
    progress: Progress = _quiet,
) -> pd.DataFrame:
    """The probe sweep, over single steps or streams (`interp.probing.stage`). `n` defaults to 4,000 states or 16,000
    tokens, `n_edits` to 64."""
    from interp.probing import SweepConfig
    from interp.probing.stage import probe_run

    streams = run.config.task == "trace"
    config = SweepConfig(
        variables=tuple(variables),
        places=tuple(positions),
        hooks=tuple(hooks),
        methods=tuple(methods),
        n=(16_000 if streams else 4_000) if n is None else n,
        seed=seed,
        controls=controls,
    )
    edits = 64 if n_edits is None else n_edits
    return probe_run(run, config=config, n_edits=edits, fresh=fresh, progress=progress)


def probe_subspaces(run: Run, variables: Sequence[str]) -> dict[tuple[str, Site], torch.Tensor]:
    """Probe directions on disk, for variables that can be set, after the embedding; {} where none were fitted."""
    file = run.path / SUBSPACES
    if not file.exists():
        return {}
    found = {}
    for key, basis in read_tensors(file, "pt")[0].items():
        with reading(file, "a file of probe directions"):
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
    hooks: Sequence[str] = (),
    positions: Sequence[str] = (),
    places: int = 1,
    rank: int = 4,
    n_pairs: int = 256,
    seed: int = 4,
    fresh: bool = False,
    progress: Progress = _quiet,
) -> pd.DataFrame:
    """Interchange interventions, saved after every sweep, so that an interrupted stage goes on where it stopped.

    `methods` (of `interp.interventions.METHODS`) and `pairs_of` ("op+operand") go on from the sweep of whole vectors,
    at the `places` best places of each variable. `hooks` ("mlp.hook_post", "attn.hook_z[*]") and `positions` sweep
    further sites, and the best places are then taken among those.

    Raises:
        RunError: the run's task is another, or it holds swaps with another `n_pairs` or `seed`, and not `fresh`.
        ValueError: an unknown variable, hook or set of positions.
    """
    require_next_state(run, "interchange")
    sites: list[Site] = []
    if hooks or positions:
        streams = ["blocks.0.hook_resid_pre", "hook_resid_post"]
        sites = named_sites(run.model, hooks or streams, positions or default_position_sets(run.config.spec))
    groups = [tuple(group.split("+")) for group in pairs_of]
    for name in {name for group in groups for name in group}:
        variable(run.config.spec, name)
    names = list(variables) or default_swaps(run.config.spec)
    swept = list(dict.fromkeys([*names, *(name for group in groups for name in group)]))
    settings = {"n_pairs": n_pairs, "seed": seed}
    frame = None if fresh else held(run, "interventions", settings)
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
    for some in _unswept(sites, swept, rows):
        run_interventions(
            run.model,
            run.task,
            variables=swept,
            sites=some,
            designs=("independent",),
            n_pairs=n_pairs,
            seed=seed,
            untrained=untrained,
            save=lambda new: save([row for row in new if row["metric"] != Metric.REDRAW_RATE]),
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
            sites=sites,
            places=places,
            rank=rank,
            n_pairs=n_pairs,
            untrained=untrained,
            done=jobs_done(rows),
            seed=seed,
            save=save,
            progress=progress,
        )
    return run.frame("interventions")


def _unswept(sites: Sequence[Site], variables: Sequence[str], rows: Sequence[dict[str, Any]]) -> list[list[Site]]:
    """The sites at which some variable was not swapped, hook by hook."""
    seen = {(row["variable"], row["site"], row["position"]) for row in rows if row.get("method") == Method.FULL_VECTOR}
    groups: dict[str, list[Site]] = {}
    for site in sites:
        if any((name, site_column(site), site.positions) not in seen for name in variables):
            groups.setdefault(site.hook, []).append(site)
    return list(groups.values())


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
        n_exact_pairs=n_exact_pairs,
        n_search_pairs=n_search_pairs,
    )
    return study(run, ops=ops, config=config, seed=seed, fresh=fresh, progress=progress)
