"""Training a run folder: begun, continued where it stopped, or found to be done."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interp.runs import STEPS, Run, RunConfig, RunError, read_config, write_config
from interp.training.checkpoint import RESUME_FILE, peek_checkpoint
from interp.training.curve import CURVE_FILE
from interp.training.devices import Devices
from interp.training.logs import LOGS, TENSORBOARD, LogTo
from interp.training.trainer import Trainer, TrainingProgress

logger = logging.getLogger(__name__)


def train(
    config: RunConfig,
    folder: Path | str,
    *,
    fresh: bool = False,
    command: str | None = None,
    records: Any = None,
    log: LogTo | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> Run:
    """Train the configured model into a run folder, continuing where an earlier call stopped.

    The result is a function of the config: a run that was interrupted and resumed has the loss curve, and the
    weights, of one that was not. Writes `config.json`, `model.safetensors`, `metrics.parquet`, `steps/`, `resume/`.

    Started by `torchrun`, each process trains on its share of every batch, and the first one writes.

    Args:
        config: task, machine, model and training settings.
        folder: the run folder.
        fresh: forget what the folder holds.
        command: recorded in `config.json`, so that the run can be made again.
        records: what `config.data` means, if it is open already or has moved.
        log: where scalars go besides `metrics.parquet`.
        on_progress: called after every step, on the main process.

    Raises:
        RunError: the folder holds another run, or a broken one; the records are others than the config's.
        ValueError, FileNotFoundError: the records of `config.data` are damaged or gone; settings that do not go
            together; `log` without its package.
    """
    folder, devices = Path(folder), Devices(config.training.batch_size)
    if devices.main:
        _prepare(folder, config, fresh=fresh, command=command)
    devices.wait()
    state = peek_checkpoint(folder, config)
    unfinished = state is None or not state.done
    if unfinished or records is not None:
        records = _open_records(config, records)
    if unfinished:
        trainer = Trainer(config, folder, devices, records=records)
        scalars = LOGS[log](folder, config, first=trainer.state.step) if log and devices.main else None
        try:
            trainer.run(on_progress, scalars)
        finally:
            if scalars is not None:
                scalars.close()
    return Run(folder, config)


def _prepare(folder: Path, config: RunConfig, *, fresh: bool, command: str | None) -> None:
    """Make the folder this run's, or see that it is."""
    if fresh:
        for name in (str(RESUME_FILE), "config.json", "model.safetensors", CURVE_FILE):
            (folder / name).unlink(missing_ok=True)
        for name in (STEPS, TENSORBOARD):
            shutil.rmtree(folder / name, ignore_errors=True)
    if (folder / "config.json").exists():
        _require_same(folder, config)
    else:
        write_config(folder, config, command=command)


def _require_same(folder: Path, config: RunConfig) -> None:
    found = read_config(folder)
    if found.digest != config.digest:
        raise RunError(
            f"{folder} holds a run with config {found.digest}, but {config.digest} was asked for; "
            "choose another --out, or start over with --fresh"
        )


def _open_records(config: RunConfig, records: Any) -> Any:
    """The records that the config names, checked to be the ones that it was made with."""
    if config.data is None:
        if records is not None:
            raise RunError(f"this run draws from its world; its config names no data such as {records.path}")
        return None
    if records is None:
        records = config.world.open_records(Path(config.data.path), split=config.training.training_split)
    if records.digest != config.data.digest or records.spec != config.spec:
        raise RunError(f"{records.path} holds other records ({records.digest}) than this run's ({config.data.digest})")
    logger.info("%s: %d records, %d of held-out units left out", records.path, records.n, records.n_held_out)
    return records
