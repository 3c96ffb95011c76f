"""A mistake mended by edges of the nearest right state: every claim is checked by patching anew."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import interp
from cython_vm import encode, sample, step
from interp.circuits import Graph, mend
from interp.circuits.edges import written
from interp.circuits.hooked import moved_logits, streams
from interp.circuits.mending import _answers, _Restoring


@pytest.fixture(scope="module")
def noisy() -> tuple[Any, Any]:
    """The bundled run with noise on its weights, and states that it gets wrong."""
    run = interp.load("checkpoints/quickstart")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in run.model.parameters():
            weight += 0.25 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)
    states = sample(run.config.spec, 1_000, seed=9, split="evaluation")
    wrong = (run.predict_states(states) != encode(step(states).next)).any(axis=1).nonzero()[0]
    return run, states[wrong]


def test_edges_that_mend_do_so_when_patched_by_another_way(noisy):
    run, states = noisy
    base = states[0]
    found = mend(run.model, run.task, base)
    graph, near = Graph.of(run.model), found.neighbour
    assert near is not None
    assert 0 < near.n_right <= near.n_tried
    assert 0 < len(found.alone) < len(found.edges) == graph.n_edges
    assert found.lead < 0
    # the neighbour is one stored value away, answered right, and right there in the same way
    assert (encode(base) != encode(near.example)).sum() in (1, 2)
    assert (run.predict_states(near.example) == encode(step(near.example).next)).all()
    tokens = run.task.render(base).tokens
    truth = encode(step(base).next)
    clean, logits = written(run.model, graph, tokens)
    other, _ = written(run.model, graph, run.task.render(near.example).tokens)
    before = streams(run.model, tokens)
    assert not (logits[:, run.task.answer_positions].argmax(-1).numpy() == truth).all()
    places = [(row, column) for row, column in zip(*np.nonzero(graph.mask), strict=True)]
    known = {graph.edge(int(row), int(column)).name: graph.edge(int(row), int(column)) for row, column in places}
    for each in (*found.edges[:4], found.edges[-1], *found.alone[:3]):
        edge = known[each.edge]
        column = graph.writers.index(edge.source)
        with torch.no_grad():
            after = moved_logits(run.model, graph, before, edge.target, other[column] - clean[column])
        assert (after[:, run.task.answer_positions].argmax(-1).numpy() == truth).all() == each.mends


@torch.no_grad()
def test_of_a_group_no_edge_is_spare(noisy):
    """Edges that mend nothing alone, taken together: the group mends, and without any one of it it does not."""
    run, states = noisy
    task, model = run.task, run.model
    graph, groups = Graph.of(model), []
    places = {graph.edge(int(r), int(c)).name: (int(r), int(c)) for r, c in zip(*np.nonzero(graph.mask), strict=True)}
    for row in range(5):
        base, found = states[row], mend(model, task, states[row])
        assert list(found.edges) == sorted(found.edges, key=lambda edge: -edge.gain)
        assert found.group == () or not found.alone
        truth, logits = _answers(model, task, base)
        said = logits.argmax(-1)
        assert found.neighbour is not None
        one = _Restoring(model, task, graph, base, found.neighbour.example, truth, said, (said != truth)[0])
        assert one.lead == pytest.approx(found.lead)
        group = one.smallest([places[each.edge] for each in found.edges[:30] if not each.mends and each.gain > 0])
        if group:
            fewer = [[other for other in group if other != each] for each in group]
            assert len(group) > 1
            assert one.restore([group])[1].all()
            assert not one.restore(fewer)[1].any()
            groups.append(group)
    assert groups


def test_what_is_right_has_no_mistake_to_mend(noisy):
    run = interp.load("checkpoints/quickstart")
    with pytest.raises(ValueError, match="no mistake to mend"):
        mend(run.model, run.task, sample(run.config.spec, 1, seed=9, split="evaluation"))
