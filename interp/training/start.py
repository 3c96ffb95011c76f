"""Training that begins with the weights of another run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from interp.runs import Run, RunConfig, RunError, load
from interp.runs.training_config import StartingPoint
from interp.tasks import TASKS


def started_from(config: RunConfig, path: Path) -> RunConfig:
    """The config of a training that begins with the weights of the run at `path`.

    Raises:
        RunError: no whole run there.
        ValueError: its model has another shape or reads other tokens, or the training would draw, by the same seed,
            the records again that the run has seen.
    """
    run = load(path)
    _require_fit(config, run)
    if (config.task, config.world, config.seed) == (run.config.task, run.config.world, run.config.seed):
        raise ValueError(
            f"records are drawn by seed, and seed {config.seed} would repeat those that {path} has seen; "
            "give --seed another"
        )
    return replace(config, start=StartingPoint(str(path), run.config.digest, run.step))


def starting_run(config: RunConfig) -> Run | None:
    """The run that `config.start` means; None where training starts from random weights.

    Raises:
        RunError: it is gone, or another one is in its place.
        ValueError: its model has another shape or reads other tokens.
    """
    start = config.start
    if start is None:
        return None
    run = load(start.path)
    if (run.config.digest, run.step) != (start.digest, start.step):
        raise RunError(
            f"{start.path} holds step {run.step} of config {run.config.digest}; this run starts from step "
            f"{start.step} of {start.digest}"
        )
    _require_fit(config, run)
    return run


def _require_fit(config: RunConfig, run: Run) -> None:
    theirs = replace(run.config.model, seed=config.model.seed)
    if theirs != config.model:
        names = [name for name, value in vars(theirs).items() if value != getattr(config.model, name)]
        raise ValueError(f"a training that starts from {run.path} needs its model; they differ in {', '.join(names)}")
    if run.task.vocab != TASKS[config.task](config.world, config.options).vocab:
        raise ValueError(f"a training that starts from {run.path} needs its vocabulary: {' '.join(run.task.vocab)}")
