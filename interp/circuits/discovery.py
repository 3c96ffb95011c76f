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
from dataclasses import asdict, dataclass
from typing import Any, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.circuits.attribution import incompleteness
from interp.circuits.exact import exact_effects
from interp.circuits.faithfulness import (
    GRIDS,
    Ablation,
    Grid,
    Ranking,
    areas,
    faithfulness,
    ranked,
    run_circuits,
    size_grid,
)
from interp.circuits.nodes import node_effects
from interp.circuits.pairs import Pairs, draw_pairs, main_contrasts
from interp.circuits.scorers import SCORERS, Scoring
from interp.circuits.standing import taken_apart
from interp.models.graph import Edge, Graph
from interp.runs.circuit_files import Circuit, CircuitEdge, CircuitNode, FaithfulnessPoint, circuit_rows
from interp.tasks import Task
from probes.evaluation import bootstrap_mean

log = logging.getLogger(__name__)

TOLERATED = 0.1  # incompleteness, above which a warning is given


@dataclass(frozen=True)
class CircuitConfig:
    """How hard to look. The defaults take about ten seconds an opcode on two cores for a model of 4 x 4 heads."""

    n_pairs: int = 128  # pairs to score on, and as many of other programs to evaluate on
    steps: int = 5  # midpoints of EAP-IG
    n_sizes: int = 12  # circuit sizes on a log axis
    n_null: int = 10  # random circuits a size
    n_null_pairs: int = 24  # pairs that random circuits are run on
    n_exact: int = 40  # edges of highest |score| to patch exactly
    n_exact_pairs: int = 48  # pairs for exact patching of edges and nodes
    ablation: Ablation = "resample"
    threshold: float = 0.9  # of faithfulness
    n_reference: int = 256  # held-out states that mean ablation averages over
    n_bootstrap: int = 1000
    method: str = "eap_ig"  # a name of SCORERS
    grid: Grid = "log"  # of circuit sizes; "mib" for figures that compare with the benchmark's

    def __post_init__(self) -> None:
        if self.method not in SCORERS:
            raise ValueError(f"method must be one of {', '.join(SCORERS)}; got {self.method!r}")
        if self.grid not in GRIDS:
            raise ValueError(f"grid must be one of {', '.join(GRIDS)}; got {self.grid!r}")
        for name in ("n_pairs", "steps", "n_sizes", "n_null_pairs", "n_exact_pairs", "n_reference", "n_bootstrap"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def settings(self) -> dict[str, Any]:
        """What files are stamped with: every field, but of those that came later only what differs from the default."""
        found = asdict(self)
        for name in ("method", "grid"):
            if found[name] == type(self).__dataclass_fields__[name].default:
                del found[name]
        return found


def find_circuit(
    model: Any,
    task: Task,
    contrast: str,
    *,
    config: CircuitConfig = CircuitConfig(),  # frozen
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
    scorer = SCORERS[config.method]
    scores = scorer.function(model, scored, Scoring(config.steps, config.ablation, reference))
    missing = _incompleteness(model, scored, scores, contrast, config)
    report(0.1)

    sizes = size_grid(graph.n_edges, n_sizes=config.n_sizes, grid=config.grid)
    # Scores without a sign: what matters most is taken for what helps most.
    helpful = scores if scorer.signed else -np.abs(scores)
    absolute, signed = (
        np.stack([graph.top(ranked(some, ranking), size) for size in sizes])
        for some, ranking in zip((scores, helpful), get_args(Ranking), strict=True)
    )
    ends = np.stack([np.zeros_like(graph.mask), graph.mask])
    circuits = np.concatenate([absolute, signed, ends])
    runs = run_circuits(
        model,
        pairs,
        circuits,
        ablation=config.ablation,
        reference=reference,
        progress=lambda share: report(0.1 + 0.4 * share),
    )
    null = _null(model, graph, pairs, sizes, reference, config, seed, lambda share: report(0.5 + 0.3 * share))
    curves = _curves(graph, pairs, sizes, circuits, runs.m, runs.exact, null, config, seed)

    size = _chosen_size(curves[0], config.threshold)
    chosen = graph.prune(graph.top(ranked(scores, "absolute"), size))
    few = pairs[: config.n_exact_pairs]
    edges, spearman = _edges(model, graph, few, scores, chosen, config, seed, lambda share: report(0.8 + 0.15 * share))
    nodes = _nodes(model, graph, few, scores, chosen, config, seed)
    report(1.0)

    m_empty, m_model = runs.m[-2], runs.m[-1]
    cpr = areas(sizes, np.array([point.estimate for point in curves[1]]), graph.n_edges, grid=config.grid)[0]
    cmd = areas(sizes, np.array([point.estimate for point in curves[0]]), graph.n_edges, grid=config.grid)[1]
    null_areas = (
        None
        if null is None
        else np.mean([areas(sizes, row, graph.n_edges, grid=config.grid) for row in null.T], axis=0)
    )
    return Circuit(
        op=contrast,
        task=task.name,
        method=config.method,
        steps=config.steps,
        metric="logit_difference",
        ablation=config.ablation,
        granularity="edge",
        ranking="absolute",
        n_layers=graph.n_layers,
        n_heads=graph.n_heads,
        n_scored=len(scored),
        n=len(pairs),
        n_effects=len(few),
        n_null_pairs=min(config.n_null_pairs, len(pairs)),
        redraw_rate=pairs.redraw_rate,
        outcomes=pairs.parts(),
        exact_match=float(runs.exact[-1].mean()),
        m_clean=float(m_model.mean()),
        m_corrupted=_mean_difference(model, pairs),
        m_empty=float(m_empty.mean()),
        cpr=cpr,
        cmd=cmd,
        cpr_null=None if null_areas is None else float(null_areas[0]),
        cmd_null=None if null_areas is None else float(null_areas[1]),
        spearman=spearman,
        threshold=config.threshold,
        size=size,
        n_connected=int(chosen.sum()),
        seed=seed,
        nodes=nodes,
        edges=edges,
        faithfulness=curves[0],
        faithfulness_signed=curves[1],
        incompleteness=missing,
    )


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


def _null(
    model: Any,
    graph: Graph,
    pairs: Pairs,
    sizes: list[int],
    reference: Tensor | None,
    config: CircuitConfig,
    seed: int,
    progress: Callable[[float], None],
) -> np.ndarray | None:
    """Faithfulness of random circuits, [size, draw]."""
    if not config.n_null:
        return None
    rng = np.random.default_rng(seed)
    random = np.concatenate([graph.random(size, n=config.n_null, rng=rng) for size in sizes])
    circuits = np.concatenate([random, np.stack([np.zeros_like(graph.mask), graph.mask])])
    few = pairs[: config.n_null_pairs]
    m = run_circuits(model, few, circuits, ablation=config.ablation, reference=reference, progress=progress).m
    m = m.mean(axis=1)
    return ((m[:-2] - m[-2]) / (m[-1] - m[-2])).reshape(len(sizes), config.n_null)


def _curves(
    graph: Graph,
    pairs: Pairs,
    sizes: list[int],
    circuits: np.ndarray,
    m: np.ndarray,
    exact: np.ndarray,
    null: np.ndarray | None,
    config: CircuitConfig,
    seed: int,
) -> tuple[tuple[FaithfulnessPoint, ...], tuple[FaithfulnessPoint, ...]]:
    """Points of both rankings; circuits are the absolute ones, the signed ones, the empty and the full."""
    found = faithfulness(m[:-2], m[-1], m[-2], pairs.groups, seed=seed, n_bootstrap=config.n_bootstrap)
    connected = graph.prune(circuits).sum(axis=(1, 2))
    points = []
    for row in range(2 * len(sizes)):
        place = row % len(sizes)
        draws = None if null is None else null[place]
        points.append(
            FaithfulnessPoint(
                n_edges=sizes[place],
                n_connected=int(connected[row]),
                fraction=sizes[place] / graph.n_edges,
                estimate=float(found.estimate[row]),
                ci_low=float(found.ci_low[row]),
                ci_high=float(found.ci_high[row]),
                exact_match=float(exact[row].mean()),
                null_mean=None if draws is None else float(draws.mean()),
                null_low=None if draws is None else float(np.percentile(draws, 2.5)),
                null_high=None if draws is None else float(np.percentile(draws, 97.5)),
                n_null=0 if draws is None else len(draws),
            )
        )
    return tuple(points[: len(sizes)]), tuple(points[len(sizes) :])


def _chosen_size(points: tuple[FaithfulnessPoint, ...], threshold: float) -> int:
    """The smallest size from which on faithfulness stays at the threshold; the largest where none does."""
    size = points[-1].n_edges
    for point in reversed(points):
        if point.estimate < threshold:
            break
        size = point.n_edges
    return size


def _edges(
    model: Any,
    graph: Graph,
    pairs: Pairs,
    scores: np.ndarray,
    chosen: np.ndarray,
    config: CircuitConfig,
    seed: int,
    progress: Callable[[float], None],
) -> tuple[tuple[CircuitEdge, ...], float | None]:
    """Every edge with its score, those of highest |score| with their exact effect; and the two's rank correlation."""
    top = np.argwhere(graph.top(ranked(scores, "absolute"), config.n_exact))
    exact: dict[Edge, tuple[float, float, float]] = {}
    spearman = None
    if len(top):
        patched = [graph.edge(row, column) for row, column in top]
        effects = exact_effects(model, pairs, patched, progress=progress)
        exact = dict(zip(patched, _intervals(effects, pairs, config, seed), strict=True))
        frame = pd.DataFrame({"score": scores[tuple(top.T)], "exact": effects.mean(axis=1)})
        spearman = float(frame.rank().corr().iloc[0, 1]) if len(top) > 2 else None
    edges = []
    for row, column in np.argwhere(graph.mask):
        edge = graph.edge(row, column)
        value, low, high = exact.get(edge, (None, None, None))
        edges.append(
            CircuitEdge(
                source=edge.source.name,
                target=edge.target.name,
                score=float(scores[row, column]),
                exact=value,
                exact_low=low,
                exact_high=high,
                in_circuit=bool(chosen[row, column]),
            )
        )
    return tuple(edges), spearman


def _nodes(
    model: Any,
    graph: Graph,
    pairs: Pairs,
    scores: np.ndarray,
    chosen: np.ndarray,
    config: CircuitConfig,
    seed: int,
) -> tuple[CircuitNode, ...]:
    effects = _intervals(node_effects(model, pairs), pairs, config, seed)
    touched = {graph.readers[row].node for row, _ in np.argwhere(chosen)}
    touched |= {graph.writers[column].name for _, column in np.argwhere(chosen)}
    nodes = [
        CircuitNode(
            id=writer.name,
            kind=writer.kind,
            layer=writer.layer,
            head=writer.head,
            score=float(scores[:, column].sum()),
            effect=effects[column][0],
            effect_low=effects[column][1],
            effect_high=effects[column][2],
            in_circuit=writer.name in touched,
        )
        for column, writer in enumerate(graph.writers)
    ]
    logits = CircuitNode("logits", "logits", None, None, None, None, None, None, "logits" in touched)
    return (*nodes, logits)


def _intervals(effects: np.ndarray, pairs: Pairs, config: CircuitConfig, seed: int) -> list[tuple[float, float, float]]:
    """(mean, low, high) of each row of [part, n], by bootstrap over programs."""
    found = bootstrap_mean(effects, pairs.groups, seed=seed, n_resamples=config.n_bootstrap)
    return [(float(a), float(b), float(c)) for a, b, c in np.stack(found, axis=1)]


def find_circuits(
    model: Any,
    task: Task,
    *,
    ops: Sequence[str] | None = None,
    config: CircuitConfig = CircuitConfig(),  # frozen
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
