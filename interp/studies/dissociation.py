"""Double dissociation: does ablating what is INC's own break INC and spare NEXT, and the reverse?

On pairs of one half of the held-out programs, a unit has a loss e(u, A) under instruction A (`interp.circuits.parts`):

    own part of A     the k units of largest e(u, A) - max over B other than A of e(u, B)
    shared part       the k units of largest min over A of e(u, A): what every instruction needs, the fetch
    later layers      sums of estimates mislead where an early unit feeds everything, so parts are also chosen among the
                      units of each layer and those after it; of these the one is taken whose ablation, on the same
                      pairs, hurts A most above the other instruction that it hurts most
    directions        candidates are, at each hook, the eigenvectors of A's matrix minus the mean of the others' (for
                      the shared part: of the mean of all), and then chosen by the same two rules

On pairs of the other half, parts are really ablated: loss(B | part) and the share of whole answers that stay right, for
every instruction B. For two instructions the dissociation is

    min(loss(A | A's own) - loss(B | A's own), loss(B | B's own) - loss(A | B's own)),

above 0 when each part hurts its own instruction more; 1 where it breaks the one and spares the other. The null ablates
parts of as many random units of the level, and takes for two instructions the same number over pairs of random parts.
Parts of one size are compared, so that a model that has no own part of A shows a small loss, not a larger part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.circuits.pairs import draw_pairs, main_contrasts
from interp.circuits.parts import (
    Ablator,
    Level,
    Part,
    attribution_matrices,
    level_hooks,
    mean_activations,
    node_losses,
    part_of,
    random_part,
)
from interp.ranges import require_fields
from interp.results import Aggregation, Control, IntervalKind, Method, Metric
from interp.stage_options import Ablation
from interp.tasks import Task
from probes.scores import MIN_GROUPS, bootstrap_mean

SHARED = "shared"


@dataclass(frozen=True)
class DissociationConfig:
    """Sizes of parts, numbers of pairs. The defaults take some 20 s a level on two cores for a model of 4 x 4 heads."""

    n_nodes: int = 2  # units of a part, level by level
    n_neurons: int = 32
    n_directions: int = 8
    n_pairs: int = 48  # of each instruction to choose parts on, and as many of other programs to ablate them on
    steps: int = 5  # midpoints of the gradient's average
    n_null: int = 20  # random parts
    n_reference: int = 256  # held-out states that mean ablation averages over
    later_layers: bool = True  # also try parts of later layers alone

    def __post_init__(self) -> None:
        require_fields(self, n_nodes=1, n_neurons=1, n_directions=1, n_pairs=1, steps=1, n_null=2, n_reference=1)

    def size(self, level: Level) -> int:
        return {"node": self.n_nodes, "neuron": self.n_neurons, "subspace": self.n_directions}[level]


@dataclass(frozen=True, eq=False)
class Dissociation:
    """Losses of every instruction under every part, at one level, under one ablation."""

    level: Level
    ablation: Ablation
    size: int  # units of each part
    ops: tuple[str, ...]
    parts: tuple[Part, ...]  # the own part of each op, then the shared one
    predicted: np.ndarray  # sum of the estimated losses of the part's units, [part, op]
    loss: np.ndarray  # measured, float [part, op]: part's row, op's column
    loss_low: np.ndarray  # 95 % bootstrap over programs
    loss_high: np.ndarray
    right: np.ndarray  # share of whole answers that stay right, [part, op]
    right_clean: np.ndarray  # of the model left alone, [op]
    null_loss: np.ndarray  # of random parts, [draw, op]
    null_right: np.ndarray
    n: int  # pairs an op

    def pair(self, a: int, b: int) -> float:
        """The dissociation of two instructions, by their places in `ops`."""
        return _dissociation(self.loss, a, b, a, b)

    def null_pair(self, a: int, b: int) -> np.ndarray:
        """The same over pairs of random parts."""
        n = len(self.null_loss)
        return np.array([_dissociation(self.null_loss, a, b, i, j) for i in range(n) for j in range(n) if i != j])


def _dissociation(loss: np.ndarray, a: int, b: int, part_a: int, part_b: int) -> float:
    return float(min(loss[part_a, a] - loss[part_a, b], loss[part_b, b] - loss[part_b, a]))


def dissociate(
    model: Any,
    task: Task,
    *,
    ops: Sequence[str] | None = None,
    level: Level = "neuron",
    ablation: Ablation = "resample",
    config: DissociationConfig = DissociationConfig(),  # frozen
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> Dissociation:
    """Find the own part of each instruction, or what else the contrasts are of, and what is shared, and ablate them.

    Args:
        model: the hooked transformer.
        task: draws the pairs.
        ops: names of contrasts; the task's `main_contrasts` by default.
        level: of the parts.
        ablation: what ablated units carry.
        config: sizes and numbers of pairs.
        seed: of pairs and random parts.
        progress: called with the share done, 0 to 1.

    Raises:
        ValueError: fewer than two instructions, an unknown level, or a part larger than its level.
    """
    ops = tuple(main_contrasts(task) if ops is None else ops)
    if len(ops) < 2:
        raise ValueError(f"dissociation compares at least two instructions, got {len(ops)}")
    report = progress or (lambda share: None)
    size, hooks = config.size(level), level_hooks(model, level)
    rng = np.random.default_rng(seed)
    nulls = [random_part(model, level, size, rng=rng) for _ in range(config.n_null)]
    means = None
    if ablation == "mean":
        means = mean_activations(model, task.sample(config.n_reference, seed=seed).tokens, hooks)

    def ablator(op: str, half: int) -> Ablator:
        pairs = draw_pairs(task, op, config.n_pairs, seed=seed, half=half)
        return Ablator(model, pairs, hooks, ablation=ablation, means=means)

    parts, predicted = _own_parts(model, [ablator(op, 0) for op in ops], level, hooks, config, report)
    losses = _Losses.zeros(len(parts) + len(nulls), len(ops))
    for column, op in enumerate(ops):
        losses.measure(column, ablator(op, 1), [*parts, *nulls], seed)
        report(0.6 + 0.4 * (column + 1) / len(ops))
    n = len(parts)
    return Dissociation(
        level=level,
        ablation=ablation,
        size=size,
        ops=ops,
        parts=tuple(parts),
        predicted=predicted,
        loss=losses.loss[:n],
        loss_low=losses.low[:n],
        loss_high=losses.high[:n],
        right=losses.right[:n],
        right_clean=losses.right_clean,
        null_loss=losses.loss[n:],
        null_right=losses.right[n:],
        n=config.n_pairs,
    )


def _own_parts(
    model: Any,
    choosing: list[Ablator],
    level: Level,
    hooks: list[str],
    config: DissociationConfig,
    report: Callable[[float], None],
) -> Choice:
    """Each instruction's own part and the shared one, with their predicted losses; 60 % of the work is done then."""
    size, found = config.size(level), []
    for place, here in enumerate(choosing):
        found.append(node_losses(here) if level == "node" else attribution_matrices(here, hooks, steps=config.steps))
        report(0.3 * (place + 1) / len(choosing))
    first = _choose(model, level, found, size)
    if not config.later_layers:
        return first
    later = [_choose(model, level, found, size, first=layer) for layer in range(1, model.cfg.n_layers)]
    return _best(choosing, [first, *later], lambda share: report(0.3 + 0.3 * share))


@dataclass
class _Losses:
    """What each contrast loses with each part, all [part, op], and how often the model is right with all parts."""

    loss: np.ndarray
    low: np.ndarray
    high: np.ndarray
    right: np.ndarray
    right_clean: np.ndarray  # [op]

    @classmethod
    def zeros(cls, n_parts: int, n_ops: int) -> _Losses:
        loss, low, high, right = np.zeros((4, n_parts, n_ops))
        return cls(loss, low, high, right, np.zeros(n_ops))

    def measure(self, column: int, ablator: Ablator, parts: list[Part], seed: int) -> None:
        """Ablate each part on the pairs of one contrast."""
        m, exact = zip(*(ablator.run(part) for part in parts), strict=True)
        lost = (ablator.m_clean - np.stack(m)) / ablator.gap  # [part, n]; the mean is the loss
        self.loss[:, column], self.right[:, column] = lost.mean(1), np.stack(exact).mean(1)
        self.low[:, column], self.high[:, column] = _interval(lost, ablator.pairs.groups, seed)
        self.right_clean[column] = ablator.right.mean()


def _interval(values: np.ndarray, groups: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    if len(np.unique(groups)) < MIN_GROUPS:
        return np.full(len(values), np.nan), np.full(len(values), np.nan)
    _, low, high = np.stack(bootstrap_mean(values, groups, seed=seed))
    return low, high


Choice = tuple[list[Part], np.ndarray]  # own parts and the shared one, and the losses predicted of them, [part, op]


def _best(choosing: list[Ablator], choices: list[Choice], report: Callable[[float], None]) -> Choice:
    """Of several own parts of each instruction the one that, really ablated, hurts it most above any other."""
    parts, predicted = list(choices[0][0]), choices[0][1].copy()
    for place in range(len(choosing)):
        margins = []
        for some, _ in choices:
            loss = np.array([float((each.m_clean - each.run(some[place])[0]).mean()) / each.gap for each in choosing])
            margins.append(loss[place] - np.delete(loss, place).max())
        best = int(np.nanargmax(margins)) if not np.isnan(margins).all() else 0
        parts[place], predicted[place] = choices[best][0][place], choices[best][1][place]
        report((place + 1) / len(choosing))
    return parts, predicted


def _choose(model: Any, level: Level, found: list[Any], size: int, *, first: int = 0) -> Choice:
    """Parts of units from layer `first` on; fewer than `size` where there are no more."""
    if level == "subspace":
        return _choose_directions(found, size, first)
    losses = np.stack(found) if level == "node" else np.stack([_diagonals(each) for each in found])  # [op, unit]
    before = first * (losses.shape[1] // model.cfg.n_layers)
    scores = [_own_scores(losses, place) for place in range(len(losses))] + [losses.min(0)]
    chosen = [before + np.argsort(-score[before:], kind="stable")[:size] for score in scores]
    parts = [part_of(model, level, units.tolist()) for units in chosen]
    return parts, np.stack([losses[:, units].sum(1) for units in chosen])


def _diagonals(matrices: dict[str, Tensor]) -> np.ndarray:
    return torch.cat([matrix.diagonal() for matrix in matrices.values()]).double().numpy()


def _own_scores(losses: np.ndarray, place: int) -> np.ndarray:
    """A unit's loss under one instruction above that under any other, from [op, unit]."""
    return losses[place] - np.delete(losses, place, axis=0).max(0)


def _choose_directions(found: list[dict[str, Tensor]], size: int, first: int) -> Choice:
    hooks = [hook for hook in found[0] if int(hook.split(".")[1]) >= first]
    stacks = {hook: torch.stack([matrices[hook] for matrices in found]).double() for hook in hooks}  # [op, d, d]
    n_ops = len(found)
    parts, predicted = [], []
    for place in range(n_ops + 1):
        directions, losses, where = [], [], []
        for index, hook in enumerate(hooks):
            stack = stacks[hook]
            mean = stack.mean(0)
            contrast = mean if place == n_ops else stack[place] - (mean * n_ops - stack[place]) / (n_ops - 1)
            vectors = torch.linalg.eigh(contrast).eigenvectors.T  # rows
            directions.append(vectors)
            losses.append(torch.einsum("kd,ode,ke->ok", vectors, stack, vectors).numpy())
            where += [index] * len(vectors)
        each, site, rows = np.concatenate(losses, axis=1), np.array(where), torch.cat(directions)
        scores = each.min(0) if place == n_ops else _own_scores(each, place)
        top = np.argsort(-scores, kind="stable")[:size]
        units: dict[str, Tensor | None] = {}
        for index, hook in enumerate(hooks):
            if len(mine := top[site[top] == index]):
                units[hook] = rows[mine].to(found[0][hook].dtype)
        parts.append(Part(units))
        predicted.append(each[:, top].sum(1))
    return parts, np.stack(predicted)


def dissociation_rows(found: Dissociation) -> list[dict[str, Any]]:
    """Rows of the tidy frame. `op` is the instruction that is measured, `stratum` whose part is ablated ("own:INC",
    "shared") or, for a pair, the other instruction ("against:NEXT")."""
    key: dict[str, Any] = {
        "method": Method.ABLATION,
        "granularity": found.level,
        "ablation": found.ablation,
        "circuit_size": found.size,
        "aggregation": Aggregation.MEAN,
        "n": found.n,
    }
    rows: list[dict[str, Any]] = []
    for column, op in enumerate(found.ops):
        for place, owner in enumerate([*(f"own:{name}" for name in found.ops), SHARED]):
            here = {**key, "op": op, "stratum": owner}
            ends = {
                "ci_low": float(found.loss_low[place, column]),
                "ci_high": float(found.loss_high[place, column]),
                "interval_kind": IntervalKind.BOOTSTRAP_PROGRAMS,
            }
            if np.isnan(ends["ci_low"]):
                ends = {}
            loss = {"metric": Metric.ABLATION_LOSS, "estimate": float(found.loss[place, column])}
            rows.append({**here, **loss, **ends})
            rows.append({**here, "metric": Metric.EXACT_MATCH, "estimate": float(found.right[place, column])})
        alone = {"metric": Metric.EXACT_MATCH, "control": Control.UNPATCHED}
        rows.append({**key, "op": op, **alone, "estimate": float(found.right_clean[column])})
        for metric, draws in ((Metric.ABLATION_LOSS, found.null_loss), (Metric.EXACT_MATCH, found.null_right)):
            rows.append({**key, "op": op, "metric": metric, **_null(draws[:, column])})
    for a, b in combinations(range(len(found.ops)), 2):
        here = {**key, "op": found.ops[a], "stratum": f"against:{found.ops[b]}", "metric": Metric.DISSOCIATION}
        rows.append({**here, "estimate": found.pair(a, b)})
        rows.append({**here, **_null(found.null_pair(a, b))})
    return rows


def _null(draws: np.ndarray) -> dict[str, Any]:
    low, high = np.percentile(draws, [2.5, 97.5])
    return {
        "control": Control.RANDOM_PART,
        "estimate": float(draws.mean()),
        "ci_low": float(low),
        "ci_high": float(high),
        "interval_kind": IntervalKind.NULL_RANGE,
    }


def dissociation_detail(found: Dissociation) -> dict[str, Any]:
    """The matrices and the parts, JSON-ready; rows are parts (the own part of each op, then the shared one)."""
    return {
        "level": found.level,
        "ablation": found.ablation,
        "size": found.size,
        "ops": list(found.ops),
        "parts": [part.names() for part in found.parts],
        "predicted": found.predicted.tolist(),
        "loss": found.loss.tolist(),
        "right": found.right.tolist(),
        "right_clean": found.right_clean.tolist(),
        "null_loss": found.null_loss.tolist(),
        "null_right": found.null_right.tolist(),
        "n": found.n,
    }
