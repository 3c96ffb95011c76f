"""The probe sweep on streams, edits along probes, and the semantic control."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cython_vm import MachineSpec, Op, encode, run, sample, step, variable
from interp.probing import Readout, SweepConfig, draw_examples, read_tokens, sweep_hooks
from interp.probing.editing import edit_streams, turned
from interp.probing.edits import scope_edits
from interp.results import Control, Metric, rows_frame, select
from interp.runs import Run, RunConfig
from interp.studies.probe_sweep import probe_along, probe_run
from interp.tasks.options import TaskOptions
from interp.tasks.trace import Trace
from interp.training import TrainingConfig, train
from interp.training.presets import transformer_for
from interp.worlds.machine import MachineWorld
from interp.worlds.machine.semantics import altered
from probes import LogisticProbe

SPEC = MachineSpec(n_instructions=12, n_cells=3, n_input=4, n_output=4, bits=2)
OPTIONS = TaskOptions(n_steps=12)
CONFIG = SweepConfig(variables=("array_ptr", "cell[0]", "cell[1]", "cell[2]", "operand"), n=1600, per_stream=8)


@pytest.fixture(scope="module")
def trace_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    model = transformer_for("trace", SPEC, options=OPTIONS, n_layers=1, n_heads=2, d_model=16)
    training = TrainingConfig(
        steps=30, batch_size=8, eval_every=30, eval_states=40, checkpoint_every=30, threads=1, steps_along=3
    )
    config = RunConfig("trace", MachineWorld(SPEC), model, training, options=OPTIONS)
    return train(config, tmp_path_factory.mktemp("runs") / "trace")


def test_tokens_carry_the_labels_of_their_stream() -> None:
    task = Trace(MachineWorld(SPEC), OPTIONS)
    names = ["array_ptr", "cell[1]", "loop_depth"]
    data = draw_examples(task, 600, variables=names, places=("stream", "ops"), per_example=5, seed=4, split="train")[
        "stream"
    ]
    batch = task.sample(120, seed=4, split="train")
    assert np.array_equal(encode(batch.examples), encode(data.starts))
    for labels, name in zip(data.labels, names, strict=True):
        assert np.array_equal(labels, task.labels(batch, name)[data.row, data.position])
    assert np.bincount(data.row).max() <= 5
    assert len(set(zip(data.row.tolist(), data.position.tolist(), strict=True))) == len(data)
    alone = draw_examples(task, 600, variables=names, places=("stream",), per_example=5, seed=4, split="train")
    assert np.array_equal(alone["stream"].position, data.position)  # whatever else is asked for
    ops = draw_examples(task, 200, variables=names, places=("ops",), seed=4, split="train")["ops"]
    tokens = task.render(ops.starts).tokens.numpy()
    names_of = np.array(task.vocab)[tokens[ops.row, ops.position]]
    assert np.array_equal(ops.types[0], tokens[ops.row, ops.position] * task.n_ctx + ops.position)
    assert set(names_of) <= {op.name for op in Op}


def test_altered_semantics_is_the_same_program_under_other_meanings() -> None:
    states = sample(SPEC, 200, seed=0)
    other = altered(states)
    swap = {0: 2, 2: 0, 1: 3, 3: 1}
    assert np.array_equal(other.program, np.vectorize(lambda op: swap.get(op, op))(states.program))
    world = MachineWorld(SPEC).altered()
    after, told = step(other).next, world.read(states, "next_array_ptr")
    known = told >= 0
    assert np.array_equal(after.array_ptr[known], told[known])
    assert (world.read(states, "array_ptr") == states.array_ptr).all()
    for meanings in ({Op.NEXT: Op.PREV, Op.PREV: Op.NEXT}, {Op.NEXT: Op.PUT, Op.PUT: Op.NEXT}, {Op.NEXT: Op.INC}):
        with pytest.raises(ValueError, match="meaning|negates|permutation"):
            altered(states, meanings)


def test_altered_labels_of_streams_follow_the_altered_run() -> None:
    task = Trace(MachineWorld(SPEC), OPTIONS)
    draw = draw_examples(task, 300, variables=["array_ptr"], places=("stream",), per_example=6, seed=1, split="train")
    data = draw["stream"]
    batch = task.sample(50, seed=1, split="train")
    told = run(altered(batch.examples), 12)
    assert data.altered is not None
    for row, position, label in zip(data.row, data.position, data.altered[0], strict=True):
        at = task.times(batch)[row, position]
        assert label == (told.row(row).array_ptr[at] if at <= told.n_steps[row] else -1)


def test_every_accuracy_stands_beside_its_controls(trace_run: Run) -> None:
    task: Any = trace_run.task
    results = {(r.hook): r for r in sweep_hooks(trace_run.model, task, untrained=trace_run.model, config=CONFIG)}
    assert list(results) == ["blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"]
    frame = rows_frame([row for result in results.values() for row in result.rows])
    accuracy = select(frame, metric=Metric.ACCURACY, variable="array_ptr", site="blocks.0.hook_resid_post")
    assert set(accuracy.control.dropna()) == {
        Control.MAJORITY_CLASS,
        Control.CONTROL_TASK,
        Control.SHUFFLED_LABELS,
        Control.EMBEDDING_ONLY,
        Control.UNTRAINED_MODEL,
        Control.ALTERED_SEMANTICS,
    }
    by = dict(zip(accuracy.control.fillna("probe"), accuracy.estimate, strict=True))
    assert by["probe"] == by[Control.UNTRAINED_MODEL]  # the same model was given as its own control
    assert by[Control.SHUFFLED_LABELS] < by[Control.MAJORITY_CLASS] + 0.1
    selectivity = select(frame, metric=Metric.SELECTIVITY, variable="array_ptr", site="blocks.0.hook_resid_post")
    assert float(selectivity.estimate.iloc[0]) == pytest.approx(by["probe"] - by[Control.CONTROL_TASK])
    joint = select(frame, metric=Metric.JOINT_EXACTNESS, control=None)
    tape: Any = select(frame, metric=Metric.ACCURACY, variable="cells", control=None)
    tape = tape[tape.stratum.isna()]
    assert (joint.estimate.to_numpy() <= tape.estimate.to_numpy()).all()
    single: Any = select(frame, metric=Metric.ACCURACY, control=None, site="blocks.0.hook_resid_post")
    cells = [float(single[single.variable == f"cell[{i}]"].estimate.iloc[0]) for i in range(3)]
    assert float(tape[tape.site == "blocks.0.hook_resid_post"].estimate.iloc[0]) == pytest.approx(np.mean(cells))


def test_activations_are_those_of_the_cache(trace_run: Run) -> None:
    task: Any = trace_run.task
    tokens = task.sample(50, seed=2, split="train").tokens
    rng = np.random.default_rng(0)
    some_rows, some_positions = np.nonzero(rng.random(tokens.shape) < 0.1)
    chosen = {"some": (some_rows, some_positions), "one": (np.array([3]), np.array([0]))}
    hooks = ("blocks.0.hook_resid_post", "blocks.0.attn.hook_z", "blocks.0.attn.hook_pattern")
    with torch.no_grad():
        _, cache = trace_run.model.run_with_cache(tokens)
    found = read_tokens(trace_run.model, tokens, hooks, chosen, batch_size=7)
    for (place, hook), x in found.items():
        row, position = (torch.from_numpy(part) for part in chosen[place])
        view = cache[hook].transpose(1, 2) if hook.endswith("pattern") else cache[hook]
        torch.testing.assert_close(x, view[row, position].flatten(1), atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="no hook"):
        read_tokens(trace_run.model, tokens, ["blocks.9.hook_resid_post"], chosen)


def planted() -> tuple[Readout, torch.Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 800)
    x = torch.from_numpy(3 * rng.normal(size=(4, 10))[labels] + rng.normal(size=(800, 10))).float()
    probe = LogisticProbe(C=0.1).fit(x, labels)
    return Readout.of(probe.coef_, probe.intercept_, probe.classes_, x, labels), x, labels


@pytest.mark.parametrize("how", ["mean", "shift", "logits"])
def test_an_edit_makes_the_probe_read_the_target_and_touches_nothing_else(how: Any) -> None:
    readout, x, labels = planted()
    target = (labels + 1) % 4
    edited = readout.edited(x, labels, target, how=how)
    read = (edited @ readout.weights.T + readout.offsets).argmax(-1).numpy()
    assert (readout.classes[read] == target).mean() > 0.95
    change = edited - x
    torch.testing.assert_close(change @ readout.basis.T @ readout.basis, change, atol=1e-3, rtol=1e-3)
    if how == "logits":  # exchanged, the others untouched
        z, new = (h @ readout.weights.T + readout.offsets for h in (x, edited))
        rows, now, then = torch.arange(800), torch.from_numpy(labels), torch.from_numpy(target)
        torch.testing.assert_close(new[rows, then] - new[rows, now], z[rows, now] - z[rows, then], atol=1e-3, rtol=1e-3)
    random = turned(x, edited, torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close((random - x).norm(dim=-1), change.norm(dim=-1))
    with pytest.raises(ValueError, match="saw the values"):
        readout.edited(x, labels, np.full(800, 9))


@pytest.mark.parametrize("name", ["operand", "array_ptr", "cell[0]"])
def test_window_edits_hold_what_the_slow_machine_computes(name: str) -> None:
    task = Trace(MachineWorld(SPEC), OPTIONS)
    pairs = task.counterfactual(30, name, seed=5)
    edits = scope_edits(task, pairs, name, "window")
    last = scope_edits(task, pairs, name, "judged")
    assert len(last.row) == len(pairs) and np.array_equal(last.position, pairs.positions[:, 0])
    step_of = task.times(pairs.base)
    for row in range(len(pairs)):
        state = task.render(pairs.base.examples).run.row(row)[int(pairs.edit_time[row])]
        values = {int(pairs.edit_time[row]): int(pairs.values[row])}
        now = step(state, do={name: pairs.values[row : row + 1]}).next
        for at in range(int(pairs.edit_time[row]) + 1, int(pairs.judged_time[row]) + 1):
            values[at] = int(variable(SPEC, name).read(now)[0])
            now = step(now).next
        mine = edits.row == row
        steps = step_of[row, edits.position[mine]]
        assert [values[int(at)] for at in steps] == edits.target[mine].tolist()
        assert steps.min() == pairs.edit_time[row] and edits.position[mine].max() == pairs.positions[row, 0]


def test_stage_saves_every_hook_goes_on_and_follows_the_training(trace_run: Run, tmp_path: Path) -> None:
    config = SweepConfig(variables=("operand", "array_ptr"), n=800, per_stream=8, controls=False)
    stops = []

    def stop(done: float, total: float, at: str) -> None:
        stops.append(at)
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe_run(trace_run, config=config, n_edits=8, progress=stop)
    half = trace_run.frame("probes")
    assert set(half.site) == {"blocks.0.hook_resid_pre"}
    whole = probe_run(trace_run, config=config, n_edits=8)
    assert set(whole.site.dropna()) == {"blocks.0.hook_resid_pre", "blocks.0.hook_resid_post"}
    first = whole[whole.site == "blocks.0.hook_resid_pre"].estimate.to_numpy()
    assert np.array_equal(first, half.estimate.to_numpy())
    edits = select(whole, metric=Metric.EDIT_SUCCESS, control=None)
    assert set(edits.variable) == {"operand", "array_ptr"} and set(edits.position) == {"judged", "window"}
    assert edits.estimate.between(0, 1).all()
    embedding = select(whole, site="blocks.0.hook_resid_post", control=Control.EMBEDDING_ONLY, variable="operand")
    probe = select(whole, site="blocks.0.hook_resid_pre", control=None, variable="operand", metric=Metric.ACCURACY)
    assert float(embedding.estimate.iloc[0]) == float(probe.estimate.iloc[0])

    small = SweepConfig(variables=("operand",), n=400, hooks=("blocks.0.hook_resid_post",), controls=False)
    along = probe_along(
        trace_run,
        lambda then, report: probe_run(then, config=small, n_edits=0, progress=report),
        progress=lambda *a: None,
    )
    assert sorted(set(along.checkpoint_step)) == list(trace_run.steps)
    assert len(select(along, metric=Metric.EXACT_MATCH, op=None)) == len(trace_run.steps)
    assert set(select(along, metric=Metric.EXACT_MATCH).op.dropna()) >= {"PUT"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variables": ("tape",)}, "tape"),
        ({"places": ("margin",)}, "no place"),
        ({"hooks": ("blocks.9.hook_resid_post",)}, "no hook"),
        ({"methods": ("oracle",)}, "no probe"),
        ({"variables": ("steps_to_halt",), "places": ("stream[0]",)}, "nothing to probe"),
        ({"variables": ("array_ptr",), "places": ("{",)}, "takes one value"),
        ({"n": 20, "per_stream": 16}, "raise n"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(trace_run: Run, change: dict[str, Any], words: str) -> None:
    settings: dict[str, Any] = {"n": 400} | change
    config = SweepConfig(**settings)
    with pytest.raises(ValueError, match=words):
        list(sweep_hooks(trace_run.model, trace_run.task, untrained=trace_run.model, config=config))


def test_edit_rows_count_what_the_model_says(trace_run: Run) -> None:
    """A readout of no consequence changes nothing: the edited model answers as the unedited one."""
    task: Any = trace_run.task
    readout = Readout(np.arange(4), torch.eye(4, 16), torch.zeros(4), torch.eye(4, 16), torch.zeros(4, 16))
    silent = Readout(readout.classes, readout.weights, readout.offsets, torch.zeros(1, 16), readout.means)
    rows = edit_streams(
        trace_run.model, task, {"operand": silent}, hook="blocks.0.hook_resid_pre",
        other_hook="blocks.0.hook_resid_post", method="logistic", n_pairs=20,
    )  # fmt: skip
    by = {(row["position"], row["control"]): row["estimate"] for row in rows}
    for scope in ("judged", "window"):
        assert by[scope, None] == by[scope, Control.UNPATCHED] == by[scope, Control.RANDOM_SUBSPACE]
