"""Held-out examples that training had shown in another guise: found as by looking at every token, and taken out."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_config

from cython_vm import MachineSpec
from cython_vm import run as machine_run
from interp.cli import main
from interp.evaluation.overlap import overlap, trained_units
from interp.files import write_json
from interp.pages.card_page import card_page
from interp.pages.cards import make_card, read_card
from interp.pages.models import write_models_page
from interp.results import Aggregation, Metric, records, select
from interp.runs import Run, load
from interp.tasks import TaskOptions
from interp.training import evaluate, train
from interp.training.batches import Batches
from interp.training.presets import transformer_for
from interp.training.start import started_from
from interp.worlds import as_world

SPECS = {
    "trace": MachineSpec(n_instructions=8, n_cells=4, n_input=1, n_output=2, bits=1),
    "output": MachineSpec(n_instructions=8, n_cells=2, n_input=0, n_output=1, bits=1),
}
N, SEED = 300, 7


def trained(folder: Path, task: str, *, start: Path | None = None, seed: int = 0, **options: Any) -> Run:
    """A tiny run on runs of up to 4 steps, few enough that some come back."""
    chosen, spec = TaskOptions(n_steps=4, **options), SPECS[task]
    model = transformer_for(task, spec, options=chosen, n_layers=1, n_heads=2, d_model=16, seed=seed)
    config = tiny_config(task=task, steps=20, seed=seed, batch_size=16, eval_states=20, eval_every=20)
    config = replace(config, world=as_world(spec), model=model, options=chosen)
    if start is not None:
        config = started_from(replace(config, model=replace(model, seed=0)), start)
    return train(config, folder)


def shown(run: Run, examples: Any) -> list[bytes]:
    """What the model is shown: the tokens of a stream; of a program, the instructions that its run comes to."""
    if run.task.name == "trace":
        return [row.numpy().tobytes() for row in run.task.render(examples).tokens]
    told, found = machine_run(examples, 4), []
    for row in range(len(examples)):
        reached = np.unique(told.row(row).instruction_ptr)
        parts = examples.program[row][reached], examples.input[row], examples.input_length[row]
        found.append(b"|".join(np.asarray(part).tobytes() for part in (reached, *parts)))
    return found


def by_looking(run: Run) -> set[bytes]:
    """Everything that the training loop showed, batch by batch."""
    batches = Batches(run.config, run.task)
    return {row for step in range(run.step) for row in shown(run, batches.draw(step).examples)}


def scores_of(run: Run) -> Any:
    return evaluate(run.model, run.task, n=N, seed=SEED)


@pytest.mark.parametrize("task", ["trace", "output"])
def test_old_examples_are_those_that_training_showed(task: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", task)
    found = overlap(run, scores_of(run), n=N, seed=SEED)
    assert found is not None and found.n_trained == 20 * 16
    before = by_looking(run)
    expected = np.array([row in before for row in shown(run, run.task.draw(N, seed=SEED))])
    assert (found.seen == expected).all() and found.n_units == len(before)
    assert 0 < found.share < 1 and found.share == found.seen.mean()


def test_the_scores_without_them_are_those_of_the_others_alone(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "trace")
    found = overlap(run, scores_of(run), n=N, seed=SEED)
    assert found is not None
    held = run.task.draw(N, seed=SEED)
    for name, members in (("unseen units", ~found.seen), ("seen units", found.seen)):
        batch = run.task.render(held[np.flatnonzero(members)])
        with torch.inference_mode():
            direct = run.task.score(run.task.answer(run.model, batch), batch)
        own = {(row["metric"], row["aggregation"]): row for row in found.scores if row["stratum"] == name}
        exact = own[Metric.EXACT_MATCH, Aggregation.MACRO]
        assert exact["estimate"] == pytest.approx(run.task.headline(direct))
        (whole,) = records(select(direct, metric=Metric.SEQUENCE_MATCH))
        sequences = own[Metric.SEQUENCE_MATCH, Aggregation.MEAN]
        assert (sequences["n"], sequences["estimate"]) == (members.sum(), pytest.approx(whole["estimate"]))


@pytest.mark.parametrize("task", ["trace", "output"])
def test_where_what_is_shown_is_held_out_nothing_is_old(task: str, tmp_path: Path) -> None:
    run = trained(tmp_path / "run", task, units="shown")
    found = overlap(run, scores_of(run), n=N, seed=SEED)
    assert found is not None and not found.seen.any()
    assert {row["stratum"] for row in found.scores} == {"unseen units"}


def test_what_the_run_began_from_counts_too(tmp_path: Path) -> None:
    first = trained(tmp_path / "first", "trace")
    second = trained(tmp_path / "second", "trace", start=first.path, seed=5)
    alone = trained(tmp_path / "alone", "trace", seed=5)
    n, units = trained_units(second)
    assert n == 2 * 320
    assert set(units) == set(trained_units(first)[1]) | set(trained_units(alone)[1])


def test_a_task_that_shows_the_whole_unit_has_no_overlap(tiny_run: Run) -> None:
    assert overlap(tiny_run, scores_of(tiny_run), n=N, seed=SEED) is None
    with pytest.raises(ValueError, match="step_inplace shows all of what is held out"):
        trained_units(tiny_run)


def test_training_that_depends_on_more_than_its_seed_is_refused(tmp_path: Path) -> None:
    config = tiny_config(steps=2)
    run = train(replace(config, training=replace(config.training, adaptive=0.5)), tmp_path / "run")
    with pytest.raises(ValueError, match="depend on more than its seed"):
        trained_units(run)


def test_the_card_says_it_and_can_be_given_it_later(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "trace")
    values = make_card(run, n=N, seed=SEED)
    page = card_page(values)
    found = overlap(run, scores_of(run), n=N, seed=SEED)
    assert found is not None
    assert f"Of the 300 held-out examples, {found.seen.sum()} (" in page and "which drew 320," in page
    shutil.copytree(run.path, tmp_path / "old")
    del values["overlap"]
    write_json(tmp_path / "old" / "card.json", values)
    main(["card", str(tmp_path / "old"), "--overlap", "--threads", "1"])
    assert read_card(tmp_path / "old") == read_card(run.path) and (tmp_path / "old" / "card.md").read_text() == page
    models = write_models_page([load(run.path).path], tmp_path).read_text()
    assert f"| run | 320 | {found.seen.sum()} of 300 |" in models
