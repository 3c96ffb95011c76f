"""Evaluation metrics: do they prefer the true circuit to false ones?

The edges that change the metric alone need not be a circuit: what two edges carry, either of which will do, is in
neither. The true circuit of an instruction is what is left of all edges that carry anything (by the program's
declarations), when those that change no pair's metric, given the edges left, are taken away one by one, the
latest first; edges that matter alone, and both copies of what is written twice, stay. It is held against mutants:

    dropped   one of its edges is gone
    swapped   one of its edges gives way to an edge that is not true
    added     as many edges that are not true as it has come in
    half      redundant models: what one of two copies does is gone, and the other still does it

What is left out carries the corrupted state's values, and in redundant models zero: two copies that disagree are not
one copy that is missing.

`estimate` of the AUROC rows is the share of mutants (kind in `site`) that the true circuit beats by the criterion
(`stratum`), ties counting half: .5 cannot tell them. Faithfulness is better the nearer to 1, completeness the nearer to
0, minimality the larger the least needed node's score. Values closer than `TIE` are ties. Faithfulness is not meant to
see what is added, nor minimality what is missing: the table shows what each is blind to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from interp.calibration.edges import CHANGED, Truth, pairs_of, truth
from interp.calibration.settings import CalibrationSettings
from interp.circuits import Graph, Pairs, run_circuits
from interp.circuits.criteria import completeness, minimality
from interp.compiled.config import NoiseConfig
from interp.compiled.form import Form
from interp.compiled.key import AnswerKey
from interp.compiled.noise import apply_noise
from interp.compiled.program import interpreter
from interp.results import Aggregation, Method, Metric
from interp.stage_options import Ablation
from interp.tasks.machine_task import NextStateTask

TIE = 0.01
_N_SLOW = 2  # mutants of a kind that completeness and minimality, dozens of runs each, are asked about
Rows = list[dict[str, Any]]
Report = Callable[[float], None]


def criteria_calibration(
    model: Any, key: AnswerKey, task: NextStateTask, settings: CalibrationSettings, report: Report
) -> Rows:
    """Rows of the three criteria: their value for the true circuit, and the share of mutants it beats."""
    graph = Graph.of(model)
    rows: Rows = []
    ablation: Ablation = "zero" if NoiseConfig(**key.noise).redundant else "resample"
    ops = settings.opcodes()
    for done, op in enumerate(ops):
        pairs = pairs_of(task.spec, key.task, op, settings.n_pairs, settings.seed)
        found = truth(key, task, op, settings, ablation)
        circuit = sufficient(model, pairs, graph, found, ablation=ablation)
        rng = np.random.default_rng([settings.seed, int(op)])
        mutants = mutated(graph, circuit, n=settings.n_mutants, rng=rng)
        if copied := copies(task, key):
            mutants["half"] = [circuit & ~touching(graph, copied)]
        rows += _of_op(model, pairs, circuit, mutants, settings, ablation)
        report((done + 1) / len(ops))
    return rows


def edge_members(graph: Graph, names: Collection[str]) -> np.ndarray:
    """Edges by name as bool [reader, writer]."""
    members = np.zeros_like(graph.mask)
    for row, column in np.argwhere(graph.mask):
        members[row, column] = graph.edge(row, column).name in names
    return members


def sufficient(model: Any, pairs: Pairs, graph: Graph, found: Truth, *, ablation: Ablation) -> np.ndarray:
    """The true circuit, bool [reader, writer]: it does what the model does, and no edge of it can go but a copy's."""
    circuit = edge_members(graph, found.carried)
    m = run_circuits(model, pairs, graph.mask[None]).m[0]
    for row, column in np.argwhere(circuit & ~edge_members(graph, found.edges))[::-1]:
        circuit[row, column] = False
        without = run_circuits(model, pairs, circuit[None], ablation=ablation).m[0]
        circuit[row, column] = bool((np.abs(without - m) > CHANGED).any())
    return circuit


def mutated(graph: Graph, circuit: np.ndarray, *, n: int, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """Up to `n` different mutants of each kind."""
    true, false = np.argwhere(circuit), np.argwhere(graph.mask & ~circuit)
    some = [tuple(true[i]) for i in rng.permutation(len(true))[:n]]
    dropped = [_changed(circuit, without=[place]) for place in some]
    swapped = [
        _changed(circuit, without=[tuple(true[rng.integers(len(true))])], plus=[tuple(false[rng.integers(len(false))])])
        for _ in range(n)
    ]
    added = [
        _changed(circuit, plus=[tuple(false[i]) for i in rng.permutation(len(false))[: len(true)]]) for _ in range(n)
    ]
    return {"dropped": dropped, "swapped": swapped, "added": added}


def _changed(circuit: np.ndarray, *, without: Sequence[Any] = (), plus: Sequence[Any] = ()) -> np.ndarray:
    changed = circuit.copy()
    for place in without:
        changed[place] = False
    for place in plus:
        changed[place] = True
    return changed


def copies(task: NextStateTask, key: AnswerKey) -> list[str]:
    """The nodes that write a variable a second time."""
    program = apply_noise(interpreter(Form(task.spec, key.task)), NoiseConfig(**key.noise))
    return [program.node(head) for head in program.heads if head.name.endswith("_copy")]


def touching(graph: Graph, nodes: list[str]) -> np.ndarray:
    """Edges into or out of these nodes, bool [reader, writer]."""
    rows = np.array([reader.node in nodes for reader in graph.readers])
    columns = np.array([writer.name in nodes for writer in graph.writers])
    return graph.mask & (rows[:, None] | columns)


def _of_op(
    model: Any,
    pairs: Pairs,
    circuit: np.ndarray,
    mutants: dict[str, list[np.ndarray]],
    settings: CalibrationSettings,
    ablation: Ablation,
) -> Rows:
    graph = Graph.of(model)
    here = {
        "op": pairs.contrast,
        "method": Method.CIRCUIT_RUN,
        "granularity": "edge",
        "ablation": ablation,
        "circuit_size": int(circuit.sum()),
        "aggregation": Aggregation.MEAN,
    }

    def faithfulness(circuits: list[np.ndarray]) -> np.ndarray:
        ends = [np.zeros_like(graph.mask), graph.mask]
        m = run_circuits(model, pairs, np.stack([*circuits, *ends]), ablation=ablation).m.mean(axis=1)
        return (m[:-2] - m[-2]) / (m[-1] - m[-2])

    def completenesses(circuits: list[np.ndarray]) -> np.ndarray:
        found = [
            completeness(model, pairs, some, n_random=6, n_greedy=0, ablation=ablation, seed=settings.seed)
            for some in circuits
        ]
        return np.array([each.score for each in found])

    def minimalities(circuits: list[np.ndarray]) -> np.ndarray:
        needs = [minimality(model, pairs, some, n_random=0, ablation=ablation, seed=settings.seed) for some in circuits]
        return np.array([need[0].score if need else 0.0 for need in needs])

    criteria: list[tuple[Metric, Callable[[list[np.ndarray]], np.ndarray], Callable[[np.ndarray], np.ndarray], int]] = [
        (Metric.FAITHFULNESS, faithfulness, lambda value: -np.abs(1 - value), settings.n_mutants),
        (Metric.COMPLETENESS, completenesses, np.negative, min(_N_SLOW, settings.n_mutants)),
        (Metric.MINIMALITY, minimalities, np.array, min(_N_SLOW, settings.n_mutants)),
    ]
    rows: Rows = []
    for metric, measure, quality, n in criteria:
        some = {kind: found[:n] for kind, found in mutants.items() if found}
        values = measure([circuit, *(each for found in some.values() for each in found)])
        rows.append({**here, "metric": metric, "estimate": float(values[0]), "n": len(pairs)})
        score, at = quality(values), 1
        for kind, found in some.items():
            mine = score[at : at + len(found)]
            at += len(found)
            beaten = np.where(np.abs(mine - score[0]) < TIE, 0.5, mine < score[0])
            share = {"site": kind, "stratum": metric, "metric": Metric.AUROC, "estimate": float(beaten.mean())}
            rows.append({**here, **share, "n": len(found)})
    return rows
