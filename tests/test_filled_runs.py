"""Whole runs filled in: gains over one pass, edits of what is written first, and their part of the page."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import interp
from interp.cli import main
from interp.models import build_model
from interp.models.masked_diffusion_config import MaskedDiffusionConfig
from interp.results import Metric, read_frame, select
from interp.runs import Run, RunConfig
from interp.studies.filled_runs import edit_rows, order_rows, right_rows
from interp.tasks import TASKS
from interp.tasks.options import OutputOptions
from interp.training import TrainingConfig, train
from interp.training.presets import transformer_for
from interp.worlds import as_world
from interp.worlds.machine import MachineSpec

SPEC = MachineSpec(n_instructions=10, n_cells=3, n_input=2, n_output=3, bits=2)
OPTIONS = OutputOptions(n_steps=16, units="shown", even=True, behind=True, scratch=3)
TASK: Any = TASKS["output"](as_world(SPEC), OPTIONS)


def config(options: Any, passes: int) -> MaskedDiffusionConfig:
    task = TASKS["output"](as_world(SPEC), options)
    return MaskedDiffusionConfig(
        d_vocab=len(task.vocab),
        n_ctx=task.n_ctx,
        n_prompt=task.prompt_positions.stop,
        n_layers=1,
        n_heads=2,
        d_model=16,
        denoising_steps=passes,
    )


class Oracle:
    """Right in every way but one pass, in which it says that nothing is printed."""

    decides_for_good, denoising_orders, max_denoising_steps = True, ("confidence", "right_to_left"), 4

    def __init__(self) -> None:
        self.cfg = SimpleNamespace(n_prompt=TASK.prompt_positions.stop, denoising_steps=4)
        self.batches = [TASK.sample(128, seed=3, start=at) for at in range(0, 256, 128)]
        self.asked = 0

    def filled_in(self, prompt: torch.Tensor, steps: int, order: str, *, seed: int) -> tuple[torch.Tensor, Any]:
        batch = self.batches[self.asked % len(self.batches)]
        self.asked += 1
        truth = batch.targets[:, TASK.answer_positions].clone()
        if steps == 1:
            truth[:, -SPEC.n_output :] = TASK.vocab.index("EOO")
        return truth, None


def test_the_gain_is_over_one_pass_of_the_same_programs() -> None:
    run: Any = SimpleNamespace(model=Oracle(), task=TASK)
    rows = list(right_rows(run, n=256, seed=3))
    macro = {(row["time"], row["stratum"]): row for row in rows if row.get("aggregation") == "macro"}
    assert macro[4, "9 to 16 steps"]["estimate"] == 1 and macro[4, "1 to 8 steps"]["n"] == 128
    printed = np.concatenate([(TASK.lengths(each) > 8) for each in run.model.batches])
    empty = np.concatenate([(each.targets[:, -4] == TASK.vocab.index("EOO")).numpy() for each in run.model.batches])
    once = macro[1, "9 to 16 steps"]["estimate"]
    assert 0 < once < 1 and once == pytest.approx(empty[printed].mean())
    gains = [row for row in rows if row["metric"] == Metric.GAIN]
    assert {(row["time"], row["method"]) for row in gains} == {
        (4, "denoise_confidence"), (4, "denoise_right_to_left"),
    }  # fmt: skip
    for row in gains:
        assert row["estimate"] == pytest.approx(1 - once) and row["ci_low"] <= 1 - once <= row["ci_high"]
        assert (row["stratum"], row["n"]) == ("9 to 16 steps", 128)


@pytest.mark.parametrize("follows", [True, False])
def test_an_edit_is_followed_by_a_model_that_goes_on_from_what_is_written(
    follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that runs on from the last facts that stand there, and one that runs the program from its start."""
    names = TASK.scratch.fields

    def denoise(model: Any, prompt: torch.Tensor, *, steps: int, start: torch.Tensor) -> Any:
        states = []
        for row, given in zip(prompt, start, strict=True):
            blocks = given[: -SPEC.n_output].reshape(3, len(names))
            told = int((blocks != model.cfg.d_vocab).all(1).sum())
            states.append(said(row, blocks[told - 1] if follows and told else None, TASK.scratch.times[told - 1]))
        return SimpleNamespace(tokens=torch.stack(states))

    batch = TASK.sample(200, seed=1)
    by_prompt = {tuple(row.tolist()): k for k, row in enumerate(batch.tokens[:, : TASK.prompt_positions.stop])}

    def said(prompt: torch.Tensor, block: torch.Tensor | None, time: int) -> torch.Tensor:
        k = by_prompt[tuple(prompt.tolist())]
        example, do = batch.examples[k : k + 1], {}
        if block is not None:  # every stored variable as it is written; what is not edited has its own value
            numbers = {name: int(token) for name, token in zip(names, block, strict=True)}
            first = len(SPEC.vocab)
            do = {name: np.array([numbers[name] - first]) for name in ("instruction_ptr", "array_ptr")}
            zero = SPEC.vocab.index("NUM_0")
            do |= {f"cell[{c}]": np.array([numbers[f"cells[{c}]"] - zero]) for c in range(SPEC.n_cells)}
        answer = TASK.world.answer(example, do=do or None, at=time if do else 0)
        return torch.from_numpy(TASK.expected(answer))[0]

    monkeypatch.setattr("interp.models.denoising.denoise", denoise)
    run: Any = SimpleNamespace(model=build_model(config(OPTIONS, 4)), task=TASK)
    rows = list(edit_rows(run, n=200, seed=0))
    assert {row["position"] for row in rows} >= {"t+4", "t+8"}
    for row in rows:
        if row["control"]:  # without the edit both give base's own output, which is not the edited run's
            assert row["estimate"] == (row["metric"] == Metric.RETURN)
        else:
            assert row["estimate"] == (row["metric"] == (Metric.IIA if follows else Metric.RETURN))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """With scratch slots, without, and of one pass; two steps each."""
    folder = tmp_path_factory.mktemp("runs")
    bare, in_place = (OutputOptions(n_steps=16, units="shown", even=True, behind=each) for each in (True, False))
    plain = transformer_for("output", SPEC, options=in_place, n_layers=1, n_heads=2, d_model=16)
    models = {"scratch": (OPTIONS, config(OPTIONS, 4)), "bare": (bare, config(bare, 3)), "once": (in_place, plain)}
    settings = TrainingConfig(steps=2, batch_size=4, eval_every=2, eval_states=20, threads=1)
    world = as_world(SPEC)
    return [
        train(RunConfig("output", world, model, settings, options=options), folder / name)
        for name, (options, model) in models.items()
    ]


def test_facts_that_are_decided_in_order_of_time_have_rank_correlation_one(runs: list[Run]) -> None:
    class InTime:
        cfg, denoising_orders = runs[0].model.cfg, ("confidence",)

        def __call__(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*tokens.shape, 3)

        def filled_in(self, prompt: torch.Tensor, steps: int, order: str) -> tuple[None, torch.Tensor]:
            lengths = torch.from_numpy(TASK.lengths(TASK.sample(len(prompt), seed=0)))
            times = torch.tensor([16 if each is None else each[1] for each in TASK.facts()])
            return None, torch.minimum(times, lengths[:, None])

    run: Any = SimpleNamespace(model=InTime(), task=TASK)
    rows = {row["part"]: row for row in order_rows(run, n=64, seed=0) if row["metric"] == Metric.SPEARMAN}
    whole = np.mean(TASK.lengths(TASK.sample(64, seed=0)) > 4)  # a shorter run's facts are all of one step
    assert rows["causal depth"]["estimate"] == pytest.approx(whole)


def test_the_page_holds_models_of_whole_runs_side_by_side(runs: list[Run], tmp_path: Path, capsys: Any) -> None:
    main(["diffusion", *(str(run.path) for run in runs), "--n", "32", "--out", str(tmp_path)])
    page = (tmp_path / "diffusion.md").read_text("utf-8")
    assert "diffusion_runs.svg" in page and (tmp_path / "diffusion_runs.svg").exists()
    table = page.partition("## Whole runs")[2].partition("\n## ")[0]
    assert "`scratch`, where the run is after 4, 8 … 12 steps, and the output" in table
    assert "`bare`, the output alone" in table and "`once`, the output, in place" in table
    frames = [read_frame(run.path / "diffusion.parquet") for run in runs]
    n = {int(each) for frame in frames for each in select(frame, stratum="9 to 16 steps")["n"]}
    assert n == {64}, "the same programs for all"
    right = select(frames[2], metric=Metric.EXACT_MATCH, stratum="9 to 16 steps")["estimate"].item()
    assert "| as it answers | 1 | " in table and f"| {100 * right:.2f} [" in table
    capsys.readouterr()


def test_an_encoder_decoder_answers_outputs_from_training_to_its_card(tmp_path: Path, capsys: Any) -> None:
    """The preset as it stands, two steps of it: a start token and the output's slots on the decoder's side."""
    run = str(tmp_path / "run")
    main(["train", "--preset", "output_encoder_decoder", "--steps", "2", "--batch-size", "4",
          "--training.eval-states", "32", "--out", run])  # fmt: skip
    opened: Any = interp.load(Path(run))
    assert opened.model.has_sides and opened.model.cfg.n_answer == 4 and opened.task.scratch.times == ()
    capsys.readouterr()
    main(["eval", run, "--n", "32", "--threads", "1"])
    assert "macro average over 32 strata" in capsys.readouterr().out
    main(["card", run, "--n", "32", "--programs", "0", "--threads", "1"])
    card = (Path(run) / "card.md").read_text("utf-8")
    assert "architecture `encoder_decoder`" in card and "task `output`" in card
    capsys.readouterr()
