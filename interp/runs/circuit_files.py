"""Circuits on disk: `circuits/SLUG.json`, one file a contrast (an opcode), and rows of the tidy frame.

The file is a `Circuit` as JSON, with `format` and `provenance` beside it: see the dataclasses for the meaning of every
field. Names of nodes and edges are those of `interp.circuits.graph`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from interp.files import write_json
from interp.models.graph import Edge, Reader, Writer
from interp.reading import BrokenFileError, check_provenance, read_json, reading
from interp.results import Aggregation, Control, IntervalKind, Metric, method_named, steps_of

FORMAT = 1


class CircuitFileError(BrokenFileError):
    """A circuit file is broken, foreign or of another version. The message says what to do."""


@dataclass(frozen=True)
class CircuitNode:
    """A writer, or the logits."""

    id: str  # "input", "a1.h3", "c1.h3", "m1", "logits"
    kind: str  # "input", "head", "cross" (a head of cross-attention), "mlp" or "logits"
    layer: int | None
    head: int | None
    score: float | None  # sum of the scores of its outgoing edges; None for the logits
    effect: float | None  # m(node corrupted) - m(clean), measured; negative where it helps; None for the logits
    effect_low: float | None  # 95 % bootstrap over programs
    effect_high: float | None
    in_circuit: bool  # an edge of the chosen circuit, pruned, touches it


@dataclass(frozen=True)
class CircuitEdge:
    """One writer's contribution to one reader's input."""

    source: str  # node id
    target: str  # "a1.h3<q>", "m1", "logits"
    score: float  # predicts m(edge corrupted) - m(clean)
    exact: float | None  # the same, measured by exact patching; None where it was not measured
    exact_low: float | None  # 95 % bootstrap over programs
    exact_high: float | None
    in_circuit: bool  # in the chosen circuit after pruning

    @cached_property
    def edge(self) -> Edge:
        """The edge itself. Raises ValueError: an end has no name of the graph."""
        return Edge(Writer.named(self.source), Reader.named(self.target))

    @property
    def name(self) -> str:
        """ "a1.h3->m2"."""
        return self.edge.name

    @property
    def node(self) -> str:
        """The id of the node that the edge leads to."""
        return self.edge.target.node


@dataclass(frozen=True)
class FaithfulnessPoint:
    """One circuit size. Faithfulness: 1 = the full model, 0 = the empty circuit; unbounded."""

    n_edges: int  # edges taken from the ranking
    n_connected: int  # of these, left after pruning
    fraction: float  # n_edges over all edges
    estimate: float
    ci_low: float  # 95 % bootstrap over programs
    ci_high: float
    exact_match: float  # share of whole next states that the circuit gets right
    null_mean: float | None  # faithfulness of random circuits with as many edges
    null_low: float | None  # 2.5 percentile of them
    null_high: float | None  # 97.5 percentile
    n_null: int  # how many


@dataclass(frozen=True)
class Circuit:
    """What was found for one opcode."""

    op: str
    task: str
    method: str  # a name of `interp.circuits.scorers.SCORERS`: "eap_ig"
    steps: int  # midpoints of the integral
    metric: str  # "logit_difference"
    ablation: str  # what excluded edges carry: "resample", "mean" or "zero"
    granularity: str  # "edge": q, k and v inputs apart, positions together
    ranking: str  # of the chosen circuit's edges: "absolute"
    n_layers: int
    n_heads: int
    n_scored: int  # pairs behind the scores
    n: int  # pairs behind m and faithfulness, of other programs
    n_effects: int  # of these, pairs behind the measured effects of nodes and edges
    n_null_pairs: int  # of these, pairs behind the null
    redraw_rate: float  # share of drawn pairs without a position to compare
    outcomes: dict[str, int]  # of the n clean states
    exact_match: float  # share of whole next states that the full model gets right
    m_clean: float
    m_corrupted: float
    m_empty: float  # of the empty circuit; m_corrupted under "resample"
    cpr: float  # of the signed ranking, higher is better
    cmd: float  # of the absolute ranking, 0 is best
    cpr_null: float | None  # mean over random circuits
    cmd_null: float | None
    spearman: float | None  # between scores and exact effects, over the edges with both
    threshold: float  # of faithfulness, for the chosen size
    size: int  # smallest size from which on faithfulness stays at the threshold or above
    n_connected: int  # its edges after pruning
    seed: int
    nodes: tuple[CircuitNode, ...]
    edges: tuple[CircuitEdge, ...]  # every edge of the graph
    faithfulness: tuple[FaithfulnessPoint, ...]  # by the absolute ranking
    faithfulness_signed: tuple[FaithfulnessPoint, ...]  # by the signed ranking
    n_encoder: int = 0  # layers that read the prompt, of a model with two residual streams; 0: it has one
    incompleteness: float | None = None  # |sum of scores out of the input - gap| / |gap|; above .1: too few steps


_LISTS = {
    "nodes": CircuitNode,
    "edges": CircuitEdge,
    "faithfulness": FaithfulnessPoint,
    "faithfulness_signed": FaithfulnessPoint,
}


def circuit_path(folder: Path, slug: str) -> Path:
    """Where the circuit of a contrast lies in a run folder."""
    return folder / "circuits" / f"{slug}.json"


def write_circuit(path: Path, circuit: Circuit, *, provenance: Mapping[str, Any]) -> None:
    """Write a circuit, whole or not at all; `provenance` holds versions, seed and the config's digest."""
    write_json(path, {"format": FORMAT, "provenance": dict(provenance), **dataclasses.asdict(circuit)}, indent=None)


def read_circuit(path: Path) -> tuple[Circuit, dict[str, Any]]:
    """Read and check a circuit file: (circuit, provenance).

    Raises:
        FileNotFoundError: there is no such file.
        CircuitFileError: it is broken, of another version, or contradicts itself.
    """
    try:
        values = read_json(path, "a whole circuit file")
        with reading(path, "a whole circuit file"):
            found = values.pop("format")
            if found != FORMAT:
                raise CircuitFileError(f"{path} has format {found!r:.60}; this version reads format {FORMAT}")
            provenance = values.pop("provenance")
            check_provenance(provenance)
            lists = {name: tuple(_build(kind, item) for item in values[name]) for name, kind in _LISTS.items()}
            circuit = _build(Circuit, {**values, **lists})
            _check(circuit)
    except BrokenFileError as error:
        raise CircuitFileError(f"{error}; delete it and make it anew") from None
    return circuit, provenance


def _build(kind: Any, values: Any) -> Any:
    """A dataclass from a dict with exactly its fields, each of the right JSON type; those with a default may lack."""
    if not isinstance(values, dict):
        raise TypeError(f"a {kind.__name__} must be an object, got {type(values).__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}
    later = {name for name, field in fields.items() if field.default is not dataclasses.MISSING}
    if wrong := (set(fields) ^ set(values)) - (later - set(values)):
        raise ValueError(f"a {kind.__name__} lacks or does not know {', '.join(sorted(wrong))}")
    for name, field in fields.items():
        if name not in values:
            continue
        allowed = [_JSON_TYPES[part.split("[")[0]] for part in str(field.type).split(" | ")]
        value = values[name]
        if not isinstance(value, tuple(allowed)) or (isinstance(value, bool) and bool not in allowed):
            raise TypeError(f"{name} of a {kind.__name__} must be {field.type}, got {value!r}")
    return kind(**values)


_JSON_TYPES: dict[str, Any] = {
    "str": str,
    "int": int,
    "float": (int, float),
    "bool": bool,
    "None": type(None),
    "dict": dict,
    "tuple": tuple,
}


def _check(circuit: Circuit) -> None:
    ids = {node.id for node in circuit.nodes}
    for edge in circuit.edges:
        for end in (edge.source, edge.node):
            if end not in ids:
                raise ValueError(f"the edge {edge.name} names the unknown node {end!r}")


def circuit_rows(circuit: Circuit) -> list[dict[str, Any]]:
    """Rows of the tidy frame: faithfulness and exact match over sizes, their nulls, areas, m, agreement with exact.

    `stratum` names the ranking ("absolute" or "signed") where a row depends on one.
    """
    key = {
        "op": circuit.op,
        "method": method_named(circuit.method),
        "granularity": circuit.granularity,
        "ablation": circuit.ablation,
        "steps": steps_of(circuit.method, circuit.steps),
        "aggregation": Aggregation.MEAN,
        "n": circuit.n,
    }
    rows: list[dict[str, Any]] = []
    for ranking, points in (("absolute", circuit.faithfulness), ("signed", circuit.faithfulness_signed)):
        for point in points:
            here = {**key, "stratum": ranking, "circuit_size": point.n_edges}
            interval = {"ci_low": point.ci_low, "ci_high": point.ci_high}
            bootstrap = {"interval_kind": IntervalKind.BOOTSTRAP_PROGRAMS}
            rows.append({**here, "metric": Metric.FAITHFULNESS, "estimate": point.estimate, **interval, **bootstrap})
            rows.append({**here, "metric": Metric.EXACT_MATCH, "estimate": point.exact_match})
            if point.null_mean is not None:
                null = {**_RANDOM, "interval_kind": IntervalKind.NULL_RANGE, "n": circuit.n_null_pairs}
                ends = {"ci_low": point.null_low, "ci_high": point.null_high}
                rows.append({**here, "metric": Metric.FAITHFULNESS, "estimate": point.null_mean, **ends, **null})
    for metric, ranking, value, null in (
        (Metric.CPR, "signed", circuit.cpr, circuit.cpr_null),
        (Metric.CMD, "absolute", circuit.cmd, circuit.cmd_null),
    ):
        rows.append({**key, "stratum": ranking, "metric": metric, "estimate": value})
        if null is not None:
            null_key = {**key, **_RANDOM, "stratum": ranking, "n": circuit.n_null_pairs}
            rows.append({**null_key, "metric": metric, "estimate": null})
    for stratum, value in (("clean", circuit.m_clean), ("corrupted", circuit.m_corrupted)):
        rows.append({**key, "stratum": stratum, "metric": Metric.LOGIT_DIFFERENCE, "estimate": value})
    rows.append({**key, "metric": Metric.EXACT_MATCH, "estimate": circuit.exact_match})
    rows.append({**key, "metric": Metric.REDRAW_RATE, "estimate": circuit.redraw_rate})
    if circuit.spearman is not None:
        measured = sum(edge.exact is not None for edge in circuit.edges)
        agreement = {**key, "metric": Metric.SPEARMAN, "estimate": circuit.spearman, "n": circuit.n_effects}
        rows.append({**agreement, "circuit_size": measured})
    return rows


_RANDOM = {"control": Control.RANDOM_CIRCUIT}
