"""Interchange, subspaces, alignment search, joint swaps and position search, on every task and on a recurrent net."""

from typing import Any

import numpy as np
import pytest
import torch

from interp.interventions import (
    DasConfig,
    JointPairs,
    SharedPairs,
    Site,
    Swap,
    das_rows,
    iia_sweep,
    joint_rows,
    mean_difference_basis,
    residual_sites,
    run_interventions,
    smallest_set_rows,
    stratum_rows,
    swapped_answers,
)
from interp.interventions.by_stratum import StratifiedPairs
from interp.models import HookedModel, TransformerConfig, build_model
from interp.models.recurrent import GRU
from interp.models.state_configs import GRUConfig
from interp.results import Control, rows_frame, select
from interp.tasks import TASKS, Task
from interp.tasks.answers import read_answers
from interp.worlds.addition import Addition
from interp.worlds.machine import MachineSpec, MachineWorld
from interp.worlds.slots import SlotWorld
from interp.worlds.strings import Sticky, StringWorld

from .test_patching import n_hooks

WORLD = MachineWorld(MachineSpec(n_instructions=6, n_cells=3, n_input=3, n_output=3, bits=2))
WORLDS = {
    "addition": Addition(n_digits=3),
    "strings": StringWorld(Sticky(n=2, letters=2, length=10)),
    "slots": SlotWorld(size=2),
}
LENGTHS = {"trace": 10, "chain": 2, "output": 8, "scratchpad": 8}
QUICK = DasConfig(n_pairs=24, n_held_out=24, steps=3, batch_size=8)
JOINT = {
    "addition": ["carry_in[1]", "digit_sum[1]"],
    "trace": ["array_ptr", "cell[1]"],
    "output": ["array_ptr", "cell[0]"],
    "scratchpad": ["array_ptr", "cell[0]"],
    "slots": ["a[1]", "b[0]"],
    "strings": ["run", "class"],
}
STREAMS = {*LENGTHS, "strings"}


def build(task: Task, architecture: str, *, seed: int = 0) -> HookedModel:
    if architecture == "gru":
        config = GRUConfig(d_vocab=len(task.vocab), n_ctx=task.n_ctx, n_layers=3, d_model=16, seed=seed)
        with torch.random.fork_rng(devices=[]):
            return GRU(config).eval()
    return build_model(
        TransformerConfig(
            d_vocab=len(task.vocab), n_ctx=task.n_ctx, n_layers=3, n_heads=2, d_model=16, init_range=0.5,
            attention_dir=task.attention_dir, seed=seed,
        )
    ).eval()  # fmt: skip


CASES = [(name, "transformer") for name in TASKS if name != "text"]  # of a text nobody knows what should come out
CASES += [("trace", "gru"), ("step", "gru")]


@pytest.fixture(scope="module", params=CASES, ids=["-".join(case) for case in CASES])
def case(request) -> tuple[Any, Any]:
    name, architecture = request.param
    task: Any = TASKS[name](WORLDS.get(name, WORLD))
    task = task.resized(LENGTHS[name]) if name in LENGTHS else task
    return task, build(task, architecture)


def asked_of(task: Task) -> str:
    """One variable of the task's world that any task of it knows."""
    return {"addition": "carry_in[1]", "strings": "class", "slots": "a[1]"}.get(task.world.name, "array_ptr")


def test_the_answers_are_the_world_s(case):
    """What pairs hold equals the world asked anew, variable by variable, at each pair's own steps."""
    task, _ = case
    names = task.swappable()[:4]
    pairs = SharedPairs.draw(task, names, n_pairs=24, seed=1)
    for name in names:
        rows = pairs.members[name]
        base, source = pairs.base.examples[rows], pairs.source.examples[rows]
        edit, take = pairs.edit_time[rows], pairs.source_time[rows]
        assert (task.world.read(source, name, take) == pairs.values[name]).all()
        edited = task.world.answer(base, do={name: pairs.values[name]}, at=edit)
        told = task.answered(edited, edit)
        now = (task.asked_after(base, edit)[1] == edit) & (told >= 0).any(1)  # judged at the very step of the edit
        assert now.any()
        assert (told[now] == pairs.targets[name].numpy()[now]).all()
        assert (pairs.changes[name] == (pairs.targets[name] != pairs.unedited[name]).any(1).numpy()).all()


def test_all_positions_swapped_is_the_source_run(case):
    task, model = case
    pairs = SharedPairs.draw(task, task.swappable()[:2], n_pairs=12, seed=0)
    for site in residual_sites(model, ["all"]):
        found = swapped_answers(model, task, pairs.base, [(site, pairs.source)], positions=pairs.positions)
        assert (found == read_answers(model(pairs.source.tokens), pairs.positions).argmax(-1)).all()


def test_the_experiment_and_its_breakdown(case):
    task, model = case
    names = task.swappable()[:2]
    options: dict[str, Any] = {"n_pairs": 16, "seed": 0, "untrained": build(task, model.cfg.architecture, seed=9)}
    frame = rows_frame(run_interventions(model, task, variables=names, **options))
    swept = select(frame, metric="iia", stratum="all", pair_design="independent", control=None)
    assert len(swept) == len(names) * len(residual_sites(model, task.position_sets()))
    assert swept.estimate.between(0, 1).all()
    site = Site(residual_sites(model, ["all"])[1].hook, task.position_sets()[0])
    name = asked_of(task)
    basis = mean_difference_basis(model, task, name, site, n=256) if task.name not in STREAMS else None
    rows = stratum_rows(model, task, name, [Swap(site), Swap(site, basis)], n=4, n_bootstrap=20)
    by_stratum = rows_frame(rows)
    assert set(by_stratum.op.dropna()) <= set(task.world.stratum_names)
    assert by_stratum.op.notna().all()
    assert {"unpatched", "same_value"} <= set(by_stratum.control.dropna())
    assert set(by_stratum.metric) >= {"iia", "effect_accuracy"}
    assert n_hooks(model) == 0


def test_same_value_sources_have_base_s_value_and_leave_the_answer(case):
    task, _ = case
    name = asked_of(task)
    drawn = StratifiedPairs.draw(task, name, n=6, seed=3)
    assert drawn is not None and drawn.same_value is not None
    assert max(np.bincount(drawn.strata)) <= 6
    assert drawn.pairs.changes[name].all()
    same = drawn.same_value
    rows = same.members[name]
    own = task.world.read(same.base.examples[rows], name, same.edit_time[rows])
    taken = task.world.read(same.source.examples[rows], name, same.source_time[rows])
    assert (own == taken).all()
    assert (same.targets[name] == same.unedited[name]).all()
    found = task.strata(same.base[rows], same.edit_time[rows])
    assert [found.names[number] for number in found.number] == [drawn.names[each] for each in drawn.same_strata]


def test_alignment_and_position_search(case):
    task, model = case
    name, hook = asked_of(task), residual_sites(model, ["all"])[1].hook
    fit, rows = das_rows(model, task, name, Site(hook, task.position_sets()[0]), rank=2, config=QUICK)
    frame = rows_frame(rows)
    assert len(fit.losses) == QUICK.steps
    assert np.isfinite(fit.losses).all()
    plain = select(frame, metric="iia", pair_design="independent", stratum="changes", control=None)
    assert plain.estimate.iloc[0] == pytest.approx(fit.iia)
    found, rows = smallest_set_rows(model, task, name, hook, n_pairs=8)
    assert found.n_positions >= 1
    assert {row["position"] for row in rows} == {found.site.positions}


def test_joint_swaps(case):
    task, model = case
    names = JOINT.get(task.name, ["array_ptr", "cell[1]"])
    pairs = JointPairs.draw(task, names, n_pairs=12, seed=0)
    do = {
        name: task.world.read(source.examples, name, time)
        for name, source, time in zip(names, pairs.sources, pairs.source_times, strict=True)
    }
    edited = task.world.answer(pairs.base.examples, do=do, at=pairs.edit_time)
    told = task.answered(edited, task.asked_after(pairs.base.examples, pairs.edit_time)[1])
    assert (told == pairs.targets.numpy()).all()
    hook, sets = residual_sites(model, ["all"])[1].hook, task.position_sets()
    frame = rows_frame(
        joint_rows(model, task, names, [Site(hook, each) for each in sets[:2]], n_pairs=12, n_bootstrap=20)
    )
    assert {"unpatched", "single_swap", "wrong_site"} <= set(frame.control.dropna())
    by_stratum = select(frame, pair_design="stratified joint")
    assert by_stratum.op.notna().all() and len(by_stratum)
    assert Control.SAME_VALUE in set(by_stratum.control)


def test_streams_are_shared_only_where_their_times_agree():
    """Two variables edited at different steps of one stream stay two pairs."""
    task: Any = TASKS["trace"](WORLD).resized(10)
    pairs = SharedPairs.draw(task, ["array_ptr", "cell[0]"], n_pairs=30, seed=0)
    key = np.concatenate(
        [pairs.base.tokens, pairs.source.tokens, pairs.positions, pairs.edit_time[:, None], pairs.source_time[:, None]],
        1,
    )
    assert len(np.unique(key, axis=0)) == len(pairs)
    for name in pairs.members:
        rows = pairs.members[name]
        assert (task.world.read(pairs.source.examples[rows], name, pairs.source_time[rows]) == pairs.values[name]).all()


def test_iia_of_streams_by_hand():
    """A swap of everything up to the judged token gives source's answer where both stand at the same token."""
    task: Any = TASKS["trace"](WORLD).resized(10)
    model = build(task, "gru")
    pairs = SharedPairs.draw(task, ["array_ptr"], n_pairs=30, seed=0)
    rows = rows_frame(iia_sweep(model, task, ["array_ptr"], residual_sites(model, ["all"]), n_pairs=30, n_changing=0))
    answers = read_answers(model(pairs.source.tokens), pairs.positions).argmax(-1)
    right = (answers[pairs.members["array_ptr"]] == pairs.targets["array_ptr"]).all(-1).float().mean()
    found = select(rows, metric="iia", stratum="all", control=None)
    assert len(found) == 4
    assert np.allclose(found.estimate, right)


def test_overlapping_parts_of_a_stream_are_refused():
    """The token before the first step is the opening brace."""
    task: Any = TASKS["trace"](WORLD).resized(10)
    batch = task.sample(3, seed=0)
    assert task.resolve("{+stream[@step]", batch, 0).shape == (3, 2)
    with pytest.raises(ValueError, match="overlap in row 0"):
        task.resolve("{+stream[@before]", batch, 0)


def test_minimal_pairs_of_whole_runs_differ_in_one_value_of_the_input():
    """All else of a start is fixed or shown; what the variable is set to is what the shown source has."""
    task: Any = TASKS["output"](WORLD).resized(8)
    assert not task.has_minimal_pairs("array_ptr")
    drawn = task.counterfactual(12, "operand", seed=0, design="minimal")
    inputs = drawn.base.examples.input != drawn.source.examples.input
    assert (inputs.sum(1) == 1).all()
    assert ((drawn.base.tokens != drawn.source.tokens).sum(1) == 1).all()
    assert (task.world.read(drawn.source.examples, "operand", drawn.source_time) == drawn.values).all()
    assert (task.world.read(drawn.base.examples, "operand", drawn.edit_time) != drawn.values).all()
