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
from torch import Tensor

from interp.circuits.criteria import completeness, minimality
from interp.circuits.faithfulness import run_circuits
from interp.circuits.overlap import matrices, stability
from interp.circuits.pairs import Pairs, draw_pairs
from interp.circuits.standing import taken_apart
from interp.models.graph import Graph
from interp.ranges import require_fields
from interp.results import Aggregation, Control, IntervalKind, Metric, steps_of
from interp.runs.circuit_files import Circuit
from interp.stage_options import ABLATIONS
from interp.tasks import Task

_Evidence = tuple[list[dict[str, Any]], dict[str, Any]]  # rows, and what does not fit into them
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
    subject = _Subject.of(model, task, circuit, config=config, seed=seed)
    rows, detail = _examples_and_ablations(subject)
    report(0.05)
    found = [
        (rows, detail),
        _nulls(subject, lambda share: report(0.05 + 0.5 * share)),
        _criteria(subject, lambda share: report(0.55 + 0.35 * share)),
        (_stability_rows(subject), {}),
    ]
    report(1.0)
    return [row for rows, _ in found for row in rows], {
        name: each for _, detail in found for name, each in detail.items()
    }


@dataclass(frozen=True)
class _Subject:
    """The circuit in question, and what every kind of evidence runs it on."""

    model: Any
    task: Task
    circuit: Circuit
    config: EvidenceConfig
    seed: int
    graph: Graph
    members: np.ndarray  # bool [reader, writer]: the circuit's edges
    states: Tensor  # tokens [n, pos] of held-out examples, for means
    pairs: Pairs

    @classmethod
    def of(cls, model: Any, task: Task, circuit: Circuit, *, config: EvidenceConfig, seed: int) -> _Subject:
        """Draw states and pairs; ValueError on a circuit of a model of another shape."""
        graph = taken_apart(model)
        sizes = {name: getattr(circuit, name) for name in graph.sizes}
        if graph.sizes != sizes:
            raise ValueError(f"the circuit is of a model of {_said(sizes)}, this one has {_said(graph.sizes)}")
        members = matrices(circuit)[1]
        states = task.sample(256, seed=seed).tokens
        pairs = draw_pairs(task, circuit.op, config.n_pairs, seed=seed, half=1)
        return cls(model, task, circuit, config, seed, graph, members, states, pairs)

    @property
    def circuits(self) -> np.ndarray:
        """The circuit, the empty one and the whole model, bool [3, reader, writer]."""
        return np.stack([self.members, np.zeros_like(self.graph.mask), self.graph.mask])

    @property
    def own(self) -> dict[str, Any]:
        """The ablation that the circuit was found under, as options of whatever runs it."""
        return {
            "ablation": self.circuit.ablation,
            "reference": self.states if self.circuit.ablation == "mean" else None,
        }

    @property
    def key(self) -> dict[str, Any]:
        """What all rows share."""
        return {
            "op": self.circuit.op,
            "method": self.circuit.method,
            "steps": steps_of(self.circuit.method, self.circuit.steps),
            "granularity": "edge",
            "ablation": self.circuit.ablation,
            "circuit_size": int(self.members.sum()),
            "aggregation": Aggregation.MEAN,
        }


def _examples_and_ablations(subject: _Subject) -> _Evidence:
    """Faithfulness pair by pair, and on average under each ablation."""
    runs = run_circuits(subject.model, subject.pairs, subject.circuits, **subject.own)
    found, empty, full = runs.m
    ended = _ended(subject.task, subject.pairs)
    kept = (found - empty) / (full - empty).mean()
    rows = _example_rows(subject.key, kept, ended, tuple(subject.pairs.parts()))
    examples: dict[str, Any] = {
        "m_circuit": found.tolist(),
        "m_empty": empty.tolist(),
        "m_model": full.tolist(),
        "right": runs.exact[0].tolist(),
    }
    if ended is not None:
        examples["outcome"] = ended
    for ablation in ABLATIONS:
        if ablation == subject.circuit.ablation:
            m = np.array([found.mean(), empty.mean(), full.mean()])
        else:
            runs = run_circuits(
                subject.model, subject.pairs, subject.circuits, ablation=ablation, reference=subject.states
            )
            m = runs.m.mean(1)
        here = {**subject.key, "metric": Metric.FAITHFULNESS, "stratum": "ablation", "n": len(subject.pairs)}
        rows.append({**here, "ablation": ablation, "estimate": float((m[0] - m[1]) / (m[2] - m[1]))})
    return rows, {"examples": examples}


def _nulls(subject: _Subject, report: Callable[[float], None]) -> _Evidence:
    """The circuit beside random ones of its size, on the same few pairs."""
    few, n, size = subject.pairs[: subject.config.n_null_pairs], subject.config.n_null, int(subject.members.sum())
    rng = np.random.default_rng(subject.seed)
    nulls = {
        Control.RANDOM_CIRCUIT: subject.graph.random(size, n=n, rng=rng),
        Control.RANDOM_PATHS: subject.graph.random_paths(size, n=n, rng=rng),
    }
    rows, detail = [], {}
    for place, (control, circuits) in enumerate(nulls.items()):
        m = run_circuits(
            subject.model,
            few,
            np.concatenate([circuits, subject.circuits]),
            **subject.own,
            progress=lambda share, place=place: report((place + share) / len(nulls)),
        ).m.mean(1)
        values = (m - m[-2]) / (m[-1] - m[-2])
        low, high = np.percentile(values[:n], [2.5, 97.5])
        here = {**subject.key, "metric": Metric.FAITHFULNESS, "stratum": "chosen", "n": len(few)}
        interval = {"ci_low": float(low), "ci_high": float(high), "interval_kind": IntervalKind.NULL_RANGE}
        rows.append({**here, "control": control, "estimate": float(values[:n].mean()), **interval})
        if place == 0:
            rows.append({**here, "estimate": float(values[-3])})
        detail[str(control)] = {"values": values[:n].tolist(), "beaten": float((values[:n] < values[-3]).mean())}
    return rows, detail


def _criteria(subject: _Subject, report: Callable[[float], None]) -> _Evidence:
    """Completeness, and the need of each node."""
    some, options = subject.pairs[: subject.config.n_criteria_pairs], {**subject.own, "seed": subject.seed}
    whole = completeness(subject.model, some, subject.members, n_random=8, n_greedy=1, **options)
    report(0.4)
    needs = minimality(subject.model, some, subject.members, n_random=1, **options)
    report(1.0)
    key = {**subject.key, "n": len(some)}
    rows = [{**key, "metric": Metric.COMPLETENESS, "estimate": whole.score}]
    if needs:
        rows.append({**key, "metric": Metric.MINIMALITY, "estimate": needs[0].score, "site": needs[0].node})
    return rows, {
        "completeness": {"nodes": list(whole.nodes), "circuit": whole.circuit, "model": whole.model},
        "minimality": {need.node: need.score for need in needs},
    }


def _stability_rows(subject: _Subject) -> list[dict[str, Any]]:
    """What the circuit shares with itself, found on resampled pairs."""
    config, circuit = subject.config, subject.circuit
    stable = stability(
        subject.model,
        draw_pairs(subject.task, circuit.op, config.n_pairs, seed=subject.seed, half=0),
        size=circuit.size,
        method=circuit.method,
        steps=config.steps,
        n_resamples=config.n_resamples,
        seed=subject.seed,
    )
    here = {**subject.key, "metric": Metric.JACCARD, "stratum": "resampled"}
    here |= {"circuit_size": stable.size, "n": config.n_pairs, "steps": steps_of(circuit.method, config.steps)}
    spread = {"ci_low": stable.low, "ci_high": stable.high, "interval_kind": IntervalKind.BOOTSTRAP_PAIRS}
    return [
        {**here, "estimate": stable.jaccard, **spread},
        {**here, "control": Control.RANDOM_CIRCUIT, "estimate": stable.chance},
    ]


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
