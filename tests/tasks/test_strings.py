"""The task `strings`: what it shows and asks, its pairs and contrasts, and how models are held against the rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import draw_pairs
from interp.cli import main
from interp.evaluation.language import divergence
from interp.evaluation.texts import judge_texts, sample_texts, uniform_texts
from interp.models.state_configs import GRUConfig
from interp.results import read_frame
from interp.runs import RunConfig, load
from interp.studies.texts import known_texts
from interp.tasks import TASKS
from interp.training import TrainingConfig, train
from interp.worlds.base import in_split
from interp.worlds.strings import Arithmetic, Copying, Counting, Markov, Rule, Sticky, StringWorld

RULES: tuple[Rule, ...] = (
    Sticky(n=1, letters=2, length=8),
    Counting(digits=3, length=13),
    Arithmetic(digits=1),
    Copying(longest=3, letters=3),
    Markov(symbols=3, length=12),
)


@pytest.fixture(params=RULES, ids=lambda rule: rule.name)
def task(request: pytest.FixtureRequest) -> Any:
    return TASKS["strings"](StringWorld(request.param))


def truth(task: Any) -> Any:
    """A model that says the rule's own distribution: it reads the characters back from the tokens."""

    def model(tokens: torch.Tensor) -> torch.Tensor:
        world, length = task.world, task.world.rule.length
        values = torch.cat([tokens[:, 1:], torch.zeros(len(tokens), 1 + length - tokens.shape[1]).long()], dim=1)
        exact = np.zeros((len(tokens), tokens.shape[1], len(task.vocab)))
        exact[..., :-1] = world.conditionals(type(world.draw(1, seed=0))(values.numpy()))[:, : tokens.shape[1]]
        return torch.from_numpy(exact).clamp(min=1e-30).log()

    return model


def test_what_is_shown_is_the_string_and_what_is_asked_the_next_character(task: Any) -> None:
    batch = task.sample(30, seed=0, split="fit")
    assert (in_split(task.groups(batch.examples), "fit")).all()
    for row, text in enumerate(task.world.texts(batch.examples)):
        whole = text + ("." if task.world.rule.ends else "")
        shown = "".join(task.vocab[token] for token in batch.tokens[row])
        asked = "".join(task.vocab[token] for token in batch.targets[row] if token >= 0)
        assert asked == whole and ("^" + whole).startswith(shown[: len(whole)])
    assert (task.times(batch) >= 0).sum() == batch.loss_mask.sum()


def test_the_rule_itself_scores_one_and_diverges_by_nothing(task: Any) -> None:
    model, batch = truth(task), task.sample(50, seed=1)
    scores = task.score(task.answer(model, batch), batch)
    assert set(scores.estimate) == {1.0}
    assert set(scores.op.dropna()) <= set(task.world.stratum_names)
    found = divergence(model, task, n_sampled=64, most=200_000)
    assert found.exact == (task.world.rule.name != "markov" or found.n == 3**11)
    assert found.kl == pytest.approx(0, abs=1e-9) and found.illegal == pytest.approx(0, abs=1e-9)
    entropy = task.loss(model(batch.tokens), batch)
    worse = task.loss(model(batch.tokens) * 0, batch)
    assert entropy < worse


def test_divergence_of_uniform_text_by_hand() -> None:
    """A model that holds all characters and the start equally likely: log(V / allowed) wherever one class is due."""
    task: Any = TASKS["strings"](StringWorld(Sticky(n=1, letters=1, length=2)))
    found = divergence(lambda tokens: torch.zeros(*tokens.shape, 4), task)
    assert found.exact and found.n == 3
    assert found.kl == pytest.approx((np.log(4 / 3) + np.log(4)) / 2)
    assert found.illegal == pytest.approx((1 / 4 + 3 / 4) / 2)
    assert found.by_position[:, 0].tolist() == pytest.approx([np.log(4 / 3), np.log(4)])


def test_pairs_ask_what_the_world_says(task: Any) -> None:
    for name in task.swappable():
        pairs = task.counterfactual(40, name, seed=0)
        assert (task.world.read(pairs.source.examples, name, pairs.source_time) == pairs.values).all()
        told = task.world.answer(pairs.base.examples, {name: pairs.values}, at=pairs.edit_time)
        assert (told.values == pairs.expected.numpy()).all() and (pairs.expected >= 0).all()
        assert (pairs.positions[:, 0].numpy() == pairs.edit_time).all()
        assert pairs.changes.any(), name
    with pytest.raises(ValueError, match="no single stored value decides it"):
        task.counterfactual(4, task.swappable()[0], seed=0, design="minimal")


def test_contrasts_differ_in_the_answer_and_agree_in_the_last_character(task: Any) -> None:
    assert task.contrasts()
    for name in task.contrasts():
        pairs = draw_pairs(task, name, 12, seed=0)
        assert (pairs.clean_answer != pairs.corrupted_answer).all()
        assert torch.equal(
            pairs.clean.tokens.gather(1, pairs.positions), pairs.corrupted.tokens.gather(1, pairs.positions)
        )
        model = truth(task)
        assert pairs.exact(model(pairs.clean.tokens)).all()
        assert (pairs.logit_difference(model(pairs.clean.tokens)) > 0).all()
        assert (pairs.logit_difference(model(pairs.corrupted.tokens)) < 0).all()


def test_texts_are_judged_by_hand() -> None:
    world = StringWorld(Sticky(n=1, letters=1, length=4))
    found = judge_texts(world, ["aaAA", "aaAA", "aA00", "aaaa", "00a?"], {"aaaa"})
    assert (found.in_distribution, found.uniqueness) == (3 / 5, 4 / 5)
    assert found.novelty == 2 / 3
    assert [(text, fault.position) for text, fault in found.faults] == [("aA00", 1), ("00a?", 3)]
    assert {len(text) for text in uniform_texts(world, ["aaAA", "aa"], seed=0)} == {4, 2}
    with pytest.raises(ValueError, match="no text"):
        judge_texts(world, [], set())


def test_a_run_is_trained_sampled_and_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = StringWorld(Sticky(n=1, letters=1, length=6))
    task: Any = TASKS["strings"](world)
    model = GRUConfig(d_vocab=len(task.vocab), n_ctx=task.n_ctx, n_layers=1, d_model=16)
    settings: dict[str, Any] = {"optimizer": "adamw", "adamw_lr": 1e-2, "threads": 1, "validation": True}
    training = TrainingConfig(steps=150, batch_size=32, warmup_steps=10, eval_every=50, eval_states=40, **settings)
    run = train(RunConfig("strings", world, model, training), tmp_path / "run")
    assert divergence(run.model, task).kl < 0.05 < divergence(run.untrained_model(), task).kl
    texts = sample_texts(run.model, task, 50, seed=0)
    assert texts == sample_texts(run.model, task, 50, seed=0) and all(len(text) == 6 for text in texts)
    known = known_texts(run)
    drawn = [text for step in range(150) for text in world.texts(task.draw(32, seed=0, start=32 * step, split="fit"))]
    assert known == set(drawn)
    assert main(["sample-text", str(run.path), "--n", "40", "--save"]) is None
    rows = read_frame(run.path / "texts.parquet")
    assert {"kl", "illegal_mass", "in_distribution", "novelty", "uniqueness"} == set(rows.metric)
    random = rows[(rows.metric == "in_distribution") & (rows.control == "random_text")].estimate.item()
    own = rows[(rows.metric == "in_distribution") & rows.control.isna()].estimate.item()
    assert random < 0.5 < own
    brought = tmp_path / "brought.txt"
    brought.write_text("aaAA00\naA\n\n", encoding="utf-8")
    capsys.readouterr()
    assert main(["sample-text", str(run.path), "--from", str(brought)]) is None
    said = capsys.readouterr().out
    assert (
        "texts: 50.00% of 2 allowed" in said
        and "aA  fault at 2: a run of lower case ends after 1 of at least 2" in said
    )
    assert load(run.path).config.world == world


def test_the_bundled_model_of_sticky_meets_its_goals() -> None:
    """At most 5,000 parameters; by its rows, exact over every prefix, and again on held-out strings."""
    bundled = load(Path(__file__).resolve().parents[2] / "checkpoints" / "sticky")
    assert sum(each.numel() for each in bundled.model.parameters()) <= 5000
    rows = read_frame(bundled.path / "texts.parquet")
    own = rows[rows.control.isna()].set_index("metric").estimate
    assert own["kl"] < 1e-3 and own["illegal_mass"] <= 1e-4 and own["in_distribution"] >= 0.995
    found = divergence(bundled.model, bundled.task, most=0, n_sampled=1000)
    assert not found.exact and found.kl < 1e-3 and found.illegal <= 1e-4
