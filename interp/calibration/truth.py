"""Which nodes and edges an instruction uses: the half of the answer key that needs values.

    1. An edge can only matter if its source writes a feature that its target reads.
    2. It only matters under an ablation if the ablated value of such a feature differs from the clean one: under zero
       where the feature is not 0, under mean where it is not always the same, under resample where the corrupted state
       has another.
    3. It matters where the metric then changes, everything after the target computed anew.

The program is run as declared, on pairs of states in which the corrupted one executes another instruction of the same
program (interp.circuits.pairs). Under mean ablation the sharpness of attention matters: a lookup at an average of
addresses is a soft one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from interp.circuits.pairs import Pairs
from interp.compiled.build import Compiled
from interp.compiled.config import NoiseConfig
from interp.compiled.evaluate import Evaluator, Trace
from interp.compiled.form import Form
from interp.compiled.key import CircuitKey
from interp.compiled.noise import apply_noise
from interp.compiled.program import interpreter
from interp.models.graph import Edge, Reader, Writer
from interp.tasks.contrast import pairs_of
from interp.worlds.machine import Op, Outcome, compared_slots

ABLATIONS = ("resample", "mean", "zero")
_SHARP = 12.0  # nats: softer attention is sharpened to this, so that leaks do not count as edges
_CHANGED = 0.005  # of the metric, in units of the gain; leaks are ten times smaller
_GAIN = 10.0  # effects are in logits at this gain
_CARRIED = 1e-5  # differences below this are rounding
_REFERENCE = 256  # states that means are taken over


@dataclass(frozen=True)
class Effects:
    """Change of the metric, by example, when an edge, or a node, carries its ablated value."""

    edges: dict[str, np.ndarray]  # edge -> [n], only edges that carry something else than in the clean run
    nodes: dict[str, np.ndarray]


def circuit_keys(
    form: Form,
    noise: NoiseConfig,
    *,
    n_pairs: int,
    sharpness: float = _SHARP,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[CircuitKey]:
    """The circuits of every op x outcome, and of every op over its outcomes, under each ablation.

    Args:
        form: the machine and the task.
        noise: as the model is compiled with.
        n_pairs: pairs for each (op, outcome, branch taken or not).
        sharpness: as the model is compiled with.
        seed: of the pairs.
        progress: called with the share done, 0 to 1.
    """
    evaluator, means = _evaluator(form, noise, sharpness)
    possible = np.argwhere(_weights(form) > 0)
    found: dict[tuple[str, str], list[Effects]] = {}  # by op and ablation
    keys: list[CircuitKey] = []
    for done, (op, outcome) in enumerate(strata := list(dict.fromkeys((Op(a), Outcome(b)) for a, b, _ in possible))):
        pairs = draw(form, op, outcome, n_pairs, seed=seed)
        for ablation in ABLATIONS if pairs is not None else ():
            assert pairs is not None
            effects = _effects(evaluator, means, pairs, ablation)
            found.setdefault((op.name, ablation), []).append(effects)
            keys.append(_circuit(op.name, outcome.name, ablation, [effects]))
        if progress is not None:
            progress((done + 1) / len(strata))
    return [_circuit(op, None, ablation, parts) for (op, ablation), parts in found.items()] + keys


def with_circuits(compiled: Compiled, *, n_pairs: int, progress: Callable[[float], None] | None = None) -> Compiled:
    """The same model with `circuit_keys` in its answer key."""
    noise = NoiseConfig(**compiled.key.noise)
    keys = circuit_keys(compiled.form, noise, n_pairs=n_pairs, sharpness=compiled.key.sharpness, progress=progress)
    return replace(compiled, key=replace(compiled.key, circuits=tuple(keys)))


def true_effects(
    form: Form, noise: NoiseConfig, pairs: Pairs, *, ablation: str = "resample", sharpness: float = _SHARP
) -> Effects:
    """What each edge and each node really does on given pairs, by the program's declarations.

    Args:
        form: the machine and the task that the pairs are of.
        noise: as the model was compiled with; it decides the names of heads.
        pairs: from `interp.circuits.draw_pairs`.
        ablation: resample, mean or zero.
        sharpness: as the model was compiled with.
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"ablation must be one of {', '.join(ABLATIONS)}; got {ablation!r}")
    return _effects(*_evaluator(form, noise, sharpness), pairs, ablation)


def _evaluator(form: Form, noise: NoiseConfig, sharpness: float) -> tuple[Evaluator, dict[str, Tensor]]:
    """The program, and what each of its nodes writes on average over states of the machine."""
    evaluator = Evaluator(
        apply_noise(interpreter(form, sharpness=max(sharpness, _SHARP), gain=_GAIN), noise), causal=form.causal
    )
    return evaluator, evaluator.means(form.task.sample(_REFERENCE, seed=1, split="all").tokens)


@torch.no_grad()
def _effects(evaluator: Evaluator, means: dict[str, Tensor], pairs: Pairs, ablation: str) -> Effects:
    clean = evaluator.run(pairs.clean.tokens)
    ablated = _ablated(evaluator, means, pairs, ablation, clean)
    before = pairs.logit_difference(evaluator.logits(clean.streams[-1]))
    edges, nodes = {}, {}
    for target, readers in evaluator.inputs.items():
        for source in evaluator.sources(target):
            change = ablated[source] - clean.written[source]
            for reader in readers:
                carried = change * evaluator.reads[reader]
                rows = (carried.abs() > _CARRIED).flatten(1).any(1).nonzero()[:, 0]
                if len(rows):
                    stream = evaluator.cut(clean.rows(rows), reader, carried[rows])
                    effect = torch.zeros(len(pairs))
                    effect[rows] = _metric(pairs, evaluator.logits(stream), rows) - before[rows]
                    edges[Edge(Writer.named(source), Reader.named(reader)).name] = effect.numpy()
    for node in evaluator.nodes:
        logits = evaluator.logits(evaluator.replace(clean, node, ablated[node]))
        nodes[node] = (pairs.logit_difference(logits) - before).numpy()
    return Effects(edges, nodes)


def _metric(pairs: Pairs, logits: Tensor, rows: Tensor) -> Tensor:
    """`Pairs.logit_difference` of some of the pairs."""
    whole = logits.new_zeros(len(pairs), *logits.shape[1:])
    whole[rows] = logits
    return pairs.logit_difference(whole)[rows]


def _ablated(
    evaluator: Evaluator, means: dict[str, Tensor], pairs: Pairs, ablation: str, clean: Trace
) -> dict[str, Tensor]:
    """What every node carries when it is ablated."""
    if ablation == "resample":
        return evaluator.run(pairs.corrupted.tokens).written
    if ablation == "zero":
        return {node: torch.zeros_like(part) for node, part in clean.written.items()}
    return {node: means[node].expand_as(part) for node, part in clean.written.items()}


def draw(form: Form, op: Op, outcome: Outcome, n: int, *, seed: int) -> Pairs | None:
    """Pairs of an op that ends in `outcome`, `n` for each branch; fewer where few compare, None where none does."""
    weights = _weights(form)
    mine = np.zeros_like(weights)
    mine[op, outcome] = weights[op, outcome]
    n *= int((mine > 0).sum())
    clean = form.task.draw(4 * n, seed=seed, split="all", weights=mine)
    others = clean.program != op
    clean, others = clean[others.any(1)], others[others.any(1)]
    if not len(clean):
        return None
    rng = np.random.default_rng(seed)
    corrupted = clean.replace("instruction_ptr", np.where(others, rng.random(others.shape), -1.0).argmax(1))
    rows = np.flatnonzero(compared_slots(clean, corrupted).any(axis=1))[:n]
    if not len(rows):
        return None
    clean, corrupted = clean[rows], corrupted[rows]
    return pairs_of(form.task, op.name, clean, corrupted, compared=compared_slots(clean, corrupted), redraw_rate=0.0)


def _weights(form: Form) -> np.ndarray:
    """Equal shares of op x outcome x branch, [9, 8, 2]."""
    weights = form.task.strata_weights("branches")
    assert weights is not None
    return weights


def _circuit(op: str, outcome: str | None, ablation: str, parts: list[Effects]) -> CircuitKey:
    """The true edges and nodes over several sets of pairs."""
    n = sum(len(part.nodes["input"]) for part in parts)

    def true(kind: str) -> dict[str, float]:
        total: dict[str, float] = {}
        for part in parts:
            for name, effect in getattr(part, kind).items():
                if (np.abs(effect) > _CHANGED * _GAIN).any():
                    total[name] = total.get(name, 0.0) + float(np.abs(effect).sum())
        return {name: round(size / n, 4) for name, size in total.items()}

    return CircuitKey(op, outcome, ablation, n, edges=true("edges"), nodes=true("nodes"))
