"""What is measured of a model on prompts: on a model whose attention and answers are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from interp.models import build_model
from interp.runs import Run, RunConfig, load, save_weights, write_config
from interp.studies.prompts import (
    induction_on,
    induction_scores,
    logit_lens,
    patch_prompts,
    prompt_tokens,
    read_prompt,
)
from interp.training.text_presets import text_model, training_for
from interp.worlds.text import TextWorld


def made(folder: Path, architecture: str = "transformer", **sizes: Any) -> Run:
    source = folder / "some.txt"
    source.write_text("".join(f"{n} = {n * n}; abcdefghij\n" for n in range(500)))
    world = TextWorld.of(source, length=20, block=200)
    config = RunConfig("text", world, text_model(architecture, world, **sizes), training_for(10))
    (folder / "run").mkdir()
    write_config(folder / "run", config)
    model = build_model(config.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)  # far from uniform
    save_weights(folder / "run" / "model.safetensors", model, config, step=1)
    return load(folder / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(tmp_path_factory.mktemp("prompts"), n_layers=2, d_model=32)


def test_a_reading_is_one_pass_of_the_model(run: Run) -> None:
    reading = read_prompt(run, "12 = 144")
    logits = run.model(run.task.encode("12 = 144"))[0].double().softmax(-1).detach()
    assert reading.names == list("12 = 144") and reading.cut == 0
    assert np.allclose(reading.probabilities, logits.numpy())
    assert reading.patterns is not None and np.allclose(reading.patterns.sum(-1), 1, atol=1e-5)
    top = reading.likeliest(3)
    assert top[0] == (run.task.vocab[int(logits[-1].argmax())], pytest.approx(float(logits[-1].max())))
    tokens, cut = prompt_tokens(run, "abcdefghij" * 3)
    assert cut == 10 and tokens.shape == (1, 20) and run.task.decode(tokens[0]) == "abcdefghij" * 2
    with pytest.raises(ValueError, match="a character at least"):
        read_prompt(run, "")


def test_induction_is_attention_on_what_followed(run: Run) -> None:
    reading = read_prompt(run, "abab1")
    assert reading.patterns is not None
    # queries 2 (a) and 3 (b) have earlier uses: what followed stands at 1, and at 2
    by_hand = (reading.patterns[..., 2, 1] + reading.patterns[..., 3, 2]) / 2
    found = induction_on(reading)
    assert found is not None
    shares, even = found
    assert np.allclose(shares, by_hand) and np.allclose(even, (1 / 3 + 1 / 4) / 2)
    assert induction_on(read_prompt(run, "abc")) is None
    scores = induction_scores(run.model, rows=4, seed=1)
    once = torch.randint(run.model.cfg.d_vocab - 1, (4, 10), generator=torch.Generator().manual_seed(1))
    _, cache = run.model.run_with_cache(torch.cat([once, once], dim=1))
    by_hand = [cache["pattern", 1][:, :, q, q - 9].mean(0) for q in range(10, 19)]
    assert np.allclose(scores[1], torch.stack(by_hand).mean(0).detach().numpy(), atol=1e-6)


def test_the_lens_ends_with_the_models_own_answer(run: Run) -> None:
    lens = logit_lens(run, "12 = 144")
    assert lens.shape == (3, 8, len(run.task.vocab)) and np.allclose(np.exp(lens).sum(-1), 1)
    assert np.allclose(np.exp(lens[-1]), read_prompt(run, "12 = 144").probabilities, atol=1e-6)
    assert not np.allclose(lens[0], lens[-1])


def test_patching_is_whole_where_it_must_be_and_nothing_where_prompts_agree(run: Run) -> None:
    effects, answers = patch_prompts(run, "1 = 1; abc", "1 = 1; abj")
    assert answers[0] != answers[1] and effects.shape == (3, 10)
    assert effects[0, :9] == pytest.approx(np.zeros(9), abs=1e-4)  # there the prompts are the same
    assert effects[:, 9] == pytest.approx(np.ones(3), abs=1e-4)  # the last position holds all that is read
    effects, _ = patch_prompts(run, "9 = 1; abc", "1 = 1; abj")
    assert effects[0].sum() != pytest.approx(effects[0, 9]) and effects[2, :9] == pytest.approx(np.zeros(9), abs=1e-4)
    with pytest.raises(ValueError, match="as many tokens; got 2 and 3"):
        patch_prompts(run, "ab", "abc")
    with pytest.raises(ValueError, match="same likeliest next token"):
        patch_prompts(run, "ab", "ab")


def test_what_a_model_lacks_is_said(tmp_path: Path, tiny_run: Run) -> None:
    gru = made(tmp_path, "gru", n_layers=1, d_model=16)
    reading = read_prompt(gru, "12")
    assert reading.patterns is None and induction_on(reading) is None
    with pytest.raises(ValueError, match="kind gru has no attention"):
        induction_scores(gru.model)
    assert logit_lens(gru, "12").shape[0] == 2
    with pytest.raises(ValueError, match="the world machine cannot be asked for 'text'"):
        read_prompt(tiny_run, "12")
