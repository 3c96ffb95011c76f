"""The circuit of one contrast, from pairs to a graph with its evidence.

1. Score every edge, by EAP-IG unless another scorer is named, on pairs of one half of the held-out units.
2. On pairs of the other half: run circuits of growing size, edges taken by |score| and by -score, beside random
   circuits of the same sizes.
3. Choose the smallest size from which on faithfulness stays at the threshold.
4. Patch the top edges, and every node, exactly.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from interp.circuits.attribution import incompleteness
from interp.circuits.config import CircuitConfig
from interp.circuits.curves import Curves, chosen_size, curves_of, null_curves
from interp.circuits.faithfulness import Ranking, areas, ranked, run_circuits, size_grid
from interp.circuits.pairs import Pairs, draw_pairs, main_contrasts
from interp.circuits.scored_parts import scored_edges, scored_nodes
from interp.circuits.scorers import SCORERS, Scoring
from interp.circuits.standing import taken_apart
from interp.models.graph import Graph
from interp.runs.circuit_files import Circuit, FaithfulnessPoint, circuit_rows
from interp.tasks import Task

log = logging.getLogger(__name__)

TOLERATED = 0.1  # incompleteness, above which a warning is given


def find_circuit(
    model: Any,
    task: Task,
    contrast: str,
    *,
    config: CircuitConfig = CircuitConfig(),  # noqa: B008 (frozen)
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Circuit:
    """Find and evaluate the circuit of one of the task's contrasts: an opcode, a way to freeze.

    Raises:
        ValueError: a model that `taken_apart` refuses, or a contrast that the task lacks.
    """
    report = progress or (lambda share: None)
    graph = taken_apart(model)
    scored = draw_pairs(task, contrast, config.n_pairs, seed=seed, half=0)
    pairs = draw_pairs(task, contrast, config.n_pairs, seed=seed, half=1)
    reference = task.sample(config.n_reference, seed=seed).tokens if config.ablation == "mean" else None
    scores = SCORERS[config.method].function(model, scored, Scoring(config.steps, config.ablation, reference))
    missing = _incompleteness(model, scored, scores, contrast, config)
    report(0.1)

    curves, kept = _measured_curves(model, graph, pairs, scores, reference, config, seed, report)
    parts = _chosen_parts(model, graph, pairs[: config.n_exact_pairs], scores, curves[0], config, seed, report)
    report(1.0)
    return Circuit(
        op=contrast,
        task=task.name,
        **_how(config),
        **graph.sizes,
        n_scored=len(scored),
        n=len(pairs),
        n_null_pairs=min(config.n_null_pairs, len(pairs)),
        redraw_rate=pairs.redraw_rate,
        outcomes=pairs.parts(),
        m_corrupted=_mean_difference(model, pairs),
        seed=seed,
        faithfulness=curves[0],
        faithfulness_signed=curves[1],
        incompleteness=missing,
        **kept,
        **parts,
    )


def _measured_curves(
    model: Any,
    graph: Graph,
    pairs: Pairs,
    scores: np.ndarray,
    reference: Tensor | None,
    config: CircuitConfig,
    seed: int,
    report: Callable[[float], None],
) -> tuple[Curves, dict[str, Any]]:
    """Step 2: faithfulness by size beside random circuits, and what the whole graph and the empty one keep."""
    sizes = size_grid(graph.n_edges, n_sizes=config.n_sizes, grid=config.grid)
    circuits = _growing(graph, scores, sizes, config)
    runs = run_circuits(
        model,
        pairs,
        circuits,
        ablation=config.ablation,
        reference=reference,
        progress=lambda share: report(0.1 + 0.4 * share),
    )
    null = null_curves(model, graph, pairs, sizes, reference, config, seed, lambda share: report(0.5 + 0.3 * share))
    curves = curves_of(graph, pairs, sizes, circuits, runs.m, runs.exact, null, config, seed)
    kept = {
        "exact_match": float(runs.exact[-1].mean()),
        "m_clean": float(runs.m[-1].mean()),
        "m_empty": float(runs.m[-2].mean()),
    }
    return curves, kept | _areas(graph, sizes, curves, null, config)


def _chosen_parts(
    model: Any,
    graph: Graph,
    few: Pairs,
    scores: np.ndarray,
    curve: tuple[FaithfulnessPoint, ...],
    config: CircuitConfig,
    seed: int,
    report: Callable[[float], None],
) -> dict[str, Any]:
    """Steps 3 and 4: the smallest faithful size, and its edges and every node patched exactly on a few pairs."""
    size = chosen_size(curve, config.threshold)
    chosen = graph.prune(graph.top(ranked(scores, "absolute"), size))
    edges, spearman = scored_edges(
        model, graph, few, scores, chosen, config, seed, lambda share: report(0.8 + 0.15 * share)
    )
    nodes = scored_nodes(model, graph, few, scores, chosen, config, seed)
    return {
        "size": size,
        "n_connected": int(chosen.sum()),
        "n_effects": len(few),
        "spearman": spearman,
        "nodes": nodes,
        "edges": edges,
    }


def _how(config: CircuitConfig) -> dict[str, Any]:
    """What a circuit says of the way in which it was found."""
    return {
        "method": config.method,
        "steps": config.steps,
        "metric": "logit_difference",
        "ablation": config.ablation,
        "granularity": "edge",
        "ranking": "absolute",
        "threshold": config.threshold,
    }


def _growing(graph: Graph, scores: np.ndarray, sizes: Sequence[int], config: CircuitConfig) -> np.ndarray:
    """Circuits of all sizes by both rankings, the empty one, the whole graph: bool [circuit, reader, writer]."""
    # Scores without a sign: what matters most is taken for what helps most.
    helpful = scores if SCORERS[config.method].signed else -np.abs(scores)
    absolute, signed = (
        np.stack([graph.top(ranked(some, ranking), size) for size in sizes])
        for some, ranking in zip((scores, helpful), get_args(Ranking), strict=True)
    )
    return np.concatenate([absolute, signed, np.stack([np.zeros_like(graph.mask), graph.mask])])


def _areas(
    graph: Graph, sizes: list[int], curves: Curves, null: np.ndarray | None, config: CircuitConfig
) -> dict[str, Any]:
    """CPR of the signed curve and CMD of the absolute one, each beside its mean over random circuits."""
    absolute, signed = (np.array([point.estimate for point in curve]) for curve in curves)
    both = partial(areas, sizes, n_edges=graph.n_edges, grid=config.grid)
    by_chance = None if null is None else np.mean([both(row) for row in null.T], axis=0)
    return {
        "cpr": both(signed)[0],
        "cmd": both(absolute)[1],
        "cpr_null": None if by_chance is None else float(by_chance[0]),
        "cmd_null": None if by_chance is None else float(by_chance[1]),
    }


def _incompleteness(model: Any, pairs: Pairs, scores: np.ndarray, contrast: str, config: CircuitConfig) -> float | None:
    """Of scores that should sum to the gap, with a word of warning where they are far from it."""
    if not SCORERS[config.method].integrates:
        return None
    found = incompleteness(model, pairs, scores)
    if found > TOLERATED:
        log.warning(
            "%s: scores at %d steps are %.0f %% from summing to the logit difference's gap; take more steps",
            contrast,
            config.steps,
            100 * found,
        )
    return found if np.isfinite(found) else None


@torch.no_grad()
def _mean_difference(model: Any, pairs: Pairs) -> float:
    return float(pairs.logit_difference(model(pairs.corrupted.tokens)).double().mean())


def find_circuits(
    model: Any,
    task: Task,
    *,
    ops: Sequence[str] | None = None,
    config: CircuitConfig = CircuitConfig(),  # noqa: B008 (frozen)
    seed: int = 0,
    done: Collection[str] = (),
    save: Callable[[Circuit], None] | None = None,
    progress: Callable[[float, float, str], None] | None = None,
) -> tuple[list[Circuit], list[dict[str, Any]]]:
    """The circuit of each contrast, and its rows of the tidy frame.

    Args:
        model: the hooked transformer, in eval mode.
        task: draws the pairs.
        ops: names of contrasts; the task's `main_contrasts`, all opcodes, by default.
        config: numbers of pairs, sizes, null circuits and so on.
        seed: of pairs, null circuits and bootstrap.
        done: names of contrasts to leave out, being done already.
        save: called with each circuit as soon as it is found.
        progress: called with (contrasts done, of how many, what is going on); the first may be fractional.
    """
    left = [op for op in (main_contrasts(task) if ops is None else ops) if op not in done]
    circuits: list[Circuit] = []
    for index, op in enumerate(left):

        def report(share: float, index: int = index, op: str = op) -> None:
            if progress is not None:
                progress(index + share, len(left), op)

        circuit = find_circuit(model, task, op, config=config, seed=seed, progress=report)
        log.info("%s: %d of %d edges, CMD %.3f", op, circuit.size, len(circuit.edges), circuit.cmd)
        circuits.append(circuit)
        if save is not None:
            save(circuit)
    return circuits, [row for circuit in circuits for row in circuit_rows(circuit)]
