"""The Examples page: what stands there is the task's and the model's own, on runs of every task."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import interp
from app.answers import answers
from app.components.strip import Tile, strip
from app.examples_view import SEED
from app.run_access import LoadedModel
from cython_vm import run as run_machine
from interp.models import TransformerConfig, build_model
from interp.models.state_configs import GRUConfig
from interp.runs import RunConfig, save_weights, write_config
from interp.tasks import TASKS
from interp.training import TrainingConfig
from interp.worlds.machine import MachineSpec

Open = Callable[..., AppTest]
Words = Callable[[AppTest], str]
CHECKPOINTS = Path(__file__).resolve().parents[2] / "checkpoints"


def button(at: AppTest, key: str):
    return next(b for b in at.button if b.key == key)


def untrained(folder: Path, task: str, *, model: type = TransformerConfig, **machine: object) -> Path:
    """A run folder of a tiny model with its first weights, which is wrong almost everywhere."""
    spec = MachineSpec(n_instructions=6, n_cells=3, n_input=2, n_output=2, bits=2, **machine)  # type: ignore[arg-type]
    shown = TASKS[task](spec)  # type: ignore[arg-type]
    sizes = {"d_vocab": len(shown.vocab), "n_ctx": shown.n_ctx, "d_model": 16, "n_layers": 1}
    if model is TransformerConfig:
        sizes |= {"n_heads": 2, "attention_dir": shown.attention_dir}
    config = RunConfig(task, spec, model(**sizes), TrainingConfig())  # type: ignore[arg-type]
    folder.mkdir()
    write_config(folder, config)
    save_weights(folder / "model.safetensors", build_model(config.model), config, step=1)
    return folder


@pytest.fixture(scope="module")
def trace() -> interp.Run:
    return interp.load(CHECKPOINTS / "trace_final")


def test_a_stream_is_told_step_by_step(open_page: Open, words: Words, trace: interp.Run) -> None:
    batch = trace.task.sample(1, seed=SEED, start=4, split="evaluation")
    logits = trace.model(batch.tokens)
    at = open_page("examples", trace.path, example="5")
    assert not at.exception and not at.error
    times = trace.task.times(batch)[0]
    for step in range(3):
        said = at.markdown[0].value
        name = trace.task.strata(batch, at=step).names[trace.task.strata(batch, at=step).number[0]]
        assert f"held-out example 5 · step {step + 1} of {times.max() + 1} · **{name}**" in said
        asked = np.flatnonzero((times == step) & batch.loss_mask[0].numpy())
        if len(asked):
            right = bool(logits[0, asked[0]].argmax() == batch.targets[0, asked[0]])
            assert ("right ✓" if right else "wrong ✗") in said
        else:
            assert "nothing is asked here" in said
        button(at, "next").click().run()
    right = (logits.argmax(-1) == batch.targets) & batch.loss_mask
    assert f"**{int(right.sum())} of {int(batch.loss_mask.sum())}** answers are right" in words(at)


def test_the_slider_moves_time_and_the_address(open_page: Open, trace: interp.Run) -> None:
    at = open_page("examples", trace.path, step="3")
    assert at.slider[0].value == 3
    at.slider[0].set_value(7).run()
    assert "step 7 of" in at.markdown[0].value
    assert at.query_params["step"] in ("7", ["7"])


def test_variables_are_read_from_the_world_at_the_step(trace: interp.Run) -> None:
    from app.examples_view import Shown

    batch = trace.task.sample(1, seed=SEED, start=0, split="evaluation")
    shown = Shown(trace.task, batch, trace.task.times(batch)[0])
    states = run_machine(batch.examples, 64).states
    assert states is not None
    for step in (0, 5, 11):
        assert shown.value("array_ptr", step) == int(states.array_ptr[step])
        assert shown.value("cell[0]", step) == int(states.cells[step][0])


def test_next_mistake_finds_the_first_that_is_wrong(open_page: Open, words: Words) -> None:
    run = interp.load(CHECKPOINTS / "output")
    batch = run.task.sample(400, seed=SEED, start=0, split="evaluation")
    with torch.no_grad():
        wrong = np.flatnonzero(~run.task.right(run.model.answer(run.task, batch), batch))
    at = open_page("examples", run.path)
    before = 0
    for number in wrong[wrong > 0][:2]:
        button(at, "next_mistake").click().run()
        assert f"held-out example {number + 1} · predicted **wrong ✗**" in at.markdown[0].value
        assert f"Found {number - before:,} example" in words(at)
        assert at.query_params["example"] in (str(number + 1), [str(number + 1)])
        before = number


@pytest.mark.parametrize("name", ["trace_final", "output", "chain", "step", "quickstart"])
def test_answers_are_those_that_the_task_scores(name: str) -> None:
    import threading

    run = interp.load(CHECKPOINTS / name)
    task, batch = run.task, run.task.sample(6, seed=3, split="evaluation")
    found = answers(LoadedModel(run, threading.Lock(), "test"), batch)
    with torch.no_grad():
        told = task.answer(run.model, batch).numpy()
    if name == "trace_final":  # judged where a stream is asked
        expected = np.where(batch.loss_mask, told, -1)
        assert np.array_equal(found.said, expected) and np.array_equal(found.truth, batch.targets)
        return
    assert np.array_equal(found.said[found.asked].reshape(6, -1), told)
    assert np.array_equal(found.truth[found.asked].reshape(6, -1), task.expected(task.world.answer(batch.examples)))
    assert np.array_equal(found.all_right, task.right(torch.from_numpy(told), batch))
    tokens = batch.tokens.numpy()
    if task.shows_answer:  # what is told at a token is told of that token
        assert np.array_equal(found.truth[found.asked], tokens[found.asked])


def test_chain_is_shown_a_state_at_a_time(open_page: Open, words: Words) -> None:
    at = open_page("examples", CHECKPOINTS / "chain", step="3")
    assert not at.exception and not at.error
    assert "step 3 of 9" in at.markdown[0].value and "those of step 3 are shown" in words(at)
    assert re.search(r"all 42 tokens that are asked for are right|the model is wrong", words(at))


@pytest.mark.parametrize("text", ["0", "-3", "x", "9" * 400])
def test_an_example_that_cannot_be_meant_is_the_first(text: str, open_page: Open, words: Words, tmp_path: Path) -> None:
    at = open_page("examples", untrained(tmp_path / "run", "output"), example=text)
    assert not at.exception
    assert "the first is shown instead" in words(at) and "held-out example 1" in at.markdown[0].value


def test_without_weights_the_example_still_stands(open_page: Open, words: Words, tmp_path: Path) -> None:
    folder = untrained(tmp_path / "run", "trace")
    (folder / "model.safetensors").unlink()
    at = open_page("examples", folder)
    assert not at.exception
    assert "has no trained weights yet" in at.error[0].value
    assert at.code[0].value == f"tapelens train --resume --out {folder}"
    assert "step 1 of" in at.markdown[0].value and "What is true" in words(at)
    button(at, "next").click().run()
    assert "step 2 of" in at.markdown[0].value


def test_a_step_past_the_end_says_so(open_page: Open, words: Words, tmp_path: Path) -> None:
    at = open_page("examples", untrained(tmp_path / "run", "trace"), step="999")
    assert not at.exception
    assert "Step 999 does not exist" in words(at)


def test_states_in_a_layout_of_their_own_are_shown_as_examples(open_page: Open, words: Words, tmp_path: Path) -> None:
    """The Step page draws one-hot pointers alone; here examples have strata, which can be looked for."""
    run = untrained(tmp_path / "run", "step_inplace", pointers="index")
    at = open_page("examples", run)
    assert not at.exception and not at.error
    box = next(b for b in at.selectbox if b.key == "next_of")
    box.set_value("PUT").run()
    assert "**PUT**" in at.markdown[0].value and "held-out example 1 " not in at.markdown[0].value


def test_a_recurrent_net_has_no_attention_and_the_page_says_where_to_look(
    open_page: Open, words: Words, tmp_path: Path
) -> None:
    run = untrained(tmp_path / "run", "trace", model=GRUConfig)
    assert "1 layer of gru" in open_page("examples", run).markdown[0].value
    for page in ("attention", "circuit"):
        at = open_page(page, run)
        assert not at.exception and not at.error
        assert "What there is for this run:" in words(at)
    at = open_page("probe_results", run)
    assert [code.value for code in at.code] == [f"tapelens probe {run}"]


def test_tiles_mark_what_is_wrong_and_say_what_is_true() -> None:
    tiles = [
        Tile("a[0]", "PUT", "0", now=True, truth="3", said="3", p=0.97),
        Tile("a[1]", "<b>", "1", truth="1", said="0", p=0.6),
        Tile("a[2]", "5", "2"),
    ]
    html = strip(tiles, clickable=True)
    assert (html.count("✓"), html.count("✗"), html.count("data-pick")) == (1, 1, 3)
    assert "is 1</span>" in html and "is 3</span>" not in html
    assert "<b>&lt;b&gt;</b>" in html
    assert 'aria-label="a[1]: &lt;b&gt;, the model says 0, wrong: it is 1"' in html
    assert "data-pick" not in strip(tiles, clickable=False)
