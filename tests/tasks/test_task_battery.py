"""One battery for every task: splits, determinism, scores; and for chain and output, targets against the reference."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cython_vm import MachineSpec, reference, run, sample_reachable, step, variable
from interp.circuits import draw_pairs
from interp.cli import main
from interp.models import build_model
from interp.runs import RunConfig, load
from interp.stage_options import PatchOptions, ProbeOptions
from interp.studies.patch_stage import patch_stage
from interp.studies.probe_stage import probe_stage
from interp.tasks import TASKS, Batch, Task, macro_average
from interp.tasks.options import ChainOptions, TaskOptions
from interp.training import TrainingConfig, evaluate, train
from interp.training.presets import PRESETS, transformer_for
from interp.training.rebuilt import filled_in_for
from interp.worlds.addition import Addition
from interp.worlds.base import in_split
from interp.worlds.slots import SlotWorld

SPEC = MachineSpec(n_instructions=8, n_cells=3, n_input=2, n_output=2, bits=2)
WORLDS = {"addition": Addition(n_digits=3), "slots": SlotWorld(size=3)}  # of the other tasks the machine
OPTIONS = {
    "addition": TaskOptions(at_once=2),
    "step_inplace": TaskOptions(),
    "step": TaskOptions(),
    "trace": TaskOptions(n_steps=12),
    "chain": TaskOptions(n_steps=3),
    "output": TaskOptions(n_steps=10),
    "scratchpad": TaskOptions(n_steps=10),
    "slots": TaskOptions(),
}
DIRECT = ("chain", TaskOptions(n_steps=3, direct=True))
BEHIND = ("output", TaskOptions(n_steps=10, behind=True, scratch=1))
CASES = [*OPTIONS.items(), DIRECT, BEHIND]
MANY_STEPS = [*((name, OPTIONS[name]) for name in ("chain", "output")), DIRECT]


@pytest.fixture(params=CASES, ids=lambda case: case[0] + "_direct" * case[1].direct + "_behind" * case[1].behind)
def task(request: pytest.FixtureRequest) -> Task:
    name, options = request.param
    return TASKS[name](WORLDS.get(name, SPEC), options)


def never(task: Task) -> int:
    """A token that no answer has, where everything is asked."""
    return task.vocab.index("EOI" if "EOI" in task.vocab else "_")


def told(task: Task, batch: Batch) -> torch.Tensor:
    """The right answer in the form that `score` takes."""
    if task.name == "trace":
        return batch.targets.clone()
    if task.name == "scratchpad":
        return batch.targets[:, task.answer_positions].clone()
    return batch.targets[batch.loss_mask].reshape(len(batch), -1).clone()


def test_every_task_is_in_the_battery() -> None:
    assert {*OPTIONS, "strings", "text"} == set(TASKS)  # these two: tests/tasks/test_strings.py, test_text.py
    assert {config.task for config in PRESETS.values()} == set(TASKS)


def test_splits_never_share_a_program(task: Task) -> None:
    train, held = (task.sample(40, seed=3, split=split).examples for split in ("train", "evaluation"))
    assert in_split(task.groups(train), "train").all() and in_split(task.groups(held), "evaluation").all()


def test_rows_do_not_depend_on_how_they_are_drawn(task: Task) -> None:
    whole = task.sample(20, seed=5, split="train")
    parts = [task.sample(7, seed=5, start=start, split="train") for start in (0, 7)]
    assert torch.equal(whole.tokens[:14], torch.cat([part.tokens for part in parts]))
    assert torch.equal(whole.targets[:14], torch.cat([part.targets for part in parts]))
    assert not torch.equal(whole.tokens, task.sample(20, seed=6, split="train").tokens)


def test_the_batch_is_what_a_model_of_the_task_takes(task: Task) -> None:
    batch = task.sample(6, seed=0, split="train")
    assert batch.tokens.shape == batch.targets.shape == (6, task.n_ctx)
    assert len(task.position_roles) == len(task.position_indices) == task.n_ctx
    assert ((batch.targets >= 0) == batch.loss_mask).all() and batch.loss_mask.any()
    config = transformer_for(task.name, task.world, options=task.options, n_layers=1, n_heads=1, d_model=8)
    logits = build_model(config)(batch.tokens)
    assert logits.shape == (6, task.n_ctx, len(task.vocab))
    trimmed = task.trim(batch)
    assert trimmed.loss_mask.sum() == batch.loss_mask.sum() and trimmed.tokens.shape[1] <= task.n_ctx


def test_the_truth_scores_one_and_mistakes_count_where_they_are(task: Task) -> None:
    batch = task.sample(60, seed=1, split="train")
    right = told(task, batch)
    scores = task.score(right, batch)
    assert set(scores["estimate"]) == {1.0} and macro_average(scores) == 1
    wrong = torch.full_like(right, never(task))
    assert macro_average(task.score(wrong, batch)) == 0
    one = right.clone()
    row = int(batch.loss_mask.any(dim=1).nonzero()[5])  # a short stream may ask for nothing
    asked = batch.loss_mask[row].nonzero()
    position = {"trace": int(asked[0]), "scratchpad": len(asked) - 1}.get(task.name, -1)
    one[row, position] = never(task)
    spoilt = task.score(one, batch)
    assert 0 < macro_average(spoilt) < 1
    if "sequence_match" in set(spoilt["metric"]):
        assert spoilt.loc[spoilt["metric"] == "sequence_match", "estimate"].item() == pytest.approx(59 / 60)


def test_chains_are_the_references_runs() -> None:
    task = TASKS["chain"](SPEC, OPTIONS["chain"])
    batch = task.sample(30, seed=2, split="train")
    length = SPEC.state_length
    for row in range(30):
        states = reference.run(SPEC, reference.to_state(batch.examples, row), 3)
        names = [name for state in states for name in reference.tokens(SPEC, state)]
        assert [SPEC.vocab[token] for token in batch.tokens[row].tolist()] == names
        assert len({str(state) for state in states}) == 4  # four different states: nothing is stuck
        assert batch.targets[row, length - 1 : -1].tolist() == batch.tokens[row, length:].tolist()
    direct = TASKS["chain"](SPEC, TaskOptions(n_steps=3, direct=True)).render(batch.examples)
    assert torch.equal(direct.tokens[:, length:], batch.tokens[:, 3 * length :])


def test_labels_of_a_chain_are_those_of_the_state_at_the_position() -> None:
    task = TASKS["chain"](SPEC, OPTIONS["chain"])
    batch = task.sample(20, seed=2, split="train")
    labels = task.labels(batch, "operand").reshape(20, 4, SPEC.state_length)
    for k in range(4):
        expected = variable(SPEC, "operand").read(run(batch.examples, 3).at(k))
        assert (labels[:, k] == expected[:, None]).all()


def test_a_chain_is_decoded_token_by_token() -> None:
    spec = MachineSpec(n_instructions=4, n_cells=2, n_input=1, n_output=1, bits=1)
    options = TaskOptions(n_steps=2)
    task = TASKS["chain"](spec, options)
    config = transformer_for("chain", spec, options=options, n_layers=2, n_heads=2, d_model=16)
    model = build_model(dataclasses.replace(config, init_range=0.4)).eval()
    prompt = task.sample(3, seed=0, split="train").tokens[:, : spec.state_length]
    with torch.no_grad():
        slow = prompt
        for _ in range(2 * spec.state_length):
            slow = torch.cat([slow, model(slow)[:, -1:].argmax(-1)], dim=1)
        for fast in (task.predict(model, prompt), task.predict(lambda tokens: model(tokens), prompt)):
            assert torch.equal(fast, slow[:, spec.state_length :])


def test_outputs_are_the_references() -> None:
    task = TASKS["output"](SPEC, OPTIONS["output"])
    batch = task.sample(60, seed=2, split="train")
    printed = set()
    for row in range(60):
        final = reference.run(SPEC, reference.to_state(batch.examples, row), 10)[-1]
        names = [f"NUM_{value}" for value in final.output] + ["EOO"] * (2 - len(final.output))
        assert [SPEC.vocab[token] for token in batch.targets[row][batch.loss_mask[row]].tolist()] == names
        printed.add(tuple(names))
    assert len(printed) > 5
    shown = [name.partition("[")[0].rstrip(".") for name in task.position_names]
    assert set(shown) == {"instructions", "input", "output"}  # no pointer, no cell


@pytest.mark.parametrize("case", MANY_STEPS, ids=["chain", "output", "chain_direct"])
@pytest.mark.parametrize("name", ["operand", "result"])
def test_counterfactual_answers_follow_from_the_edited_first_step(case: tuple[str, TaskOptions], name: str) -> None:
    task = TASKS[case[0]](SPEC, case[1])
    pairs = task.counterfactual(20, name, seed=4, split="train")
    plain = told(task, task.render(pairs.base.examples)).numpy()
    for row in range(20):
        states = [reference.to_state(pairs.base.examples, row)]
        for time in range(10):
            do = {name: int(pairs.values[row])} if time == pairs.edit_time[row] else {}
            states.append(reference.step(SPEC, states[-1], do)[0])
        states = states[1:]
        if task.name == "output":
            final = states[9]
            names = [f"NUM_{value}" for value in final.output] + ["EOO"] * (2 - len(final.output))
        else:
            shown = [states[2]] if task.options.direct else states[:3]
            names = [name for state in shown for name in reference.tokens(SPEC, state)]
        assert [SPEC.vocab[token] for token in pairs.expected[row]] == names
        assert pairs.changes[row] == (pairs.expected[row].numpy() != plain[row]).any()


def test_reachable_states_with_steps_left_run_that_long() -> None:
    states = sample_reachable(SPEC, 200, seed=0, steps_left=3)
    assert (run(states, 3, keep="last").n_steps == 3).all()
    assert (step(states).outcome == 0).all()


def test_options_are_checked_and_kept() -> None:
    with pytest.raises(ValueError, match="step takes no option n_steps"):
        TASKS["step"](SPEC, TaskOptions(n_steps=3))
    with pytest.raises(ValueError, match="n_steps must be an integer from 1 to 4096, got 0"):
        TaskOptions(n_steps=0)
    for name in ("trace", "chain", "output"):
        with pytest.raises(ValueError, match="leave weights out"):
            TASKS[name](SPEC).sample(4, seed=0, weights=np.ones((9, 8)))
    plain = PRESETS["chain"]
    direct = PRESETS["chain_direct"]
    assert RunConfig.from_dict(direct.to_dict()) == direct and "options" not in plain.to_dict()
    assert dataclasses.replace(plain, options=TaskOptions()).digest == plain.digest
    assert TASKS["chain"](SPEC, TaskOptions(n_steps=3)).options == ChainOptions(n_steps=3), "a task keeps its own class"


@pytest.fixture(scope="module", params=["trace", "chain", "output", "output_behind"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    name, _, behind = request.param.partition("_")
    spec = MachineSpec(n_instructions=10, n_cells=3, n_input=2, n_output=2, bits=1)
    options = TaskOptions(n_steps=8 if name == "trace" else 2)
    model = transformer_for(name, spec, options=options, n_layers=1, n_heads=2, d_model=16)
    if behind:  # on two sides, with a fact of the run before the output
        options = TaskOptions(n_steps=2, behind=True, scratch=1)
        model = filled_in_for(
            name, spec, "encoder_decoder", options=options, n_layers=2, n_encoder=1, n_heads=2, d_model=16
        )
    settings = TrainingConfig(steps=50, batch_size=8, warmup_steps=5, eval_every=50, eval_states=16, threads=1)
    task = TASKS[name](spec, options)
    config = RunConfig(name, task.world, model, settings, options=task.options)
    return train(config, tmp_path_factory.mktemp("runs") / request.param)


def test_training_lowers_the_loss_and_the_run_opens(trained) -> None:
    run = load(trained.path)
    assert run.config == trained.config and run.task.options == trained.config.options
    curve = run.frame("metrics")
    losses = curve.loc[curve["metric"] == "loss", "estimate"].to_list()
    assert losses[-1] < np.log(len(run.task.vocab))
    rows = evaluate(run.model, run.task, n=16, seed=9)
    assert rows["estimate"].between(0, 1).all() and "sequence_match" in set(rows["metric"])


def test_every_stage_takes_every_task(trained) -> None:
    """Probes, interchange and circuits on streams, chains and outputs, little of each."""
    run = load(trained.path)
    read = {"trace": "array_ptr", "chain": "operand", "output": "op"}[run.task.name]
    probes = probe_stage(run, ProbeOptions(variables=(read,), n=1200, edits=0, controls=False))
    swaps = patch_stage(run, PatchOptions(variables=("operand",), n_pairs=12))
    assert read in set(probes["variable"]) and "operand" in set(swaps["variable"])
    contrast = next(iter(run.task.contrasts()))
    pairs = draw_pairs(run.task, contrast, 6, seed=0)
    told = sum(fact is not None for fact in run.task.facts())
    assert (pairs.weights[:, :told] == 0).all(), "circuits are asked about what is printed"
    assert torch.isfinite(pairs.logit_difference(run.model(pairs.clean.tokens))).all()


def test_a_contrast_that_a_task_has_not_is_refused_in_a_sentence(trained) -> None:
    run = load(trained.path)
    with pytest.raises(ValueError, match=f"the task {run.task.name} has no contrast 'STOP': "):
        draw_pairs(run.task, "STOP", 4, seed=0)


def test_eval_prints_what_the_task_scores(trained, capsys: pytest.CaptureFixture[str]) -> None:
    main(["eval", str(trained.path), "--n", "16", "--threads", "1"])
    assert "Traceback" not in capsys.readouterr().err
