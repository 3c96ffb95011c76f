"""Pairs, faithfulness, files and the whole search."""

import json

import numpy as np
import pytest
import torch

from cython_vm import MachineSpec, Op, encode, program_hash, step
from interp.circuits import (
    CircuitConfig,
    CircuitFileError,
    Graph,
    areas,
    attention_patterns,
    draw_pairs,
    faithfulness,
    find_circuit,
    find_circuits,
    ranked,
    read_attention,
    read_circuit,
    run_circuits,
    size_grid,
    write_attention,
    write_circuit,
)
from interp.circuits.edges import written
from interp.circuits.faithfulness import _run
from interp.results import rows_frame
from interp.tasks import TASKS

from .conftest import SPEC, random_model

SMALL = CircuitConfig(
    n_pairs=24, steps=2, n_sizes=5, n_null=3, n_null_pairs=12, n_exact=6, n_exact_pairs=16, n_bootstrap=50
)


@pytest.mark.parametrize("op", list(Op))
def test_pairs_are_what_they_say(task, op):
    pairs = draw_pairs(task, op.name, 30, seed=4)
    clean, corrupted = pairs.clean.examples, pairs.corrupted.examples
    executed = [states.program[np.arange(30), states.instruction_ptr] for states in (clean, corrupted)]
    assert (executed[0] == op).all()
    assert (executed[1] != op).all()
    assert corrupted.replace("instruction_ptr", clean.instruction_ptr).equal(clean).all()
    assert (program_hash(clean) % 20 == 0).all()
    answers = encode(step(clean).next), encode(step(corrupted).next)
    assert (pairs.clean_answer.numpy() == answers[0]).all()
    assert (pairs.corrupted_answer.numpy() == answers[1]).all()
    compared = pairs.weights.numpy() > 0
    assert (compared == (answers[0] != answers[1]) & (encode(clean) == encode(corrupted))).all()
    np.testing.assert_allclose(pairs.weights.sum(1), 1)
    assert 0 <= pairs.redraw_rate < 0.7
    if task.name == "step":  # both runs are shown the clean answer
        assert (pairs.corrupted.tokens[:, SPEC.state_length :] == pairs.clean_answer).all()


def test_halves_share_no_program_and_draws_repeat(inplace):
    halves = [draw_pairs(inplace, "PUT", 40, seed=0, half=half) for half in (0, 1)]
    assert not set(halves[0].groups) & set(halves[1].groups)
    again = draw_pairs(inplace, "PUT", 40, seed=0, half=0)
    assert (again.clean.tokens == halves[0].clean.tokens).all()
    assert (again.corrupted.tokens == halves[0].corrupted.tokens).all()


def test_pairs_have_the_machine_s_own_mixture_of_outcomes(inplace):
    outcomes = draw_pairs(inplace, "INC", 200, seed=0).parts()
    assert outcomes["RAN"] > outcomes["VALUE_OVERFLOW"] > 0
    assert sum(outcomes.values()) == 200


def test_missing_ops_are_refused():
    task = TASKS["step_inplace"](MachineSpec(n_instructions=4, n_cells=2, n_input=0, n_output=0, bits=1, io=False))
    with pytest.raises(ValueError, match="has no contrast 'PUT'; it has NEXT"):
        draw_pairs(task, "PUT", 4, seed=0)


def test_faithfulness_ends_and_middle():
    rng = np.random.default_rng(0)
    m_model, m_empty = rng.normal(5, 0.3, 40), rng.normal(-5, 0.3, 40)
    halfway = (m_model + m_empty) / 2
    found = faithfulness(np.stack([m_model, m_empty, halfway]), m_model, m_empty, np.arange(40))
    np.testing.assert_allclose(found.estimate, [1, 0, 0.5], atol=1e-12)
    np.testing.assert_allclose(found.ci_low, [1, 0, 0.5], atol=1e-12)
    noisy = faithfulness((halfway + rng.normal(0, 2, 40))[None], m_model, m_empty, np.arange(40) // 2)
    assert noisy.ci_low[0] < noisy.estimate[0] < noisy.ci_high[0]


@pytest.mark.parametrize("ablation", ["resample", "mean", "zero"])
def test_full_circuit_is_one_and_empty_zero_under_every_ablation(model, task, ablation):
    graph = Graph.of(model)
    pairs = draw_pairs(task, "GET", 12, seed=0)
    ends = np.stack([graph.mask, np.zeros_like(graph.mask)])
    reference = task.sample(20, seed=5).tokens
    runs = run_circuits(model, pairs, ends, ablation=ablation, reference=reference)
    clean = pairs.logit_difference(model(pairs.clean.tokens)).detach().numpy()
    np.testing.assert_allclose(runs.m[0], clean, atol=1e-4)
    if ablation == "zero":  # nothing but biases reaches the logits
        bias = pairs.logit_difference((model.b_U).expand(12, task.n_ctx, -1)).detach().numpy()
        np.testing.assert_allclose(runs.m[1], bias, atol=1e-4)
    found = faithfulness(runs.m, runs.m[0], runs.m[1], pairs.groups, n_bootstrap=20)
    np.testing.assert_allclose(found.estimate, [1, 0])


def test_mean_ablation_of_everything_forgets_the_example(model, task):
    graph = Graph.of(model)
    mean = written(model, graph, task.sample(20, seed=5).tokens)[0].mean(1, keepdim=True)
    excluded = torch.from_numpy(graph.mask[None]).float()
    with torch.no_grad():
        logits = _run(model, graph, task.sample(3, seed=1).tokens, excluded, mean)[0]
    torch.testing.assert_close(logits[0], logits[1])
    torch.testing.assert_close(logits[0], logits[2])
    assert logits[0].std() > 0.01


def test_areas():
    sizes = [25, 50, 100]
    assert areas(sizes, np.ones(3), 100) == pytest.approx((1 - 0.125, 0.125))
    assert areas(sizes, np.array([0.25, 0.5, 1.0]), 100) == pytest.approx((0.5, 0.5))
    assert areas([100], np.array([1.0]), 100) == pytest.approx((0.5, 0.5))


def test_size_grid_and_rankings():
    sizes = size_grid(479)
    assert sizes[0] == 4
    assert sizes[-1] == 479
    assert sizes == sorted(set(sizes))
    assert size_grid(3) == [3]
    scores = np.array([[-3.0, 2.0, -1.0]])
    assert ranked(scores, "absolute").argmax() == 0
    assert (ranked(scores, "signed").argsort() == [[1, 2, 0]]).all()


@pytest.fixture(scope="module")
def circuit(inplace):
    return find_circuit(random_model(inplace), inplace, "INC", config=SMALL)


def test_a_found_circuit_holds_together(circuit, inplace):
    graph = Graph(2, 2)
    assert {edge.source + "->" + edge.target for edge in circuit.edges} == {
        graph.edge(row, column).name for row, column in np.argwhere(graph.mask)
    }
    for points in (circuit.faithfulness, circuit.faithfulness_signed):
        assert points[-1].n_edges == graph.n_edges
        assert points[-1].estimate == pytest.approx(1, abs=1e-6)
        assert all(point.n_connected <= point.n_edges for point in points)
        assert all(point.n_null == 3 for point in points)
    assert circuit.m_empty == pytest.approx(circuit.m_corrupted, abs=1e-4)
    assert sum(edge.in_circuit for edge in circuit.edges) == circuit.n_connected
    measured = [edge for edge in circuit.edges if edge.exact is not None]
    assert len(measured) == 6
    others = [abs(edge.score) for edge in circuit.edges if edge.exact is None]
    assert min(abs(edge.score) for edge in measured) >= max(others)
    nodes = {node.id: node for node in circuit.nodes}
    assert nodes["input"].effect == pytest.approx(circuit.m_corrupted - circuit.m_clean, abs=2.0)  # fewer pairs
    for node in circuit.nodes[:-1]:
        outgoing = [edge.score for edge in circuit.edges if edge.source == node.id]
        assert node.score == pytest.approx(sum(outgoing), abs=1e-9)


def test_circuit_files_round_trip(circuit, tmp_path):
    path = tmp_path / "circuits" / "INC.json"
    write_circuit(path, circuit, provenance={"digest": "abc"})
    assert read_circuit(path) == (circuit, {"digest": "abc"})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "not a whole circuit file"),
        (lambda text: text.replace('"format":1', '"format":7'), "has format 7; this version reads format 1"),
        (lambda text: text.replace('"op":"INC"', '"op":3'), "op of a Circuit must be str, got 3"),
        (lambda text: text.replace('"cmd":', '"cdm":'), "lacks or does not know cdm, cmd"),
        (lambda text: text.replace('"source":"m0"', '"source":"m9"'), "unknown node 'm9'"),
        (lambda text: "[]", "not a whole circuit file"),
    ],
)
def test_damaged_circuit_files_are_refused(circuit, tmp_path, damage, message):
    path = tmp_path / "INC.json"
    write_circuit(path, circuit, provenance={})
    whole = path.read_text()
    path.write_text(damage(whole))
    assert path.read_text() != whole
    with pytest.raises(CircuitFileError, match=message):
        read_circuit(path)


def test_circuits_of_several_ops_resume(inplace):
    model, saved, calls = random_model(inplace), [], []
    circuits, rows = find_circuits(
        model,
        inplace,
        ops=["NEXT", "STOP", "PUT"],
        config=SMALL,
        done=["STOP"],
        save=saved.append,
        progress=lambda done, total, label: calls.append((done, total, label)),
    )
    assert [circuit.op for circuit in circuits] == ["NEXT", "PUT"]
    assert saved == circuits
    assert calls[-1] == (2, 2, "PUT")
    frame = rows_frame(rows)
    assert set(frame.op) == {"NEXT", "PUT"}
    metrics = {"faithfulness", "cpr", "cmd", "logit_difference", "exact_match", "spearman", "redraw_rate"}
    assert set(frame.metric) == metrics
    null = frame[frame.control == "random_circuit"]
    key = ["op", "metric", "stratum", "circuit_size", "method", "granularity", "ablation", "aggregation"]
    main = frame[frame.control.isna()]
    assert len(null.merge(main, on=key, how="inner")) == len(null)
    json.dumps(rows)


def test_attention_summary(inplace, tmp_path, monkeypatch):
    model = random_model(inplace)
    ops = ["INC", "WHILE"]
    summary = attention_patterns(model, inplace, ops=ops, n=20, batch_size=8)
    assert summary.pattern is not None
    assert summary.pattern.shape == (2, 2, 2, inplace.n_ctx, inplace.n_ctx)
    np.testing.assert_allclose(summary.pattern.astype(float).sum(-1), 1, atol=5e-3)
    assert summary.n == (20, 20)
    # by hand for one op and head, from the cache
    batch = inplace.contrast("WHILE").examples(20, 0)
    states = batch.examples
    pattern = model.run_with_cache(batch.tokens)[1]["blocks.1.attn.hook_pattern"][:, 0].detach()
    np.testing.assert_allclose(summary.pattern[1, 1, 0], pattern.mean(0), atol=1e-3)
    cells = SPEC.layout.slice("cells")
    pointed = cells.start + states.array_ptr
    share = pattern[:, SPEC.layout.slice("array_ptr")].mean(1).numpy()[np.arange(20), pointed].mean()
    i, j = summary.role_names.index("array_ptr"), summary.role_names.index("cells[@array_ptr]")
    assert summary.roles[1, 1, 0, i, j] == pytest.approx(share, abs=1e-3)
    blocks = summary.roles[..., : summary.role_names.index("brackets") + 1].astype(float).sum(-1)
    np.testing.assert_allclose(blocks, 1, atol=5e-3)
    path = tmp_path / "attention.safetensors"
    write_attention(path, summary, provenance={"digest": "abc"})
    again, provenance = read_attention(path)
    assert provenance == {"digest": "abc"}
    assert again.ops == summary.ops == ("INC", "WHILE")
    assert (again.pattern == summary.pattern).all()
    assert again.top_roles("INC", 0, 1) == summary.top_roles("INC", 0, 1)
    monkeypatch.setattr("interp.circuits.attention._MOST_KEPT", summary.pattern.size - 1)
    write_attention(path, summary, provenance={})
    again, _ = read_attention(path)  # too large a pattern stays out, and what it says by sets of positions is there
    assert again.pattern is None
    assert again.top_roles("INC", 0, 1) == summary.top_roles("INC", 0, 1)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match="not a whole attention file"):
        read_attention(path)


def test_bad_config_is_refused():
    with pytest.raises(ValueError, match="steps must be a whole number of at least 1, got 0"):
        CircuitConfig(steps=0)
    nan = float("nan")
    for wrong in ({"n_pairs": nan}, {"n_null": -1}, {"n_exact": 2.5}, {"ablation": "x"}, {"threshold": nan}):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must be"):
            CircuitConfig(**wrong)  # type: ignore[arg-type]
    for name in ("n_pairs", "n_exact_pairs"):
        with pytest.raises(ValueError, match=f"{name} must be at least 10, fewer pairs give no interval; got 9"):
            CircuitConfig(**{name: 9})  # type: ignore[arg-type]
