"""Training: train."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from interp.cli.arguments import writes
from interp.commands import this_command
from interp.console import say, stage_display, training_display
from interp.runs.training_config import DataSource
from interp.training.logs import LogTo
from interp.training.overrides import (
    ModelOverrides,
    OptionsOverrides,
    TrainingOverrides,
    given,
    overridden,
    world_from,
)
from interp.worlds import Split, World, as_world

Objective = Literal["likelihood", "reward", "rejection"]
TRAINED = ("config.json", "metrics.parquet", "model.safetensors", "resume/")  # what is written into a run folder


def train(
    *,
    preset: str = "quickstart",
    out: Path | None = None,
    data: Path | None = None,
    machine: tuple[str, ...] = (),
    start: Path | None = None,
    resume: bool = False,
    fresh: bool = False,
    steps: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    threads: int | None = None,
    objective: Objective | None = None,
    log: LogTo | None = None,
    training: TrainingOverrides = TrainingOverrides(),  # noqa: B008 (frozen)
    model: ModelOverrides = ModelOverrides(),  # noqa: B008 (frozen)
    options: OptionsOverrides = OptionsOverrides(),  # noqa: B008 (frozen)
) -> None:
    """Train a model into a run folder. A second call continues where the first stopped.

    On several devices: torchrun --nproc_per_node=N -m interp train … gives the same run as one process.

    Args:
        preset: a named run; a name that does not exist lists them.
        out: the run folder (default: runs/PRESET).
        data: train on these records: a folder that tapelens sample wrote, or NAME.npy of the original project. The
            machine is theirs; records of held-out programs are left out. Of a preset about text: a UTF-8 file.
        machine: fields of the machine instead of the preset's, such as n_cells=4 outcome_token=true pointers=index; or
            of another world, such as length=256 unit=document vocabulary=byte_pairs of a text.
        start: begin with the weights of this run, and a --seed of its own, instead of random weights.
        resume: continue what --out holds, with the settings it was begun with.
        fresh: start over.
        steps: optimizer steps; short for --training.steps, and so on.
        batch_size: records a step.
        seed: of weights and records.
        threads: PyTorch threads.
        objective: reward learns from the model's own answers, judged by the world; rejection from those that are right.
        log: where scalars go besides RUN/metrics.parquet: RUN/tensorboard, or Weights & Biases.
        training: fields of the training instead of the preset's.
        model: fields of the model instead of the preset's.
        options: of the task, such as how many steps a chain or a stream has.
    """
    from interp.runs import read_config
    from interp.training import PRESETS
    from interp.training import train as run_training
    from interp.training.devices import is_main_process
    from interp.training.start import started_from

    if preset not in PRESETS:
        raise ValueError(f"--preset must be one of {', '.join(PRESETS)}; got {preset!r}")
    if machine and resume:
        raise ValueError("--machine needs a new run: leave --resume out")
    if start is not None and resume:
        raise ValueError("--resume goes on with the weights that --out holds; leave --start out")
    short = {"steps": steps, "batch_size": batch_size, "seed": seed, "threads": threads, "objective": objective}
    changes = given(training) | {name: value for name, value in short.items() if value is not None}
    folder = out if out is not None else Path("runs") / preset
    writes(folder, *TRAINED, *(["tensorboard/"] if log == "tensorboard" else []))
    records = None
    if resume:
        if others := {**changes, **given(model), **given(options)}:
            named = next(iter(others))
            raise ValueError(f"--resume goes on with the settings of {folder}; leave {named} out")
        config = read_config(folder)
        if config.data is not None:
            records = _training_records(data or Path(config.data.path), config.world, config.training.training_split)
    else:
        config = PRESETS[preset]
        split = replace(config.training, **changes).training_split
        of_text = "text" in config.world.capabilities
        if machine and data is not None and not of_text:
            raise ValueError("--machine needs a new run that draws its own records: leave --data out")
        records = _training_records(data, config.world, split) if data is not None and not of_text else None
        told = (*machine, f"source={data}") if data is not None and of_text else machine
        world = world_from(config.world, told) if records is None else as_world(records.spec)
        config = overridden(config, world, training=changes, model=given(model), options=given(options))
        if records is not None:
            config = replace(config, data=DataSource(str(records.path), records.digest))
        config = config if start is None else started_from(config, start)
    command = this_command()
    with training_display() if is_main_process() else contextlib.nullcontext() as report:
        run = run_training(config, folder, fresh=fresh, command=command, records=records, log=log, on_progress=report)
    if is_main_process():
        say(f"trained to step {run.step:,} in {folder}")


def _training_records(path: Path, world: World, split: Split) -> Any:
    """Open records to train on, and say how many of them are left out."""
    with stage_display("checking the records") as progress:
        records = world.open_records(path, split=split, progress=lambda done, total: progress(done, total, ""))
    say(f"{records.n:,} records in {path}; {records.n_held_out:,} of held-out programs are left out")
    return records
