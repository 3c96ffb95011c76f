"""Circuits where an example is a run: answers at places of their own, and the whole stage on a small trained run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from cython_vm import MachineSpec
from interp.circuits import (
    CircuitConfig,
    Graph,
    attention_patterns,
    attribution_patching,
    draw_pairs,
    eap,
    eap_ig,
    exact_effects,
    find_circuit,
    head_roles,
    main_contrasts,
    node_effects,
    read_attention,
    run_circuits,
)
from interp.circuits.edges import written
from interp.circuits.hooked import moved_logits, streams
from interp.circuits.readout import Readout
from interp.models import build_model
from interp.models.fast_pass import take
from interp.runs import RunConfig
from interp.runs.findings import finding_path, read_finding
from interp.studies.circuit_study import study
from interp.studies.dissociation import DissociationConfig
from interp.studies.evidence import EvidenceConfig
from interp.studies.study_config import StudyConfig
from interp.tasks import TASKS, Task, TaskOptions
from interp.training import TrainingConfig, train
from interp.training.presets import transformer_for
from interp.worlds import as_world

SPECS = {
    "trace": MachineSpec(n_instructions=24, n_cells=3, n_input=4, n_output=4, bits=2),
    "chain": MachineSpec(n_instructions=8, n_cells=3, n_input=1, n_output=1, bits=2),
    "output": MachineSpec(n_instructions=8, n_cells=3, n_input=2, n_output=2, bits=2),
}
STEPS = {"trace": 16, "chain": 2, "output": 12}
MAIN = {
    "trace": ("NEXT", "PREV", "INC", "DEC", "PUT", "GET", "WHILE", "ENDW"),
    "chain": ("NEXT", "PREV", "INC", "DEC", "PUT", "GET", "WHILE", "ENDW"),
    "output": ("NEXT", "PREV", "INC", "DEC", "PUT", "GET"),
}
SMALL = CircuitConfig(
    n_pairs=16, steps=2, n_sizes=3, n_null=2, n_null_pairs=4, n_exact=4, n_exact_pairs=12, n_bootstrap=20
)


@pytest.fixture(scope="module", params=list(SPECS))
def task(request) -> Task:
    return TASKS[request.param](as_world(SPECS[request.param]), TaskOptions(n_steps=STEPS[request.param]))


@pytest.fixture(scope="module")
def model(task) -> Any:
    config = transformer_for(task.name, task.world, options=task.options, n_layers=2, n_heads=2, d_model=16)
    model: Any = build_model(replace(config, init_range=0.5)).eval().double()
    return model


@pytest.fixture(scope="module")
def pairs(task):
    drawn = draw_pairs(task, "INC", 8, seed=0)
    return replace(drawn, weights=drawn.weights.double())


def test_every_contrast_of_the_task_has_pairs(task):
    assert main_contrasts(task) == MAIN[task.name]
    for name in MAIN[task.name]:
        drawn = draw_pairs(task, name, 6, seed=2, half=0)
        assert drawn.contrast == name and ((drawn.weights > 0).sum(1) >= 1).all()
        assert ((drawn.clean_answer != drawn.corrupted_answer) | (drawn.weights == 0)).all()


def test_each_pair_is_read_at_places_of_its_own(task, model, pairs):
    logits = model(pairs.clean.tokens).detach()
    readout = Readout.of(pairs)
    torch.testing.assert_close(readout.metric(take(logits, readout.positions)), pairs.logit_difference(logits))
    by_hand = torch.zeros(len(pairs), dtype=torch.float64)
    for row in range(len(pairs)):
        for place, weight in enumerate(pairs.weights[row]):
            at = logits[row, pairs.positions[row, place]]
            by_hand[row] += weight * (at[pairs.clean_answer[row, place]] - at[pairs.corrupted_answer[row, place]])
    torch.testing.assert_close(readout.metric(take(logits, readout.positions)), by_hand)
    if task.name == "trace":
        assert len(set(pairs.positions[:, 0].tolist())) > 1


@torch.no_grad()
def test_exact_effects_equal_one_hooked_pass_an_edge(model, pairs):
    graph = Graph.of(model)
    edges = [graph.edge(row, column) for row, column in np.argwhere(graph.mask)[::3]]
    clean, logits = written(model, graph, pairs.clean.tokens)
    difference = written(model, graph, pairs.corrupted.tokens)[0] - clean
    before = streams(model, pairs.clean.tokens)
    found = exact_effects(model, pairs, edges, batch_size=20)
    for edge, ours in zip(edges, found, strict=True):
        moved = moved_logits(model, graph, before, edge.target, difference[graph.writers.index(edge.source)])
        theirs = pairs.logit_difference(moved) - pairs.logit_difference(logits)
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-8, err_msg=edge.name)
    assert (np.abs(found).max(1) > 1e-4).mean() > 0.3


def test_scores_sum_to_the_gap_and_to_the_nodes(model, pairs):
    effects = node_effects(model, pairs)
    gap = float(effects[0].mean())  # the input corrupted is everything corrupted
    assert eap_ig(model, pairs, steps=64)[:, 0].sum() == pytest.approx(gap, abs=0.02 * abs(gap))
    np.testing.assert_allclose(attribution_patching(model, pairs).mean(1), eap(model, pairs).sum(0), atol=1e-9)
    with torch.no_grad():
        both = [pairs.logit_difference(model(batch.tokens)) for batch in (pairs.clean, pairs.corrupted)]
    np.testing.assert_allclose(effects[0], (both[1] - both[0]).numpy(), rtol=1e-4, atol=1e-6)


def test_the_full_circuit_is_the_model_and_the_empty_one_the_corrupted_run(model, pairs):
    graph = Graph.of(model)
    runs = run_circuits(model, pairs, np.stack([graph.mask, np.zeros_like(graph.mask)]))
    with torch.no_grad():
        clean, corrupted = (model(batch.tokens) for batch in (pairs.clean, pairs.corrupted))
    np.testing.assert_allclose(runs.m[0], pairs.logit_difference(clean), atol=1e-6)
    np.testing.assert_allclose(runs.m[1], pairs.logit_difference(corrupted), atol=1e-6)
    assert (runs.exact[0] == pairs.exact(clean).numpy()).all()


def test_a_circuit_is_found(task, model):
    circuit = find_circuit(model.float(), task, "INC", config=SMALL)
    model.double()
    assert circuit.task == task.name and circuit.op == "INC" and circuit.outcomes == {}
    assert circuit.faithfulness[-1].estimate == pytest.approx(1, abs=1e-5)
    assert circuit.n == 16 and any(edge.in_circuit for edge in circuit.edges)


def test_what_makes_no_sense_for_runs_is_refused(task, model):
    with pytest.raises(ValueError, match="a head's role is measured on single steps"):
        head_roles(model, task, "INC", n=4)


def test_where_a_head_looks_is_told_by_token_where_positions_mean_nothing(task, model):
    """By hand: the mean share that keys of a token get of what queries of another pay, in examples that have these."""
    summary = attention_patterns(model, task, ops=["INC"], n=6, batch_size=4)
    if task.positions == "block":
        assert "brackets" in summary.role_names and summary.pattern is not None
        return
    assert summary.role_names == tuple(task.vocab) and summary.pattern is None
    tokens = task.contrast("INC").examples(6, 0).tokens
    _, cache = model.run_with_cache(tokens)
    for query in ("INC", "PUT", "{"):
        shares = []
        for row, line in zip(cache["blocks.0.attn.hook_pattern"][:, 1], tokens, strict=True):
            at = line == task.vocab.index(query)
            if at.any():
                shares.append([float(row[at][:, line == key].sum(-1).mean()) for key in range(len(task.vocab))])
        found = summary.roles[0, 0, 1, task.vocab.index(query)]
        np.testing.assert_allclose(found, np.mean(shares, axis=0), atol=1e-3)
        assert found.sum() == pytest.approx(1, abs=0.01)


def test_the_stage_measures_a_run_of_streams(tmp_path):
    config = RunConfig(
        task="trace",
        world=as_world(SPECS["trace"]),
        model=transformer_for(
            "trace", SPECS["trace"], options=TaskOptions(n_steps=16), n_layers=1, n_heads=2, d_model=16
        ),
        training=TrainingConfig(steps=5, warmup_steps=2, batch_size=8, eval_every=5, eval_states=20,
                                checkpoint_every=5, threads=1),
        options=TaskOptions(n_steps=16),
    )  # fmt: skip
    run = train(config, tmp_path / "streams")
    settings = StudyConfig(
        circuit=SMALL,
        measure=("roles", "edges", "dissociation", "evidence", "approximations", "positions"),
        levels=("neuron",),
        n_exact_pairs=4,
        n_search_pairs=2,
        dissociation=DissociationConfig(n_neurons=4, n_pairs=8, steps=1, n_null=2),
        evidence=EvidenceConfig(n_pairs=12, n_null=3, n_null_pairs=4, n_criteria_pairs=4, n_resamples=3, steps=1),
        paths=("input->logits",),
    )
    frame = study(run, ops=("INC", "PUT"), config=settings)
    assert set(frame.op) >= {"INC", "PUT"} and set(frame.task) == {"trace"}
    assert {"faithfulness", "ablation_loss", "completeness", "effect"} <= set(frame.metric)
    assert read_attention(run.path / "attention.safetensors")[0].role_names == tuple(run.task.vocab)
    assert not finding_path(run.path, "roles", "INC").exists()
    found = read_finding(run.path, "edges", "PUT")
    assert found is not None
    assert len(found.detail["clean"][0].split()) == run.task.n_ctx
    with pytest.raises(ValueError, match="no contrast 'STOP': it is the last instruction"):
        study(run, ops=("STOP",), config=settings)
