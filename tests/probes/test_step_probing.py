"""The probe sweep on single steps: controls, resume, errors, edits, localisation; and runs of several seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import tiny_config

from cython_vm import MachineSpec, encode
from interp.compiled.build import compile_model
from interp.probing import Readout, SweepConfig, read_tokens, sweep_hooks
from interp.probing.editing import edit_places
from interp.probing.label_sets import relabelled
from interp.probing.places import tokens_of
from interp.results import Control, IntervalKind, Metric, records, rows_frame, select
from interp.runs import Run, RunError
from interp.runs.probe_errors import read_errors
from interp.studies.probe_sweep import n_probes, probe_run
from interp.studies.read_and_written import formation, localisation_rows, over_seeds, where_first
from interp.tasks.step_inplace import StepInplace
from interp.training import train
from interp.worlds.machine import MachineWorld
from probes import LogisticProbe

PLACES = ("cells[@array_ptr]", "{")
CONFIG = SweepConfig(variables=("operand", "op", "next_array_ptr"), places=PLACES, n=400)
LAST = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def step_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tiny_config(), tmp_path_factory.mktemp("runs") / "tiny")


def test_a_sweep_saves_every_hook_and_goes_on(step_run: Run) -> None:
    def stop(done: float, total: float, at: str) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe_run(step_run, config=CONFIG, n_edits=8, progress=stop)
    half = step_run.frame("probes")
    assert set(half.site) == {"blocks.0.hook_resid_pre"}
    whole = probe_run(step_run, config=CONFIG, n_edits=8)
    assert np.array_equal(whole.estimate[: len(half)], half.estimate)
    at_once = probe_run(step_run, config=CONFIG, n_edits=8, fresh=True)
    assert np.allclose(at_once.estimate, whole.estimate)
    with pytest.raises(RunError, match="holds probes measured with n 400, and n 500 is asked for; .* with --fresh"):
        probe_run(step_run, config=replace(CONFIG, n=500), n_edits=8)
    assert not list(step_run.path.glob(".activations-*"))
    assert n_probes(records(whole)) == 3 * 2 * 2

    accuracy = select(whole, metric=Metric.ACCURACY, site=LAST, position="{", variable="next_array_ptr")
    assert set(accuracy.control.dropna()) == {
        Control.MAJORITY_CLASS,
        Control.CONTROL_TASK,
        Control.SHUFFLED_LABELS,
        Control.EMBEDDING_ONLY,
        Control.UNTRAINED_MODEL,
        Control.ALTERED_SEMANTICS,
    }
    # op under altered semantics is op under other names, and operand itself: nothing to probe for
    assert set(select(whole, control=Control.ALTERED_SEMANTICS).variable) == {"next_array_ptr"}
    compression = select(whole, metric=Metric.COMPRESSION, site=LAST, position="cells[@array_ptr]")
    assert set(compression.variable) == {"operand", "op", "next_array_ptr"}
    assert float(select(compression, variable="operand").estimate.iloc[0]) > 2  # the slot holds it
    assert float(select(compression, variable="op").estimate.iloc[0]) < 1.2

    errors: Any = read_errors(step_run)
    here = errors[(errors.site == LAST) & (errors.position == "{") & (errors.variable == "op")]
    counts, worst = here[here.margin.isna()], here[here.margin.notna()]
    read = select(whole, site=LAST, position="{", variable="op", metric=Metric.ACCURACY, control=None)
    row: Any = read.iloc[0]
    assert len(read) == 1 and counts["count"].sum() == row.n
    assert counts[counts.truth == counts.predicted]["count"].sum() / row.n == pytest.approx(row.estimate)
    assert 2 <= len(worst) <= 6 and (worst.truth != worst.predicted).all() and worst.margin.is_monotonic_decreasing


def test_the_worst_examples_are_states_that_the_probe_gets_wrong(step_run: Run) -> None:
    task, (name, place) = step_run.task, ("op", "cells[@array_ptr]")
    config = SweepConfig(variables=(name,), places=(place,), hooks=(LAST,), n=300, controls=False)
    (result,) = sweep_hooks(step_run.model, task, untrained=None, config=config)
    held = {encode(row)[0].tobytes(): row for row in _rows(task, 150)}
    readout = result.readouts[name, place]
    for error in result.errors:
        if error.get("margin") is None:
            continue
        state = held[np.array(error["start"], dtype=np.uint8).tobytes()]
        batch = task.render(state)
        x = activations(step_run.model, task, batch, LAST, place)
        z = (x @ readout.weights.T + readout.offsets)[0]
        assert int(task.labels(batch, name)[0]) == error["truth"] != error["predicted"]
        assert int(readout.classes[int(z.argmax())]) == error["predicted"]
        truth, said = (list(readout.classes).index(error[key]) for key in ("truth", "predicted"))
        assert float(z[said] - z[truth]) == pytest.approx(error["margin"], abs=1e-3)


def activations(model: Any, task: Any, batch: Any, hook: str, place: str) -> torch.Tensor:
    row, position = np.nonzero(tokens_of(task, batch, place))
    return read_tokens(model, batch.tokens, [hook], {place: (row, position)})[place, hook]


def _rows(task: Any, n: int) -> list[Any]:
    states = task.draw(n, seed=3, split="evaluation", weights=task.strata_weights("op_outcome"))
    return [states[i : i + 1] for i in range(n)]


def test_relabelled_means_the_same_partition() -> None:
    y = np.array([0, 0, 1, 2, -1, 2])
    assert relabelled(y, np.array([5, 5, 3, 0, 7, -1]))
    assert not relabelled(y, np.array([5, 4, 3, 0, 0, 0])) and not relabelled(y, np.array([1, 1, 1, 0, 0, 0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"variables": ("tape",)}, "tape"),
        ({"places": ("cells",)}, "reads one position"),
        ({"places": ("margin",)}, "no positions are named"),
        ({"hooks": ("blocks.9.hook_resid_post",)}, "no hook"),
        ({"methods": ("oracle",)}, "no probe"),
        ({"variables": ("loop_depth", "input_head"), "n": 24}, "too rarely|takes one value|raise n"),
        ({"n": 12}, "raise n"),
    ],
)
def test_bad_requests_are_refused_in_a_sentence(step_run: Run, change: dict[str, Any], words: str) -> None:
    settings: dict[str, Any] = {"n": 300, "variables": ("operand",), "places": ("{",)} | change
    with pytest.raises(ValueError, match=words):
        list(sweep_hooks(step_run.model, step_run.task, untrained=step_run.model, config=SweepConfig(**settings)))


def test_an_edit_in_a_compiled_model_moves_the_answer() -> None:
    """Where a hand-set interpreter holds a cell, writing another value into what a probe reads is what the machine
    does when the cell is set; in random directions it is not."""
    spec = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=2)
    model, task = compile_model(spec).model, StepInplace(spec)
    hook, place = "blocks.0.hook_resid_pre", "cells[0]"
    batch = task.sample(600, seed=0, split="train")
    labels = task.labels(batch, "cell[0]")
    x = activations(model, task, batch, hook, place)
    probe = LogisticProbe(C=0.1).fit(x, labels)
    readout = Readout.of(probe.coef_, probe.intercept_, probe.classes_, x, labels)
    rows = edit_places(
        model, task, {("cell[0]", place): readout}, hook=hook, other_hook="blocks.2.hook_resid_post",
        method="logistic", n_pairs=40,
    )  # fmt: skip
    by = {row["control"]: row["estimate"] for row in rows}
    assert by[None] > 0.9 and rows[0]["n"] == 40
    assert by[Control.UNPATCHED] == 0 and by[Control.RANDOM_SUBSPACE] < 0.2 and Control.WRONG_SITE in by


def place_row(site: int, estimate: float, metric: Metric, **more: Any) -> dict[str, Any]:
    columns = {"variable": "operand", "site": f"blocks.{site}.hook_resid_post", "position": "cells[@array_ptr]"}
    kind: dict[str, Any] = {"method": "logistic"}
    if metric == Metric.EDIT_SUCCESS:
        kind = {"method": "probe_mean", "granularity": "logistic", "stratum": "changes"}
    return {**columns, **kind, "metric": metric, "estimate": estimate, "n": 10} | more


def test_localisation_holds_probes_against_the_window_of_edits() -> None:
    read, used = (0.9, 0.9, 0.9, 0.05), (0.0, 0.8, 0.8, 0.8)
    rows = [place_row(i, value, Metric.ACCURACY) for i, value in enumerate(read)]
    rows += [place_row(i, value, Metric.EDIT_SUCCESS) for i, value in enumerate(used)]
    found = {row["metric"]: row for row in localisation_rows(rows_frame(rows)) if row["variable"] == "operand"}
    assert found[Metric.PRECISION]["estimate"] == pytest.approx(2 / 3) and found[Metric.PRECISION]["n"] == 3
    assert found[Metric.RECALL]["estimate"] == pytest.approx(2 / 3)
    assert found[Metric.FALSE_POSITIVE_RATE]["estimate"] == 1 and found[Metric.FALSE_POSITIVE_RATE]["n"] == 1


def test_seeds_are_averaged_row_by_row() -> None:
    frames = [
        rows_frame([place_row(0, v, Metric.ACCURACY, seed=s, run=f"r{s}")]) for s, v in enumerate((0.2, 0.4, 0.9))
    ]
    row: Any
    (row,) = over_seeds(frames).itertuples()
    assert row.estimate == pytest.approx(0.5) and (row.ci_low, row.ci_high, row.n) == (0.2, 0.9, 3)
    assert row.interval_kind == IntervalKind.SEED_RANGE
    many = [rows_frame([place_row(0, v, Metric.ACCURACY, seed=s)]) for s, v in enumerate((1.0, 2.0, 3.0, 4.0, 5.0))]
    (row,) = over_seeds(many).itertuples()
    assert row.interval_kind == IntervalKind.SEEDS
    assert row.ci_high - row.estimate == pytest.approx(2.776 * np.sqrt(2.5) / np.sqrt(5), rel=1e-3)
    with pytest.raises(ValueError, match="different seeds"):
        over_seeds([frames[0], frames[0]])


def test_turned_edits_leave_other_states_alone(step_run: Run) -> None:
    """A readout of no consequence changes nothing: the edited model answers as the unedited one."""
    width = step_run.model.cfg.d_model
    silent = Readout(np.arange(2), torch.eye(2, width), torch.zeros(2), torch.zeros(1, width), torch.zeros(2, width))
    rows = edit_places(
        step_run.model, step_run.task, {("operand", "cells[@array_ptr]"): silent}, hook=LAST,
        other_hook="blocks.0.hook_resid_pre", method="logistic", n_pairs=16,
    )  # fmt: skip
    assert len({row["estimate"] for row in rows}) == 1 and {row["control"] for row in rows} == {
        None, Control.UNPATCHED, Control.RANDOM_SUBSPACE, Control.WRONG_SITE
    }  # fmt: skip


def test_first_places_are_the_shallowest_that_pass_their_controls() -> None:
    rows = [place_row(i, v, Metric.ACCURACY) for i, v in enumerate((0.3, 0.9, 0.95))]
    rows += [place_row(i, 0.3, Metric.ACCURACY, control=Control.CONTROL_TASK) for i in range(3)]
    rows += [place_row(1, 0.7, Metric.ACCURACY, position="{")]
    rows += [place_row(i, v, Metric.EDIT_SUCCESS, n=20) for i, v in enumerate((0.0, 0.05, 0.6))]
    swaps = [
        place_row(i, v, Metric.IIA, method="full_vector", pair_design="independent", stratum="changes")
        for i, v in enumerate((0.5, 0.8))
    ]
    line: Any
    (line,) = where_first(rows_frame(rows), rows_frame(swaps)).itertuples()
    assert line.read_site == "blocks.1.hook_resid_post"
    assert line.read_positions == "cells[@array_ptr] (0.90), { (0.70)"
    assert line.edit_site == "blocks.2.hook_resid_post" and line.swap_site == "blocks.0.hook_resid_post"
    few = [row | {"n": 5} if row["metric"] == Metric.EDIT_SUCCESS else row for row in rows]
    (line,) = where_first(rows_frame(few), None).itertuples()
    assert pd.isna(line.edit_site) and pd.isna(line.swap_site)


def test_formation_is_from_then_on() -> None:
    steps, rows = (0, 10, 100, 1000), []
    for step, read, exact in zip(steps, (0.5, 0.2, 0.6, 0.9), (0.0, 0.95, 0.5, 1.0), strict=True):
        rows.append(place_row(0, read, Metric.ACCURACY, checkpoint_step=step))
        rows.append(place_row(0, 0.3, Metric.ACCURACY, checkpoint_step=step, control=Control.MAJORITY_CLASS))
        rows += [
            {"metric": Metric.EXACT_MATCH, "op": op, "estimate": exact, "checkpoint_step": step, "n": 9}
            for op in ("PUT", "INC")
        ]
    line: Any
    spec = MachineSpec(n_instructions=4, n_cells=3, n_input=1, n_output=1, bits=2)
    (line,) = formation(rows_frame(rows), MachineWorld(spec).needed_by).itertuples()
    assert (line.decodable, line.best, line.behaviour, line.needed_by) == (100, 1000, 1000, "PUT, INC")
