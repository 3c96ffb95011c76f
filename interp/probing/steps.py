"""The probe sweep over single steps: variables x layers x positions of a model, each probe beside its controls.

Probes are fitted on programs of the training split and scored on programs of the evaluation split, both drawn evenly
over op x outcome; `targets` lists the controls. States are drawn, labelled and run through the model a batch at a
time, and activations wait in files until their site is fitted: memory holds the labels and one site.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor

from cython_vm import MachineSpec, States, program_hash, strata_weights, variable
from interp.interventions import Site, collect, resolve
from interp.probing.activation_files import ActivationFiles
from interp.probing.editing import edit_step_rows, wrong_hooks
from interp.probing.estimators import check_methods
from interp.probing.examples import Examples, HookResult, SweepConfig, check_hooks, residual_hooks, to_fit
from interp.probing.semantics import altered_labels
from interp.probing.targets import Targets
from interp.results import Method
from interp.tasks import Task
from interp.tasks.base import Split

Progress = Callable[[float, float, str], None]
_POINTED = {"instruction_ptr": ("instruction_ptr", "instructions"), "array_ptr": ("array_ptr", "cells")}
_CHUNK = 2048  # states that are drawn and run at once


@dataclass(frozen=True)
class ProbeSweep:
    """What a sweep found."""

    rows: list[dict[str, Any]]
    subspaces: dict[tuple[str, Site], Tensor]  # (variable, pointed site) -> orthonormal rows [rank, d_model]


def default_variables(spec: MachineSpec) -> list[str]:
    """Both pointers and every derived variable of one step; single cells and buffer slots left out."""
    names = [name for name in spec.variables() if "[" not in name]
    derived = [name for name in names if variable(spec, name).kind in ("fetch", "decide", "result")]
    return ["instruction_ptr", "array_ptr", *derived]


def default_positions(spec: MachineSpec) -> list[str]:
    """The pointed slots, the first slot of every block, and the opening brace."""
    pointed = [f"{block}[@{pointer}]" for pointer, blocks in _POINTED.items() for block in blocks]
    first = [f"{block}[0]" for block in spec.layout.blocks if f"{block}[0]" in spec.layout.names]
    return [*pointed, *first, "{"]


def answering_positions(task: Task) -> list[str]:
    """Of a causal record: the last token of S_t, and the bracket in S_{t+1} behind which each block is written."""
    brackets = [name for block in task.layout.blocks if (name := f"next.{block}.[") in task.position_names]
    return ["}", *brackets] if brackets else []


def step_sweep(
    model: Any,
    task: Task,
    *,
    untrained: Any,
    config: SweepConfig,
    skip: Callable[[str, str, str], bool] = lambda hook, place, method: False,
    progress: Progress | None = None,
    scratch: Path | None = None,
    code_length: bool = True,
) -> Iterator[HookResult]:
    """Fit and score probes at one hook after the other, at all positions of each.

    Args:
        model: the hooked model, in eval mode.
        task: draws the states and knows the machine.
        untrained: the same architecture with the weights that training began from.
        config: what to probe for, where and how.
        skip: (hook, position, method) that are measured already; a hook is left out where all of its positions are.
        progress: called with (hooks done, of how many, what is going on).
        scratch: where files of activations are put while the sweep runs (default: the system's place for such).
        code_length: with the controls, measure code lengths too.

    Raises:
        ValueError: an unknown method, variable, position or hook, a name of several positions, a variable with one
            value, or too few programs.
    """
    check_methods(config.methods)
    check_hooks(model, config.hooks)
    names = list(config.variables) or default_variables(task.spec)
    for name in names:
        variable(task.spec, name)
    places = config.places or (*default_positions(task.spec), *answering_positions(task))
    hooks = list(config.hooks) or residual_hooks(model.cfg.n_layers)
    todo = [(h, m) for m in config.methods for h in hooks if not all(skip(h, place, m) for place in places)]
    total, done = len(hooks) * len(config.methods), len(hooks) * len(config.methods) - len(todo)
    report = progress or (lambda done, total, at: None)
    report(done, total, "activations")
    if not todo:
        return
    embedding = residual_hooks(0)[0]
    sites = [Site(hook, place) for hook in dict.fromkeys([embedding, *(h for h, _ in todo)]) for place in places]
    models = {"model": model} | ({"untrained": untrained} if config.controls else {})
    with TemporaryDirectory(dir=scratch, prefix="tapelens-activations-") as folder:
        files = ActivationFiles(Path(folder))
        drawn = {}
        for part, split, n in (("fit", "train", config.n // 2), ("held", "evaluation", config.n - config.n // 2)):
            tell = lambda share, part=part: report(done, total, f"activations to {part}, {share:.0%}")  # noqa: E731
            drawn[part] = _draw(task, names, sites, models, files, n, part, split, config.seed, tell)  # type: ignore[arg-type]
        targets = Targets.of(
            names,
            task.spec.variables(),
            drawn["fit"],
            drawn["held"],
            at=places[0] if len(places) == 1 else "every position",
            n_cells=task.spec.n_cells,
            seed=config.seed,
            controls=config.controls,
            asked=bool(config.variables),
        )

        def read(who: str, hook: str, place: str) -> dict[str, Tensor]:
            return {part: to_fit(files.read(f"{who} {part}", Site(hook, place))) for part in drawn}

        for hook, method in todo:
            rows, errors, readouts = [], [], {}
            for index, place in enumerate(places):
                report(done + index / len(places), total, f"{method}, {hook}, {place}")
                if hook != embedding:
                    targets.embed(place, method, read("model", embedding, place))
                blank = read("untrained", hook, place) if config.controls else None
                x = read("model", hook, place)
                found = targets.measure(hook, place, method, x, blank, code_length=code_length)
                rows += found[0]
                errors += found[1]
                readouts |= found[2]
            done += 1
            yield HookResult(hook, places, method, rows, errors, readouts)
    report(total, total, "")


def probe_sweep(
    model: Any,
    task: Task,
    *,
    untrained: Any,
    variables: Sequence[str] = (),
    positions: Sequence[str] = (),
    hooks: Sequence[str] = (),
    methods: Sequence[str] = (Method.LOGISTIC,),
    n: int = 4000,
    seed: int = 3,
    n_edits: int = 0,
    controls: bool = True,
    subspaces_everywhere: bool = False,
    progress: Progress | None = None,
) -> ProbeSweep:
    """`step_sweep` in one call, with the probes' directions and, if asked for, edits along them.

    Args:
        n: states in all, half to fit and half to score.
        n_edits: edits along each linear probe at the pointed slots, judged by the machine (`editing`); 0: none.
        controls: control task, shuffled labels, altered semantics and untrained model too; no code lengths.
        subspaces_everywhere: keep the probes' directions at every position, not at the pointed slots alone.

    The other arguments and errors are those of `step_sweep` and `SweepConfig`.
    """
    config = SweepConfig(
        tuple(variables), tuple(positions), tuple(hooks), tuple(methods), n, seed=seed, controls=controls
    )
    away = wrong_hooks(list(hooks) or residual_hooks(model.cfg.n_layers))
    rows: list[dict[str, Any]] = []
    subspaces: dict[tuple[str, Site], Tensor] = {}
    for result in step_sweep(model, task, untrained=untrained, config=config, progress=progress, code_length=False):
        rows += result.rows
        subspaces = directions(result, everywhere=subspaces_everywhere) | subspaces
        if n_edits:
            rows += step_edits(model, task, result, away, n_pairs=n_edits, seed=seed + 1)
    return ProbeSweep(rows, subspaces)


def directions(result: HookResult, *, everywhere: bool = False) -> dict[tuple[str, Site], Tensor]:
    """What the linear probes of a hook read at pointed slots, or everywhere: orthonormal rows [rank, d_model]."""
    return {
        (name, Site(result.hook, place)): readout.basis
        for (name, place), readout in result.readouts.items()
        if everywhere or "@" in place
    }


def step_edits(
    model: Any, task: Task, result: HookResult, away: dict[str, str], *, n_pairs: int, seed: int
) -> list[dict[str, Any]]:
    """Edits along the probes of a hook at pointed slots, as rows; away: hook -> that of the control `wrong_site`."""
    readouts = {
        (name, Site(result.hook, place)): readout
        for (name, place), readout in result.readouts.items()
        if "@" in place and len(readout.basis)
    }
    return edit_step_rows(model, task, readouts, other_hook=away, method=result.method, n_pairs=n_pairs, seed=seed)


def _draw(
    task: Task,
    names: list[str],
    sites: list[Site],
    models: dict[str, Any],
    files: ActivationFiles,
    n: int,
    part: str,
    split: Split,
    seed: int,
    tell: Callable[[float], None],
) -> Examples:
    """`n` labelled states of a split; the activations of each model at every site go to `files`."""
    weights = strata_weights(task.spec)
    labels, altered, types = np.empty((3, len(names), n), dtype=np.int32)
    states = []
    for start in range(0, n, _CHUNK):
        tell(start / n)
        batch = task.sample(min(_CHUNK, n - start), seed=seed, start=start, split=split, weights=weights)
        if start == 0:
            for site in sites:
                if (width := resolve(task.position_names, site.positions, batch.examples[:1]).shape[1]) != 1:
                    raise ValueError(f"a probe reads one position; {site.positions!r} names {width}")
        states.append(batch.examples)
        rows = slice(start, start + len(batch))
        labels[:, rows] = [task.labels(batch, name) for name in names]
        altered[:, rows] = [altered_labels(batch.examples, name) for name in names]
        types[:, rows] = [task.control_types(batch, name) for name in names]
        for who, model in models.items():
            found = collect(model, batch, sites, position_names=task.position_names)
            for site, x in found.items():
                files.append(f"{who} {part}", site, x[:, 0])
    everything = States.concatenate(states)
    return Examples(
        labels=labels,
        altered=altered,
        types=types,
        programs=program_hash(everything).astype(np.int64),
        starts=everything,
        row=np.arange(n),
        step=np.zeros(n, dtype=np.int64),
        ages=None,
    )
