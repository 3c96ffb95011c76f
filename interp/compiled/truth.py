"""Which nodes and edges an instruction uses: the half of the answer key that needs values.

    1. An edge can only matter if its source writes a feature that its target reads.
    2. It only matters under an ablation if the ablated value of such a feature differs from the clean one: under zero
       where the feature is not 0, under mean where it is not always the same, under resample where the corrupted state
       has another.
    3. It matters where the metric then changes, everything after the target computed anew.

The program is run as declared, with attention so sharp that nothing leaks, on pairs of states in which the corrupted
one executes another instruction of the same program (interp.circuits.pairs).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cython_vm import Op, Outcome, program_hash, sample, step, strata_weights
from interp.circuits.pairs import Pairs, compared_slots
from interp.compiled.evaluate import Evaluator, Written
from interp.compiled.form import Form
from interp.compiled.key import CircuitKey
from interp.compiled.noise import NoiseConfig, apply_noise
from interp.compiled.program import interpreter

ABLATIONS = ("resample", "mean", "zero")
_SHARP = 60.0  # nats: what leaks is below the precision of float32
_CHANGED = 1e-3  # of the metric, in logits; the smallest true change is of the order of the gain
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
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[CircuitKey]:
    """The circuits of every op, and of every op x outcome, under each ablation."""
    evaluator = _evaluator(form, noise)
    strata = list(_strata(form))
    keys = []
    for done, (op, outcome) in enumerate(strata):
        pairs = draw(form, op, outcome, n_pairs, seed=seed)
        if pairs is not None:
            for ablation in ABLATIONS:
                effects = _effects(evaluator, form, pairs, ablation)
                edges, nodes = (
                    {k: _size(v) for k, v in part.items() if _true(v)} for part in (effects.edges, effects.nodes)
                )
                keys.append(
                    CircuitKey(op.name, None if outcome is None else outcome.name, ablation, len(pairs), edges, nodes)
                )
        if progress is not None:
            progress((done + 1) / len(strata))
    return keys


def true_effects(form: Form, noise: NoiseConfig, pairs: Pairs, *, ablation: str = "resample") -> Effects:
    """What each edge and each node really does on given pairs, by the program's declarations.

    Args:
        form: the machine and the task that the pairs are of.
        noise: as the model was compiled with; it decides the names of heads.
        pairs: from `interp.circuits.draw_pairs`.
        ablation: resample, mean or zero.
    """
    if ablation not in ABLATIONS:
        raise ValueError(f"ablation must be one of {', '.join(ABLATIONS)}; got {ablation!r}")
    return _effects(_evaluator(form, noise), form, pairs, ablation)


def _evaluator(form: Form, noise: NoiseConfig) -> Evaluator:
    return Evaluator(apply_noise(interpreter(form, sharpness=_SHARP), noise), causal=form.causal)


@torch.no_grad()
def _effects(evaluator: Evaluator, form: Form, pairs: Pairs, ablation: str) -> Effects:
    clean = evaluator.run(pairs.clean.tokens)
    ablated = _ablated(evaluator, form, pairs, ablation, clean)
    change = {node: ablated[node] - clean[node] for node in evaluator.nodes}
    before = pairs.logit_difference(evaluator.logits(clean))
    edges, nodes = {}, {}
    for target in [*evaluator.nodes[1:], "logits"]:
        for reader in evaluator.inputs.get(target, [target]):
            mask = evaluator.reads(reader)
            for source in evaluator.sources(target):
                carried = change[source] * mask
                rows = (carried.abs() > 1e-5).flatten(1).any(1).nonzero()[:, 0]
                if len(rows):
                    some = {node: part[rows] for node, part in clean.items()}
                    logits = _cut(evaluator, some, target, reader, carried[rows])
                    effect = torch.zeros(len(pairs))
                    effect[rows] = _metric(pairs, logits, rows) - before[rows]
                    edges[f"{source}->{reader}"] = effect.numpy()
    for node in evaluator.nodes:
        known = {other: clean[other] for other in evaluator.sources(node)} if node != "input" else {}
        same_layer = {other: clean[other] for other in evaluator.nodes if _beside(node, other)}
        logits = evaluator.logits(evaluator.finish({**known, **same_layer, node: ablated[node]}))
        nodes[node] = (pairs.logit_difference(logits) - before).numpy()
    return Effects(edges, nodes)


def _cut(evaluator: Evaluator, clean: Written, target: str, reader: str, carried: Tensor) -> Tensor:
    """Logits with one input of one node changed."""
    if target == "logits":
        logits = evaluator.logits(clean)
        return logits + evaluator.program.gain * carried[..., evaluator.program.slice(evaluator.program.answer)]
    before = {node: clean[node] for node in evaluator.sources(target)}
    before |= {node: clean[node] for node in evaluator.nodes if _beside(target, node)}
    before[target] = evaluator.node(target, clean, reader=reader, change=carried)
    return evaluator.logits(evaluator.finish(before))


def _beside(node: str, other: str) -> bool:
    """Whether two nodes are different heads of one layer."""
    return node != other and node[0] == other[0] == "a" and node.split(".")[0] == other.split(".")[0]


def _metric(pairs: Pairs, logits: Tensor, rows: Tensor) -> Tensor:
    """`Pairs.logit_difference` of some of the pairs."""
    whole = logits.new_zeros(len(pairs), *logits.shape[1:])
    whole[rows] = logits
    return pairs.logit_difference(whole)[rows]


def _ablated(evaluator: Evaluator, form: Form, pairs: Pairs, ablation: str, clean: Written) -> Written:
    """What every node carries when it is ablated."""
    if ablation == "resample":
        return evaluator.run(pairs.corrupted.tokens)
    if ablation == "zero":
        return {node: torch.zeros_like(part) for node, part in clean.items()}
    reference = form.task.batch(sample(form.spec, _REFERENCE, seed=1)).tokens
    parts = [evaluator.run(tokens) for tokens in reference.split(64)]
    return {node: torch.cat([part[node] for part in parts]).mean(0).expand_as(clean[node]) for node in clean}


def _strata(form: Form) -> Iterator[tuple[Op, Outcome | None]]:
    possible = strata_weights(form.spec) > 0
    for op in form.spec.ops:
        if possible[op].any():
            yield op, None
            for outcome in Outcome:
                if possible[op, outcome]:
                    yield op, outcome


def draw(form: Form, op: Op, outcome: Outcome | None, n: int, *, seed: int) -> Pairs | None:
    """`n` pairs of an op, with one outcome or as they come, fewer where few can be compared; None where none can."""
    possible = strata_weights(form.spec)
    weights = np.zeros_like(possible)
    if outcome is not None:
        weights[op, outcome] = 1.0
    clean = sample(form.spec, 16 * n if outcome else 256 * n, seed=seed, weights=None if outcome is None else weights)
    executed = clean.program[np.arange(len(clean)), clean.instruction_ptr]
    clean = clean[np.flatnonzero(executed == op)]
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
    slots = compared_slots(clean, corrupted)
    answers = [step(states).tokens().astype(np.int64) for states in (clean, corrupted)]
    return Pairs(
        task=form.task,
        op=op,
        clean=form.task.batch(clean),
        corrupted=form.task.batch(corrupted, answers[0]),
        clean_answer=torch.from_numpy(answers[0]),
        corrupted_answer=torch.from_numpy(answers[1]),
        weights=torch.from_numpy(slots / slots.sum(axis=1, keepdims=True)).float(),
        programs=program_hash(clean).astype(np.int64),
        redraw_rate=0.0,
    )


def _true(effect: np.ndarray) -> bool:
    return bool((np.abs(effect) > _CHANGED).any())


def _size(effect: np.ndarray) -> float:
    return round(float(np.abs(effect).mean()), 4)
