"""How many tokens of a sum are said at once, and in which base: small trainings alike in all else, right and fast.

1. Several tokens at once, in the two ways there are: k heads (Gloeckle et al. 2024), and one head whose labels are
   shifted by k - 1 slots, with blanks in front, as the source of this project's sums did it.
2. Bases: numbers up to the same size, so that a smaller base means longer numbers; all digits said in one pass.
3. Of each: exact match on held-out sums, cascades of every length equally often; seconds of a training step (forward
   and backward pass) and tokens said a second in answering, processor time of one thread, the median of rounds in which
   every model has its turn, so that a busy machine slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch

from interp.configuration import config_dict
from interp.models import MODELS
from interp.models.config import MultiTokenConfig
from interp.ranges import require_fields
from interp.results import Aggregation, Method, Metric, rows_frame
from interp.runs import Run, RunConfig
from interp.studies.holding import Progress, quiet
from interp.studies.sums import SEED, answered_right, shares
from interp.tasks.options import AdditionOptions
from interp.training import TrainingConfig, train
from interp.training.presets import transformer_for
from interp.worlds.addition import Addition

HEADS, SHIFTED, BASES = "heads", "shifted labels", "base"
AT_ONCE = (1, 2, 4, 0)  # 0: all
BASE_NUMBERS = (2, 4, 8, 10, 16)
LARGEST = 9_999  # what numbers of every base reach at least
_ROUNDS, _ANSWERED = 9, 256


@dataclass(frozen=True)
class TablesConfig:
    """What is trained and timed.

    Raises:
        ValueError: a count below 1.
    """

    steps: int = 600
    """Optimizer steps of each training."""
    batch_size: int = 32
    """Sums a step."""
    n: int = 2000
    """Held-out sums of each test."""
    seed: int = 0
    """Of weights and sums."""

    def __post_init__(self) -> None:
        require_fields(self, steps=1, batch_size=1, n=1, seed=0)

    def runs(self) -> dict[tuple[str, str], RunConfig]:
        """(table, entry) → training. "1" has one head in one table and labels that are not shifted in the other."""
        found = {}
        for k in AT_ONCE:
            name = str(k) if k else "all"
            shape = self._shape(Addition(n_digits=4), AdditionOptions())
            predicted = k or Addition(n_digits=4).n_digits + 2
            heads = MultiTokenConfig(**(config_dict(shape) | {"architecture": "multi_token", "n_predicted": predicted}))
            found[HEADS, name] = self._run(Addition(n_digits=4), AdditionOptions(), heads)
            options = AdditionOptions(at_once=k)
            found[SHIFTED, name] = self._run(Addition(n_digits=4), options, self._shape(Addition(n_digits=4), options))
        for base in BASE_NUMBERS:
            world, options = Addition(n_digits=digits_in(LARGEST, base), base=base), AdditionOptions(at_once=0)
            found[BASES, str(base)] = self._run(world, options, self._shape(world, options))
        return found

    def _shape(self, world: Addition, options: AdditionOptions) -> Any:
        return transformer_for("addition", world, options=options, seed=self.seed, n_layers=3, n_heads=4, d_model=48)

    def _run(self, world: Addition, options: AdditionOptions, model: Any) -> RunConfig:
        settings = TrainingConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            seed=self.seed,
            muon_lr=0.01,
            eval_every=self.steps,
            eval_states=min(500, self.n),
            checkpoint_every=self.steps,
            ema_decay=0.998,
            threads=1,
            validation=True,
        )
        return RunConfig("addition", world, model, settings, options=options)


def digits_in(number: int, base: int) -> int:
    """How many digits a positive number has."""
    n = 0
    while number:
        number, n = number // base, n + 1
    return n


def measure_tables(
    folder: Path, config: TablesConfig | None = None, *, fresh: bool = False, progress: Progress = quiet
) -> pd.DataFrame:
    """Train every entry of both tables into folder/TABLE_ENTRY, then test and time them.

    Args:
        folder: of run folders; a training that ended is not repeated.
        config: what is trained and timed.
        fresh: start over.
        progress: told how far it is.

    Returns:
        Rows of the tidy frame: `stratum` is the table, `part` the entry, `time` the digits of the numbers.

    Raises:
        RunError: the folder holds trainings of another config.
    """
    config = config or TablesConfig()
    asked, runs = config.runs(), {}
    for number, ((table, entry), run_config) in enumerate(asked.items()):
        progress(number, len(asked) + 1, f"{table} {entry}")
        runs[table, entry] = train(run_config, folder / f"{table.split()[0]}_{entry}", fresh=fresh)
    progress(len(asked), len(asked) + 1, "testing")
    rows = [row for key, run in runs.items() for row in _accuracy(key, run, config)]
    rows += [row for each in _speeds(runs, config) for row in each]
    return rows_frame(rows)


def _accuracy(key: tuple[str, str], run: Run, config: TablesConfig) -> list[dict[str, Any]]:
    world: Any = run.config.world
    examples = world.draw(config.n, seed=SEED, weights=world.strata_weights("branches"))
    return [{**_columns(key, run, config), **shares(answered_right(run.model, run.task, examples)), "stratum": key[0]}]


def _columns(key: tuple[str, str], run: Run, config: TablesConfig) -> dict[str, Any]:
    about = {"architecture": run.config.model.architecture, "world": "addition", "task": "addition"}
    n_digits = run.config.world.n_digits  # type: ignore[attr-defined]
    return {**about, "seed": config.seed, "stratum": key[0], "part": key[1], "time": n_digits, "steps": config.steps}


def _speeds(runs: dict[tuple[str, str], Run], config: TablesConfig) -> list[list[dict[str, Any]]]:
    """Seconds of a training step, and tokens said a second, of every run, in rounds."""
    stepping = {key: _stepping(run, config) for key, run in runs.items()}
    answering = {key: _answering(run) for key, run in runs.items()}
    took: dict[tuple[str, str], list[tuple[float, float]]] = {key: [] for key in runs}
    for _ in range(_ROUNDS + 1):  # the first one warms up
        for key in runs:
            took[key].append((_seconds(stepping[key]), _seconds(answering[key])))
    found = []
    for key, run in runs.items():
        step, answer = (median(each) for each in zip(*took[key][1:], strict=True))
        n_said = _ANSWERED * len(run.task.answer_positions)
        common = {
            **_columns(key, run, config),
            "method": Method.TRAINING,
            "aggregation": Aggregation.MEDIAN,
            "n": _ROUNDS,
        }
        found.append(
            [
                {**common, "metric": Metric.STEP_SECONDS, "estimate": step},
                {**common, "metric": Metric.TOKENS_A_SECOND, "method": Method.GREEDY, "estimate": n_said / answer},
            ]
        )
    return found


def _stepping(run: Run, config: TablesConfig) -> Callable[[], None]:
    task, model = run.task, run.model
    batch = task.trim(task.sample(config.batch_size, seed=config.seed, split="fit"))
    objective, generator = MODELS[run.config.model.architecture].objective, torch.Generator().manual_seed(0)

    def step() -> None:
        model.train()
        model.zero_grad()
        loss = objective(model, task, batch, generator) if objective else task.loss(model(batch.tokens), batch)
        loss.backward()
        model.zero_grad()
        model.eval()

    return step


def _answering(run: Run) -> Callable[[], None]:
    batch = run.task.sample(_ANSWERED, seed=SEED)

    def answer() -> None:
        with torch.no_grad():
            run.model.answer(run.task, batch)

    return answer


def _seconds(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
