"""What each entry says of a tiny compiled model, and that a wrong answer key is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cython_vm import Op
from interp.calibration.criteria import edge_members, mutated, sufficient
from interp.calibration.edges import by_exact_nodes, pairs_of, truth
from interp.calibration.interchange import swap_together
from interp.calibration.places import true_places
from interp.calibration.registry import CALIBRATIONS, EXEMPT, WITHIN
from interp.calibration.settings import QUICK, CalibrationSettings
from interp.calibration.strings import STRING_NETWORKS, string_subject
from interp.calibration.subjects import SETTINGS, TAPES, Setting, compile_subject, compile_tape
from interp.circuits import Graph, run_circuits
from interp.compiled import AnswerKey
from interp.interventions import SharedPairs
from interp.results import Control, Method, Metric, rows_frame, select


def only(frame, **columns) -> float:
    rows = select(frame, **columns)
    assert len(rows), f"no rows with {columns}"
    return float(rows.estimate.mean())


def test_every_method_has_an_entry_or_a_written_reason() -> None:
    placed = [set(CALIBRATIONS) & set(Method), set(WITHIN), set(EXEMPT)]
    assert set.union(*placed) == set(Method)
    assert sum(map(len, placed)) == len(set.union(*placed)), "a method is placed twice"
    assert all(name in CALIBRATIONS for name in WITHIN.values())
    assert all(len(reason.split()) > 5 for reason in EXEMPT.values())
    assert all(set(entry.subjects or ()) <= {*SETTINGS, *TAPES, *STRING_NETWORKS} for entry in CALIBRATIONS.values())


def test_a_model_that_errs_is_refused(monkeypatch) -> None:
    monkeypatch.setitem(SETTINGS, "blunt", Setting("too soft to attend", sharpness=2.0))
    with pytest.raises(ValueError, match="'blunt' errs on"):
        compile_subject("blunt", CalibrationSettings().spec)
    with pytest.raises(ValueError, match="no calibration model 'sharp'; there are clean"):
        compile_subject("sharp")


def test_true_sets_swap_their_variable_and_nothing_else_does(measure) -> None:
    rows = select(measure("true_subspace", "distracted"), method=Method.TRUE_SUBSPACE)
    assert (select(rows, control=None).estimate == 1.0).all()
    assert {"op", "operand", "outcome", "next_array_ptr"} <= set(rows.variable)
    for control in (Control.RANDOM_SUBSPACE, Control.WRONG_SITE, Control.UNTRAINED_MODEL):
        assert only(rows, control=control) < 0.15


def test_iia_notices_a_key_with_wrong_directions(subject, settings) -> None:
    compiled = subject("distracted").compiled
    key, task = compiled.key, compiled.form.task
    broken = replace(key, directions=key.directions.roll(7, dims=0))
    pairs = SharedPairs.draw(task, ["op"], n_pairs=32, n_changing=16, seed=0)
    (swap,) = key.variables["op"].swaps

    def iia(of: AnswerKey) -> float:
        parts = [(place.positions, of.basis(place)) for place in swap.places]
        return swap_together(compiled.model, task, pairs, "op", swap.hook, parts)[0]

    assert iia(key) == 1.0
    assert iia(broken) < 0.5


def test_places_of_the_sweep_are_live_dead_or_neither(subject) -> None:
    compiled = subject("rotated").compiled
    task = compiled.form.task
    batch = task.sample(64, seed=0)
    places = true_places(compiled.key, task, ["op", "array_ptr", "operand"], batch)
    stored = places["op", "blocks.0.hook_resid_pre", "instructions[@instruction_ptr]"]
    told = places["op", "blocks.1.hook_resid_post", "cells[0]"]
    assert stored.live and told.live
    assert not places["op", "blocks.0.hook_resid_post", "cells[0]"].live  # not yet fetched
    assert not places["op", "blocks.1.hook_resid_post", "{"].live  # written there as well, and read by nothing
    assert not places[
        "operand", "blocks.2.hook_resid_post", "array_ptr[0]"
    ].live  # readable still, and all readers done
    # One slot of a one-hot does not hold the pointer alone.
    assert ("array_ptr", "blocks.0.hook_resid_pre", "array_ptr[0]") not in places
    # Whether a cell is the operand depends on the state.
    assert ("operand", "blocks.0.hook_resid_pre", "cells[0]") not in places


def test_edits_tell_used_places_from_readable_ones_and_a_shifted_key_is_noticed(measure, subject, settings) -> None:
    few = replace(settings, n_states=600, n_edits=12)
    key = subject("rotated").compiled.key
    found = measure("mean_difference", "rotated", settings=few)
    plain = only(found, stratum="decodable", metric=Metric.FALSE_POSITIVE_RATE)
    edited = only(found, stratum="edit", metric=Metric.FALSE_POSITIVE_RATE)
    assert edited < plain / 2
    elsewhere = {
        name: replace(
            each,
            carriers=tuple(
                replace(carrier, place=replace(carrier.place, positions="output.]")) for carrier in each.carriers
            ),
        )
        for name, each in key.variables.items()
    }
    broken = measure("mean_difference", "rotated", key=replace(key, variables=elsewhere), settings=few)
    assert only(broken, stratum="edit", metric=Metric.FALSE_POSITIVE_RATE) > 2 * edited


@pytest.mark.parametrize(("entry", "granularity"), [("exact_patching", "edge"), ("exact_nodes", "node")])
def test_exact_patching_finds_all_true_parts_and_only_them(measure, entry, granularity) -> None:
    own = select(measure(entry, "rotated"), granularity=granularity, stratum="own", control=None)
    for metric in (Metric.AUROC, Metric.PRECISION_AT_SIZE):
        assert (select(own, metric=metric).estimate == 1.0).all()
    chance = select(measure(entry, "rotated"), control=Control.RANDOM_CIRCUIT, stratum="own")
    assert (chance.estimate < 0.8).all()


def test_taking_one_of_two_copies_away_shows_in_leaks_alone(subject, settings) -> None:
    compiled = subject("redundant").compiled
    key, task = compiled.key, compiled.form.task
    pairs = pairs_of(task.spec, key.task, Op.INC, settings.n_pairs, settings.seed)
    names = [writer.name for writer in Graph.of(compiled.model).writers]
    true = truth(key, task, Op.INC, settings, "zero").nodes
    fetching = [node for node, words in key.components.items() if "slot of instructions that instruction_ptr" in words]
    assert len(fetching) == 2 and set(fetching) <= true
    zero, resample = (
        dict(zip(names, by_exact_nodes(compiled.model, pairs, kind), strict=True)) for kind in ("zero", "resample")
    )
    for node in fetching:
        assert zero[node] < 1e-3 * zero["input"]
        assert resample[node] > 0.1 * resample["input"]  # two copies that disagree give themselves away


def test_attribution_notices_a_key_of_another_order_of_heads(measure, subject) -> None:
    key = subject("distracted").compiled.key
    other = replace(key, noise={**key.noise, "seed": key.noise["seed"] + 1})
    right, wrong = (
        only(measure("eap_ig", "distracted", key=some), metric=Metric.AUROC, stratum="own") for some in (key, other)
    )
    assert right > 0.9
    assert wrong < right - 0.1


def test_gradients_find_less_where_attention_is_saturated(measure, settings) -> None:
    jumping = replace(settings, ops=("WHILE",))
    soft, sharp = (
        only(measure("eap", name, settings=jumping), metric=Metric.PRECISION_AT_SIZE, stratum="own", control=None)
        for name in ("soft", "saturated")
    )
    assert sharp < soft


def test_mutants_differ_as_they_say_and_the_true_circuit_suffices(subject, settings) -> None:
    compiled = subject("rotated").compiled
    model, key, task = compiled.model, compiled.key, compiled.form.task
    graph = Graph.of(model)
    circuit = np.zeros_like(graph.mask)
    for op in task.spec.ops:
        found = truth(key, task, op, settings, "resample")
        pairs = pairs_of(task.spec, key.task, op, settings.n_pairs, settings.seed)
        circuit = sufficient(model, pairs, graph, found, ablation="resample")
        m = run_circuits(model, pairs, np.stack([circuit, graph.mask])).m
        assert np.abs(m[0] - m[1]).max() < 0.1, op
        assert not (edge_members(graph, found.edges) & ~circuit).any(), op
    mutants = mutated(graph, circuit, n=5, rng=np.random.default_rng(0))
    for kind, gone, come in (("dropped", 1, 0), ("swapped", 1, 1), ("added", 0, int(circuit.sum()))):
        for mutant in mutants[kind]:
            assert (int((circuit & ~mutant).sum()), int((mutant & ~circuit).sum())) == (gone, come)


def test_criteria_see_what_they_are_for(measure) -> None:
    rows = select(measure("circuit_run", "redundant"), op="INC")
    assert only(rows, metric=Metric.FAITHFULNESS) == pytest.approx(1, abs=0.01)
    area = select(rows, metric=Metric.AUROC)
    beaten = dict(zip(zip(area.stratum, area.site, strict=True), area.estimate, strict=True))
    assert beaten["faithfulness", "dropped"] > 0.5
    assert beaten["faithfulness", "half"] == 0.5  # the other copy does the work: nothing to see
    assert beaten["faithfulness", "swapped"] > 0.5


def test_random_weights_have_no_place_in_the_table(measure, subject) -> None:
    """An entry measures the model it is given: with fresh weights, exact patching does not find the compiled edges."""
    from interp.models import Transformer

    compiled = subject("rotated").compiled
    settings = replace(CalibrationSettings(), spec=compiled.form.spec, ops=("INC",), n_pairs=4)
    torch.manual_seed(0)
    blank = Transformer(compiled.model.cfg).eval()
    rows = CALIBRATIONS["eap"].calibrate(blank, compiled.key, compiled.form.task, settings, lambda share: None)
    own = [row["estimate"] for row in rows if row["metric"] == Metric.PRECISION_AT_SIZE and row["stratum"] == "own"]
    assert own[0] < 0.6


@pytest.mark.parametrize("name", list(TAPES))
def test_state_interchange_tells_the_two_tapes_apart(name: str) -> None:
    """Own variable against rival, by the lesser of what must change and what must stay, method by method."""
    tape, settings = compile_tape(name), replace(QUICK, n_swaps=64, das_steps=120)
    rows = CALIBRATIONS["state_interchange"].calibrate(tape.model, tape.key, tape.task, settings, lambda share: None)
    frame = rows_frame(rows)
    assert set(frame.method) == {"true_subspace", "probe_subspace", "mean_difference", "das"}
    for method in frame.method.unique():
        found = {s: select(frame, method=method, stratum=s).estimate.min() for s in ("own", "rival")}
        assert found["own"] > found["rival"] + 0.1, (method, found)
    assert select(frame, method="true_subspace", stratum="own").estimate.min() == 1


@pytest.mark.parametrize("name", STRING_NETWORKS)
def test_a_run_is_found_in_a_hand_set_network_for_strings_where_it_is_kept(name: str) -> None:
    """Interchange says the same of both; the probe reads the count where a network counts, and less where it does not.
    A wrong answer key (the dimensions of the classes) is noticed."""
    subject, settings = string_subject(name), replace(QUICK, n_states=300, n_swaps=24)
    calibrate = CALIBRATIONS["string_interchange"].calibrate
    frame = rows_frame(calibrate(subject.model, subject.key, subject.task, settings, lambda share: None))
    iia, true = select(frame, metric=Metric.IIA), Method.TRUE_SUBSPACE
    assert only(iia, method=Method.FULL_VECTOR, stratum="rival", control=None) == 0
    assert only(iia, method=Method.FULL_VECTOR, stratum="own", control=None) == 1
    assert only(iia, method=true, control=None) == 1 > only(iia, method=true, control=Control.RANDOM_SUBSPACE)
    read = only(frame, metric=Metric.ACCURACY, stratum="own", control=None)
    assert read == 1 if name == "recurrent_strings" else 0.5 < read < 0.9
    assert only(frame, metric=Metric.ACCURACY, stratum="rival", control=None) < 0.5
    hook, basis = subject.key
    wrong = (hook, torch.eye(basis.shape[1])[:3])
    frame = rows_frame(calibrate(subject.model, wrong, subject.task, settings, lambda share: None))
    assert only(frame, method=true, control=None) == 0
