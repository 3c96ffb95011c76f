"""The Thinking page: answers step by step of a loop, and pass by pass of a denoising."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

import interp
from app.components.drafts import Draft, draft_table
from app.examples_view import SEED
from interp.models.denoising import denoise

from .browser import Visit, faults, marked, shot

BUNDLED = Path(interp.__file__).parents[1] / "checkpoints"


def test_the_last_draft_of_continuous_diffusion_is_the_answer() -> None:
    run = interp.load(BUNDLED / "step_diffusion_lm")
    batch = run.task.sample(1, seed=3, split="evaluation")
    drafts = run.model.drafts(run.task, batch)
    assert (len(drafts.tokens), drafts.stop) == (run.model.max_denoising_steps, None)
    logits = run.model(batch.tokens, denoising_steps=run.model.max_denoising_steps)
    assert drafts.tokens[-1].tolist() == logits[0, run.config.model.n_prompt - 1 : -1].argmax(-1).tolist()
    assert drafts.truth.tolist() == batch.tokens[0, run.config.model.n_prompt :].tolist()


@pytest.mark.parametrize("name", ["output_looped", "step_masked_diffusion"])
def test_the_last_draft_is_the_answer(name: str) -> None:
    run = interp.load(BUNDLED / name)
    batch = run.task.sample(1, seed=3, split="evaluation")
    drafts = run.model.drafts(run.task, batch)
    n, k = drafts.tokens.shape
    assert (n, k) == ((24, 4) if name == "output_looped" else (16, drafts.truth.numel()))
    assert drafts.p.shape == (n, k)
    assert ((drafts.p > 0) == (drafts.tokens >= 0)).all()
    assert (drafts.tokens[-1] >= 0).all()
    if name == "output_looped":
        with run.model.looping(n):
            answer = run.task.answer(run.model, batch)[0]
        halted = run.task.answer(run.model, batch)[0]
        assert drafts.tokens[drafts.stop].tolist() == halted[halted >= 0].tolist()
    else:
        assert drafts.stop is None
        answer = denoise(run.model, batch.tokens[:, : run.config.model.n_prompt], steps=16).tokens[0]
        assert (drafts.tokens[0] < 0).sum() == k - round(k / 16)
    assert drafts.tokens[-1].tolist() == answer[answer >= 0].tolist()
    assert drafts.right.all(dim=1)[-1] == bool((drafts.tokens[-1] == drafts.truth).all())


def test_a_model_of_one_pass_has_no_drafts(run_folder: Path) -> None:
    run = interp.load(run_folder)
    with pytest.raises(ValueError, match="transformer gives its answer in one pass"):
        run.model.drafts(run.task, run.task.sample(1, seed=0))


def test_a_table_says_what_is_right_open_and_changed() -> None:
    drafts = [Draft([None, "3"], [0.0, 0.5]), Draft(["2", "1"], [0.9, 0.8], stops=True)]
    html = draft_table(["a", "b<"], ["2", "1"], drafts, now=1, word="pass", before=["2", "0"])
    rows = re.findall(r"<tr.*?</tr>", html, re.S)
    assert "·" in rows[1] and rows[1].count("✗") == 1 and "pass 1: 0 of 2 tokens right, 1 decided" in rows[1]
    assert rows[2].count("✓") == 2 and "<u>1</u>" in rows[2] and "<u>2</u>" not in rows[2]
    assert "stops here" in rows[2] and "class='now'" in rows[2] and "b&lt;" in rows[0]


@pytest.mark.parametrize(
    ("name", "word", "n"),
    [
        ("output_looped", "loop step", 24),
        ("step_masked_diffusion", "denoising pass", 16),
        ("step_diffusion_lm", "denoising pass", 16),
    ],
)
def test_the_page(open_page: Callable[..., AppTest], name: str, word: str, n: int) -> None:
    at = open_page("thinking", BUNDLED / name, step="2")
    assert not at.exception
    assert f"{word} 2 of {n}" in at.markdown[0].value
    assert any("whole answer is" in each.value for each in at.markdown)
    usual = {"step_masked_diffusion": "makes 1 denoising pass:", "step_diffusion_lm": "makes 4 denoising passes:"}
    told = [each.value for each in at.caption if "Shown are 16" in each.value]
    assert [usual[name] in each for each in told] == ([True] if name in usual else [])
    at.button(key="next").click().run()
    assert f"{word} 3 of {n}" in at.markdown[0].value
    at.button(key="next_example").click().run()
    assert "held-out example 2" in at.markdown[0].value
    if name == "output_looped":  # the other is wrong once in thousands
        at.button(key="next_mistake").click().run()
        assert any(re.match(r"Found \d+ examples? further on", each.value) for each in at.caption)
        number = int(re.search(r"held-out example (\d+)", at.markdown[0].value)[1])  # type: ignore[index]
        run = interp.load(BUNDLED / name)
        found = run.model.drafts(run.task, run.task.sample(1, seed=SEED, start=number - 1, split="evaluation"))
        assert not found.right.all()
    assert not at.exception


def test_a_chain_is_a_strip_of_entries(open_page: Callable[..., AppTest]) -> None:
    at = open_page("thinking", BUNDLED / "scratchpad", step="2", example="12")
    assert not at.exception
    run = interp.load(BUNDLED / "scratchpad")
    batch = run.task.sample(1, seed=SEED, start=11, split="evaluation")
    entries, said, truth = run.task.told_steps(run.task.answer(run.model, batch), batch)
    good = sum(right for _, _, right in entries)
    assert f"entry 2 of {len(entries)} · {good} of {len(entries)} entries right" in at.markdown[0].value
    assert any(f"Its answer is **{said}**" in each.value for each in at.markdown) and len(entries) == 13
    at.button(key="next").click().run()
    assert f"entry 3 of {len(entries)}" in at.markdown[0].value
    assert not at.exception and truth


def test_models_of_one_pass_are_sent_elsewhere(open_page: Callable[..., AppTest], run_folder: Path) -> None:
    at = open_page("thinking", run_folder)
    assert any("gives its answer in one go" in each.value for each in [*at.info, *at.markdown, *at.warning])


@marked
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_thinking_in_a_browser(visit: Callable[..., Visit], scheme: str) -> None:
    """Kept last: the run is another than the server's."""
    tab = visit(scheme).open("thinking", run=str(BUNDLED / "output_looped"), step="1")
    tab.wait_for_status("loop step 1 of 24")
    tab.click("button", re.compile("^loop step 3:"))
    tab.wait_for_status("loop step 3 of 24")
    tab.wait_for_address(step="3")
    assert faults(tab) == []
    tab.page.screenshot(path=str(shot("thinking", scheme)))
