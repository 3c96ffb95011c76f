"""The training loop: batches drawn from the machine as it goes, exact resume, one progress record a step."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from interp.models import build_model
from interp.results import Aggregation, Method, Metric, read_frame, records, rows_frame, select, write_frame
from interp.runs import STEPS, Run, RunConfig, RunError, provenance, read_config, save_weights, write_config
from interp.tasks import TASKS, Batch, Task, macro_average
from interp.training.adaptive import STRATIFIED, AdaptiveSampler
from interp.training.along import keep_step, steps_along
from interp.training.checkpoint import (
    RESUME_FILE,
    Resumable,
    TrainingState,
    load_checkpoint,
    peek_checkpoint,
    save_checkpoint,
)
from interp.training.ema import AveragedWeights
from interp.training.evaluation import evaluate, training_weights
from interp.training.optimizer import Optimizers
from interp.training.records import TrainingRecords

logger = logging.getLogger(__name__)

# Held-out states for the curve; the final figures use another seed.
CURVE_SEED = 1
_LOG_EVERY = 50


@dataclass(frozen=True)
class TrainingProgress:
    """What the loop reports after a step."""

    step: int
    steps: int
    loss: float
    exact_match: float | None  # macro average at the last evaluation
    records_per_second: float
    seconds_left: float


def train(
    config: RunConfig,
    folder: Path | str,
    *,
    fresh: bool = False,
    command: str | None = None,
    records: TrainingRecords | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
) -> Run:
    """Train the configured model into a run folder, continuing where an earlier call stopped.

    The result is a function of the config: a run that was interrupted and resumed has the loss curve, and the
    weights, of one that was not. Writes `config.json`, `model.safetensors`, `metrics.parquet`, `steps/`, `resume/`.

    Args:
        config: task, machine, model and training settings.
        folder: the run folder.
        fresh: forget what the folder holds.
        command: recorded in `config.json`, so that the run can be made again.
        records: what `config.data` means, if it is open already or has moved.
        on_progress: called after every step.

    Raises:
        RunError: the folder holds another run, or a broken one; the records are others than the config's.
        ValueError, FileNotFoundError: the records of `config.data` are damaged or gone.
    """
    folder = Path(folder)
    torch.set_num_threads(config.training.threads)
    if fresh:
        (folder / RESUME_FILE).unlink(missing_ok=True)
        (folder / "config.json").unlink(missing_ok=True)
        (folder / "model.safetensors").unlink(missing_ok=True)
        (folder / "metrics.parquet").unlink(missing_ok=True)
        shutil.rmtree(folder / STEPS, ignore_errors=True)
    if (folder / "config.json").exists():
        _require_same(folder, config)
    else:
        write_config(folder, config, command=command)
    state = peek_checkpoint(folder, config)
    unfinished = state is None or not state.done
    if unfinished or records is not None:
        records = _open_records(config, records)
    if unfinished:
        _Trainer(config, folder, records=records).run(on_progress)
    return Run(folder, config)


def is_trained(folder: Path, config: RunConfig) -> bool:
    """Whether the folder holds this run, trained to its last step."""
    state = peek_checkpoint(folder, config) if (folder / "config.json").exists() else None
    return state is not None and state.done


def _require_same(folder: Path, config: RunConfig) -> None:
    found = read_config(folder)
    if found.digest != config.digest:
        raise RunError(
            f"{folder} holds a run with config {found.digest}, but {config.digest} was asked for; "
            "choose another --out, or start over with --fresh"
        )


def _open_records(config: RunConfig, records: TrainingRecords | None) -> TrainingRecords | None:
    """The records that the config names, checked to be the ones that it was made with."""
    if config.data is None:
        if records is not None:
            raise RunError(f"this run draws from the machine; its config names no data such as {records.path}")
        return None
    records = TrainingRecords(config.data.path) if records is None else records
    if records.digest != config.data.digest or records.spec != config.spec:
        raise RunError(f"{records.path} holds other records ({records.digest}) than this run's ({config.data.digest})")
    logger.info("%s: %d records, %d of evaluation programs left out", records.path, records.n, records.n_held_out)
    return records


class _Trainer:
    """One sitting of a training."""

    def __init__(self, config: RunConfig, folder: Path, *, records: TrainingRecords | None = None):
        self.config, self.folder = config, folder
        self.settings = config.training
        self.task: Task = TASKS[config.task](config.spec, config.options)
        self.model: Any = build_model(config.model).train()
        self.optimizers = Optimizers(self.model, self.settings)
        self.average = self._average()
        self.along = steps_along(self.settings.steps, self.settings.steps_along)
        self.weights = training_weights(self.task, balance=self.settings.balance, loop_weight=self.settings.loop_weight)
        self.records = records
        self.adaptive = self._adaptive()
        optional: list[Resumable | None] = [self.average, self.adaptive]
        self.parts: list[Resumable] = [self.optimizers, *(part for part in optional if part is not None)]
        self.state = load_checkpoint(folder, self.model, self.parts, config) or TrainingState(0, 0.0)
        self.rows = self._rows_so_far()
        self.exact_match: float | None = None
        if known := [row for row in self.rows if row["aggregation"] == Aggregation.MACRO]:
            self.exact_match = known[-1]["estimate"]

    def _average(self) -> AveragedWeights | None:
        decay = self.settings.ema_decay
        return AveragedWeights(self.model, build_model(self.config.model), decay) if decay else None

    def _adaptive(self) -> AdaptiveSampler | None:
        if not self.settings.adaptive:
            return None
        if self.weights is None or self.config.task not in STRATIFIED:
            raise ValueError(
                f"training adaptive needs a task of one step ({', '.join(STRATIFIED)}), got {self.task.name}"
            )
        return AdaptiveSampler(self.config.spec, self.weights, self.settings.adaptive, distances=self.records is None)

    @property
    def result(self) -> Any:
        """The model that is evaluated and saved: the average of the weights where one is kept."""
        return self.average.averaged if self.average else self.model

    def _rows_so_far(self) -> list[dict[str, Any]]:
        """Metrics up to the checkpoint; what was logged after it will be logged again."""
        if self.state.step == 0:
            return []
        frame = read_frame(self.folder / "metrics.parquet")
        return records(frame.loc[frame.checkpoint_step <= self.state.step])

    def draw(self, step: int) -> Batch:
        """The batch of 0-based `step`."""
        size, seed = self.settings.batch_size, self.settings.seed
        if self.records is not None:
            weights = self.adaptive.table(step) if self.adaptive else self.weights
            return self.task.batch(*self.records.draw(step, size, seed=seed, weights=weights))
        if self.adaptive:
            return self.task.batch(self.adaptive.draw(step, size, seed=seed))
        return self.task.trim(self.task.sample(size, seed=seed, start=step * size, split="train", weights=self.weights))

    def update(self, batch: Batch, step: int) -> tuple[float, float]:
        """One optimizer step; the loss (nats a token) and the gradient norm before clipping."""
        bfloat16 = self.settings.precision == "bfloat16"
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            logits = self.model(batch.tokens)
        loss = F.cross_entropy(logits.float().flatten(0, 1), batch.targets.flatten(), ignore_index=-1)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizers.step(step)
        if self.average:
            self.average.update(step)
        if self.adaptive:
            right = ((logits.argmax(dim=-1) == batch.targets) | (batch.targets < 0)).all(dim=1)
            self.adaptive.learn(step, self.adaptive.strata(batch.states), right.numpy())
        return float(loss.detach()), float(norm)

    def run(self, on_progress: Callable[[TrainingProgress], None] | None) -> None:
        settings, began = self.settings, time.perf_counter() - self.state.seconds
        first, started = self.state.step, time.perf_counter()
        self._keep(first)
        with ThreadPoolExecutor(1) as drawer:  # the machine draws the next batch while the model learns
            pending = drawer.submit(self.draw, first)
            for step in range(first, settings.steps):
                batch = pending.result()
                if step + 1 < settings.steps:
                    pending = drawer.submit(self.draw, step + 1)
                loss, norm = self.update(batch, step)
                done = step + 1
                self._keep(done)
                seconds = time.perf_counter() - began
                if done % _LOG_EVERY == 0 or done == settings.steps:
                    self._log(done, {Metric.LOSS: loss, Metric.GRADIENT_NORM: norm, Metric.SECONDS: seconds})
                if done % settings.eval_every == 0 or done == settings.steps:
                    self._evaluate(done)
                if done % settings.checkpoint_every == 0 and done < settings.steps:
                    self._checkpoint(TrainingState(done, time.perf_counter() - began))
                if on_progress is not None:
                    rate = (done - first) / (time.perf_counter() - started)
                    left = (settings.steps - done) / rate
                    on_progress(
                        TrainingProgress(done, settings.steps, loss, self.exact_match, rate * settings.batch_size, left)
                    )
        self._checkpoint(TrainingState(settings.steps, time.perf_counter() - began, done=True))

    def _keep(self, step: int) -> None:
        if step in self.along:
            keep_step(self.folder, self.result, self.config, step)

    def _log(self, step: int, values: dict[Metric, float]) -> None:
        records = step * self.settings.batch_size
        for metric, value in {**values, Metric.RECORDS: records}.items():
            self.rows.append(
                {
                    "checkpoint_step": step,
                    "method": Method.TRAINING,
                    "metric": metric,
                    "aggregation": Aggregation.MEAN,
                    "estimate": value,
                    "n": self.settings.batch_size,
                }
            )

    def _evaluate(self, step: int) -> None:
        self.result.eval()
        scores = evaluate(self.result, self.task, n=self.settings.eval_states, seed=CURVE_SEED)
        self.model.train()
        self.exact_match = macro_average(select(scores, aggregation=Aggregation.MEAN))
        self.rows += [{**row, "checkpoint_step": step} for row in records(select(scores, metric=Metric.EXACT_MATCH))]

    def _checkpoint(self, state: TrainingState) -> None:
        """Metrics first, then weights, then the state that vouches for both."""
        frame = rows_frame(self.rows).assign(
            run=self.folder.name,
            seed=self.settings.seed,
            architecture=self.config.model.architecture,
            task=self.config.task,
        )
        header = provenance(self.config, step=state.step)
        write_frame(frame, self.folder / "metrics.parquet", provenance=header)
        save_weights(self.folder / "model.safetensors", self.result, self.config, step=state.step)
        save_checkpoint(self.folder, self.model, self.parts, state, self.config)
        self.state = state
