"""Circuits over training: at each checkpoint that a run kept, how good its circuit is and how near the final one.

For each instruction and checkpoint, edges are scored on pairs of one half of the held-out programs; on the other half:

    exact match, gap      whether there is anything to explain yet
    faithfulness          of as many of the checkpoint's own top edges as the final circuit has ("own"), and of the
                          final circuit's edges in the checkpoint ("final"); where the gap is a logit at least
    size                  the smallest own circuit that stays at the threshold
    Jaccard               of the checkpoint's top edges and the final ones, as many of each, beside chance

The last checkpoint's Jaccard is below 1 where other pairs, and weights kept in bfloat16, move edges across the cut:
read the others against it. (Tigges et al. 2024 follow circuits over the training of language models.)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.circuits.faithfulness import ranked, run_circuits, size_grid
from interp.circuits.overlap import chance_jaccard, jaccard, matrices
from interp.circuits.pairs import draw_pairs
from interp.circuits.scorers import score_edges
from interp.circuits.standing import taken_apart
from interp.ranges import require_fields, require_number
from interp.results import Aggregation, Control, Metric, method_named, steps_of
from interp.runs.circuit_files import Circuit
from interp.tasks import Task

_GAP = 1.0  # logits; below, faithfulness would divide by next to nothing


@dataclass(frozen=True)
class AlongConfig:
    """How closely to look at each checkpoint."""

    n_pairs: int = 32  # to score on, and as many of other programs to evaluate on
    steps: int = 4  # midpoints of EAP-IG
    n_sizes: int = 8  # circuit sizes on a log axis
    threshold: float = 0.9  # of faithfulness, for the size

    def __post_init__(self) -> None:
        require_fields(self, n_pairs=1, steps=1, n_sizes=1)
        require_number("threshold", self.threshold, above=0, most=1)


def circuits_at(
    model: Any,
    task: Task,
    final: Sequence[Circuit],
    *,
    config: AlongConfig = AlongConfig(),  # frozen
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[dict[str, Any]]:
    """Rows of one checkpoint, held against the circuits of the final model.

    Args:
        model: the hooked transformer as it was at the checkpoint.
        task: draws the pairs.
        final: circuits of the finished model.
        config: numbers of pairs and sizes.
        seed: of the pairs.
        progress: called with the share done, 0 to 1.
    """
    rows = []
    for place, circuit in enumerate(final):
        rows += _rows(model, task, circuit, config, seed)
        if progress is not None:
            progress((place + 1) / len(final))
    return rows


def _rows(model: Any, task: Task, final: Circuit, config: AlongConfig, seed: int) -> list[dict[str, Any]]:
    graph = taken_apart(model)
    scored, pairs = (draw_pairs(task, final.op, config.n_pairs, seed=seed, half=half) for half in (0, 1))
    scores = score_edges(final.method, model, scored, steps=config.steps)
    size = final.size
    last = graph.top(ranked(matrices(final)[0], "absolute"), size)
    own = graph.top(ranked(scores, "absolute"), size)
    sizes = size_grid(graph.n_edges, n_sizes=config.n_sizes)
    grown = [graph.top(ranked(scores, "absolute"), each) for each in sizes]
    runs = run_circuits(model, pairs, np.stack([own, last, *grown, np.zeros_like(graph.mask), graph.mask]))
    m = runs.m.mean(1)
    gap = m[-1] - m[-2]
    key: dict[str, Any] = {
        "op": final.op,
        "method": method_named(final.method),
        "granularity": "edge",
        "steps": steps_of(final.method, config.steps),
        "ablation": "resample",
        "aggregation": Aggregation.MEAN,
        "n": len(pairs),
    }
    rows = [
        {**key, "metric": Metric.EXACT_MATCH, "stratum": "along", "estimate": float(runs.exact[-1].mean())},
        {**key, "metric": Metric.LOGIT_DIFFERENCE, "stratum": "gap", "estimate": float(gap)},
    ]
    sized = {**key, "circuit_size": size}
    overlap = jaccard(np.flatnonzero(own).tolist(), np.flatnonzero(last).tolist())
    rows.append({**sized, "metric": Metric.JACCARD, "stratum": "final", "estimate": overlap})
    null = {"control": Control.RANDOM_CIRCUIT, "estimate": chance_jaccard(size, size, graph.n_edges)}
    rows.append({**sized, "metric": Metric.JACCARD, "stratum": "final", **null})
    if gap >= _GAP:
        f = (m[:-2] - m[-2]) / gap
        for stratum, value in (("along:own", f[0]), ("along:final", f[1])):
            rows.append({**sized, "metric": Metric.FAITHFULNESS, "stratum": stratum, "estimate": float(value)})
        enough = sizes[-1]
        for each, value in zip(reversed(sizes), reversed(f[2:]), strict=True):
            if value < config.threshold:
                break
            enough = each
        rows.append({**key, "metric": Metric.CIRCUIT_EDGES, "stratum": "along", "estimate": float(enough)})
    return rows
