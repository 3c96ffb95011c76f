"""Edges from place to place, against patches made by hand, and the story that is read off them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from interp.circuits import Graph, Route, draw_pairs, edge_routes, exact_effects, read_routes, traced
from interp.circuits.edges import written
from interp.circuits.routes import place_members, place_names, routes_detail, strongest_edges

from .conftest import random_model
from .test_patching import n_hooks


@pytest.fixture(scope="module")
def model(inplace) -> Any:
    return random_model(inplace, n_layers=2, n_heads=2)


@pytest.fixture(scope="module")
def pairs(inplace):
    return draw_pairs(inplace, "PUT", 12, seed=1)


def edge_of(graph: Graph, name: str):
    places = zip(*np.nonzero(graph.mask), strict=True)
    return next(edge for place in places if (edge := graph.edge(*map(int, place))).name == name)


def test_places_hold_each_position_once_and_know_the_pointed_slots(inplace, pairs):
    members, names = place_members(inplace, pairs.clean), place_names(inplace)
    assert (members.sum(1) == 1).all()
    running = members[:, names.index("instructions[@instruction_ptr]")].nonzero()[:, 1]
    slots = [int(inplace.position_names[int(at)].removeprefix("instructions[").rstrip("]")) for at in running]
    assert slots == pairs.clean.examples.instruction_ptr.tolist()


def test_an_edge_into_values_is_what_attention_carries_from_start_to_end(model, inplace, pairs):
    """By hand: patched values at the start, the clean pattern, the head's output exchanged at the end."""
    graph = Graph.of(model)
    edge = edge_of(graph, "m0->a1.h1<v>")
    routes = edge_routes(model, pairs, [edge], share=0.0)
    assert len(routes) > 5
    names, members = place_names(inplace), place_members(inplace, pairs.clean)
    clean, logits = written(model, graph, pairs.clean.tokens)
    change = (written(model, graph, pairs.corrupted.tokens)[0] - clean)[graph.writers.index(edge.source)]
    block = model.blocks[1]
    with torch.no_grad():
        _, cache = model.run_with_cache(pairs.clean.tokens)
        for route in (routes[0], routes[-1]):
            start = members[:, names.index(route.start), :, None]
            read = block.ln1(cache["blocks.1.hook_resid_pre"] + start * change)
            values = read @ block.attn.W_V[1] + block.attn.b_V[1]  # [n, pos, d_head]
            z = cache["blocks.1.attn.hook_pattern"][:, 1] @ values
            end = members[:, names.index(route.end), :, None]

            def write(value, hook, z=z, end=end):
                value = value.clone()
                value[:, :, 1] = torch.where(end, z, value[:, :, 1])
                return value

            after = model.run_with_hooks(pairs.clean.tokens, fwd_hooks=[("blocks.1.attn.hook_z", write)])
            effect = (pairs.logit_difference(after) - pairs.logit_difference(logits)).double().mean()
            assert route.effect == pytest.approx(float(effect), abs=1e-5)
    assert n_hooks(model) == 0


def test_routes_into_the_logits_add_up_to_the_edge(model, pairs):
    """The metric is a sum over positions, and the final norm works position by position."""
    edge = edge_of(Graph.of(model), "m1->logits")
    routes = edge_routes(model, pairs, [edge], share=0.0)
    assert all(route.start == route.end for route in routes)
    whole = float(exact_effects(model, pairs, [edge]).mean())
    assert sum(route.effect for route in routes) == pytest.approx(whole, abs=1e-4)
    assert abs(whole) > 0.01


def test_routes_come_largest_first_with_their_intervals_and_survive_a_file(model, inplace, pairs):
    graph = Graph.of(model)
    scores = np.where(graph.mask, np.random.default_rng(0).normal(size=graph.mask.shape), 0.0)
    edges = strongest_edges(graph, scores, 4)
    sizes = [abs(scores[graph.readers.index(e.target), graph.writers.index(e.source)]) for e in edges]
    assert sizes == sorted(np.abs(scores).ravel())[:-5:-1]
    routes = edge_routes(model, pairs, edges, share=0.2)
    effects = [abs(route.effect) for route in routes]
    assert effects == sorted(effects, reverse=True)
    assert all(route.ci_low <= route.effect <= route.ci_high for route in routes)
    again = read_routes(routes_detail(routes, place_names(inplace), n=12, m_clean=1.0))
    assert [(r.edge, r.start, r.end) for r in again] == [(r.edge, r.start, r.end) for r in routes]
    assert [r.effect for r in again] == pytest.approx([r.effect for r in routes], abs=1e-4)


def test_where_positions_mean_nothing_by_themselves_there_are_no_places():
    import interp

    task = interp.load("checkpoints/trace_final").task
    with pytest.raises(ValueError, match="those of trace do not"):
        place_members(task, task.sample(2, seed=0))


def move(target: str, start: str, end: str, effect: float) -> Route:
    return Route("input", target, start, end, effect, effect, effect)


def test_the_moves_are_traced_back_from_where_the_answer_is_said():
    routes = [
        move("logits", "cells", "cells", -3.0),
        move("logits", "input", "input", -1.0),
        move("a1.h0<k>", "instructions", "cells", -2.0),
        move("a1.h1<v>", "output", "cells", -1.0),
        move("a1.h2<v>", "instruction_ptr", "instructions", -9.0),  # of the same layer: it comes too late
        move("a0.h3<v>", "instruction_ptr", "instructions", -4.0),
        move("a0.h1<v>", "array_ptr", "cells", 5.0),  # works against the answer
        move("a0.h2<q>", "cells", "cells", -8.0),  # moves nothing
    ]
    answer, moves = traced(routes)
    assert answer == "cells"
    assert [(m.node, m.start) for m in moves] == [("a1.h0", "instructions"), ("a0.h3", "instruction_ptr")]
    assert traced(routes[2:]) == ("", [])
