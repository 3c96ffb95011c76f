"""One registry of scorers: each entry scores, is chosen by name, and finds what exact patching finds."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import (
    SCORERS,
    CircuitConfig,
    Graph,
    Scorer,
    areas,
    attribution_patching,
    draw_pairs,
    eap,
    eap_ig,
    exact_effects,
    find_circuit,
    incompleteness,
    node_effects,
    read_circuit,
    score_edges,
    size_grid,
    write_circuit,
)
from interp.circuits.faithfulness import MIB_SHARES
from interp.circuits.positions import eap_ig_by_position
from interp.models import build_model
from interp.pages.circuits_drawings import approximation_drawing
from interp.registry import UnknownNameError
from interp.results import Method
from interp.studies.approximations import compare_approximations, spearman
from interp.tasks import TASKS
from interp.training.presets import transformer_for
from interp.worlds.machine import MachineSpec

from .conftest import random_model
from .test_circuits import SMALL


@pytest.fixture(scope="module")
def small(inplace) -> Any:
    return random_model(inplace, n_layers=1)


@pytest.fixture(scope="module")
def pairs(inplace):
    return draw_pairs(inplace, "INC", 6, seed=0)


@pytest.mark.parametrize("name", list(SCORERS))
def test_every_scorer_finds_what_exact_patching_finds(small, pairs, name):
    graph, scorer = Graph.of(small), SCORERS[name]
    assert Method(name) and scorer.words and scorer.colour.startswith("#")
    scores = score_edges(name, small, pairs, steps=4)
    assert scores.shape == graph.mask.shape and scores[~graph.mask].max(initial=0) == 0
    places = np.argwhere(graph.mask)
    effects = exact_effects(small, pairs, [graph.edge(*place) for place in places])
    truth = effects.mean(1) if scorer.signed else np.abs(effects).mean(1)
    assert spearman(scores[graph.mask], truth) > (0.5 if name != "exact_patching" else 0.9999)
    if not scorer.signed:
        assert scores.min() >= 0


def test_an_unknown_scorer_is_refused_by_name(small, pairs):
    with pytest.raises(UnknownNameError, match="unknown scorer 'eap_gi'; there are eap, eap_ig"):
        score_edges("eap_gi", small, pairs)
    with pytest.raises(ValueError, match="method must be one of eap, eap_ig, acdc, exact_patching; got 'magic'"):
        CircuitConfig(method="magic")
    with pytest.raises(ValueError, match="grid must be one of log, mib; got 'linear'"):
        CircuitConfig(grid="linear")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["eap", "acdc"])
def test_a_circuit_is_found_by_another_scorer(small, inplace, name):
    circuit = find_circuit(small, inplace, "INC", config=replace(SMALL, n_pairs=12, method=name))
    assert circuit.method == name and circuit.incompleteness is None
    scored = draw_pairs(inplace, "INC", 12, seed=0, half=0)
    graph = Graph.of(small)
    np.testing.assert_allclose([edge.score for edge in circuit.edges], score_edges(name, small, scored)[graph.mask])
    last = circuit.faithfulness_signed[-1]
    assert last.estimate == pytest.approx(1, abs=1e-5)


def test_settings_of_older_files_are_those_of_the_defaults():
    """Fields that came later leave the stamp of a default search as it was, and change it where they differ."""
    older = {name: value for name, value in asdict(CircuitConfig()).items() if name not in ("method", "grid")}
    assert CircuitConfig().settings() == older
    assert CircuitConfig(method="eap", grid="mib").settings() == {**older, "method": "eap", "grid": "mib"}


def test_incompleteness_by_hand_and_with_steps(small, pairs):
    gap = float(node_effects(small, pairs)[0].mean())
    scores = np.zeros(Graph.of(small).mask.shape)
    scores[0, 0], scores[1, 0], scores[1, 1] = 0.5 * gap, 0.25 * gap, 9.0  # edges out of other nodes do not count
    assert incompleteness(small, pairs, scores) == pytest.approx(0.25, abs=1e-4)
    few, many = (incompleteness(small, pairs, eap_ig(small, pairs, steps=steps)) for steps in (1, 64))
    assert many < 0.01 < few


def test_too_few_steps_are_said_and_kept(small, inplace, caplog, tmp_path):
    with caplog.at_level(logging.WARNING):
        rough = find_circuit(small, inplace, "INC", config=replace(SMALL, steps=1))
    assert rough.incompleteness is not None and rough.incompleteness > 0.1
    assert "INC: scores at 1 steps are" in caplog.text and "take more steps" in caplog.text
    caplog.clear()
    fine = find_circuit(small, inplace, "INC", config=replace(SMALL, steps=64))
    assert fine.incompleteness is not None and fine.incompleteness < 0.1 and not caplog.text
    write_circuit(tmp_path / "INC.json", fine, provenance={})
    assert read_circuit(tmp_path / "INC.json")[0] == fine
    text = (tmp_path / "INC.json").read_text()
    (tmp_path / "INC.json").write_text(text.replace(f',"incompleteness":{fine.incompleteness!r}', ""))
    assert (tmp_path / "INC.json").read_text() != text  # as a file written before the field
    assert read_circuit(tmp_path / "INC.json")[0] == replace(fine, incompleteness=None)


def test_mib_s_grid_by_hand():
    assert size_grid(1000, grid="mib") == [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
    assert size_grid(479, grid="mib") == [2, 4, 9, 23, 47, 95, 239, 479]  # .1 % and .2 % are no edge
    ones = np.ones(10)
    assert areas(size_grid(1000, grid="mib"), ones, 1000, grid="mib") == pytest.approx((0.999, 0.0))
    line = np.array(MIB_SHARES)
    cpr, cmd = areas(size_grid(1000, grid="mib"), line, 1000, grid="mib")
    assert cpr == pytest.approx((1 - 1e-6) / 2)
    assert cmd == pytest.approx(0.999 - cpr)
    # below one edge the circuit is empty: from 0 at .1 % and .2 % to 1 at .5 %
    assert areas(size_grid(479, grid="mib"), np.ones(8), 479, grid="mib")[0] == pytest.approx(0.995 + 0.003 / 2)
    with pytest.raises(ValueError, match="grid must be one of log, mib; got 'even'"):
        size_grid(10, grid="even")  # type: ignore[arg-type]


def test_a_circuit_on_mib_s_grid(small, inplace):
    circuit = find_circuit(small, inplace, "INC", config=replace(SMALL, grid="mib"))
    n_edges = Graph.of(small).n_edges
    assert [point.n_edges for point in circuit.faithfulness] == size_grid(n_edges, grid="mib")
    values = np.array([point.estimate for point in circuit.faithfulness_signed])
    assert circuit.cpr == areas(size_grid(n_edges, grid="mib"), values, n_edges, grid="mib")[0]


def test_a_new_scorer_is_one_entry(small, inplace, pairs, monkeypatch):
    """It is searched with, compared with exact patching and drawn, without another line."""

    def weights(model, pairs, scoring):
        graph = Graph.of(model)
        return torch.linspace(1, 2, graph.mask.size).view(graph.mask.shape).double().numpy() * graph.mask

    monkeypatch.setitem(SCORERS, "ablation", Scorer(weights, "edges in order", "#123456", signed=False))
    circuit = find_circuit(small, inplace, "INC", config=replace(SMALL, method="ablation"))
    assert circuit.method == "ablation" and circuit.size >= 1
    rows, numbers = compare_approximations(small, pairs, steps=2, n_search=0)
    assert {row["method"] for row in rows} >= {"ablation", "eap", "eap_ig"} and "ablation" in numbers
    drawn = approximation_drawing({"rank": {"INC": {"ablation": 0.5}}}, {"ablation": SCORERS["ablation"].words})
    assert "#123456" in drawn and "edges in order" in drawn


@pytest.mark.parametrize(
    "score",
    [
        eap,
        lambda model, pairs: eap_ig(model, pairs, steps=2),
        lambda model, pairs: eap_ig_by_position(model, pairs, steps=2)[0],
        attribution_patching,
    ],
    ids=["eap", "eap_ig", "eap_ig_by_position", "attribution_patching"],
)
def test_gradients_are_taken_in_inference_mode_too(score):
    task = TASKS["step_inplace"](MachineSpec(n_instructions=5, n_cells=3, n_input=1, n_output=1, bits=2))
    model = build_model(transformer_for("step_inplace", task.spec, n_layers=2, d_model=16)).eval()
    expected = score(model, draw_pairs(task, "INC", 4, seed=0))
    with torch.inference_mode():
        found = score(model, draw_pairs(task, "INC", 4, seed=0))
        assert torch.is_inference_mode_enabled()
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert np.abs(expected).max() > 0
