"""Runs longer than those that were trained on: the same weights, a world with room, held-out units of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import interp
from interp.reading import RunError
from interp.results import Aggregation, Metric, select
from interp.runs.further_frames import BEYOND
from interp.stage_options import BeyondOptions
from interp.studies.beyond import beyond_curve, beyond_stage, longer_task
from interp.training import PRESETS, train
from interp.training.rebuilt import rebuilt
from interp.training.scoring import evaluate

SIZES = {"n_instructions": 8, "n_cells": 3, "n_input": 2, "n_output": 2, "bits": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> interp.Run:
    """A GRU after a few steps on streams of six instructions."""
    preset = PRESETS["trace"]
    world = type(preset.world).from_dict(preset.world.to_dict() | SIZES)
    config = rebuilt(
        preset,
        world,
        architecture="gru",
        options={"n_steps": 6},
        model={"n_layers": 1, "d_model": 16},
        training={"steps": 30, "batch_size": 8, "eval_every": 30, "eval_states": 64, "steps_along": 0, "threads": 1},
    )
    return train(config, tmp_path_factory.mktemp("beyond") / "run")


def test_a_longer_task_has_room_for_its_runs_and_the_same_words(run: interp.Run) -> None:
    longer = longer_task(run.task, 15)
    assert (longer.n_steps, longer.n_ctx) == (15, run.task.n_ctx + 2 * 9)  # type: ignore[attr-defined]
    spec = longer.world.to_dict()
    assert (spec["n_instructions"], spec["n_input"], spec["n_output"], spec["n_cells"]) == (20, 5, 5, 3)
    assert longer.vocab == run.task.vocab
    assert longer.options == replace(run.task.options, n_steps=15)


def test_the_trained_length_scores_as_an_evaluation_does(run: interp.Run) -> None:
    rows = beyond_curve(run, [12], n=200, seed=9)
    plain = evaluate(run.model, run.task, n=200, seed=9)
    (expected,) = select(plain, aggregation=Aggregation.MACRO, metric=Metric.EXACT_MATCH)["estimate"]
    here = select(rows, stratum="6 steps", metric=Metric.EXACT_MATCH)["estimate"]
    assert here.tolist() == [expected]
    assert all(0 <= share <= 1 for share in select(rows, stratum="12 steps", metric=Metric.EXACT_MATCH)["estimate"])


def test_longer_runs_execute_more(run: interp.Run) -> None:
    rows = select(beyond_curve(run, [12], n=200, seed=9), metric=Metric.RUN_STEPS)
    short, long = rows["estimate"]
    assert short <= 6 < long <= 12


def test_rows_are_kept_and_read_again(run: interp.Run) -> None:
    options = BeyondOptions(n_steps=(9,), n=100)
    beyond_stage(run, options)
    calls: list[str] = []
    again = beyond_stage(run, options, progress=lambda done, total, at: calls.append(at))
    assert not calls
    assert again.attrs["provenance"]["settings"] == {"n_steps": [9], "n": 100, "seed": options.seed}
    assert set(BEYOND.read(run)["stratum"]) == {"6 steps", "9 steps"}
    assert max(beyond_stage(run, replace(options, n=120))["n"].tolist()) == 120


def test_a_task_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="the task step_inplace tells no runs"):
        beyond_curve(interp.load(Path("checkpoints/quickstart")), [12])
    with pytest.raises(RunError, match=r"beyond\.parquet does not exist yet; make it with: tapelens eval"):
        BEYOND.read(interp.load(Path("checkpoints/trace_1")))


def test_what_is_said_of_the_bundled_lstm_stands_in_its_rows() -> None:
    rows = BEYOND.read(interp.load(Path("checkpoints/trace_lstm")))
    said = Path("docs/evaluation.md").read_text("utf-8").partition("## Longer runs")[2].replace("\n", " ")
    lengths = [f"{n} steps" for n in (64, 96, 128)]
    for metric in (Metric.EXACT_MATCH, Metric.SEQUENCE_MATCH):
        found = [select(rows, stratum=name, metric=metric, op=None)["estimate"].tolist()[0] for name in lengths]
        first, second, third = (f"{100 * share:.1f}" for share in found)
        assert f"in {first}, {second} and {third} %" in said
