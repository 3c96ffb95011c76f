"""Attribution and search: do scores of edges and nodes find what the compiled instruction uses?

For each instruction, on pairs of `interp.circuits.draw_pairs`:

    true      an edge, or node, that changes the metric in at least one pair when it alone carries its ablated value, by
              the declarations (interp.calibration.truth). What a redundant model computes twice is true twice,
              as the circuit that either copy would be alone.
    scored    by the method, with the functions and settings that trained models are searched with
    AUROC, and precision at true size: over all edges of the graph, heads that the program leaves free included; scores
              below `RESOLUTION` of the largest are float32's rounding, and ties at 0

Attribution patches from a corrupted state, so that its scores are held against what is true under resample ablation
and, in rows of their own, against what is true under mean and zero ablation. Recall by kind of input (q, k, v, mlp,
logits) says where what is missed goes in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.calibration.scores import auroc, precision_at_size, share_found
from interp.calibration.settings import CalibrationSettings
from interp.calibration.truth import true_effects
from interp.circuits import Graph, Pairs, draw_pairs, exact_effects, run_circuits
from interp.circuits.config import CircuitConfig
from interp.circuits.nodes import attribution_patching, node_effects
from interp.circuits.scorers import SCORERS, Scoring
from interp.compiled.config import NoiseConfig
from interp.compiled.form import Form
from interp.compiled.key import AnswerKey
from interp.compiled.noise import apply_noise
from interp.compiled.program import interpreter
from interp.models.graph import Edge, Writer
from interp.results import Aggregation, Control, Method, Metric
from interp.tasks import TASKS
from interp.tasks.machine_task import NextStateTask
from interp.worlds import as_world
from interp.worlds.machine import MachineSpec, Op

ABLATIONS = ("resample", "mean", "zero")
CHANGED = 0.05  # of the metric, in logits; true changes are of the order of the gain, leaks of attention far below
RESOLUTION = 1e-5
_REFERENCE, _REFERENCE_SEED = 256, 1  # the states that the answer key takes means over
Rows = list[dict[str, Any]]
Report = Callable[[float], None]


@dataclass(frozen=True)
class Truth:
    """The names of what an instruction uses."""

    edges: frozenset[str]  # those that change the metric alone
    nodes: frozenset[str]  # the same
    carried: frozenset[str]  # edges that carry another value, where a component reads it, in any pair


@lru_cache(maxsize=256)
def pairs_of(spec: MachineSpec, task_name: str, op: Op, n: int, seed: int) -> Pairs:
    """The pairs that every method is judged on."""
    return draw_pairs(TASKS[task_name](as_world(spec)), op.name, n, seed=seed)


def truth(key: AnswerKey, task: NextStateTask, op: Op, settings: CalibrationSettings, ablation: str) -> Truth:
    """What is true of the model that the key is of, on those pairs."""
    noise = NoiseConfig(**key.noise)
    return _truth(task.spec, key.task, noise, key.sharpness, op, settings.n_pairs, settings.seed, ablation)


@lru_cache(maxsize=2048)
def _truth(
    spec: MachineSpec, task_name: str, noise: NoiseConfig, sharpness: float, op: Op, n: int, seed: int, ablation: str
) -> Truth:
    form = Form(spec, task_name)
    plain = replace(noise, redundant=())
    pairs = pairs_of(spec, task_name, op, n, seed)
    effects = true_effects(form, plain, pairs, ablation=ablation, sharpness=sharpness)
    edges, nodes = (
        {name for name, effect in found.items() if (np.abs(effect) > CHANGED).any()}
        for found in (effects.edges, effects.nodes)
    )
    carried = set(effects.edges)
    if noise.redundant:
        twins = _twins(form, plain, noise)
        edges, carried = ({twin for name in some for twin in _twin_edges(name, twins)} for some in (edges, carried))
        nodes = {twin for name in nodes for twin in twins.get(name, (name,))}
    return Truth(frozenset(edges), frozenset(nodes), frozenset(carried))


def _twins(form: Form, plain: NoiseConfig, noise: NoiseConfig) -> dict[str, tuple[str, ...]]:
    """For each head of the program without copies, the nodes that do its work where there are."""
    single, double = (apply_noise(interpreter(form), each) for each in (plain, noise))
    places: dict[str, list[str]] = {}
    for head in double.heads:
        places.setdefault(head.name.removesuffix("_copy"), []).append(double.node(head))
    return {
        single.node(head): tuple(places[head.name]) for head in single.heads if not head.name.startswith("distractor")
    }


def _twin_edges(name: str, twins: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """The names of an edge between all nodes that do the work of its two."""
    edge = Edge.named(name)
    sources = [Writer.named(twin) for twin in twins.get(edge.source.name, ())] or [edge.source]
    targets = [edge.target.of(twin) for twin in twins.get(edge.target.node, ())] or [edge.target]
    for source, target in product(sources, targets):
        yield Edge(source, target).name


Scorer = Callable[[Any, Pairs, str], np.ndarray]  # (model, pairs, ablation) -> scores, larger = more important


def edge_calibration(
    method: Method,
    score: Scorer,
    model: Any,
    key: AnswerKey,
    task: NextStateTask,
    settings: CalibrationSettings,
    report: Report,
) -> Rows:
    """Rows of a method that scores edges [reader, writer]."""
    graph = Graph.of(model)
    parts = [graph.edge(row, column) for row, column in np.argwhere(graph.mask)]
    names, kinds = [edge.name for edge in parts], [edge.target.kind for edge in parts]
    return _calibration(
        method, lambda *given: score(*given)[graph.mask], names, kinds, "edge", model, key, task, settings, report
    )


def node_calibration(
    method: Method,
    score: Scorer,
    model: Any,
    key: AnswerKey,
    task: NextStateTask,
    settings: CalibrationSettings,
    report: Report,
) -> Rows:
    """Rows of a method that scores nodes [writer]."""
    writers = Graph.of(model).writers
    names, kinds = [writer.name for writer in writers], [writer.kind for writer in writers]
    return _calibration(method, score, names, kinds, "node", model, key, task, settings, report)


def _calibration(
    method: Method,
    score: Scorer,
    names: list[str],
    kinds: list[str],
    granularity: str,
    model: Any,
    key: AnswerKey,
    task: NextStateTask,
    settings: CalibrationSettings,
    report: Report,
) -> Rows:
    own = _OWN_ABLATIONS.get((method, granularity), ("resample",))
    kind_of, rows = np.array(kinds), []
    ops = settings.opcodes()
    for done, op in enumerate(ops):
        pairs = pairs_of(task.spec, key.task, op, settings.n_pairs, settings.seed)
        scores = {ablation: score(model, pairs, ablation) for ablation in own}
        for ablation in ABLATIONS:
            found = truth(key, task, op, settings, ablation)
            true = np.isin(names, list(found.edges if granularity == "edge" else found.nodes))
            if not true.any() or true.all():
                continue
            here = {
                "op": op.name,
                "method": method,
                "granularity": granularity,
                "ablation": ablation,
                "stratum": "own" if ablation in own else "resampled",
                "circuit_size": int(true.sum()),
                "aggregation": Aggregation.MEAN,
                "n": len(pairs),
            }
            values = resolved(scores.get(ablation, scores["resample"]))
            rows.append({**here, "metric": Metric.AUROC, "estimate": auroc(values, true)})
            rows.append({**here, "metric": Metric.PRECISION_AT_SIZE, "estimate": precision_at_size(values, true)})
            chance = {**here, "metric": Metric.PRECISION_AT_SIZE, "control": Control.RANDOM_CIRCUIT}
            rows.append({**chance, "estimate": float(true.mean())})
            share = share_found(values, true)
            for kind in dict.fromkeys(kinds):
                mine = true & (kind_of == kind)
                if mine.any():
                    size = {"circuit_size": int(mine.sum()), "estimate": float(share[mine].mean())}
                    rows.append({**here, "site": kind, "metric": Metric.RECALL, **size})
        report((done + 1) / len(ops))
    return rows


def resolved(scores: np.ndarray) -> np.ndarray:
    """Scores with rounding errors set to 0: parts that do nothing must not be ranked by them."""
    return np.where(np.abs(scores) < RESOLUTION * np.abs(scores).max(initial=0.0), 0.0, scores)


_OWN_ABLATIONS: dict[tuple[str, str], tuple[str, ...]] = {
    (Method.EXACT_PATCHING, "node"): ABLATIONS,
}


def _reference(task: NextStateTask) -> Tensor:
    """Tokens of the states that means are taken over."""
    return task.sample(_REFERENCE, seed=_REFERENCE_SEED, split="all").tokens


def by_scorer(name: str) -> Scorer:
    """The sizes of a scorer's scores, at the steps that trained models are searched with."""

    def score(model: Any, pairs: Pairs, ablation: Any) -> np.ndarray:
        scoring = Scoring(CircuitConfig().steps, ablation)
        return np.abs(SCORERS[name].function(model, pairs, scoring))

    return score


def by_exact_edges(model: Any, pairs: Pairs, ablation: str) -> np.ndarray:
    """Mean |effect|: effects of opposite sign in different pairs do not cancel."""
    graph = Graph.of(model)
    places = [tuple(place) for place in np.argwhere(graph.mask)]
    effects = exact_effects(model, pairs, [graph.edge(*place) for place in places])
    scores = np.zeros(graph.mask.shape)
    scores[tuple(np.transpose(places))] = np.abs(effects).mean(axis=1)
    return scores


def by_node_attribution(model: Any, pairs: Pairs, ablation: str) -> np.ndarray:
    return np.abs(attribution_patching(model, pairs).mean(axis=1))


def by_exact_nodes(model: Any, pairs: Pairs, ablation: str) -> np.ndarray:
    """Mean |effect| of replacing all that a node writes."""
    if ablation == "resample":
        return np.abs(node_effects(model, pairs)).mean(axis=1)
    graph = Graph.of(model)
    without = np.repeat(graph.mask[None], len(graph.writers) + 1, axis=0)
    for column in range(len(graph.writers)):
        without[column, :, column] = False
    with torch.no_grad():
        m = run_circuits(model, pairs, without, ablation=ablation, reference=_reference(pairs.task)).m  # type: ignore[arg-type]
    return np.abs(m[:-1] - m[-1]).mean(axis=1)
