"""Causal methods against one full hooked pass an intervention: default `step_inplace` model, random weights.

Row `exact_edges`: seconds an edge to patch all edges of the graph for one instruction. The peer gives one reader its
moved input by a hook in a full `run_with_hooks` forward pass, on a sample of edges evenly over the graph, in the same
batches. `exact_edges_plain` holds ours against a full forward pass with no hook at all, less than any such peer needs.
Row `eap_ig`: seconds to score all edges, against as many forward and backward passes to the embedding as it has steps;
weights are frozen on both sides. Row `iia_sweep`: seconds for one variable at every single position of the residual
stream before the first layer and after each, rows and intervals included. The peer swaps by a hook in a full
`run_with_hooks` pass a site, on a sample of sites, and judges nothing. Ours and the peer's alternate, so that load from
elsewhere falls on both.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits import Edge, Graph, Pairs, draw_pairs, eap_ig, exact_effects
from interp.circuits.edges import edge_hooks, written
from interp.interventions import Patch, SharedPairs, Site, collect, iia_sweep, patched, residual_sites, swaps_of
from interp.models import build_model
from interp.tasks import TASKS, Task
from interp.tasks.answers import read_answers
from interp.training import PRESETS

log = logging.getLogger(__name__)

N_PAIRS, STEPS, OP, VARIABLE = 256, 5, "INC", "operand"
PEER_BATCH = 128  # rows a forward pass of the peers; no slower than 64 or 256


def rows(*, threads: int = 2, n_pairs: int = N_PAIRS, peer_edges: int = 24, peer_sites: int = 16) -> list[dict]:
    """The benchmark's rows: name, ours, peer, peer_name, ratio, unit (ratio > 1 = ours better).

    Args:
        threads: PyTorch threads, on both sides; restored afterwards.
        n_pairs: pairs an intervention.
        peer_edges: how many edges the peer patches.
        peer_sites: how many sites the peer swaps.
    """
    config = PRESETS["step_inplace"]
    task, model = TASKS[config.task](config.world), build_model(config.model).eval()
    model.requires_grad_(False)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pairs = draw_pairs(task, OP, n_pairs, seed=0)
        return [
            *exact_rows(model, pairs, peer_edges, threads),
            eap_ig_row(model, pairs, threads),
            sweep_row(model, task, n_pairs, peer_sites, threads),
        ]
    finally:
        torch.set_num_threads(before)


def exact_rows(model: Any, pairs: Pairs, peer_edges: int, threads: int) -> list[dict]:
    """Exact patching of every edge, against a hooked and a plain pass an edge."""
    graph = Graph.of(model)
    edges = [graph.edge(*place) for place in np.argwhere(graph.mask)]
    sample = edges[:: max(1, len(edges) // peer_edges)]
    clean, corrupted = (written(model, graph, batch.tokens)[0] for batch in (pairs.clean, pairs.corrupted))
    difference = corrupted - clean
    exact_effects(model, pairs[:8], sample)  # first calls load code
    shares = np.array_split(np.arange(len(sample)), 4)
    peer = plain = 0.0
    left = [(0.25 * (place + 0.5), share) for place, share in enumerate(shares)]

    def take_turns(done: float) -> None:  # inside ours, so that load from elsewhere falls on both
        nonlocal peer, plain
        while left and done >= left[0][0]:
            for edge in (sample[i] for i in left.pop(0)[1]):
                peer += _seconds(lambda edge=edge: _hooked_edge(model, graph, pairs, edge, difference))
                plain += _seconds(
                    lambda: _in_batches(
                        lambda rows: pairs[rows].logit_difference(model(pairs.clean.tokens[rows])), len(pairs)
                    )
                )

    ours = _seconds(lambda: exact_effects(model, pairs, edges, progress=take_turns)) - peer - plain
    log.info("exact_edges: %d edges in %.1f s", len(edges), ours)
    shape = f"{len(edges)} edges, {len(pairs)} pairs of {pairs.contrast}, {threads} thread(s)"
    each = (ours / len(edges), peer / len(sample), plain / len(sample))
    return [
        _row(
            "exact_edges",
            each[0],
            each[1],
            f"run_with_hooks, a full pass an edge ({len(sample)} timed), {shape}",
            "s/edge",
        ),
        _row("exact_edges_plain", each[0], each[2], f"a full pass without any hook, {shape}", "s/edge"),
    ]


@torch.no_grad()
def _hooked_edge(model: Any, graph: Graph, pairs: Pairs, edge: Edge, difference: Tensor) -> Tensor:
    """m when one edge is corrupted, [n], by a hook on the reader's input."""
    delta = difference[graph.writers.index(edge.source)]
    name = graph.reader_place(edge.target).hook

    def run(rows: slice) -> Tensor:
        def move(activation: Tensor, hook: Any) -> Tensor:
            target = activation if edge.target.head is None else activation[:, :, edge.target.head]
            target += delta[rows]
            return activation

        return pairs[rows].logit_difference(model.run_with_hooks(pairs.clean.tokens[rows], fwd_hooks=[(name, move)]))

    with edge_hooks(model):
        return _in_batches(run, len(pairs))


@torch.no_grad()
def _in_batches(run: Callable[[slice], Tensor], n: int) -> Tensor:
    return torch.cat([run(slice(start, start + PEER_BATCH)) for start in range(0, n, PEER_BATCH)])


def eap_ig_row(model: Any, pairs: Pairs, threads: int) -> dict:
    """EAP-IG of every edge, against its forward and backward passes alone."""
    part = pairs[:PEER_BATCH]
    clean, corrupted = (model(batch.tokens, stop_at_layer=0) for batch in (part.clean, part.corrupted))

    def passes() -> None:
        for step in range(STEPS):
            embedding = (corrupted + (step + 0.5) / STEPS * (clean - corrupted)).requires_grad_()
            part.logit_difference(model(embedding, start_at_layer=0)).sum().backward()

    ours, peer = _alternating(lambda: eap_ig(model, part, steps=STEPS), passes, times=4)
    name = f"{STEPS} forward and backward passes, {len(part)} pairs, {threads} thread(s)"
    return _row("eap_ig", ours, peer, name, "s/instruction")


def sweep_row(model: Any, task: Task, n_pairs: int, peer_sites: int, threads: int) -> dict:
    """IIA of one variable at every layer and position, against a full hooked pass a site."""
    sites = residual_sites(model, task.position_names)
    pairs = SharedPairs.draw(task, [VARIABLE], n_pairs=n_pairs, seed=0)
    sample = sites[:: max(1, len(sites) // peer_sites)]
    swaps = swaps_of(task, sample, pairs)
    peer = 0.0
    for site, swap in zip(sample, swaps, strict=True):
        value = collect(model, pairs.source, [site], task=task)[site]

        def run(rows: slice, site: Site = site, swap: Any = swap, value: Tensor = value) -> Tensor:
            with patched(model, [Patch(site.hook, swap.base_positions[rows], value[rows])]):
                logits = model(pairs.base.tokens[rows])
                return read_answers(logits, pairs.positions[rows]).argmax(-1)

        peer += _seconds(lambda run=run: _in_batches(run, len(pairs)))
    ours = _seconds(lambda: iia_sweep(model, task, [VARIABLE], sites, n_pairs=n_pairs, n_changing=0, wrong_site=False))
    log.info("iia_sweep: %d sites in %.1f s", len(sites), ours)
    shape = f"{len(sites)} sites, {n_pairs} pairs, {threads} thread(s)"
    name = f"run_with_hooks, a full pass a site ({len(sample)} timed), {shape}"
    return _row("iia_sweep", ours, peer / len(sample) * len(sites), name, "s")


def _alternating(ours: Callable[[], Any], peer: Callable[[], Any], *, times: int) -> tuple[float, float]:
    """Median seconds of each, after one call of either."""
    ours()
    peer()
    taken = [(_seconds(ours), _seconds(peer)) for _ in range(times)]
    return float(np.median([a for a, _ in taken])), float(np.median([b for _, b in taken]))


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _row(name: str, ours: float, peer: float, peer_name: str, unit: str) -> dict:
    return {"name": name, "ours": ours, "peer": peer, "peer_name": peer_name, "ratio": peer / ours, "unit": unit}
