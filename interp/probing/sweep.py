"""The probe sweep: variables x layers x places of a model, each probe beside its controls.

Probes are fitted on units of the training split and scored on units of the evaluation split, drawn evenly over the
world's strata where examples belong to any; `targets` lists the controls. A place is one position of each example, or
a set of tokens that are pooled (`places`). Examples are drawn, labelled and run through the model a batch at a time,
and activations wait in files until their site is fitted: memory holds the labels and one site.

A family of variables whose members are all probed is also scored as a whole (the tape of a machine): accuracy pools the
members, also by the steps since the tokens last revealed them (`stratum`), and joint exactness is the share of tokens
at which every member is right at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from interp.probing.activation_files import ActivationFiles
from interp.probing.activations import position_axis, read_tokens
from interp.probing.draw import Chosen, draw_examples
from interp.probing.editing import edit_rows, wrong_hooks
from interp.probing.estimators import check_methods
from interp.probing.examples import Examples, HookResult, SweepConfig, check_hooks, to_fit
from interp.probing.places import places_to_edit
from interp.probing.targets import Targets
from interp.ranges import counted
from interp.stage_options import ProbeOptions
from interp.tasks import Batch, Task
from interp.tasks.sites import Site
from interp.worlds import Variable
from interp.worlds.base import Split

Progress = Callable[[float, float, str], None]
SPLITS: tuple[tuple[str, Split], ...] = (("fit", "train"), ("held", "evaluation"))
_EMBEDDING = "hook_embed"  # where the embedding is read in a model without a residual stream


@dataclass(frozen=True)
class ProbeSweep:
    """What a sweep found."""

    rows: list[dict[str, Any]]
    subspaces: dict[tuple[str, Site], Tensor]  # (variable, pointed site) -> orthonormal rows [rank, d_model]


def default_hooks(model: Any) -> list[str]:
    """The residual stream before the first layer and after each, or the carry after each step of a loop.

    Raises:
        ValueError: the model has neither.
    """
    if not (hooks := model.residual_hooks() or model.step_hooks()):
        raise ValueError(
            f"the architecture {model.cfg.architecture} has no residual stream; say at which hooks to probe"
        )
    return list(hooks)


def sweep_hooks(
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
    """Fit and score probes at one hook after the other, at all places of each.

    Args:
        model: the hooked model, in eval mode.
        task: draws the examples and knows the world.
        untrained: the same architecture with the weights that training began from; None without controls.
        config: what to probe for, where and how.
        skip: (hook, place, method) that are measured already; a hook is left out where all of its places are.
        progress: called with (hooks done, of how many, what is going on).
        scratch: where files of activations are put while the sweep runs (default: the system's place for such).
        code_length: with the controls, measure code lengths too.

    Raises:
        ValueError: an unknown method, variable, place or hook, a name of several positions, a variable with one value
            at a place, or too few units.
    """
    asked = _Asked.of(model, task, config)
    hooks, places = asked.hooks, asked.places
    todo = [(h, m) for m in config.methods for h in hooks if not all(skip(h, place, m) for place in places)]
    total, done = len(hooks) * len(config.methods), len(hooks) * len(config.methods) - len(todo)
    report = progress or (lambda done, total, at: None)
    report(done, total, "activations")
    if not todo:
        return
    embedding = (*model.residual_hooks(), _EMBEDDING)[0]
    first = [embedding] if embedding in model.hook_dict else []
    models = {"model": model} | ({"untrained": untrained} if config.controls else {})
    with TemporaryDirectory(dir=scratch, prefix="tapelens-activations-") as folder:
        files = ActivationFiles(Path(folder))
        wanted = list(dict.fromkeys(first + [hook for hook, _ in todo]))
        keeping = partial(_keeping, models, wanted, files)
        targets = _drawn(task, config, asked, keeping, tell=lambda at: report(done, total, f"activations {at}"))

        def read(who: str, hook: str, place: str) -> dict[str, Tensor]:
            return {part: to_fit(files.read((who, part, place, hook))) for part, _ in SPLITS}

        for hook, method in todo:
            rows, errors, readouts = [], [], {}
            for index, place in enumerate(places):
                report(done + index / len(places), total, f"{method}, {hook}, {place}")
                if hook != embedding and first:
                    targets[place].embed(method, lambda place=place: read("model", embedding, place))
                blank = read("untrained", hook, place) if config.controls else None
                x = read("model", hook, place)
                found = targets[place].measure(
                    hook, method, x, blank, is_embedding=hook == embedding, code_length=code_length, task=task
                )
                rows += found[0]
                errors += found[1]
                readouts |= found[2]
            done += 1
            yield HookResult(hook, places, method, rows, errors, readouts)
    report(total, total, "")


@dataclass(frozen=True)
class _Asked:
    """What a sweep is asked, checked against the model and the task."""

    names: list[str]
    variables: dict[str, Variable]  # all that the world lists, and those asked for
    places: tuple[str, ...]
    hooks: list[str]

    @classmethod
    def of(cls, model: Any, task: Task, config: SweepConfig) -> _Asked:
        """ValueError on an unknown method, hook or variable."""
        check_methods(config.methods)
        check_hooks(model, config.hooks)
        for hook in config.hooks:
            position_axis(model, hook)
        names = list(config.variables) or task.variables()
        # also those that a world knows and does not list, such as cells by their offset from the pointer
        variables = {**task.world.variables(), **{name: task.world.variable(name) for name in names}}
        return cls(
            names,
            variables,
            tuple(config.places or task.probe_places()),
            list(config.hooks) or default_hooks(model),
        )


def _drawn(
    task: Task,
    config: SweepConfig,
    asked: _Asked,
    keeping: Callable[[str], Callable[[Batch, Chosen], None]],
    *,
    tell: Callable[[str], None],
) -> dict[str, Targets]:
    """What probes are fitted to at each place, from examples drawn for it; `keeping` takes their activations."""
    drawn: dict[str, dict[str, Examples]] = {}
    for part, split in SPLITS:
        drawn[part] = draw_examples(
            task,
            config.n // 2 if part == "fit" else config.n - config.n // 2,
            variables=asked.names,
            places=asked.places,
            per_example=config.per_stream,
            seed=config.seed,
            split=split,
            each=keeping(part),
            tell=lambda share, part=part: tell(f"to {part}, {share:.0%}"),
        )
    return {
        place: Targets.of(
            asked.names,
            asked.variables,
            drawn["fit"][place],
            drawn["held"][place],
            at=place,
            seed=config.seed,
            controls=config.controls,
            asked=bool(config.variables),
        )
        for place in asked.places
    }


def _keeping(
    models: dict[str, Any], hooks: Sequence[str], files: ActivationFiles, part: str
) -> Callable[[Batch, Chosen], None]:
    """What is done with every batch that is drawn: the activations of each model at every site go to files."""

    def keep(batch: Batch, chosen: Chosen) -> None:
        for who, model in models.items():
            for (place, hook), x in read_tokens(model, batch.tokens, hooks, chosen).items():
                files.append((who, part, place, hook), x)

    return keep


@counted(n=1, n_edits=0)
def probe_sweep(
    model: Any,
    task: Task,
    *,
    untrained: Any,
    variables: Sequence[str] = (),
    positions: Sequence[str] = (),
    hooks: Sequence[str] = (),
    methods: Sequence[str] = ProbeOptions.methods,
    n: int,
    seed: int = ProbeOptions.seed,
    n_edits: int = 0,
    controls: bool = ProbeOptions.controls,
    subspaces_everywhere: bool = False,
    progress: Progress | None = None,
) -> ProbeSweep:
    """`sweep_hooks` in one call, with the probes' directions and, if asked for, edits along them.

    Args:
        n: examples or tokens in all, half to fit and half to score.
        n_edits: edits along each linear probe where they tell (`editing`), judged by the world; 0: none.
        controls: control task, shuffled labels, altered semantics and untrained model too; no code lengths.
        subspaces_everywhere: keep the probes' directions at every place, not where edits are made alone.

    The other arguments and errors are those of `sweep_hooks` and `SweepConfig`.
    """
    config = SweepConfig(
        tuple(variables), tuple(positions), tuple(hooks), tuple(methods), n=n, seed=seed, controls=controls
    )
    away = wrong_hooks(list(hooks) or default_hooks(model))
    rows: list[dict[str, Any]] = []
    subspaces: dict[tuple[str, Site], Tensor] = {}
    for result in sweep_hooks(model, task, untrained=untrained, config=config, progress=progress, code_length=False):
        rows += result.rows
        subspaces = directions(task, result, everywhere=subspaces_everywhere) | subspaces
        if n_edits:
            rows += edit_rows(model, task, result, other_hook=away[result.hook], n_pairs=n_edits, seed=seed + 1)
    return ProbeSweep(rows, subspaces)


def directions(task: Task, result: HookResult, *, everywhere: bool = False) -> dict[tuple[str, Site], Tensor]:
    """What the linear probes of a hook read at positions where edits are made, or everywhere: orthonormal rows
    [rank, d_model] by (variable, site)."""
    positions = [place for place in result.places if place not in task.token_places()]
    kept = set(result.places if everywhere else places_to_edit(task, positions))
    return {
        (name, Site(result.hook, place)): readout.basis
        for (name, place), readout in result.readouts.items()
        if place in kept
    }
