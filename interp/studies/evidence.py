"""How much belief a circuit that was found deserves, beyond its faithfulness.

1. Nulls: hundreds of random circuits of its size, uniform over sets of edges; and, harder, as many that are unions of
   random paths from the input to the logits, since a small uniform set is seldom connected at all.
2. Examples: the share of the gap that the circuit keeps, pair by pair (median, and the 5 and 95 percentile), and by
   how the clean step ended, where the task's strata say.
3. The ablation is part of the claim: the circuit's faithfulness, its edges kept, when excluded edges carry a corrupted
   run's values, their mean over held-out states, or zero.
4. Completeness and minimality (`interp.circuits.criteria`).
5. Stability over resampled pairs (`interp.circuits.overlap`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from interp.circuits.criteria import completeness, minimality
from interp.circuits.faithfulness import run_circuits
from interp.circuits.overlap import matrices, stability
from interp.circuits.pairs import Pairs, draw_pairs
from interp.circuits.standing import taken_apart
from interp.ranges import require_fields
from interp.results import Aggregation, Control, IntervalKind, Metric
from interp.runs.circuit_files import Circuit
from interp.stage_options import ABLATIONS
from interp.tasks import Task

_FEW = 5  # pairs of an outcome below which it gets no row


@dataclass(frozen=True)
class EvidenceConfig:
    """How much evidence. The defaults take about a minute an instruction on one core for a model of 4 x 4 heads."""

    n_pairs: int = 64  # pairs that the circuit is looked at on, one by one
    n_null: int = 200  # random circuits of each kind
    n_null_pairs: int = 12  # pairs that these run on
    n_criteria_pairs: int = 8  # pairs of completeness and minimality
    n_resamples: int = 50  # of the pairs, for stability
    steps: int = 5  # midpoints of EAP-IG

    def __post_init__(self) -> None:
        require_fields(self, n_pairs=1, n_null=2, n_null_pairs=1, n_criteria_pairs=1, n_resamples=2, steps=1)


def gather_evidence(
    model: Any,
    task: Task,
    circuit: Circuit,
    *,
    config: EvidenceConfig = EvidenceConfig(),  # frozen
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows of the tidy frame, and what does not fit into rows: each pair's numbers, each node's need.

    Raises:
        ValueError: a circuit of a model of another shape, or of an instruction that the task lacks.
    """
    report = progress or (lambda share: None)
    graph = taken_apart(model)
    sizes = {name: getattr(circuit, name) for name in graph.sizes}
    if graph.sizes != sizes:
        raise ValueError(f"the circuit is of a model of {_said(sizes)}, this one has {_said(graph.sizes)}")
    members = matrices(circuit)[1]
    ablation: Any = circuit.ablation
    states = task.sample(256, seed=seed).tokens
    reference = states if ablation == "mean" else None
    pairs = draw_pairs(task, circuit.op, config.n_pairs, seed=seed, half=1)
    key: dict[str, Any] = {
        "op": circuit.op,
        "method": circuit.method,
        "granularity": "edge",
        "ablation": circuit.ablation,
        "circuit_size": int(members.sum()),
        "aggregation": Aggregation.MEAN,
    }
    ends = [np.zeros_like(graph.mask), graph.mask]
    rng = np.random.default_rng(seed)
    rows, detail = [], {}

    runs = run_circuits(model, pairs, np.stack([members, *ends]), ablation=ablation, reference=reference)
    found, empty, full = runs.m
    kept = (found - empty) / (full - empty).mean()
    ended = _ended(task, pairs)
    rows += _example_rows(key, kept, ended, tuple(pairs.parts()))
    detail["examples"] = {
        "m_circuit": found.tolist(),
        "m_empty": empty.tolist(),
        "m_model": full.tolist(),
        "right": runs.exact[0].tolist(),
    }
    if ended is not None:
        detail["examples"]["outcome"] = ended
    for other in ABLATIONS:
        if other != ablation:
            runs = run_circuits(model, pairs, np.stack([members, *ends]), ablation=other, reference=states)
        m = runs.m.mean(1) if other != ablation else np.array([found.mean(), empty.mean(), full.mean()])
        here = {**key, "metric": Metric.FAITHFULNESS, "stratum": "ablation", "ablation": other, "n": len(pairs)}
        rows.append({**here, "estimate": float((m[0] - m[1]) / (m[2] - m[1]))})
    report(0.05)

    few, n = pairs[: config.n_null_pairs], config.n_null
    nulls = {
        Control.RANDOM_CIRCUIT: graph.random(int(members.sum()), n=n, rng=rng),
        Control.RANDOM_PATHS: graph.random_paths(int(members.sum()), n=n, rng=rng),
    }
    for place, (control, circuits) in enumerate(nulls.items()):
        m = run_circuits(
            model,
            few,
            np.concatenate([circuits, np.stack([members, *ends])]),
            ablation=ablation,
            reference=reference,
            progress=lambda share, place=place: report(0.05 + 0.25 * (place + share)),
        ).m.mean(1)
        values = (m - m[-2]) / (m[-1] - m[-2])
        low, high = np.percentile(values[:n], [2.5, 97.5])
        here = {**key, "metric": Metric.FAITHFULNESS, "stratum": "chosen", "n": len(few)}
        interval = {"ci_low": float(low), "ci_high": float(high), "interval_kind": IntervalKind.NULL_RANGE}
        rows.append({**here, "control": control, "estimate": float(values[:n].mean()), **interval})
        if place == 0:
            rows.append({**here, "estimate": float(values[-3])})
        detail[str(control)] = {"values": values[:n].tolist(), "beaten": float((values[:n] < values[-3]).mean())}

    some = pairs[: config.n_criteria_pairs]
    whole = completeness(
        model, some, members, n_random=8, n_greedy=1, ablation=ablation, reference=reference, seed=seed
    )
    report(0.7)
    needs = minimality(model, some, members, n_random=1, ablation=ablation, reference=reference, seed=seed)
    report(0.9)
    key_few = {**key, "n": len(some)}
    rows.append({**key_few, "metric": Metric.COMPLETENESS, "estimate": whole.score})
    if needs:
        rows.append({**key_few, "metric": Metric.MINIMALITY, "estimate": needs[0].score, "site": needs[0].node})
    detail["completeness"] = {"nodes": list(whole.nodes), "circuit": whole.circuit, "model": whole.model}
    detail["minimality"] = {need.node: need.score for need in needs}

    stable = stability(
        model,
        draw_pairs(task, circuit.op, config.n_pairs, seed=seed, half=0),
        size=circuit.size,
        method=circuit.method,
        steps=config.steps,
        n_resamples=config.n_resamples,
        seed=seed,
    )
    here = {**key, "metric": Metric.JACCARD, "stratum": "resampled", "circuit_size": stable.size, "n": config.n_pairs}
    spread = {"ci_low": stable.low, "ci_high": stable.high, "interval_kind": IntervalKind.BOOTSTRAP_PAIRS}
    rows.append({**here, "estimate": stable.jaccard, **spread})
    rows.append({**here, "control": Control.RANDOM_CIRCUIT, "estimate": stable.chance})
    report(1.0)
    return rows, detail


def _ended(task: Task, pairs: Pairs) -> list[str] | None:
    """How each clean example ended, the part of its stratum; None where examples belong to none."""
    if not task.has_strata:
        return None
    strata = task.strata(pairs.clean)
    return None if strata.part is None else [strata.parts[int(part)] for part in strata.part]


def _example_rows(
    key: dict[str, Any], kept: np.ndarray, ended: list[str] | None, parts: Sequence[str]
) -> list[dict[str, Any]]:
    """The spread over pairs, and the mean by how the clean step ended."""
    low, high = np.percentile(kept, [5, 95])
    rows = [
        {
            **key,
            "metric": Metric.FAITHFULNESS,
            "stratum": "examples",
            "aggregation": Aggregation.MEDIAN,
            "estimate": float(np.median(kept)),
            "ci_low": float(low),
            "ci_high": float(high),
            "interval_kind": IntervalKind.EXAMPLES,
            "n": len(kept),
        }
    ]
    for outcome in parts:
        mine = kept[np.array(ended) == outcome]
        if len(mine) >= _FEW:
            here = {**key, "metric": Metric.FAITHFULNESS, "stratum": f"outcome:{outcome}", "n": len(mine)}
            rows.append({**here, "estimate": float(mine.mean())})
    return rows


def _said(sizes: dict[str, int]) -> str:
    encoder = f", {sizes['n_encoder']} layers of them an encoder's" if sizes["n_encoder"] else ""
    return f"{sizes['n_layers']} x {sizes['n_heads']} heads{encoder}"
