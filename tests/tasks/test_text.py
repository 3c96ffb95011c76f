"""The task `text`: what it shows and asks, bits a character, and every architecture trained on it through one verb."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import draw_pairs
from interp.circuits.pairs import main_contrasts
from interp.cli import main
from interp.models import build_model
from interp.results import Metric, select
from interp.runs import RunConfig, load
from interp.tasks import TASKS
from interp.tasks.options import TextOptions
from interp.training import evaluate, train
from interp.training.presets import PRESETS, TEXT_PRESETS
from interp.training.text_presets import text_model, training_for
from interp.worlds.text import END, TextWorld

ARCHITECTURES = (
    "transformer", "path", "gru", "lstm", "rnn", "linear_attention", "delta", "mamba", "mamba2", "looped", "iterative",
    "masked_diffusion", "diffusion_lm", "window",
)  # fmt: skip
SMALL: dict[str, Any] = {"d_model": 16}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text with something to learn: numbers that are spelled behind themselves."""
    path = tmp_path_factory.mktemp("text") / "numbers.txt"
    names = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    rng = np.random.default_rng(0)
    path.write_text("".join(f"{n} is {names[n]}.\n" for n in rng.integers(10, size=1500)), encoding="utf-8")
    return path


@pytest.fixture
def task(text: Path) -> Any:
    return TASKS["text"](TextWorld.of(text, length=24, block=200))


def test_each_token_is_asked_for_at_the_one_before(task: Any) -> None:
    batch = task.sample(20, seed=0, split="fit")
    assert torch.equal(batch.targets[:, :-1], batch.tokens[:, 1:]) and (batch.targets[:, -1] == -1).all()
    assert task.decode(batch.tokens[0]) == task.world.texts(batch.examples)[0]
    assert task.encode("7 is seven.").shape == (1, 11) and task.decode(task.encode("7 is")) == "7 is"
    assert task.vocab[-1] == END and len(task.vocab) == task.world.end + 1
    assert (task.times(batch) == np.arange(24)).all()
    labels = task.labels(batch, "class")
    for row, shown in enumerate(task.world.texts(batch.examples)):
        assert [value == 2 for value in labels[row]] == [character.isdigit() for character in shown]
    later = TASKS["text"](task.world, TextOptions(given=10))
    assert int((later.render(batch.examples).targets >= 0).sum()) == 20 * 14
    assert later.answer_positions.tolist() == list(range(9, 23))
    with pytest.raises(ValueError, match="given must be below the length of an example, 24; got 24"):
        TASKS["text"](task.world, TextOptions(given=24))


def test_behind_the_end_of_a_document_nothing_is_asked(text: Path) -> None:
    task: Any = TASKS["text"](TextWorld.of(text, length=30, unit="document", separator="\n"))
    batch = task.sample(30, seed=0, split="fit")
    for row in range(30):
        shown = task.decode(batch.tokens[row])
        assert int(batch.loss_mask[row].sum()) == len(shown)  # all but the first, and the end
        assert batch.targets[row, len(shown) - 1] == task.world.end and (batch.targets[row, len(shown) :] == -1).all()


def uniform(vocab: int) -> Any:
    return lambda tokens: torch.zeros(*tokens.shape, vocab)


def test_bits_of_uniform_text_are_the_logarithm_of_the_vocabulary(task: Any) -> None:
    vocab = len(task.vocab)
    for n in (4, 10_000):
        row = task.also_measured(uniform(vocab), n=n, split="evaluation")[0]
        assert row["estimate"] == pytest.approx(math.log2(vocab), rel=1e-6)
        assert row["ci_low"] == pytest.approx(row["ci_high"], rel=1e-6)
    pairs: Any = TASKS["text"](task.world.changed({"vocabulary": "byte_pairs", "vocab_size": 290}))
    windows = pairs.world.side_by_side("evaluation")
    nats, characters = pairs.nats(uniform(len(pairs.vocab)), windows)
    assert nats.sum() == pytest.approx(pairs.render(windows).loss_mask.sum().item() * math.log(291), rel=1e-6)
    batch = pairs.render(windows)
    spelled = [pairs.decode(row[row >= 0]) for row in batch.targets]
    assert characters.tolist() == [len(each) for each in spelled]  # of bytes pairs several a token
    assert characters.sum() > 2 * int(batch.loss_mask.sum())


def test_byte_pairs_are_told_of_before_a_run_is_shared(task: Any) -> None:
    assert task.notice_before_sharing() is None
    pairs = TASKS["text"](task.world.changed({"vocabulary": "byte_pairs", "vocab_size": 290}))
    said = pairs.notice_before_sharing()
    assert said is not None and "290 byte pairs learned from" in said and str(pairs.world.source) in said


def test_a_model_that_knows_the_text_scores_one(task: Any) -> None:
    batch = task.sample(40, seed=1)

    def model(tokens: torch.Tensor) -> torch.Tensor:
        following = torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)
        return 50 * torch.nn.functional.one_hot(following, len(task.vocab)).float()

    scores = task.score(task.answer(model, batch), batch)
    assert set(scores.estimate) == {1.0} and set(scores.op) <= set(task.world.stratum_names)
    assert scores.n.sum() == batch.loss_mask.sum()
    found = evaluate(model, task, n=30, seed=0)
    assert select(found, metric=Metric.BITS).estimate.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_learns_text_through_one_call(architecture: str, text: Path, tmp_path: Path) -> None:
    world = TextWorld.of(text, length=24, block=200)
    sizes = SMALL | ({"n_layers": 1} if architecture != "window" else {"context": 4, "d_mlp": 32})
    settings = dataclasses.replace(training_for(60, rate=1e-2), eval_every=60, ema_decay=0.8, warmup_steps=5)
    run = train(RunConfig("text", world, text_model(architecture, world, **sizes), settings), tmp_path / architecture)
    before = run.task.also_measured(run.untrained_model(), n=40, split="validation")[0]["estimate"]
    after = select(run.frame("metrics"), metric=Metric.BITS).estimate.item()
    assert after < 0.8 * before, (before, after)
    opened = load(run.path)
    assert opened.config == run.config and opened.config.digest == run.config.digest


def test_presets_of_text_are_of_about_one_size() -> None:
    sizes = {name: sum(p.numel() for p in build_model(PRESETS[name].model).parameters()) for name in TEXT_PRESETS}
    assert max(sizes.values()) < 1.2 * min(sizes.values()) and max(sizes.values()) < 1_000_000
    for name in TEXT_PRESETS:
        assert PRESETS[name].training.validation, "what is chosen is chosen on validation"


def test_the_verb_takes_a_text_of_ones_own_and_the_run_holds_none_of_it(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    asked = ["train", "--preset", "text_small", "--data", str(text), "--machine", "length=16", "block=100"]
    small = ["--model.n-layers", "1", "--model.d-model", "16", "--steps", "2", "--training.eval-every", "2"]
    main([*asked, *small, "--out", str(out)])
    run = load(out)
    assert run.config.world.to_dict()["source"] == str(text) and run.task.n_ctx == 16
    assert run.model.cfg.d_vocab == len(set(text.read_text())) + 1
    for file in out.rglob("*"):
        assert file.is_dir() or b"is seven" not in file.read_bytes(), file


def test_causal_methods_refuse_text_in_a_sentence(task: Any) -> None:
    lacks = "the world text cannot be asked for 'do'; it has text"
    with pytest.raises(ValueError, match=lacks):
        task.counterfactual(4, "class", seed=0)
    with pytest.raises(ValueError, match=lacks):
        task.world.settable("class")
    with pytest.raises(ValueError, match="the task text has no contrast 'space'; it has none"):
        draw_pairs(task, "space", 4, seed=0)
    with pytest.raises(ValueError, match="the task text has no contrasts, so no circuit can be looked for"):
        main_contrasts(task)
    assert task.swappable() == [] and task.contrasts() == {} and task.world.contrast_names == ()
