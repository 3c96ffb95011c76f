"""What passes gain: the curve over passes and orders, its rows and its refusals."""

from typing import Any

import numpy as np
import pytest
import torch

from interp.cli import main
from interp.evaluation.denoising import denoising_curve
from interp.models.diffusion_lm_config import DiffusionLMConfig
from interp.models.masked_diffusion import MaskedDiffusion, MaskedDiffusionConfig
from interp.results import Aggregation, Metric, read_frame, records, select
from interp.runs import RunConfig
from interp.tasks import TASKS
from interp.training import TrainingConfig, train
from interp.worlds import as_world
from interp.worlds.machine import MachineSpec

SPEC = MachineSpec(n_instructions=5, n_cells=2, n_input=1, n_output=1, bits=1)


@pytest.fixture(scope="module")
def task():
    return TASKS["step"](as_world(SPEC))


@pytest.fixture(scope="module")
def config(task):
    n_prompt = task.prompt_positions.stop
    return MaskedDiffusionConfig(
        d_vocab=len(task.vocab), n_ctx=task.n_ctx, n_prompt=n_prompt, n_layers=1, n_heads=2, d_model=16
    )


class Knows(torch.nn.Module):
    """Gives every token of the next state right, but with a confidence that falls from left to right."""

    max_denoising_steps = property(lambda self: self.cfg.n_answer)
    denoising_orders, decides_for_good = MaskedDiffusion.denoising_orders, MaskedDiffusion.decides_for_good
    filled_in: Any = MaskedDiffusion.filled_in
    answer_bound: Any = MaskedDiffusion.answer_bound

    def __init__(self, cfg, task):
        super().__init__()
        self.cfg, self.task = cfg, task

    def run_with_hooks(self, sequence, *, revealed, fwd_hooks):
        states = self.task.world.decode(sequence[:, : self.cfg.n_prompt].numpy())
        answers = torch.from_numpy(self.task.expected(self.task.world.answer(states)))
        logits = torch.zeros(*sequence.shape, self.cfg.d_vocab)
        strength = torch.linspace(9, 3, self.cfg.n_answer)[None, :, None].expand(len(sequence), -1, 1)
        logits[:, self.cfg.n_prompt - 1 : -1] = torch.zeros_like(logits[:, self.cfg.n_prompt :]).scatter(
            2, answers[..., None], strength
        )
        return logits

    def forward(self, tokens, *, revealed=None):
        return self.run_with_hooks(tokens, revealed=revealed, fwd_hooks=[])


def test_a_model_that_knows_is_right_in_every_order_and_decides_what_is_sure_first(task, config):
    rows = denoising_curve(Knows(config, task), task, steps=(1, 4), n=60)
    macro = records(select(rows, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO))
    assert {(row["time"], row["method"]): row["estimate"] for row in macro} == {
        (1, "denoise_once"): 1.0,
        (4, "denoise_confidence"): 1.0,
        (4, "denoise_left_to_right"): 1.0,
        (4, "denoise_right_to_left"): 1.0,
        (4, "denoise_random"): 1.0,
    }
    decided = select(rows, metric=Metric.DECIDED_AT)
    for order, falls in (("confidence", True), ("left_to_right", True), ("random", False)):
        shares = decided.loc[decided["method"] == f"denoise_{order}", "estimate"].to_numpy(float)
        assert bool((np.diff(shares) >= 0).all()) == falls  # the further to the right the later
    names = set(decided["position"])
    assert "cells[0]" in names and not any(name.endswith((".[", ".]")) or name in "{}" for name in names)
    (bound,) = records(select(rows, metric=Metric.VARIATIONAL_BOUND))
    by_hand = sum(np.log(1 + (config.d_vocab - 1) * np.exp(-s)) for s in np.linspace(9, 3, config.n_answer))
    assert bound["ci_low"] * 0.98 < by_hand < bound["ci_high"] * 1.02


def test_tapelens_eval_by_passes(task, config, tmp_path, capsys):
    folder = tmp_path / "run"
    settings = TrainingConfig(steps=2, batch_size=4, eval_every=2, eval_states=20, threads=1)
    train(RunConfig("step", task.world, config, settings), folder)
    with pytest.raises(SystemExit):
        main(["eval", str(folder), "--denoising-steps", "1", "999", "--n", "20"])
    assert f"from 1 to the {config.n_answer} tokens of an answer; got 999" in capsys.readouterr().err
    main(["eval", str(folder), "--denoising-steps", "1", "2", "--n", "40", "--threads", "1", "--save"])
    printed = capsys.readouterr().out
    assert "left to right" in printed and "an answer costs at most" in printed
    rows = read_frame(folder / "denoising.parquet")
    assert set(rows["time"].dropna()) == {1, 2} and set(rows["architecture"]) == {"masked_diffusion"}


def test_a_model_that_writes_otherwise_is_refused(task):
    class Plain:
        class cfg:
            architecture = "gru"

        max_denoising_steps = None

    with pytest.raises(ValueError, match="the architecture gru does not fill in answers pass by pass"):
        denoising_curve(Plain(), task, steps=(1,))


def test_continuous_passes_are_counted_by_sampler(task, tmp_path, capsys):
    shared = {"d_vocab": len(task.vocab), "n_ctx": task.n_ctx, "n_prompt": task.prompt_positions.stop}
    config = DiffusionLMConfig(**shared, n_layers=1, n_heads=2, d_model=16, denoising_steps=2, max_steps=3)
    folder = tmp_path / "run"
    settings = TrainingConfig(steps=2, batch_size=4, eval_every=2, eval_states=20, threads=1)
    train(RunConfig("step", task.world, config, settings), folder)
    main(["eval", str(folder), "--denoising-steps", "1", "3", "--n", "40", "--threads", "1", "--save"])
    assert "ddpm" in capsys.readouterr().out
    rows = read_frame(folder / "denoising.parquet")
    exact = select(rows, metric=Metric.EXACT_MATCH, aggregation=Aggregation.MACRO)
    ways = {("denoise_once", 1), ("denoise_ddim", 3), ("denoise_ddpm", 3)}
    assert set(zip(exact["method"], exact["time"], strict=True)) == ways
    assert rows.loc[rows["metric"] == Metric.DECIDED_AT].empty
    assert float(select(rows, metric=Metric.VARIATIONAL_BOUND)["estimate"].iloc[0]) > 0
