"""Nulls, spread over examples, agreement with exact effects and circuits along a run, where the answer is known."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from interp.circuits import Circuit, Graph, find_circuit
from interp.circuits.pairs import draw_pairs
from interp.results import Method, rows_frame
from interp.studies.along import AlongConfig, circuits_at
from interp.studies.approximations import agreement_rows, compare_approximations, spearman
from interp.studies.evidence import EvidenceConfig, gather_evidence
from interp.studies.examples import edge_examples, read_examples
from interp.studies.explain import explain

from .conftest import random_model
from .test_circuits import SMALL


@pytest.fixture(scope="module")
def model(inplace):
    return random_model(inplace, n_layers=1)


@pytest.fixture(scope="module")
def circuit(model, inplace) -> Circuit:
    return find_circuit(model, inplace, "INC", config=SMALL, seed=3)


def test_random_paths_are_connected_and_fit():
    graph = Graph(3, 3)
    drawn = graph.random_paths(30, n=40, rng=np.random.default_rng(0))
    assert (drawn.sum((1, 2)) <= 30).all()
    assert drawn.sum((1, 2)).mean() > 25
    assert (graph.prune(drawn) == drawn).all()
    uniform = graph.random(30, n=40, rng=np.random.default_rng(0))
    assert graph.prune(uniform).sum() < uniform.sum()


def test_the_whole_graph_keeps_everything_in_every_pair(model, inplace, circuit):
    whole = replace(circuit, edges=tuple(replace(edge, in_circuit=True) for edge in circuit.edges))
    config = EvidenceConfig(n_pairs=16, n_null=6, n_null_pairs=6, n_criteria_pairs=4, n_resamples=4, steps=2)
    rows, detail = gather_evidence(model, inplace, whole, config=config, seed=3)
    frame: Any = rows_frame(rows)
    examples = detail["examples"]
    np.testing.assert_allclose(examples["m_circuit"], examples["m_model"], atol=1e-5)
    assert frame[frame.metric == "completeness"].estimate.iloc[0] == pytest.approx(0, abs=1e-4)
    chosen = frame[(frame.metric == "faithfulness") & (frame.stratum == "chosen")]
    assert chosen[chosen.control.isna()].estimate.iloc[0] == pytest.approx(1, abs=1e-5)
    # a null of as many edges as there are is the model too
    assert chosen[chosen.control == "random_circuit"].estimate.iloc[0] == pytest.approx(1, abs=1e-4)
    assert {"examples", "chosen", "resampled"} <= set(frame.stratum.dropna())
    by_ablation = frame[frame.stratum == "ablation"]
    assert set(by_ablation.ablation) == {"resample", "mean", "zero"}
    np.testing.assert_allclose(by_ablation.estimate, 1, atol=1e-5)  # the whole graph has nothing to ablate
    other = replace(circuit, n_layers=2)
    with pytest.raises(ValueError, match="the circuit is of a model of 2 x 2 heads, this one has 1 x 2"):
        gather_evidence(model, inplace, other)


def test_the_strongest_edges_pair_by_pair(model, inplace, circuit):
    found = edge_examples(model, inplace, circuit, n_edges=5, n_pairs=circuit.n_effects, seed=circuit.seed)
    known = {f"{edge.source}->{edge.target}": edge for edge in circuit.edges}
    assert sorted(found.edges) == sorted(sorted(known, key=lambda name: -abs(known[name].score))[:5])
    for name, effects in zip(found.edges, found.effects, strict=True):
        exact = known[name].exact
        assert exact is None or effects.mean() == pytest.approx(exact, abs=1e-5)
        worst = found.worst(name, k=3)
        assert list(effects[worst]) == sorted(effects)[:3]
    read = read_examples(json.loads(json.dumps(found.detail())))
    assert (read.clean == found.clean).all()
    assert (read.corrupted == found.corrupted).all()
    shown = inplace.world.decode(read.clean)
    drawn = draw_pairs(inplace, "INC", circuit.n_effects, seed=circuit.seed, half=1)
    assert shown.equal(drawn.clean.examples).all()
    np.testing.assert_allclose(read.effects, found.effects, atol=1e-4)
    assert read.edges == found.edges
    with pytest.raises(ValueError, match="was not patched pair by pair; 5 others were"):
        found.worst("input->nowhere")


def test_agreement_by_hand():
    exact = np.array([[-2.0, -4.0], [1.0, 1.0], [0.0, 0.0], [0.004, -0.004]])
    perfect = agreement_rows(exact.mean(1), exact, 1.0, method=Method.EAP, granularity="edge", signed=True)
    values = {(row["metric"], row.get("stratum"), row.get("control")): row["estimate"] for row in perfect}
    assert values["auroc", None, None] == 1
    assert values["precision_at_size", None, None] == 1
    assert values["precision_at_size", None, "random_circuit"] == 0.5
    assert values["spearman", "signed", None] == pytest.approx(1)
    assert perfect[0]["circuit_size"] == 2
    blind = agreement_rows(-np.arange(4.0) - 1, exact, 1.0, method=Method.ACDC, granularity="edge", signed=False)
    assert next(row["estimate"] for row in blind if row["metric"] == "auroc") == 0
    assert spearman(np.array([1.0, 2, 3]), np.array([1.0, 4, 9])) == pytest.approx(1)


def test_methods_agree_with_exact_patching_better_than_chance(model, inplace):
    calls: list[float] = []
    pairs = draw_pairs(inplace, "INC", 8, seed=0)
    rows, numbers = compare_approximations(model, pairs, steps=4, n_search=2, progress=calls.append)
    ranks = {
        row["method"]: row["estimate"]
        for row in rows
        if row["metric"] == "spearman" and row["stratum"] == "absolute" and row.get("position") != "one gradient"
    }
    assert set(ranks) == {Method.EAP, Method.EAP_IG, Method.ACDC, Method.ATTRIBUTION_PATCHING}
    assert ranks[Method.EAP_IG] > 0.5
    assert numbers["edges"] == [Graph.of(model).edge(*place).name for place in np.argwhere(Graph.of(model).mask)]
    assert spearman(np.abs(numbers["eap"]), np.array(numbers["mean_absolute"])) == pytest.approx(ranks["eap"], abs=0.02)
    assert calls == sorted(calls)


def test_a_checkpoint_that_is_the_final_model_holds_the_final_circuit(model, inplace, circuit):
    config = AlongConfig(n_pairs=SMALL.n_pairs, steps=SMALL.steps, n_sizes=3)
    final = replace(circuit, size=8)
    frame = rows_frame(circuits_at(model, inplace, [final], config=config, seed=3))
    overlap = frame[(frame.metric == "jaccard") & frame.control.isna()].estimate.iloc[0]
    assert overlap == 1
    stranger = random_model(inplace, n_layers=1, seed=9)
    other = rows_frame(circuits_at(stranger, inplace, [final], config=config, seed=3))
    assert other[(other.metric == "jaccard") & other.control.isna()].estimate.iloc[0] < 1


def test_sentences_say_what_was_measured(circuit):
    role = {
        "layer": 0, "head": 1, "variable": "op", "effect": -2.0, "from_block": "cells",
        "to_block": "instructions[@instruction_ptr]", "attention": 0.83, "iia": 0.71,
    }  # fmt: skip
    apart = {
        "ops": ["INC", "GET", "PUT"],
        "loss": [[0.8, 0.05, 0.3], [0, 1, 0], [0, 0, 1]],
        "level": "neuron",
        "size": 7,
    }
    text = explain(circuit, roles=[role], dissociation=apart)
    assert f"{circuit.n_connected} of {len(circuit.edges)} edges" in text
    assert (
        "a0.h1 brings op, attending from the slots of cells to the slot of instructions at instruction_ptr "
        "(83% of its attention; swapped, 71% of answers follow)" in text
    )
    assert "Without the 7 neurons most its own it loses 80% of its logit difference" in text
    assert "the other instructions lose 18% on average, PUT most (30%)" in text
