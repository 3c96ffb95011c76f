"""What a program prints if a variable is changed on the way."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cython_vm
from cython_vm import MachineSpec, Op, States, reference
from interp.models import MODELS, build_model
from interp.models.architecture import answer_behind_prompt
from interp.tasks import Output
from interp.tasks.options import OutputOptions, StreamOptions, TaskOptions
from interp.training.presets import transformer_for
from interp.training.rebuilt import filled_in_for
from interp.worlds import in_split

SPEC = MachineSpec(n_instructions=10, n_cells=3, n_input=2, n_output=3, bits=2)
TASK = Output(SPEC, StreamOptions(n_steps=16))


def test_a_variable_is_set_at_any_executed_step() -> None:
    """Against running base step by step; at the first step alone nothing but the program and its input would differ."""
    pairs = TASK.counterfactual(60, "array_ptr", seed=0)
    assert (pairs.edit_time > 0).any() and (pairs.source_time > 0).any()
    assert pairs.changes.any(), "do(array_ptr) changes what is printed"
    block = SPEC.layout.slice("output")
    for row in range(60):
        state = pairs.base.examples[row : row + 1]
        for time in range(16):
            do = {"array_ptr": pairs.values[row : row + 1]} if time == pairs.edit_time[row] else None
            state = cython_vm.step(state, do=do).next
        assert (cython_vm.encode(state)[0, block] == pairs.expected[row].numpy()).all()


def test_units_are_the_reachable_program_with_its_input() -> None:
    task = Output(SPEC, StreamOptions(n_steps=16, units="shown"))
    starts = task.draw(200, seed=1, split="evaluation")
    assert in_split(task.groups(starts), "evaluation").all()
    unread = starts.replace("instruction_ptr", 0)
    assert (task.groups(unread) == task.groups(starts)).all()
    other = starts.replace("input", (starts.input + 1) % 4 * (np.arange(2) < starts.input_length[:, None]))
    changed = (other.input != starts.input).any(axis=1)
    assert (task.groups(other)[changed] != task.groups(starts)[changed]).all()


def test_even_draws_run_every_number_of_steps_and_end() -> None:
    task = Output(SPEC, OutputOptions(n_steps=12, units="shown", even=True))
    starts = task.draw(48, seed=1, split="validation")
    assert in_split(task.groups(starts), "validation").all()
    run = cython_vm.run(starts, 13, keep="last")
    assert run.n_steps.tolist() == [1 + row % 12 for row in range(48)]  # and none goes on
    again = task.draw(20, seed=1, start=7, split="validation")
    assert (cython_vm.encode(again) == cython_vm.encode(starts[np.arange(7, 27)])).all()


def test_runs_that_are_cut_are_told_apart() -> None:
    task = Output(SPEC, OutputOptions(n_steps=4))
    batch = task.sample(300, seed=2)
    rows = task.score(batch.targets[:, task.slots], batch)
    cut = rows.loc[rows["stratum"] == "cut at 4 steps", "n"].item()
    ended = rows.loc[rows["stratum"] == "04 steps", "n"].item()
    longer = cython_vm.run(batch.examples, 100, keep="last").n_steps
    assert (cut, ended) == ((longer > 4).sum(), (longer == 4).sum())


WRITTEN = Output(SPEC, OutputOptions(n_steps=12, units="shown", even=True, behind=True, scratch=3))


def test_scratch_slots_by_hand() -> None:
    """INC NEXT INC INC PUT STOP, told after 3, 6 and 9 of 12 steps; the run halts after 5."""
    program = np.full((1, 10), Op.STOP)
    program[0, :5] = Op.INC, Op.NEXT, Op.INC, Op.INC, Op.PUT
    start = States.build(SPEC, program=program)
    batch = WRITTEN.render(start)
    said = {name: WRITTEN.vocab[token] for name, token in zip(WRITTEN.position_names, batch.tokens[0], strict=True)}
    assert WRITTEN.scratch.times == (3, 6, 9)
    fields = ("instruction_ptr", "array_ptr", "input_length", "output_length", "cells[0]", "cells[1]", "cells[2]")
    assert [said[f"t+3.{field}"] for field in fields] == ["#3", "#1", "#0", "#0", "NUM_1", "NUM_1", "NUM_0"]
    for time in (6, 9):  # it stays where it has halted
        halted = [said[f"t+{time}.{field}"] for field in fields]
        assert halted == ["#5", "#1", "#0", "#1", "NUM_1", "NUM_2", "NUM_0"]
    assert [said[f"output[{slot}]"] for slot in range(3)] == ["NUM_2", "EOO", "EOO"]


def test_what_is_written_is_the_references_run_and_then_the_output() -> None:
    batch = WRITTEN.sample(24, seed=3, split="train")
    n_prompt, width = WRITTEN.prompt_positions.stop, len(WRITTEN.scratch.fields)
    assert answer_behind_prompt(WRITTEN) and not answer_behind_prompt(TASK)
    assert batch.tokens[:, n_prompt:].equal(batch.targets[:, n_prompt - 1 : -1])
    assert {name.partition("[")[0].rstrip(".") for name in WRITTEN.position_names[:n_prompt]} == {
        "instructions",
        "input",
    }
    for row in range(24):
        states = reference.run(SPEC, reference.to_state(batch.examples, row), 12)
        told = batch.tokens[row, n_prompt:].tolist()
        for part, time in enumerate(WRITTEN.scratch.times):
            state = states[min(time, len(states) - 1)]
            counted = (state.instruction_ptr, state.array_ptr, len(state.input), len(state.output))
            expected = [f"#{each}" for each in counted] + [f"NUM_{each}" for each in state.cells]
            assert [WRITTEN.vocab[token] for token in told[part * width : (part + 1) * width]] == expected
        last = [f"NUM_{each}" for each in states[-1].output] + ["EOO"] * (3 - len(states[-1].output))
        assert [WRITTEN.vocab[token] for token in told[-3:]] == last
    assert WRITTEN.answer_names == WRITTEN.position_names[n_prompt:]


def test_the_output_is_judged_and_scratch_slots_are_told_beside_it() -> None:
    batch = WRITTEN.sample(24, seed=4)
    right = batch.targets[:, WRITTEN.answer_positions]
    wrong = right.clone()
    wrong[:6, 0] = WRITTEN.vocab.index("EOI")  # a scratch slot of the first time
    rows = WRITTEN.score(wrong, batch)
    assert set(rows.loc[rows["metric"] == "exact_match", "estimate"]) == {1.0} and WRITTEN.right(wrong, batch).all()
    blocks = rows.loc[rows["metric"] == "block_accuracy"].set_index("position")["estimate"]
    assert blocks.to_dict() == {"t+3": 0.75, "t+6": 1.0, "t+9": 1.0}
    wrong[:12, -1] = WRITTEN.vocab.index("EOI")
    rows = WRITTEN.score(wrong, batch)
    assert rows.loc[rows["metric"] == "sequence_match", "estimate"].item() == 0.5
    assert WRITTEN.right(wrong, batch).tolist() == [False] * 12 + [True] * 12


def test_scratch_slots_follow_an_edit_on_the_way() -> None:
    """With `cell[0]` set at a step, facts told before it stay, and those after it are of the edited run."""
    pairs = WRITTEN.counterfactual(40, "cell[0]", seed=0)
    width, changed = len(WRITTEN.scratch.fields), 0
    for part, time in enumerate(WRITTEN.scratch.times):
        before = torch.from_numpy(pairs.edit_time >= time)
        own = slice(part * width, (part + 1) * width)
        assert pairs.expected[before][:, own].equal(pairs.unedited[before][:, own])
        changed += int((pairs.expected[:, own] != pairs.unedited[:, own]).any(1).sum())
    assert changed


@pytest.mark.parametrize("architecture", ["encoder_decoder", "masked_diffusion", "transformer"])
def test_models_write_the_output_behind_the_prompt(architecture: str) -> None:
    """Greedy: every token is the arg max given those before it; the right answer in the tokens is not read."""
    sizes = {"n_encoder": 1} if architecture == "encoder_decoder" else {}
    options = OutputOptions(n_steps=12, behind=True, scratch=1)
    task = Output(SPEC, options)
    assert MODELS[architecture].suits(task) is None
    if architecture == "transformer":
        config = transformer_for("output", SPEC, options=options, n_layers=2, n_heads=2, d_model=16)
    else:
        config = filled_in_for(
            "output", SPEC, architecture, options=options, n_layers=2, n_heads=2, d_model=16, **sizes
        )
    model, batch = build_model(config).eval(), task.sample(9, seed=0)
    answer = model.answer(task, batch)
    blank = task.render(batch.examples, np.zeros(answer.shape, dtype=np.int64))
    assert answer.shape == (9, 10) and model.answer(task, blank).equal(answer)
    n_prompt = task.prompt_positions.stop
    shown = torch.cat([batch.tokens[:, :n_prompt], answer], dim=1)
    assert model(shown)[:, n_prompt - 1 : -1].argmax(-1).equal(answer)


def test_scratch_is_refused_where_nothing_stands_behind_the_prompt() -> None:
    for kind in (OutputOptions, TaskOptions):
        with pytest.raises(ValueError, match="set behind with scratch"):
            kind(scratch=3)
        with pytest.raises(ValueError, match="0 to 255"):
            kind(behind=True, scratch=-1)
    with pytest.raises(ValueError, match="below n_steps = 12"):
        Output(SPEC, OutputOptions(n_steps=12, behind=True, scratch=12))
    assert MODELS["masked_diffusion"].suits(TASK) is not None
