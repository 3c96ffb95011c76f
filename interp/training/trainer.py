"""The training loop: batches drawn from the machine as it goes, exact resume, one progress record a step."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from interp.files import sha256_of
from interp.models import MODELS, build_model
from interp.results import Metric
from interp.runs import RunConfig, save_weights
from interp.tasks import TASKS, Batch, Task
from interp.training.along import keep_step, steps_along
from interp.training.batches import Batches
from interp.training.checkpoint import Resumable, TrainingState, load_checkpoint, peek_checkpoint, save_checkpoint
from interp.training.curriculum import stage_score
from interp.training.curve import Curve
from interp.training.devices import Devices
from interp.training.ema import AveragedWeights
from interp.training.logs import ScalarLog
from interp.training.optimizer import Optimizers
from interp.training.reward import Reward
from interp.training.scoring import evaluate
from interp.training.start import starting_run
from interp.training.threads import TrainingThreads

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
    by_op: dict[str, float] | None = None  # exact match by opcode at the last evaluation, 0 to 1
    note: str | None = None  # a line to be said: what was decided before this step


class Trainer:
    """One sitting of a training."""

    def __init__(self, config: RunConfig, folder: Path, devices: Devices, *, records: Any = None):
        self.config, self.folder, self.devices, self.settings = config, folder, devices, config.training
        config.world.keep_beside(folder.parent)
        self.task: Task = TASKS[config.task](config.world, config.options)
        self.architecture = MODELS[config.model.architecture]
        if reason := self.architecture.suits(self.task):
            raise ValueError(reason)
        if self.architecture.fit is not None and (
            devices.n > 1 or self.settings.threads > 1 or self.settings.ema_decay
        ):
            raise ValueError(
                f"the architecture {config.model.architecture} is fitted without gradients: on one device, with "
                "training threads 1 and ema_decay 0"
            )
        self.batches = Batches(config, self.task, records=records)
        self.model: Any = build_model(config.model).train()
        start = starting_run(config) if peek_checkpoint(folder, config) is None or self.sampled else None
        self.reward, self.report = self._reward(start), {}
        if peek_checkpoint(folder, config) is None and start:
            self.model.load_state_dict(start.model.state_dict())
        self.forward = devices.wrapped(self.model, compiled=self.settings.compile)
        self.optimizers = Optimizers(self.model, self.settings)
        self.average = self._average()
        self.along = steps_along(self.settings.steps, self.settings.steps_along)
        self.parts: list[Resumable] = [self.optimizers, *([self.average] if self.average else []), *self.batches.parts]
        self.state = load_checkpoint(folder, self.model, self.parts, config) or TrainingState(0, 0.0)
        self.curve = Curve(folder, config, until=self.state.step)
        self.exact_match, self.by_op = self.curve.exact_match, self.curve.by_op
        on_cpu = devices.device.type == "cpu"
        self.threads = TrainingThreads(self.settings.threads, fixed=not on_cpu, used=self.curve.threads)
        devices.wait()  # all have read what the first will write

    @property
    def sampled(self) -> bool:
        """Whether it is learned from answers that the model itself gives."""
        return self.settings.objective != "likelihood"

    def _reward(self, start: Any) -> Reward | None:
        if not self.sampled:
            return None
        if self.architecture.objective or self.architecture.fit or self.devices.n > 1:
            raise ValueError(
                f"the objective {self.settings.objective} is for models trained by the likelihood of the next token, "
                "on one device"
            )
        return Reward(self.task, self.settings, None if start is None else start.model.to(self.devices.device))

    def _average(self) -> AveragedWeights | None:
        if not self.settings.ema_decay:
            return None
        shape = build_model(self.config.model).to(self.devices.device)
        return AveragedWeights(self.model, shape, self.settings.ema_decay)

    @property
    def result(self) -> Any:
        """The model that is evaluated and saved: the average of the weights where one is kept."""
        return self.average.averaged if self.average else self.model

    def update(self, batch: Batch, step: int) -> tuple[Tensor, Tensor]:
        """One optimizer step; this process's share of the loss (nats a token), the gradient norm before clipping."""
        own = self.devices.share(batch)
        if (fit := self.architecture.fit) is not None:
            return fit(self.model, self.task, own), torch.zeros(())
        bfloat16 = self.settings.precision == "bfloat16"
        with torch.autocast(self.devices.device.type, dtype=torch.bfloat16, enabled=bfloat16):
            loss, logits = self._loss(self.forward, own, step)
        # A process's loss is a mean over what it is asked; shares of the whole batch add up to its mean.
        loss = loss * (int((own.targets >= 0).sum()) / max(1, int((batch.targets >= 0).sum())))
        (loss * self.devices.n).backward()  # the gradients of processes are averaged, their losses are to be summed
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.settings.gradient_clip)
        self.optimizers.step(step)
        if self.average:
            self.average.update(step)
        if adaptive := self.batches.adaptive:
            if logits is None:
                kind = self.config.model.architecture
                raise ValueError(f"adaptive sampling asks which records were right: training {kind} does not tell")
            right = ((logits.argmax(dim=-1) == own.targets) | (own.targets < 0)).all(dim=1)
            adaptive.learn(step, adaptive.strata(batch.examples), self.devices.gathered(right))
        return loss.detach(), norm

    def _loss(self, forward: Callable[[Tensor], Tensor], own: Batch, step: int) -> tuple[Tensor, Tensor | None]:
        """The loss on this process's rows, nats a token, and the logits [batch, pos, d_vocab] if it has any."""
        if self.reward is not None:
            generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)
            loss, self.report = self.reward.loss(forward, own, generator)
            return loss, None
        if (objective := self.architecture.objective) is not None:
            generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + step)
            found = objective(forward, self.task, own, generator)
            return found if isinstance(found, tuple) else (found, None)
        logits = forward(own.tokens)
        return self.task.loss(logits.float(), own), logits

    def rehearsal(self, batch: Batch, step: int) -> Callable[[], None]:
        """A training step on this batch that is thrown away: it works on a copy, and nothing of the run changes."""
        model = copy.deepcopy(self.model)
        optimizers, own = Optimizers(model, self.settings), self.devices.share(batch)

        def work() -> None:
            with torch.random.fork_rng(devices=[]), torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                loss, _ = self._loss(model, own, step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), self.settings.gradient_clip)
            optimizers.step(step)

        half = self.settings.precision == "bfloat16"
        return work

    def run(self, on_progress: Callable[[TrainingProgress], None] | None, log: ScalarLog | None) -> None:
        """Train from the state on to the last step; the main process evaluates, writes and reports."""
        settings, main, began = self.settings, self.devices.main, time.perf_counter() - self.state.seconds
        first, started = self.state.step, time.perf_counter()
        self._keep(first)
        with ThreadPoolExecutor(1) as drawer:  # the machine draws the next batch while the model learns
            pending = drawer.submit(self.batches.draw, first)
            for step in range(first, settings.steps):
                batch = pending.result()
                if step + 1 < settings.steps:
                    pending = drawer.submit(self.batches.draw, step + 1)
                note = None
                if self.threads.due(step):
                    note = self.threads.look(step, self.rehearsal(batch, step))
                loss, norm = self.update(batch, step)
                self.threads.count()
                done = step + 1
                last = done == settings.steps
                self._keep(done)
                if done % _LOG_EVERY == 0 or last:
                    self._log(done, loss, norm, time.perf_counter() - began, log)
                if done % settings.eval_every == 0 or last:
                    self._evaluate(done, log)
                self._advance(done)
                if main and (done % settings.checkpoint_every == 0 or last):
                    self._checkpoint(TrainingState(done, time.perf_counter() - began, done=last))
                if main and on_progress is not None:
                    rate = (done - first) / (time.perf_counter() - started)
                    on_progress(
                        TrainingProgress(
                            done,
                            settings.steps,
                            float(loss) * self.devices.n,
                            self.exact_match,
                            rate * settings.batch_size,
                            (settings.steps - done) / rate,
                            self.by_op,
                            note,
                        )
                    )
        self.devices.wait()

    def _keep(self, step: int) -> None:
        if self.devices.main and step in self.along:
            keep_step(self.folder, self.result, self.config, step)

    def _log(self, step: int, loss: Tensor, norm: Tensor, seconds: float, log: ScalarLog | None) -> None:
        values = {
            Metric.LOSS: self.devices.total(loss),
            Metric.GRADIENT_NORM: float(norm),
            Metric.SECONDS: seconds,
            Metric.RECORDS: float(step * self.settings.batch_size),
            **self.report,
        }
        self.curve.log(step, values)
        if log is not None:
            log.write(step, {metric.value: value for metric, value in values.items()})

    def _evaluate(self, step: int, log: ScalarLog | None) -> None:
        if not self.devices.main:
            return
        self.result.eval()
        model = self.devices.on_cpu(self.result)
        self.curve.add_evaluation(step, self._evaluated(model))
        self.model.train()
        self.exact_match, self.by_op = self.curve.exact_match, self.curve.by_op
        if log is not None:
            by_op = {f"{Metric.EXACT_MATCH}/{op}": share for op, share in (self.by_op or {}).items()}
            log.write(step, {Metric.EXACT_MATCH.value: self.exact_match or 0.0, **by_op})

    def _evaluated(self, model: Any) -> pd.DataFrame:
        n, split = self.settings.eval_states, self.settings.choosing_split
        return evaluate(model, self.task, n=n, seed=CURVE_SEED, split=split)

    def _advance(self, done: int) -> None:
        """Let the curriculum go on to its next stage, if it has one and this one is over."""
        curriculum, score = self.batches.curriculum, None
        if curriculum is None or (stage := curriculum.stage(done)) is None:
            return
        if done % self.settings.eval_every == 0:
            if self.devices.main:
                self.result.eval()
                model = self.devices.on_cpu(self.result)
                score = stage_score(
                    model, self.task, stage, n=self.settings.eval_states, split=self.settings.choosing_split
                )
                self.model.train()
            score = self.devices.of_main(score)
        if curriculum.advance(done, score):
            logger.info("stage %r is over after step %d, macro exact match %s", stage.name, done, score)

    def _checkpoint(self, state: TrainingState) -> None:
        """Metrics first, then weights, whose hash the metrics then tell, then the state that vouches for both."""
        weights = self.folder / "model.safetensors"
        self.curve.write(state.step, threads=self.threads.used)
        save_weights(weights, self.result, self.config, step=state.step)
        self.curve.write(state.step, threads=self.threads.used, weights=sha256_of(weights))
        save_checkpoint(self.folder, self.model, self.parts, state, self.config)
        self.state = state
