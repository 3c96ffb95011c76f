"""Three splits: what is trained on, what is chosen on, and what is read once at the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_config

from cython_vm import MachineSpec, program_hash
from interp.evaluation.measure import measure
from interp.results import Aggregation, Metric, records, select
from interp.runs import RunConfig
from interp.tasks import TASKS, TaskOptions
from interp.training import PRESETS, evaluate, train
from interp.training.batches import Batches
from interp.training.presets import transformer_for
from interp.training.trainer import CURVE_SEED
from interp.worlds import as_world, in_split


def validated(config: RunConfig, **training: Any) -> RunConfig:
    return replace(config, training=replace(config.training, validation=True, **training))


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_validation_split_of_what_it_shows(name: str) -> None:
    config = PRESETS[name]
    assert config.training.validation and config.training.threads <= 2  # 1: too small a model to gain by a second
    task = TASKS[config.task](config.world, config.options)
    drawn = Batches(config, task).draw(0)
    assert in_split(task.groups(drawn.examples), "fit").all()
    if (shown := task.shown_units(drawn.examples)) is not None:
        assert (task.groups(drawn.examples) == shown).all()


def test_neither_split_is_trained_on() -> None:
    config = validated(tiny_config())
    batches = Batches(config, TASKS[config.task](config.world, config.options))
    rest = np.concatenate([program_hash(batches.draw(step).examples) % 20 for step in range(40)])
    assert set(rest.tolist()) == set(range(2, 20))


def test_units_are_streams_where_streams_are_shown() -> None:
    """Drawing by programs, some streams of the evaluation split are old: these splits have no stream in common."""
    spec = MachineSpec(n_instructions=6, n_cells=2, n_input=0, n_output=1, bits=1)
    task = TASKS["trace"](as_world(spec), TaskOptions(n_steps=4, units="shown"))
    parts: list[set[bytes]] = []
    for split in ("fit", "validation", "evaluation"):
        batch = task.sample(400, seed=3, split=split)
        parts.append({row.numpy().tobytes() for row in batch.tokens})
    assert all(parts) and not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_the_curve_is_of_validation_and_the_final_figures_of_evaluation(tmp_path: Path) -> None:
    run = train(validated(tiny_config(steps=300), eval_every=300, eval_states=400), tmp_path / "run")
    (curve,) = records(select(run.frame("metrics"), metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO))
    found = {
        split: evaluate(run.model, run.task, n=400, seed=CURVE_SEED, split=split)["estimate"].iloc[0]
        for split in ("validation", "evaluation")
    }
    assert curve["estimate"] == found["validation"] != found["evaluation"]
    final = select(measure(run, n=400, seed=CURVE_SEED, programs=0).rows, aggregation=Aggregation.MACRO)
    assert select(final, metric=Metric.EXACT_MATCH)["estimate"].iloc[0] == found["evaluation"]


def test_a_run_without_the_split_draws_as_it_did() -> None:
    plain = tiny_config()
    task = TASKS[plain.task](plain.world, plain.options)
    rest = np.concatenate([program_hash(Batches(plain, task).draw(step).examples) % 20 for step in range(40)])
    assert set(rest.tolist()) == set(range(1, 20))
    assert "validation" not in plain.to_dict()["training"] and validated(plain).digest != plain.digest
    assert transformer_for("step_inplace", plain.spec) == transformer_for("step_inplace", plain.world)
