"""The page of a text: a prompt of one's own, the next piece, attention and induction heads, and two prompts patched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import interp
from app import first_pages
from app.components.next_character import likeliest_table, visible
from app.pages import PAGES
from interp.models import build_model
from interp.runs import RunConfig, save_weights, write_config
from interp.studies.prompts import induction_scores, patch_prompts, read_prompt
from interp.training.text_presets import text_model, training_for
from interp.worlds.text import TextWorld

Open = Callable[..., AppTest]


def untrained(folder: Path, architecture: str, **changes: Any) -> interp.Run:
    """A run folder of a tiny model with its first weights."""
    text = folder / "some.txt"
    text.write_text("".join(f"{n} = {n * n}; <b>abc</b>\n" for n in range(500)))
    world = TextWorld.of(text, length=20, block=200)
    world = TextWorld.from_dict({**world.to_dict(), **changes})
    config = RunConfig("text", world, text_model(architecture, world, n_layers=2, d_model=16), training_for(10))
    (folder / "run").mkdir()
    write_config(folder / "run", config)
    save_weights(folder / "run" / "model.safetensors", build_model(config.model), config, step=1)
    return interp.load(folder / "run")


def test_a_prompt_is_read_and_what_comes_next_is_told(
    open_page: Open, words: Callable[[AppTest], str], tmp_path: Path
) -> None:
    run = untrained(tmp_path, "transformer")
    assert first_pages.first_page(run) == first_pages.TEXT
    at = open_page("text", run.path, prompt="12 = 1")
    assert not at.exception and not at.error
    name, p = read_prompt(run, "12 = 1").likeliest(1)[0]
    assert f"next {visible(name)}, p = {p:.2f}" in at.markdown[0].value
    scores = induction_scores(run.model)
    assert f"has {scores.max():.2f}; attention spread evenly would give" in words(at)
    at.text_area(key="text_prompt").set_value("abcabc" * 5).run()
    assert "looks back on 20 tokens; the first 10 of the prompt are left out" in words(at)
    assert "In this prompt, where a token has occurred before" in words(at)
    at.text_area(key="text_prompt").set_value("ß").run()
    assert not at.exception and "The character 'ß' is not in the text that was trained on." in words(at)
    at.text_area(key="text_prompt").set_value("12 = 1").run()
    at.text_input(key="other_prompt").set_value("12 = ").run()
    assert "both prompts must have as many tokens; got 6 and 5" in words(at)
    try:
        _, answers = patch_prompts(run, "12 = 1", "<b>abc")
    except ValueError as error:
        told = str(error)
    else:
        told = f"{visible(answers[0])} against {visible(answers[1])}"
    at.text_input(key="other_prompt").set_value("<b>abc").run()
    assert not at.exception and told in words(at)


def test_a_model_without_attention_and_a_text_that_is_another(
    open_page: Open, words: Callable[[AppTest], str], tmp_path: Path
) -> None:
    """The text cannot be read here, and is not needed: a prompt is."""
    run = untrained(tmp_path, "gru", sha256="0" * 64)
    at = open_page("text", run.path)
    assert not at.exception and not at.error
    assert "kind gru has no attention to look at" in words(at) and "next " in at.markdown[0].value


def test_what_a_text_cannot_be_asked_is_refused_in_a_sentence(tmp_path: Path) -> None:
    run = untrained(tmp_path, "transformer")
    assert "cannot be asked what would come out" in (PAGES["intervene"].refuses(run) or "")
    assert "pairs that differ in one thing; the world text draws none" in (PAGES["circuit"].refuses(run) or "")
    assert PAGES["attention"].refuses(run) is None and PAGES["probes"].refuses(run) is None


@pytest.mark.parametrize(("name", "label"), [("\n", "⏎"), (" a", "␣a"), ("\x1b", "\\x1b"), ("é", "é")])
def test_what_cannot_be_seen_is_drawn(name: str, label: str) -> None:
    assert visible(name) == label
    table = likeliest_table([("<", 0.75), (name, 0.25)])
    assert "&lt;" in table and "0.7500" in table and "<b><" not in table
