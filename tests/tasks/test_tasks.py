"""One battery for the tasks of a single step: what it asks, what it answers, and how answers are scored."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from cython_vm import (
    MachineSpec,
    Op,
    Outcome,
    ancestors,
    decode,
    decode_outcome,
    encode,
    program_hash,
    step,
    strata_weights,
    variable,
)
from interp.models import build_model
from interp.tasks import TASKS, macro_average
from interp.tasks.machine_task import NextStateTask
from interp.training.presets import transformer_for

SPEC = MachineSpec(n_instructions=6, n_cells=4, n_input=2, n_output=2, bits=2)
SETTABLE = [name for name in SPEC.variables() if variable(SPEC, name).settable]


ONE_STEP = ("step_inplace", "step")


@pytest.fixture(params=ONE_STEP)
def task(request: pytest.FixtureRequest) -> NextStateTask:
    return TASKS[request.param](SPEC)


def oracle(task: NextStateTask):
    """A 'model' that asks the machine: logits that are 1 at the right token of the next state."""

    def model(tokens: Tensor) -> Tensor:
        states = decode(SPEC, tokens[:, : SPEC.state_length].numpy())
        answer = torch.from_numpy(encode(step(states).next).astype(np.int64))
        logits = torch.zeros(*tokens.shape, SPEC.d_vocab)
        task.next_state_logits(logits).scatter_(2, answer[..., None], 1.0)
        return logits

    return model


def test_a_batch_asks_for_the_machines_next_state(task: NextStateTask) -> None:
    batch = task.sample(50, seed=0)
    asked = batch.targets[batch.loss_mask].reshape(50, -1).numpy()
    assert (asked == encode(step(batch.examples).next)).all()
    assert (batch.tokens[:, : SPEC.state_length].numpy() == encode(batch.examples)).all()
    assert (batch.targets[~batch.loss_mask] == -1).all()
    assert (
        batch.tokens.shape == (50, task.n_ctx) and len(task.position_roles) == len(task.position_indices) == task.n_ctx
    )


def test_an_oracle_scores_one_everywhere(task: NextStateTask) -> None:
    batch = task.sample(400, seed=1, weights=strata_weights(SPEC))
    predicted = task.predict(oracle(task), batch.tokens[:, : SPEC.state_length])
    assert task.exact(predicted, step(batch.examples).next).all()
    scores = task.score(predicted, batch)
    assert set(scores["estimate"]) == {1.0} and macro_average(scores) == 1
    assert scores.loc[scores["metric"] == "exact_match", "n"].sum() == 400


def test_a_planted_mistake_shows_in_its_stratum_and_block_alone(task: NextStateTask) -> None:
    batch = task.sample(600, seed=2, weights=strata_weights(SPEC))
    predicted = task.predict(oracle(task), batch.tokens[:, : SPEC.state_length])
    transition = step(batch.examples)
    planted = (transition.latents["op"] == Op.INC) & (transition.outcome == Outcome.VALUE_OVERFLOW)
    assert planted.any()
    position = SPEC.layout.position("cells", 1)
    predicted[torch.from_numpy(planted), position] = SPEC.token_id("{")
    scores = task.score(predicted, batch).set_index(["op", "stratum"])
    hit = scores.loc[("INC", "VALUE_OVERFLOW")].set_index(["metric", "position"])["estimate"]
    assert (
        hit["exact_match"].item() == 0 and hit["block_accuracy", "cells"] == 0 and hit["block_accuracy", "output"] == 1
    )
    assert set(scores.drop(("INC", "VALUE_OVERFLOW"))["estimate"]) == {1.0}


def test_rows_do_not_depend_on_how_they_are_drawn(task: NextStateTask) -> None:
    whole = task.sample(20, seed=5, split="train")
    parts = [task.sample(7, seed=5, start=start, split="train").tokens for start in (0, 7)]
    assert torch.equal(whole.tokens[:14], torch.cat(parts))


def test_splits_never_share_a_program(task: NextStateTask) -> None:
    train, held = (task.sample(300, seed=3, split=split).examples for split in ("train", "evaluation"))
    assert (program_hash(train) % 20 != 0).all() and (program_hash(held) % 20 == 0).all()


@pytest.mark.parametrize("name", SETTABLE)
def test_counterfactuals_are_the_machines(name: str) -> None:
    task = TASKS["step_inplace"](SPEC)
    pairs = task.counterfactual(40, name, seed=7)
    values = task.labels(pairs.source, name)
    transition = step(pairs.base.examples, do={name: values})
    assert (values >= 0).all() and transition.valid.all()
    assert np.array_equal(pairs.expected.numpy(), transition.tokens())
    assert np.array_equal(pairs.unedited.numpy(), step(pairs.base.examples).tokens())
    assert (pairs.changes == ~transition.next.equal(step(pairs.base.examples).next)).all()
    assert pairs.valid.all() and (pairs.edit_time == 0).all() and (pairs.values == values).all()
    assert 0 <= pairs.redraw_rate < 1


@pytest.mark.parametrize("name", ["op", "operand", "array_ptr", "next_instruction_ptr"])
def test_minimal_pairs_differ_by_one_stored_variable_that_moves_the_value(name: str) -> None:
    task = TASKS["step_inplace"](SPEC)
    pairs = task.counterfactual(60, name, seed=8, design="minimal")
    roots = [root for root in SPEC.variables() if variable(SPEC, root).kind == "root"]
    base, source = pairs.base.examples, pairs.source.examples
    moved = np.array([variable(SPEC, root).read(base) != variable(SPEC, root).read(source) for root in roots])
    assert (moved.sum(axis=0) == 1).all() and (base.program == source.program).all()
    assert (task.labels(pairs.base, name) != task.labels(pairs.source, name)).all()


@pytest.mark.parametrize("name", ["operand", "result", "outcome", "branch_taken"])
def test_minimal_pairs_edit_every_kind_of_ancestor(name: str) -> None:
    """The pointer, and the cell under it: whatever the machine computes the variable from."""
    task = TASKS["step_inplace"](SPEC)
    stored = [each for each in ancestors(SPEC, name) if variable(SPEC, each).kind == "root"]
    stored = {each for each in stored if variable(SPEC, each).slot and not each.startswith("instruction[")}
    assert set(task.world.stored_ancestors(name)) == stored
    pairs = task.counterfactual(200, name, seed=8, design="minimal")
    base, source = pairs.base.examples, pairs.source.examples
    moved = {root for root in stored if (task.world.read(base, root) != task.world.read(source, root)).any()}
    assert {"array_ptr", "cell"} <= {root.partition("[")[0] for root in moved}


def test_what_cannot_be_swapped_is_refused() -> None:
    task = TASKS["step_inplace"](SPEC)
    with pytest.raises(ValueError, match="loop_depth.*read but not set"):
        task.counterfactual(4, "loop_depth", seed=0)
    with pytest.raises(ValueError, match="opernad"):
        task.counterfactual(4, "opernad", seed=0)
    with pytest.raises(ValueError, match="design must be"):
        task.counterfactual(4, "op", seed=0, design="both")  # type: ignore[arg-type]


def test_fixed_point_decoding_is_greedy_decoding() -> None:
    """Against one token at a time, on a causal model with random weights, whose answers are anything but copies."""
    spec = MachineSpec(n_instructions=3, n_cells=2, n_input=1, n_output=1, bits=1)
    task = TASKS["step"](spec)
    config = transformer_for("step", spec, n_layers=2, n_heads=2, d_model=16)
    model = build_model(dataclasses.replace(config, init_range=0.4)).eval()
    tokens = task.sample(6, seed=0).tokens[:, : spec.state_length]
    with torch.no_grad():
        fast = task.predict(model, tokens)
        slow = tokens
        for _ in range(spec.state_length):
            slow = torch.cat([slow, model(slow)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(fast, slow[:, spec.state_length :])


def test_control_types_are_addresses_or_decision_inputs() -> None:
    task = TASKS["step_inplace"](SPEC)
    batch = task.sample(100, seed=4)
    stored, decided = task.control_types(batch, "op"), task.control_types(batch, "result")
    assert (stored == batch.examples.instruction_ptr.astype(int) * 256 + batch.examples.array_ptr).all()
    assert (decided == task.labels(batch, "op") * 256 + task.labels(batch, "operand")).all()


@pytest.mark.parametrize("name", ONE_STEP)
@pytest.mark.parametrize(
    "style", [{"outcome_token": True}, {"pointers": "index"}, {"punctuation": "none"}, {"padded": True}]
)
def test_other_layouts_are_asked_and_judged_alike(name, style):
    spec = MachineSpec(n_instructions=5, n_cells=3, n_input=2, n_output=2, **style)
    task = TASKS[name](spec)
    batch = task.sample(200, seed=0)
    truth = step(batch.examples)
    told = batch.targets[batch.loss_mask].view(len(batch), spec.state_length)
    assert decode(spec, told.numpy()) == truth.next
    if spec.outcome_token:
        assert np.array_equal(decode_outcome(spec, told.numpy()), truth.outcome)
    assert set(task.score(told, batch)["estimate"]) == {1}
    wrong = told.clone()
    wrong[:, spec.layout.position("cells", 0)] = spec.token_id("EOO")
    assert macro_average(task.score(wrong, batch)) == 0
    pairs = task.counterfactual(40, "operand", seed=1)
    edited = step(pairs.base.examples, do={"operand": pairs.values}).next
    assert decode(spec, pairs.expected.numpy()) == edited
    assert np.array_equal(task.exact(pairs.expected, step(pairs.base.examples).next), ~pairs.changes)
