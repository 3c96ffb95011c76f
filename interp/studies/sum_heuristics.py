"""A bag of heuristics in a model of addition: neurons that fire on simple facts about a place, and what they are worth.

As Nikankin et al. (2025) ask of language models, here of each asked digit by itself:

1. On training sums, the mean activation of every MLP neuron where digit i is said, for each pair of the place's two
   digits: a table of base × base.
2. A heuristic is a set of such pairs: one summand's digit in a range, their sum in a range, their sum with one digit
   modulo the base, equal digits. It describes a neuron where, of the neuron's strongest pairs, as many as the heuristic
   has, at least .6 are the heuristic's. The best of many is flattered, so the same is counted with pairs shuffled.
3. On held-out sums the neurons whose heuristic holds for the digits at hand are set to their mean where the digit is
   said; beside it as many others of the same layer, those first that fire on the same sum.

The heuristics are no causal model of the carry and get no interchange: this is an ablation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from interp.results import Aggregation, Control, IntervalKind, Method, Metric, wilson_interval
from interp.runs import Run

DESCRIBES = 0.6  # of a neuron's strongest pairs, the share that must be the heuristic's
WIDEST = 5  # of a range
BAG = "heuristics"
_SEED = 9


@dataclass(frozen=True)
class Heuristic:
    """A set of pairs of digits."""

    kind: str
    pairs: np.ndarray
    """bool [base, base], by the first summand's digit and the second's."""


def heuristics(base: int) -> list[Heuristic]:
    """All that are looked for; sets that hold for fewer than two pairs or for half of all and more are left out."""
    first, second = np.meshgrid(np.arange(base), np.arange(base), indexing="ij")
    total = first + second
    found = [Heuristic("equal digits", first == second)]
    for low in range(base):
        for width in range(1, WIDEST + 1):
            if low + width <= base:
                found += [
                    Heuristic("a digit in a range", (each >= low) & (each < low + width)) for each in (first, second)
                ]
    for low in range(2 * base - 1):
        for width in range(1, WIDEST + 1):
            if low + width <= 2 * base - 1:
                found.append(Heuristic("the sum in a range", (total >= low) & (total < low + width)))
    found += [Heuristic("the sum modulo the base", total % base == digit) for digit in range(base)]
    return [each for each in found if 2 <= each.pairs.sum() < base * base / 2]


def described(table: np.ndarray, known: list[Heuristic]) -> np.ndarray:
    """The heuristic that describes each neuron best, by its number in `known`; −1: none.

    Args:
        table: mean activation by pair, [base * base, neurons].
        known: of `heuristics`.
    """
    order = np.argsort(-table, axis=0, kind="stable")
    best, number = np.zeros(table.shape[1]), np.full(table.shape[1], -1)
    for at, each in enumerate(known):
        flat = each.pairs.ravel()
        share = flat[order[: flat.sum()]].mean(axis=0)
        better = share > best + 1e-9
        best[better], number[better] = share[better], at
    varies = table.max(axis=0) > table.min(axis=0)
    return np.where((best >= DESCRIBES) & varies, number, -1)


def heuristic_rows(run: Run, *, n: int) -> Iterator[dict[str, Any]]:
    """The share of neurons described, by kind, beside shuffled pairs; token accuracy without the bag, beside others.

    None where there are more than two summands.
    """
    model, task, world = run.model, run.task, run.config.world
    if world.n_operands != 2:  # type: ignore[attr-defined]
        return
    base, places = world.base, world.n_digits  # type: ignore[attr-defined]
    asked = task.answer_positions[: places + 1]
    where = asked[:places] if task.reverse else asked[::-1][:places]  # type: ignore[attr-defined]
    names = [f"blocks.{layer}.mlp.hook_post" for layer in range(model.cfg.n_layers)]
    weights = world.strata_weights("branches")
    fit = world.draw(4 * n, seed=_SEED, split="train", weights=weights)
    seen, pairs = _activations(model, task, fit, names, where), _pairs(world, fit)
    known, generator = heuristics(base), np.random.default_rng(_SEED)
    chosen = np.full(seen.shape[1:], -1)  # [place, layer, neuron]
    counts = {control: np.zeros(len(known), dtype=int) for control in (None, Control.SHUFFLED_LABELS)}
    for place in range(places):
        for layer in range(len(names)):
            table = _table(seen[:, place, layer], pairs[:, place], base)
            chosen[place, layer] = described(table, known)
            shuffled = generator.permutation(table, axis=0)
            for control, found in ((None, chosen[place, layer]), (Control.SHUFFLED_LABELS, described(shuffled, known))):
                counts[control] += np.bincount(found[found >= 0], minlength=len(known))
    for control, count in counts.items():
        for kind in dict.fromkeys(each.kind for each in known):
            own = sum(int(count[at]) for at, each in enumerate(known) if each.kind == kind)
            yield _share(own, chosen.size, metric=Metric.DESCRIBED, part=kind, control=control)
    held = world.draw(n, seed=_SEED, weights=weights)
    right = _without_bag(model, task, held, names, where, _holds(chosen, known, _pairs(world, held)), seen.mean(axis=0))
    for control, of in right.items():
        yield _share(int(of.sum()), len(of), metric=Metric.TOKEN_ACCURACY, part=BAG, control=control)


def _share(k: int, n: int, **columns: Any) -> dict[str, Any]:
    low, high = wilson_interval(k, n)
    told = {"aggregation": Aggregation.MEAN, "interval_kind": IntervalKind.WILSON, "method": Method.ABLATION}
    return {**columns, **told, "estimate": k / n, "ci_low": low, "ci_high": high, "n": n}


def _pairs(world: Any, examples: Any) -> np.ndarray:
    """The number of each place's pair of digits, int [n, place]."""
    digits = world.digits(examples)
    return (digits[:, 0] * world.base + digits[:, 1])[:, : world.n_digits]


def _activations(model: Any, task: Any, examples: Any, names: list[str], where: np.ndarray) -> np.ndarray:
    """Of every neuron where each place is said, float32 [n, place, layer, neuron]."""
    found = []
    with torch.no_grad():
        for start in range(0, len(examples), 512):
            tokens = task.render(examples[start : start + 512]).tokens
            _, cache = model.run_with_cache(tokens, names_filter=names)
            found.append(torch.stack([cache[name][:, where] for name in names], dim=2))
    return torch.cat(found).numpy()


def _table(seen: np.ndarray, pairs: np.ndarray, base: int) -> np.ndarray:
    """Means by pair [base * base, neurons]; a pair that was not drawn counts as the mean of all."""
    count = np.bincount(pairs, minlength=base * base)
    sums = np.zeros((base * base, seen.shape[1]))
    np.add.at(sums, pairs, seen)
    return np.where(count[:, None] > 0, sums / np.maximum(count, 1)[:, None], seen.mean(axis=0))


def _holds(chosen: np.ndarray, known: list[Heuristic], pairs: np.ndarray) -> np.ndarray:
    """Whether each neuron's heuristic holds for each sum's digits, bool [n, place, layer, neuron]."""
    sets = np.stack([each.pairs.ravel() for each in known] + [np.zeros(known[0].pairs.size, dtype=bool)])
    holds = np.stack([sets[chosen[place]][..., pairs[:, place]] for place in range(pairs.shape[1])])
    return holds.transpose(3, 0, 1, 2)


def _without_bag(
    model: Any, task: Any, examples: Any, names: list[str], where: np.ndarray, bag: np.ndarray, means: np.ndarray
) -> dict[Control | None, np.ndarray]:
    """Which digits are right with the bag at its mean; with as many others; and with nothing changed."""
    others = _as_many_others(_activations(model, task, examples, names, where), bag)
    masks = {None: bag, Control.RANDOM_PART: others, Control.UNPATCHED: np.zeros_like(bag)}
    batch, found = task.render(examples), {}
    for control, mask in masks.items():
        hooks = [(name, _set_to_mean(mask[:, :, layer], means[:, layer], where)) for layer, name in enumerate(names)]
        with torch.no_grad():
            logits = model.run_with_hooks(batch.tokens, fwd_hooks=hooks)[:, where]
        digit = batch.targets[:, where]
        found[control] = (logits.argmax(dim=-1) == digit)[digit >= 0].numpy()
    return found


def _set_to_mean(mask: np.ndarray, means: np.ndarray, where: np.ndarray) -> Any:
    chosen, mean = torch.from_numpy(mask), torch.from_numpy(means)

    def hook(activation: torch.Tensor, hook: Any) -> torch.Tensor:
        changed = activation.clone()
        changed[:, where] = torch.where(chosen, mean, activation[:, where])
        return changed

    return hook


def _as_many_others(seen: np.ndarray, bag: np.ndarray) -> np.ndarray:
    """For each sum, place and layer as many neurons outside the bag: at random, those that fire first."""
    order = np.random.default_rng(_SEED).random(bag.shape)
    order = np.where(bag, 3.0, np.where(seen > 0, order, order + 1))
    rank = order.argsort(axis=-1).argsort(axis=-1)
    return (rank < bag.sum(axis=-1, keepdims=True)) & ~bag
