"""Length generalisation: trained on a small machine, tested on longer programs, tapes and buffers.

1. One small transformer a positional scheme is trained on `step_inplace` at the training sizes, all alike but for the
   scheme: the same seed, records, optimizer and number of steps.
2. The world is made larger, each group of its sizes alone (`World.sizes`: of the machine the program, the tape and the
   buffers), then all. The vocabulary stays.
3. The weights go into a model of the larger context (`interp.models.resize`). Nothing is trained further; what a scheme
   does not define for a new position stays as it was drawn.
4. Held-out states, spread evenly over op x outcome; the macro average of exact match, beside that at the training sizes
   and beside an untrained model's. Of what the step changes, the share of right tokens tells apart a model that copies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from interp.evaluation.credit import PartialCredit
from interp.models import TransformerConfig, resize
from interp.ranges import require_fields
from interp.reading import BrokenFileError
from interp.results import (
    Aggregation,
    Control,
    Metric,
    read_frame,
    records,
    rows_frame,
    select,
    write_frame,
)
from interp.runs import Run, RunConfig, versions
from interp.tasks import TASKS, Task
from interp.training import TrainingConfig
from interp.training.loop import train
from interp.training.presets import transformer_for
from interp.training.scoring import evaluate
from interp.worlds import World, as_world, world_from_dict

Progress = Callable[[float, float, str], None]

ENCODINGS = {
    "learned": "one learned vector a position",
    "sinusoidal": "fixed sinusoids of the position",
    "rotary": "queries and keys rotated by the position",
    "none": "none at all",
    "block": "vectors of the block and of the slot's index in it",
    "block_shifted": "the same, with the indices of each block shifted at random in training",
    "block_rotary": "the block's vector; queries and keys rotated by the slot's index in it",
    "block_turned": "block, its indices begun as waves, and half of each head rotated by the index",
    "alibi": "scores that fall with the distance, at a slope of each head's own",
    "randomised": "learned vectors of positions drawn from a longer range in training, evenly spaced in testing",
    "path": "keys turned by what stands between them and the query (PaTH), to both sides",
}
"""Positional schemes, in words."""


TASK = "step_inplace"
_TRAINED = {"name": "machine", "n_instructions": 6, "n_cells": 4, "n_input": 2, "n_output": 2, "bits": 3}
_LONGER = _TRAINED | {"n_instructions": 12, "n_cells": 8, "n_input": 4, "n_output": 4}


@dataclass(frozen=True)
class LengthsConfig:
    """What is trained and what is tested.

    Raises:
        ValueError: a world that cannot be made longer, a size to test that is smaller than that trained on, or
            vocabularies that differ.
    """

    world: World = field(default_factory=lambda: world_from_dict(_TRAINED))
    """The world that is trained on, or a MachineSpec."""
    longer: World = field(default_factory=lambda: world_from_dict(_LONGER))
    """Where each size ends; sizes halfway are tested too."""
    encodings: tuple[str, ...] = tuple(ENCODINGS)
    """Positional schemes, keys of `ENCODINGS`."""
    steps: int = 5000
    """Optimizer steps of each training."""
    batch_size: int = 32
    """Records a step."""
    n_layers: int = 4
    """Of each model."""
    d_model: int = 64
    """Of each model."""
    n_states: int = 2000
    """Held-out states of each test."""
    seed: int = 0
    """Of weights and records."""
    threads: int = 1
    """PyTorch threads of training."""

    def __post_init__(self) -> None:
        require_fields(self, encodings=1, steps=1, batch_size=1, n_layers=1, d_model=1, n_states=1, seed=0, threads=1)
        if unknown := [name for name in self.encodings if name not in ENCODINGS]:
            raise ValueError(f"no positional scheme {unknown[0]!r}; expected some of {', '.join(ENCODINGS)}")
        for name in ("world", "longer"):
            object.__setattr__(self, name, as_world(getattr(self, name)))
        if not self.world.sizes():
            raise ValueError(f"the world {self.world.name} has no sizes that make its examples longer")
        small, large = self.world.to_dict(), self.longer.to_dict()
        for name in self._groups()["all"]:
            if large[name] < small[name]:
                raise ValueError(f"longer.{name} must be at least {small[name]}, got {large[name]}")
        if TASKS[TASK](self.world).vocab != TASKS[TASK](self.longer).vocab:
            raise ValueError("longer must have the vocabulary that is trained on: the same bits and instructions")

    def _groups(self) -> dict[str, tuple[str, ...]]:
        groups = dict(self.world.sizes())
        return groups | {"all": tuple(name for names in groups.values() for name in names)}

    def tests(self) -> dict[str, World]:
        """Name → world: the training sizes, then each size alone halfway and in full, then all of them."""
        small, large = self.world.to_dict(), self.longer.to_dict()
        found = {"trained": self.world}
        for group, names in self._groups().items():
            for share in (0.5, 1.0):
                sizes = {name: small[name] + round(share * (large[name] - small[name])) for name in names}
                world = type(self.world).from_dict(small | sizes)
                if world not in found.values():
                    found[f"{group} ×{sizes[names[0]] / small[names[0]]:.3g}"] = world
        return found

    def run_config(self, encoding: str) -> RunConfig:
        """The training of one scheme; all are alike but for the model's positions."""
        settings = TrainingConfig(
            steps=self.steps,
            batch_size=self.batch_size,
            seed=self.seed,
            threads=self.threads,
            eval_every=max(1, self.steps // 5),
            eval_states=500,
            checkpoint_every=max(1, self.steps // 10),
        )
        shape = transformer_for(
            TASK, self.world, seed=self.seed, n_layers=self.n_layers, d_model=self.d_model, turned=False
        )
        model = positions(shape, encoding, self.world, longest=self.longer)
        return RunConfig(TASK, self.world, model, settings)


def positions(cfg: TransformerConfig, encoding: str, world: Any, *, longest: Any = None) -> TransformerConfig:
    """A `step_inplace` model's config with a positional scheme, for a world (or a MachineSpec).

    With `block_shifted` and `randomised` the table has room for `longest` (default: `world`), twice over; a model that
    is to be resized keeps the table that it was trained with.
    """
    task = TASKS[TASK](as_world(world))
    blocks: dict[str, Any] = {"position_roles": task.position_roles, "position_indices": task.position_indices}
    plain: dict[str, Any] = {"position_roles": (), "position_indices": ()}
    turned = {"index_init": "sinusoidal", "rotary_dim": 2 * (cfg.d_head // 4), "rotary_base": 10}
    changes: dict[str, Any] = {
        "block": {"positional_embedding_type": "block", **blocks},
        "block_shifted": {"positional_embedding_type": "block", **blocks},
        "block_rotary": {"positional_embedding_type": "block_rotary", **blocks},
        "block_turned": {"positional_embedding_type": "block", **blocks, **turned},
    }.get(encoding, {"positional_embedding_type": encoding, **plain})
    room = TASKS[TASK](as_world(world if longest is None else longest))
    if encoding == "block_shifted":
        changes["index_table_size"] = 2 * max(room.position_indices) + 2
    if encoding == "randomised":
        changes["position_range"] = 2 * room.n_ctx
    return replace(cfg, n_ctx=task.n_ctx, **changes)


def measure_lengths(
    folder: Path,
    config: LengthsConfig,
    *,
    fresh: bool = False,
    progress: Progress = lambda done, total, at: None,
) -> pd.DataFrame:
    """Train each scheme into folder/SCHEME and test it; rows are saved scheme by scheme, so a second call continues.

    Args:
        folder: run folders, and `lengths.parquet` with the rows.
        config: what is trained and tested.
        fresh: start over.
        progress: called with (done, total, what it is at); a scheme counts one.

    Returns:
        Rows of the tidy frame: `run` is the scheme, `stratum` the test; macro averages of exact match and of the share
        of right tokens among those that change; the same for copying the input (control `copy`).

    Raises:
        RunError: the folder holds trainings of another config.
    """
    file = folder / "lengths.parquet"
    rows = [] if fresh else _rows_so_far(file, config)
    total = len(config.encodings) + 1
    if "copy" not in {row["run"] for row in rows}:
        rows += copy_rows(config)
    for done, encoding in enumerate(config.encodings, start=1):
        if encoding in {row["run"] for row in rows}:
            continue

        def training(now: Any, done: int = done, encoding: str = encoding) -> None:
            progress(done + 0.9 * now.step / now.steps, total, f"{encoding}: training")

        run = train(config.run_config(encoding), folder / encoding, fresh=fresh, on_progress=training)
        progress(done + 0.9, total, f"{encoding}: testing")
        rows += test_rows(run, config, encoding)
        write_frame(rows_frame(rows), file, provenance={"versions": versions(), "settings": _settings(config)})
    return rows_frame(rows)


def test_rows(run: Run, config: LengthsConfig, encoding: str) -> list[dict[str, Any]]:
    """One trained model on every test world."""
    rows: list[dict[str, Any]] = []
    trained: Any = run.model
    for name, world in config.tests().items():
        task = TASKS[TASK](world)
        cfg = positions(trained.cfg, encoding, world, longest=config.longer)
        model = resize(trained, cfg).eval()
        own = {"run": encoding, "seed": config.seed, "architecture": cfg.architecture, "checkpoint_step": run.step}
        rows += [{**row, **own} for row in _tested(model, task, name, config)]
    return rows


def copy_rows(config: LengthsConfig) -> list[dict[str, Any]]:
    """What giving the input back unchanged scores: every step that freezes or halts is right."""

    def copy(tokens: Tensor) -> Tensor:
        return nn.functional.one_hot(tokens, size).float()

    size = len(TASKS[TASK](config.world).vocab)
    rows: list[dict[str, Any]] = []
    for name, world in config.tests().items():
        tested = _tested(copy, TASKS[TASK](world), name, config)
        rows += [{**row, "run": "copy", "control": Control.COPY} for row in tested]
    return rows


def _tested(
    model: Callable[[Tensor], Tensor], task: Task, name: str, config: LengthsConfig
) -> Iterator[dict[str, Any]]:
    credit = PartialCredit(task)
    scores = evaluate(model, task, n=config.n_states, seed=2, observers=(credit,))
    exact = records(select(scores, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO))
    changed = [
        row
        for row in credit.rows()
        if row["metric"] == Metric.CHANGED_TOKEN_ACCURACY and row["aggregation"] == Aggregation.MACRO
    ]
    for row in (*exact, *changed):
        yield {**row, "task": task.name, "stratum": name}


def _settings(config: LengthsConfig) -> dict[str, Any]:
    """What decides a row, JSON-ready; which schemes are asked for does not."""
    left_out = ("encodings", "threads", "world", "longer")
    values = {each.name: getattr(config, each.name) for each in fields(config) if each.name not in left_out}
    # The world stands under `spec`, as in rows made before there were other worlds.
    return json.loads(json.dumps(values | {"spec": config.world.to_dict(), "longer": config.longer.to_dict()}))


def _rows_so_far(file: Path, config: LengthsConfig) -> list[dict[str, Any]]:
    try:
        frame = read_frame(file)
    except (FileNotFoundError, BrokenFileError):
        return []
    return records(frame) if frame.attrs["provenance"].get("settings") == _settings(config) else []
