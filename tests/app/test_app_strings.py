"""The page of a string: its rule state, the next character's probabilities beside the exact ones, and a text of one's
own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

import interp
from app import first_pages
from app.components.next_character import Place, next_table, string_strip
from app.examples_view import SEED
from app.numbers import small
from interp.models import build_model
from interp.models.state_configs import GRUConfig
from interp.runs import RunConfig, save_weights, write_config
from interp.tasks import TASKS
from interp.training import TrainingConfig
from interp.worlds.strings import Arithmetic, Rule, Sticky, StringWorld

Open = Callable[..., AppTest]


def untrained(folder: Path, rule: Rule) -> interp.Run:
    """A run folder of a tiny model with its first weights."""
    world = StringWorld(rule)
    task: Any = TASKS["strings"](world)
    model = GRUConfig(d_vocab=len(task.vocab), n_ctx=task.n_ctx, d_model=8, n_layers=1)
    config = RunConfig("strings", world, model, TrainingConfig(threads=1))
    folder.mkdir()
    write_config(folder, config)
    save_weights(folder / "model.safetensors", build_model(config.model), config, step=1)
    return interp.load(folder)


@pytest.mark.parametrize("rule", [Sticky(n=2, letters=2, length=8), Arithmetic(digits=1)], ids=lambda rule: rule.name)
def test_a_string_is_told_with_the_model_beside_the_rule(
    open_page: Open, words: Callable[[AppTest], str], tmp_path: Path, rule: Rule
) -> None:
    run = untrained(tmp_path / "run", rule)
    assert first_pages.first_page(run) == first_pages.STRING
    batch = run.task.sample(1, seed=SEED, start=2, split="evaluation")
    step = 3
    exact = run.task.world.conditionals(batch.examples)[0, step]
    model = run.model(batch.tokens)[0, step].double().softmax(-1).detach().numpy()
    illegal = float(model[: len(exact)][exact == 0].sum() + model[-1])
    legal = exact > 0
    kl = float((exact[legal] * np.log(exact[legal] / model[: len(exact)][legal])).sum())
    at = open_page("string", run.path, example="3", step=str(step + 1))
    assert not at.exception and not at.error
    assert f"held-out string 3 · after {step} characters" in at.markdown[0].value
    assert f"KL to the rule {small(kl)} nats · {small(illegal)} on what it forbids" in at.markdown[0].value
    next(b for b in at.button if b.key == "next").click().run()
    assert f"after {step + 1} characters" in at.markdown[0].value
    at.text_input(key="own_text").set_value("aAb" if rule.name == "sticky" else "1+1=3").run()
    fault = rule.fault("aAb" if rule.name == "sticky" else "1+1=3")
    assert fault is not None and f"✗ Character {fault.position + 1} is the first fault: {fault.reason}." in words(at)
    at.text_input(key="own_text").set_value("aaa" if rule.name == "sticky" else "1+1=2").run()
    assert "✓ The rule allows all" in words(at)
    next(b for b in at.button if b.key == "next_example").click().run()
    assert "held-out string 4" in at.markdown[0].value and not at.exception


def test_a_missing_model_is_said_and_the_string_shown(open_page: Open, tmp_path: Path) -> None:
    run = untrained(tmp_path / "run", Sticky(n=1, length=6))
    (run.path / "model.safetensors").unlink()
    at = open_page("string", run.path)
    assert not at.exception and at.error
    assert "held-out string 1" in at.markdown[0].value


def test_drawings_say_everything_in_words() -> None:
    html = string_strip([Place("^", "start", "a", 0.5, 0.25, 0.2), Place("<", "run 1", "b", 1.0, None, None)], 1)
    assert html.count("missed") == 1 and "by the rule 0.500, by the model 0.250" in html
    assert "&lt;" in html and "<b><" not in html
    table = next_table("ab", [1.0, 0.0], [0.75, 0.2], "a")
    assert "0.7500" in table and "the rule forbids it" in table and table.count("came") == 1
