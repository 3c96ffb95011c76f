"""A looped model about runs, the whole path: trained, evaluated by loop steps, probed, swapped, told about."""

import numpy as np
import pytest
import torch

from interp.cli import main
from interp.models import build_model
from interp.pages.thinking import thinking_page
from interp.pages.thinking_drawing import thinking_drawing
from interp.report import write_report
from interp.results import Metric, select
from interp.runs import RunConfig
from interp.stage_options import PatchOptions, ProbeOptions
from interp.studies.patch_stage import patch_stage
from interp.studies.probe_stage import probe_stage
from interp.studies.thinking import by_loop_steps, macro, measure_thinking
from interp.studies.thinking_longer import deeper
from interp.tasks.options import OutputOptions
from interp.training import TrainingConfig, train
from interp.training.presets import PRESETS, iterative_thinking, looped_for
from interp.worlds import as_world, world_from_dict

SIZES = {"n_instructions": 8, "n_cells": 3, "n_input": 2, "n_output": 2, "bits": 2}
SPEC = world_from_dict({"name": "machine", **SIZES}).spec  # type: ignore[attr-defined]
EVEN = OutputOptions(n_steps=6, units="shown", even=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.set_num_threads(1)
    model = looped_for(
        "output", SPEC, options=EVEN, d_model=32, n_layers=1, n_loops=3, max_loops=4, carry_norm=True, halting="right"
    )
    training = TrainingConfig(steps=60, eval_every=60, eval_states=60, checkpoint_every=60, threads=1, validation=True)
    config = RunConfig("output", as_world(SPEC), model, training, options=EVEN)
    return train(config, tmp_path_factory.mktemp("runs") / "looped")


def test_forced_steps_and_halting_are_scored(run):
    rows = by_loop_steps(run, ["1", "3", "halt"], n=60, seed=2)
    macros = select(rows, metric=Metric.EXACT_MATCH, aggregation="macro")
    assert macros["time"].isna().tolist() == [False, False, True]
    for steps in (1, 3):
        batch = run.task.sample(60, seed=2)
        with torch.inference_mode():
            logits = run.model(batch.tokens, loop_steps=steps)
        right = (logits.argmax(-1) == batch.targets)[batch.targets >= 0].view(60, -1).all(1).numpy()
        expected = macro(right, 1 + np.arange(60) % 6)
        assert macros.loc[macros["time"] == steps, "estimate"].item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="numbers of steps or halt; got 'many'"):
        by_loop_steps(run, ["many"], n=10, seed=2)


def test_what_is_told_of_its_thinking(run):
    rows = measure_thinking(run, n=240, n_longer=0)
    right = select(rows, metric=Metric.EXACT_MATCH, aggregation="macro")
    named = right.dropna(subset=["part"])
    by_part = dict(zip(named["part"], named["estimate"], strict=True))
    fixed = right.loc[right["part"].isna(), "estimate"]
    assert len(fixed) == 4
    assert by_part["oracle"] >= max(*fixed, by_part["its own halting"])  # it chooses among the same answers
    spent = select(rows, metric=Metric.LOOP_STEPS)
    steps = dict(zip(spent["part"], spent["estimate"], strict=True))
    assert steps["random halting"] == pytest.approx(steps["its own halting"])  # the same distribution
    probes = select(rows, metric=Metric.ACCURACY, variable="instruction_ptr", lag=1)
    assert set(probes["time"]) == {0, 1, 2, 3}
    swaps = select(rows, part="whole carry")
    last = swaps.loc[swaps["time"] == swaps["time"].max()].set_index("metric")["estimate"]
    assert last["iia"] == 1 and last["return"] == 0  # after the last step nothing is left but to read the answer off
    assert swaps.groupby("time")["estimate"].sum().to_numpy().max() <= 1  # type: ignore[union-attr]
    blocks = rows.loc[rows["position"].notna() & rows["control"].isna() & (rows["metric"] == Metric.IIA)]
    assert set(blocks["position"]) == {"instructions", "input", "output"} and set(blocks["time"]) == {1, 2}
    answers = blocks.loc[blocks["position"] == "output"].set_index(["part", "time"])["estimate"]
    assert (answers["held"] == 1).all()  # the answer is read there, whatever stands elsewhere
    prompt = blocks.loc[(blocks["position"] != "output") & (blocks["time"] == 2), "estimate"]
    assert (prompt < 0.3).all()  # some answers come by chance
    still = select(rows, metric=Metric.SETTLED).set_index("time")["estimate"]
    assert still.is_monotonic_increasing and still.index.tolist() == list(range(2, 13))  # four times the trained steps
    broken = select(rows, metric=Metric.BROKEN)
    assert broken["estimate"].between(0, 1).all() and set(broken["time"]) == set(range(1, 13))
    drawn = thinking_drawing(rows)
    assert drawn.count("<polyline") + drawn.count("<path") >= 5 and "after loop step 4" in drawn
    page = thinking_page("looped", rows, "command")
    assert "after step 3, the last, it is that program's in 100 %" in page
    assert page.startswith("# How a looped model thinks\n\nA looped") and "`looped` gives the right output for " in page


@torch.no_grad()
def test_more_loop_steps_than_it_was_made_with(run):
    tokens, more = run.task.sample(8, seed=1).tokens, deeper(run.model, 12)
    torch.testing.assert_close(more(tokens, loop_steps=4), run.model(tokens, loop_steps=4))
    thoughts = more(tokens, thoughts=True, loop_steps=12)
    torch.testing.assert_close(thoughts.logits[:, -1], more(tokens, loop_steps=12))
    with_vectors = looped_for("output", SPEC, options=EVEN, d_model=16, n_layers=1, n_loops=2, step_embedding=True)
    with pytest.raises(ValueError, match="vectors for 2 loop steps: it cannot make 5"):
        deeper(build_model(with_vectors), 5)


def test_the_report_shows_every_loop_step(run):
    page = write_report(run).read_text()
    section = page[page.index('<section id="thinking"') :]
    section = section[: section.index("</section>")]
    assert section.count("loop step 4 of 4: ") == 3 and "here the model stops by itself" in section
    for number in (11, 19, 27):  # what it says is what the model answers where it halts
        batch = run.task.sample(1, seed=20, start=number)
        halted = run.task.answer(run.model, batch)[0]
        said = [f"{run.task.vocab[token]} {'✓' if token == true else '✗'}" for token, true in
                zip(halted.tolist(), batch.targets[0][batch.targets[0] >= 0].tolist(), strict=True)]  # fmt: skip
        assert all(each in section for each in said)


def test_runs_of_a_bin_end_in_it(run):
    task = run.task.resized(12)
    drawn = task.draw_between(30, (8, 12), seed=0, split="train")
    assert torch.equal(
        task.render(drawn[np.arange(10, 30)]).tokens,
        task.render(task.draw_between(20, (8, 12), seed=0, start=10, split="train")).tokens,
    )
    steps = task.world.run(drawn, 20, keep="last").n_steps
    assert steps.min() >= 8 and steps.max() <= 12 and len(set(steps.tolist())) > 2


def test_the_carry_is_probed_and_swapped(run):
    probes = probe_stage(run, ProbeOptions(methods=("ridge",), variables=("input[0]",), n=400))
    assert {"steps.0.hook_carry", "steps.2.hook_carry"} <= set(probes["site"])
    swaps = patch_stage(run, PatchOptions(variables=("array_ptr",), positions=("output",), n_pairs=24))
    assert {"steps.0.hook_carry", "steps.2.hook_carry"} <= set(swaps["site"])


def test_presets_are_as_small_as_they_say():
    for name, most in (("output_looped", 310_000), ("step_inplace_looped", 60_000)):
        model = build_model(PRESETS[name].model)
        assert sum(parameter.numel() for parameter in model.parameters()) <= most
    thinking = build_model(iterative_thinking("output", SPEC, options=EVEN, d_model=16))
    tokens = torch.zeros(2, thinking.cfg.n_ctx, dtype=torch.long)
    with torch.inference_mode():
        assert thinking(tokens, thoughts=True).weights.sum(1).tolist() == [1, 1]


def test_the_verb_says_a_line_for_each_number_of_loop_steps(run, capsys):
    main(["eval", str(run.path), "--loop-steps", "1", "3", "halt", "--n", "30"])
    said = [line for line in capsys.readouterr().out.splitlines() if "macro average" in line]
    assert [line.partition(":")[0] for line in said] == ["1 loop steps", "3 loop steps", "as it halts"]
    rows = by_loop_steps(run, ["3"], n=30, seed=2)
    assert f"macro average {100 * rows['estimate'].iloc[0]:.2f} %" in said[1]
