"""The better of one thread and a bound: what is chosen, what looking leaves alone, and where it is written."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_config

from interp.pages.card_page import card_page
from interp.pages.cards import make_card
from interp.results import Metric, read_frame
from interp.runs import Run, RunConfig, read_config
from interp.training import TrainingProgress, threads, train
from interp.training.threads import Choice, TrainingThreads, faster, timed


@pytest.fixture(autouse=True)
def _threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "best"), [({1: 0.04, 2: 0.03}, 2), ({1: 0.03, 2: 0.3}, 1), ({1: 0.03, 2: 0.03}, 1)]
)
def test_the_quicker_is_chosen_and_of_equals_the_smaller(seconds: dict[int, float], best: int) -> None:
    assert faster(seconds) == best


def test_a_choice_is_said_in_one_line() -> None:
    assert Choice(2, {1: 0.044, 2: 0.031}).words("step") == "2 threads (31 ms a step, 44 with 1)"
    assert Choice(1, {1: 0.03, 2: 0.3}).words("step") == "1 thread (30 ms a step, 300 with 2)"


def test_work_is_tried_with_both_by_turns_and_the_number_is_put_back() -> None:
    torch.set_num_threads(1)
    tried: list[int] = []
    seconds = timed(lambda: tried.append(torch.get_num_threads()), 2)
    assert set(seconds) == {1, 2} and min(seconds.values()) >= 0 and torch.get_num_threads() == 1
    assert tried == [1, 2] * (len(tried) // 2)


def decided(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[int], dict[int, float]], *, every: int) -> list[int]:
    """Let the steps be tried as ever, but their times be what a test says; returns the number of each look."""
    looks: list[int] = []

    def measured(work: Callable[[], object], bound: int) -> dict[int, float]:
        looks.append(len(looks))
        for _ in range(2):
            work()
        return seconds(looks[-1])

    monkeypatch.setattr(threads, "timed", measured)
    monkeypatch.setattr(threads, "LOOK_EVERY", every)
    return looks


def bounded(bound: int = 2, **training: Any) -> RunConfig:
    config = tiny_config(threads=bound)
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **training))


def same(first: Run, second: Run) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True))


@pytest.mark.parametrize("options", [{}, {"adaptive": 0.5, "ema_decay": 0.9}])
def test_looking_again_leaves_the_weights_alone(
    options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As often as one likes: with one thread chosen they are those of a run that was given one."""
    looks = decided(monkeypatch, lambda _: {1: 0.03, 2: 0.06}, every=3)
    often = train(bounded(**options), tmp_path / "often")
    assert len(looks) == 10
    decided(monkeypatch, lambda _: {1: 0.03, 2: 0.3}, every=1000)
    once, never = train(bounded(**options), tmp_path / "once"), train(bounded(1, **options), tmp_path / "never")
    assert same(often, once) and same(often, never)
    assert often.config.digest == once.config.digest != never.config.digest


def test_what_was_used_is_written_and_survives_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first sitting takes one thread, the second two: neither the config nor the run's place changes."""

    def stop(progress: TrainingProgress) -> None:
        if progress.step == 14:
            raise KeyboardInterrupt

    decided(monkeypatch, lambda _: {1: 0.03, 2: 0.3}, every=1000)
    with pytest.raises(KeyboardInterrupt):
        train(bounded(), tmp_path / "run", on_progress=stop)
    decided(monkeypatch, lambda _: {1: 0.3, 2: 0.03}, every=1000)
    notes: list[str] = []
    run = train(bounded(), tmp_path / "run", on_progress=lambda now: notes.append(now.note) if now.note else None)
    assert notes == ["training with 2 threads (30 ms a step, 300 with 1)"]
    metrics = read_frame(run.path / "metrics.parquet")
    assert metrics.attrs["provenance"]["hardware"]["threads"] == {"1": 10, "2": 20}  # the checkpoint is of step 10
    assert read_config(run.path).digest == bounded().digest
    whole = train(bounded(1), tmp_path / "whole")
    curves = [read_frame(each.path / "metrics.parquet") for each in (run, whole)]
    first, second = (frame.loc[frame["metric"] == Metric.LOSS, "estimate"].tolist() for frame in curves)
    assert first == pytest.approx(second, rel=1e-3)  # equal but for the order of sums
    card = card_page(make_card(run, n=20, programs=0))
    assert "one thread for 10 steps, 2 threads for 20 steps" in card


def test_only_news_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    times = [{1: 1.0, 2: 2.0}, {1: 1.0, 2: 3.0}, {1: 2.0, 2: 1.0}]
    decided(monkeypatch, lambda look: times[look], every=5)
    chosen = TrainingThreads(2)
    said = []
    for step in range(15):
        said.append(chosen.look(step, lambda: None) if chosen.due(step) else None)
        chosen.count()
    assert [step for step, line in enumerate(said) if line] == [0, 10] and chosen.used == {1: 10, 2: 5}
    assert not TrainingThreads(1).due(0) and not TrainingThreads(2, fixed=True).due(0)


def test_looks_that_cost_much_come_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    decided(monkeypatch, lambda look: {1: 1.0, 2: 10.0 if look < 4 else 2.0}, every=5)
    chosen, looked = TrainingThreads(2), []
    for step in range(80):
        if chosen.due(step):
            chosen.look(step, lambda: None)
            looked.append(step)
    assert looked == [0, 5, 15, 35, 55, 60, 65, 70, 75]  # far apart: 5, 10, 20, 20 steps later; then 5 again


def test_a_run_beside_a_busy_process_chooses_and_ends(tmp_path: Path) -> None:
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        notes: list[str] = []
        run = train(bounded(), tmp_path / "run", on_progress=lambda now: notes.append(now.note) if now.note else None)
    finally:
        busy.kill()
        busy.wait()
    used = read_frame(run.path / "metrics.parquet").attrs["provenance"]["hardware"]["threads"]
    assert run.step == sum(used.values()) == 30 and set(used) <= {"1", "2"}
    assert len(notes) == 1 and notes[0].startswith("training with ")
