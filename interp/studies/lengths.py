"""Length generalisation: trained on a small machine, tested on longer programs, tapes and buffers.

1. One small transformer a positional scheme is trained on `step_inplace` at the training sizes, all alike but for the
   scheme: the same seed, records, optimizer and number of steps.
2. The machine is made larger: programs alone, the tape alone, the buffers alone, and all three. The vocabulary stays.
3. The weights go into a model of the larger context (`interp.models.resize`). Nothing is trained further; what a scheme
   does not define for a new position stays as it was drawn.
4. Held-out states, spread evenly over op x outcome; the macro average of exact match, beside that at the training sizes
   and beside an untrained model's. Of what the step changes, the share of right tokens tells apart a model that copies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor, nn

from cython_vm import MachineSpec
from interp.evaluation.credit import PartialCredit
from interp.models import TransformerConfig, resize
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
}
"""Positional schemes, in words."""


TRAINED = MachineSpec(n_instructions=6, n_cells=4, n_input=2, n_output=2, bits=3)
LONGER = MachineSpec(n_instructions=12, n_cells=8, n_input=4, n_output=4, bits=3)


@dataclass(frozen=True)
class LengthsConfig:
    """What is trained and what is tested.

    Raises:
        ValueError: a size to test is smaller than that trained on, or the vocabularies differ.
    """

    spec: MachineSpec = TRAINED
    """The machine that is trained on."""
    longer: MachineSpec = LONGER
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
        if unknown := [name for name in self.encodings if name not in ENCODINGS]:
            raise ValueError(f"no positional scheme {unknown[0]!r}; expected some of {', '.join(ENCODINGS)}")
        for name in ("n_instructions", "n_cells", "n_input", "n_output"):
            least, given = getattr(self.spec, name), getattr(self.longer, name)
            if given < least:
                raise ValueError(f"longer.{name} must be at least {least}, got {given}")
        if self.spec.vocab != self.longer.vocab:
            raise ValueError("longer must have the vocabulary that is trained on: the same bits and instructions")

    def tests(self) -> dict[str, MachineSpec]:
        """Name → machine: the training sizes, then each size alone halfway and in full, then all of them."""
        groups = {"program": ("n_instructions",), "tape": ("n_cells",), "buffers": ("n_input", "n_output")}
        groups["all"] = tuple(name for names in groups.values() for name in names)
        found = {"trained": self.spec}
        for group, names in groups.items():
            for share in (0.5, 1.0):
                sizes = {name: _between(getattr(self.spec, name), getattr(self.longer, name), share) for name in names}
                machine = replace(self.spec, **sizes)
                if machine not in found.values():
                    found[f"{group} {_factor(self.spec, machine, names[0])}"] = machine
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
        model = positions(self._model(self.spec), encoding, self.spec, longest=self.longer)
        return RunConfig("step_inplace", self.spec, model, settings)

    def _model(self, spec: MachineSpec) -> TransformerConfig:
        return transformer_for(
            "step_inplace", spec, seed=self.seed, n_layers=self.n_layers, d_model=self.d_model, turned=False
        )


def _between(low: int, high: int, share: float) -> int:
    return low + round(share * (high - low))


def _factor(small: MachineSpec, large: MachineSpec, name: str) -> str:
    return f"×{getattr(large, name) / getattr(small, name):.3g}"


def positions(
    cfg: TransformerConfig, encoding: str, spec: MachineSpec, *, longest: MachineSpec | None = None
) -> TransformerConfig:
    """A `step_inplace` model's config with a positional scheme, for the machine `spec`.

    With `block_shifted` the index table has room for `longest` (default: `spec`), twice over; a model that is to be
    resized keeps the table that it was trained with.
    """
    task = TASKS["step_inplace"](spec)
    blocks: dict[str, Any] = {"position_roles": task.position_roles, "position_indices": task.position_indices}
    plain: dict[str, Any] = {"position_roles": (), "position_indices": ()}
    turned = {"index_init": "sinusoidal", "rotary_dim": 2 * (cfg.d_head // 4), "rotary_base": 10}
    changes: dict[str, Any] = {
        "block": {"positional_embedding_type": "block", **blocks},
        "block_shifted": {"positional_embedding_type": "block", **blocks},
        "block_rotary": {"positional_embedding_type": "block_rotary", **blocks},
        "block_turned": {"positional_embedding_type": "block", **blocks, **turned},
    }.get(encoding, {"positional_embedding_type": encoding, **plain})
    if encoding == "block_shifted":
        room = longest if longest is not None else spec
        changes["index_table_size"] = 2 * max(TASKS["step_inplace"](room).position_indices) + 2
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
    """One trained model on every test machine."""
    rows: list[dict[str, Any]] = []
    trained: Any = run.model
    for name, machine in config.tests().items():
        task = TASKS["step_inplace"](machine)
        cfg = positions(trained.cfg, encoding, machine, longest=config.longer)
        model = resize(trained, cfg).eval()
        own = {"run": encoding, "seed": config.seed, "architecture": cfg.architecture, "checkpoint_step": run.step}
        rows += [{**row, **own} for row in _tested(model, task, name, config)]
    return rows


def copy_rows(config: LengthsConfig) -> list[dict[str, Any]]:
    """What giving the input back unchanged scores: every step that freezes or halts is right."""

    def copy(tokens: Tensor) -> Tensor:
        return nn.functional.one_hot(tokens, len(config.spec.vocab)).float()

    rows: list[dict[str, Any]] = []
    for name, machine in config.tests().items():
        tested = _tested(copy, TASKS["step_inplace"](machine), name, config)
        rows += [{**row, "run": "copy", "control": Control.COPY} for row in tested]
    return rows


def _tested(
    model: Callable[[Tensor], Tensor], task: Task, name: str, config: LengthsConfig
) -> Iterator[dict[str, Any]]:
    credit = PartialCredit()
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
    values = asdict(config) | {"spec": config.spec.to_dict(), "longer": config.longer.to_dict()}
    for name in ("encodings", "threads"):
        del values[name]
    return json.loads(json.dumps(values))


def _rows_so_far(file: Path, config: LengthsConfig) -> list[dict[str, Any]]:
    try:
        frame = read_frame(file)
    except (FileNotFoundError, BrokenFileError):
        return []
    return records(frame) if frame.attrs["provenance"].get("settings") == _settings(config) else []
