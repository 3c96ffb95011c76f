"""The one sweep on every task and on models with a state; and that committed rows are still what it draws."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import tiny_config

from cython_vm import MachineSpec, decode
from interp.models.recurrent import GRU
from interp.models.state_configs import GRUConfig
from interp.models.transformer import Transformer
from interp.probing import SweepConfig, draw_examples, sweep_hooks
from interp.probing.editing import edit_rows
from interp.results import Control, Metric, read_frame, records, rows_frame, select
from interp.runs import load
from interp.runs.probe_errors import read_errors
from interp.stage_options import ProbeOptions
from interp.studies.probe_stage import probe_stage
from interp.tasks import TASKS, TaskOptions
from interp.tasks.chain import Chain
from interp.tasks.output import Output
from interp.tasks.trace import Trace
from interp.training import train
from interp.training.presets import transformer_for
from interp.worlds.addition import Addition
from interp.worlds.machine import MachineWorld
from interp.worlds.slots import SlotWorld
from interp.worlds.strings import Sticky, StringWorld
from interp.worlds.text import TextWorld

SPEC = MachineSpec(n_instructions=8, n_cells=3, n_input=2, n_output=2, bits=2)
WORLDS: dict[str, Any] = {  # of the other tasks the machine
    "addition": Addition(n_digits=3),
    "strings": StringWorld(Sticky(n=2, letters=2, length=10)),
    "slots": SlotWorld(size=2),
    "text": TextWorld.of(length=16, block=256),
}
ROOT = Path(__file__).parents[2]
OPTIONS = TaskOptions(n_steps=4)


def tiny(name: str) -> tuple[Any, Any]:
    task_class, world = TASKS[name], WORLDS.get(name, SPEC)
    options = OPTIONS if "n_steps" in task_class.Options.__dataclass_fields__ else None
    shape = transformer_for(name, world, options=options, n_layers=1, n_heads=2, d_model=8)
    return Transformer(shape).eval(), task_class(world, options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(TASKS))
def test_every_task_is_probed_by_default(name: str) -> None:
    model, task = tiny(name)
    config = SweepConfig(n=1600 if name in ("trace", "strings") else 400, hooks=("blocks.0.hook_resid_post",))
    (result,) = sweep_hooks(model, task, untrained=model, config=config)
    assert result.places == tuple(task.probe_places())
    accuracy = select(rows_frame(result.rows), metric=Metric.ACCURACY, stratum=None)
    own, blank = (
        accuracy[accuracy.control.isna() if control is None else accuracy.control.eq(control).fillna(False)]
        .set_index(["variable", "position"])
        .estimate
        for control in (None, Control.UNTRAINED_MODEL)
    )
    assert len(own) and own.eq(blank.reindex(own.index)).all()  # the same model was given as its own control
    rows = edit_rows(model, task, result, other_hook="blocks.0.hook_resid_pre", n_pairs=6, seed=4)
    assert all(0 <= row["estimate"] <= 1 and 0 < row["n"] <= 6 for row in rows)


def test_a_place_in_a_chain_is_about_its_own_state() -> None:
    task = Chain(SPEC, OPTIONS)
    places = ("cells[@array_ptr]", "t+2.cells[0]")
    drawn = draw_examples(task, 60, variables=["operand", "next_array_ptr"], places=places, seed=0, split="train")
    told = task.world.run(drawn[places[0]].starts, 4)
    for place, k in zip(places, (0, 2), strict=True):
        data, then = drawn[place], told.at(k)
        assert (data.time == k).all()
        for v, name in enumerate(("operand", "next_array_ptr")):
            assert np.array_equal(data.labels[v], task.world.read(then, name))
            assert np.array_equal(data.types[v], task.world.types(then, name))
    other = task.world.altered()
    assert other is not None
    late = drawn[places[1]]
    assert late.altered is not None
    assert np.array_equal(late.altered[0], other.read(late.starts, "operand", 2))


def test_types_of_whole_runs_are_many() -> None:
    task = Output(SPEC, TaskOptions(n_steps=8))
    batch = task.sample(200, seed=0)
    types = task.control_types(batch, "op")
    first = [task.position_names.index(name) for name in ("instructions[0]", "instructions[1]", "input[0]")]
    _, same = np.unique(batch.tokens.numpy()[:, first], axis=0, return_inverse=True)
    _, own = np.unique(types, return_inverse=True)
    assert len(np.unique(own)) > 10 and len(np.unique(np.stack([own, same.ravel()]), axis=1).T) == own.max() + 1


def test_a_model_with_a_state_is_probed_and_edited() -> None:
    task = Trace(SPEC, TaskOptions(n_steps=8))
    model = GRU(GRUConfig(d_vocab=len(task.vocab), n_ctx=task.n_ctx, d_model=8, n_layers=2)).eval()
    config = SweepConfig(("operand", "array_ptr"), n=800, controls=False)
    results = list(sweep_hooks(model, task, untrained=None, config=config))
    assert [each.hook for each in results] == list(model.residual_hooks())
    rows = edit_rows(model, task, results[1], other_hook=results[2].hook, n_pairs=8, seed=4)
    assert {row["position"] for row in rows} == {"judged", "window"}
    assert {row["variable"] for row in rows} == {"operand", "array_ptr"}


def test_the_stage_takes_whole_chains_and_names_what_a_probe_gets_wrong(tmp_path: Path) -> None:
    shape = transformer_for("chain", SPEC, options=OPTIONS, n_layers=1, n_heads=2, d_model=8)
    small = replace(tiny_config(task="chain", steps=2), world=MachineWorld(SPEC), model=shape, options=OPTIONS)
    run = train(small, tmp_path / "chain")
    asked: dict[str, Any] = {"positions": ("cells[0]", "t+1.cells[0]"), "variables": ("operand", "op"), "n": 300}
    rows = probe_stage(run, ProbeOptions(**asked, sites=("blocks.0.hook_resid_post",), edits=4, controls=False))
    assert set(select(rows, metric=Metric.ACCURACY).position) == {"cells[0]", "t+1.cells[0]"}
    again = probe_stage(run, ProbeOptions(**asked, sites=("blocks.0.hook_resid_post",), edits=4, controls=False))
    assert again.equals(rows)
    errors = read_errors(run)
    worst = errors[errors.margin.notna()]
    assert set(worst.step) == {0, 1}  # the state that the position belongs to
    error: Any
    for error in worst.itertuples():
        then = decode(SPEC, np.array([error.start]))
        assert int(run.task.world.read(then, error.variable, int(error.step))[0]) == error.truth


@pytest.mark.parametrize(
    ("name", "places", "hook"),
    [
        ("step_inplace", ("cells[@array_ptr]", "{"), "blocks.1.hook_resid_post"),
        ("trace", ("asked",), "blocks.0.hook_resid_pre"),
    ],
)
def test_committed_rows_are_about_what_the_sweep_draws(name: str, places: tuple[str, ...], hook: str) -> None:
    """Whatever the estimator: the same held-out labels, majority classes, pairs and unedited answers as in the file."""
    run, file = load(ROOT / "checkpoints" / name), read_frame(ROOT / "checkpoints" / name / "probes.parquet")
    settings = file.attrs["provenance"]["settings"]
    config = SweepConfig(places=places, hooks=(hook,), n=settings["n"], seed=settings["seed"], controls=False)
    (result,) = sweep_hooks(run.model, run.task, untrained=None, config=config)
    edits = edit_rows(run.model, run.task, result, other_hook=hook, n_pairs=settings["n_edits"], seed=config.seed + 1)
    rows = [row for row in result.rows if row["control"] == Control.MAJORITY_CLASS]
    rows += [row for row in edits if row["control"] == Control.UNPATCHED]
    keys = ("site", "position", "variable", "method", "control", "stratum", "metric")
    known = {tuple(row[key] for key in keys): row for row in records(file)}
    assert len(rows) > 20
    for row in rows:
        found = known[tuple(row.get(key) for key in keys)]
        assert found["n"] == row["n"]
        assert [row[key] for key in ("estimate", "ci_low", "ci_high")] == pytest.approx(
            [found[key] for key in ("estimate", "ci_low", "ci_high")], abs=1e-6
        )
