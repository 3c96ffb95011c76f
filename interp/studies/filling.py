"""How masked diffusion fills in an answer: in which order, what another order breaks, and what an edit does.

1. Order: answers are filled in by confidence, and the pass that decides a slot is compared, example by example, with
   (a) the pass in which it would be decided if its confidence in the first pass, from full mask, were all: its own
   difficulty, the null; and (b) its causal depth in the world, the longest chain of parents up to the variable that
   stands in the slot; slots that the world never changes are copies, of depth 1. Rank correlations, and that with the
   depth where the difficulty is held fixed (partial). A difficulty at which float32 is full comes before in order.
2. Forced orders: exact match in a few passes, by confidence, from the left, from the right, at random, and in one pass.
3. Edits: after a pass one slot that is decided is set to another token, taken from that slot of another answer, and the
   rest is filled in. The other slots then are as without the edit (ignored) or not (followed). Asked again, masked
   alone with all others shown, the slot gets the token that it had (mended) or not. Slots of a next state are siblings
   given the state: an edit of one implies nothing for another.
4. Interchange at one pass: the residual stream at the place of a variable is source's in that pass alone, or in all.
   Judged by what should change and what should stay, as everywhere, beside sources in which the variable has base's
   own value (same value: the answer must stay) and the same swap before the first layer, where a variable's place holds
   its token alone. The layer is chosen on validation, in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from interp.interventions.by_stratum import same_value
from interp.interventions.pairs import SharedPairs
from interp.interventions.scores import judge_pairs
from interp.results import Aggregation, Control, IntervalKind, Method, Metric, wilson_interval
from interp.runs import Run
from interp.studies.holding import Progress, quiet
from interp.studies.slot_calibration import slot_calibration
from interp.tasks import Batch
from interp.tasks.sites import block_slots
from interp.training.scoring import evaluate
from interp.worlds.base import Split
from probes.scores import bootstrap_mean

VARIABLES = ("op", "array_ptr")
PASSES = 4  # of everything but the order, which is looked at in more
ORDER_PASSES = 16
_DRAWN = 4  # pairs drawn for each whose answer should change


def measure_filling(run: Run, *, n: int, seed: int, progress: Progress = quiet) -> list[dict[str, Any]]:
    """Rows of this module's docstring, and of slot_calibration.py after one pass and after several.

    Args:
        run: of a model that decides tokens for good, `ModelFacts.decides_for_good`.
        n: examples of each part; a quarter as many pairs and orders.
        seed: of everything.
        progress: called with (done, total, what it is at).
    """
    parts = {
        "order": partial(order_rows, n=max(16, n // 4)),
        "forced orders": partial(forced_rows, n=n),
        "edits": partial(edit_rows, n=max(16, n // 4)),
        "interchange": partial(pass_rows, n=max(16, n // 8)),
        "calibration": partial(calibration_rows, n=n),
    }
    rows: list[dict[str, Any]] = []
    for done, (name, part) in enumerate(parts.items()):
        progress(done, len(parts), f"{run.name}: {name}")
        rows += part(run, seed=seed)
    return rows


def passes_of(model: Any, at_most: int) -> int:
    """So many passes, or as many as the model can make."""
    return min(at_most, int(model.max_denoising_steps))


def drawn(run: Run, n: int, *, seed: int, split: Split = "evaluation") -> Batch:
    """Held-out examples, equally many of every stratum."""
    weights = run.task.strata_weights("op_outcome")
    return run.task.sample(n, seed=seed, split=split, weights=weights)


@torch.inference_mode()
def order_rows(run: Run, *, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Part 1 of this module's docstring."""
    model, task = run.model, run.task
    batch, passes = drawn(run, n, seed=seed), passes_of(model, ORDER_PASSES)
    prompt = batch.tokens[:, : model.cfg.n_prompt]
    _, decided = model.filled_in(prompt, passes, "confidence")
    first = model(batch.tokens)[:, model.cfg.n_prompt - 1 : -1].float().softmax(-1).max(-1).values
    null = null_passes(first, passes)
    slots = np.flatnonzero(task.content)
    names = [task.answer_names[slot] for slot in slots]
    depths = slot_depths(run, batch)
    depth = np.tile([depths.get(name, np.nan) for name in names], (n, 1))
    groups = task.groups(batch.examples).astype(np.int64)
    blocks = [name.rpartition("[")[0] for name in names]
    yield from rank_rows(decided.numpy()[:, slots], null.numpy()[:, slots], depth, groups, blocks, passes, seed=seed)


def rank_rows(
    actual: np.ndarray,
    null: np.ndarray,
    depth: np.ndarray,
    groups: np.ndarray,
    blocks: Sequence[str],
    passes: int,
    *,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """Rank correlations of the pass that decides a slot, averaged over examples, and when each block is decided.

    Args:
        actual: the pass that decides each slot, from 0, [n, slot].
        null: the pass in which its confidence from full mask alone would have it decided, [n, slot].
        depth: its causal depth, [n, slot]; nan in every row where none is known.
        groups: of examples, for the bootstrap.
        blocks: the block of each slot.
        passes: how many there are.
        seed: of the bootstrap.
    """
    known, n = ~np.isnan(depth[0]), len(actual)
    found: dict[str, list[float]] = {"own difficulty": [], "causal depth": [], "causal depth, difficulty fixed": []}
    for row in range(n):
        own, at, causal = (rankdata(each[row][known]) for each in (actual, null, depth))
        with_null, with_depth, between = (_correlation(*each) for each in ((own, at), (own, causal), (at, causal)))
        left = np.sqrt(max((1 - with_null**2) * (1 - between**2), 1e-12))
        values = (with_null, with_depth, (with_depth - with_null * between) / left)
        for key, value in zip(found, values, strict=True):
            found[key].append(value)
    common = {"method": "denoise_confidence", "time": passes, "aggregation": Aggregation.MEAN}
    for key, values in found.items():
        interval = bootstrap_mean(np.array(values), groups, seed=seed, n_resamples=500)
        yield {
            **common,
            "part": key,
            "metric": Metric.SPEARMAN,
            "estimate": float(np.mean(values)),
            "ci_low": float(interval[1]),
            "ci_high": float(interval[2]),
            "interval_kind": IntervalKind.BOOTSTRAP_PROGRAMS,
            "n": n,
        }
    for block in dict.fromkeys(blocks):
        where = [k for k, each in enumerate(blocks) if each == block]
        for part, values in ((None, actual), ("own difficulty", null)):
            share = float(values[:, where].mean()) / max(1, passes - 1)
            yield {**common, "position": block, "part": part, "metric": Metric.DECIDED_AT, "estimate": share, "n": n}


def null_passes(confidence: Tensor, passes: int) -> Tensor:
    """The pass in which each token would be decided by its confidence [n, slot] in the first pass, long [n, slot]."""
    n_slots = confidence.shape[1]
    rank = confidence.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    ends = torch.tensor([round(n_slots * (step + 1) / passes) for step in range(passes)])
    return torch.searchsorted(ends, rank.contiguous(), right=True)


def slot_depths(run: Run, batch: Batch) -> dict[str, float]:
    """The causal depth of each slot of the answer, by its name; slots of which the world does not say are left out."""
    variables, depths = run.task.world.variables(), {}

    def depth(name: str) -> int:
        if name not in depths:
            own = variables[name]
            depths[name] = 1 + max(depth(each) for each in own.parents) if own.parents else 0
        return depths[name]

    answer_names = run.task.answer_names
    found: dict[str, float] = {}
    for name, variable in variables.items():
        if getattr(variable, "kind", None) != "result" or variable.place is None:
            continue
        block = variable.place.partition("[@")[0]
        named = [block] if block in answer_names else [answer_names[slot] for slot in block_slots(answer_names, block)]
        for slot in named:
            found[slot] = max(found.get(slot, 0), depth(name))
    prompt, n_prompt = batch.tokens, run.model.cfg.n_prompt
    for block in {name.rpartition("[")[0] for name in answer_names if name.endswith("]")}:
        slots = block_slots(answer_names, block)
        if not len(slots) or answer_names[slots[0]] in found:
            continue
        if torch.equal(prompt[:, slots], prompt[:, n_prompt + slots]):  # copied, in every example
            found |= {answer_names[slot]: 1.0 for slot in slots}
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / max(np.sqrt((a**2).sum() * (b**2).sum()), 1e-12))


def forced_rows(run: Run, *, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Part 2 of this module's docstring: rows of EXACT_MATCH, macro and by op."""
    ways = [(1, run.model.denoising_orders[0]), *((PASSES, order) for order in run.model.denoising_orders)]
    for passes, order in ways:
        scored = evaluate(Fills(run.model, passes, order), run.task, n=n, seed=seed)  # type: ignore[arg-type]
        name = "denoise_once" if passes == 1 else f"denoise_{order}"
        wanted = scored.loc[scored["metric"] == Metric.EXACT_MATCH].assign(time=passes, method=name)
        yield from wanted.to_dict("records")


class Fills:
    """A model that answers in so many passes."""

    def __init__(self, model: Any, passes: int, order: str) -> None:
        self._model, self._passes, self._order, self._seen = model, passes, order, 0

    def answer(self, task: Any, batch: Batch) -> Tensor:
        prompt = batch.tokens[:, : self._model.cfg.n_prompt]
        tokens, _ = self._model.filled_in(prompt, self._passes, self._order, seed=self._seen)
        self._seen += len(prompt)
        return tokens


@torch.inference_mode()
def edit_rows(run: Run, *, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Part 3 of this module's docstring: by pass, SIDE_ACCURACY (ignored) and RETURN (mended), shares of edits."""
    from interp.models.denoising import denoise

    model, cfg = run.model, run.model.cfg
    batch, generator = drawn(run, n, seed=seed + 1), torch.Generator().manual_seed(seed)
    prompt, content = batch.tokens[:, : cfg.n_prompt], torch.from_numpy(run.task.content)
    base = denoise(model, prompt, steps=PASSES)
    rows = torch.arange(n)
    for after in range(1, PASSES):
        shown = base.history[:, after - 1]
        other = base.tokens[torch.randperm(n, generator=generator)]
        can = (shown != cfg.d_vocab) & (shown != other) & content
        chosen = (torch.rand(can.shape, generator=generator) * can).argmax(1)  # one slot of each row
        some = can.any(1)
        if not some.any():  # all answers have the same tokens there
            continue
        start = shown.clone()
        start[rows, chosen] = other[rows, chosen]
        left = PASSES - after
        went_on, own = (denoise(model, prompt[some], steps=left, start=each[some]).tokens for each in (start, shown))
        at = chosen[some]
        others = torch.ones_like(own, dtype=torch.bool).scatter_(1, at[:, None], False)
        ignored = ((went_on == own) | ~others).all(1)
        logits = model(torch.cat([prompt[some], went_on], dim=1), revealed=others)[:, cfg.n_prompt - 1 : -1]
        again = logits.argmax(-1).gather(1, at[:, None])[:, 0]
        mended = again == own.gather(1, at[:, None])[:, 0]
        common = {"method": "denoise_confidence", "time": after, "part": "one decided slot"}
        for metric, hits in ((Metric.SIDE_ACCURACY, ignored), (Metric.RETURN, mended)):
            yield share_row(hits.numpy(), metric=metric, **common)


def share_row(hits: np.ndarray, **columns: Any) -> dict[str, Any]:
    """A share of examples, with its interval."""
    low, high = wilson_interval(int(hits.sum()), max(1, len(hits)))
    return {
        "aggregation": Aggregation.MEAN,
        "interval_kind": IntervalKind.WILSON,
        "estimate": float(hits.mean()) if len(hits) else float("nan"),
        "ci_low": low,
        "ci_high": high,
        "n": len(hits),
        **columns,
    }


@torch.inference_mode()
def pass_rows(run: Run, *, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Part 4 of this module's docstring, of `n` pairs whose answer should change, and as many of the same value;
    `time` is the pass, from 1, absent where source's activations are in all."""
    from interp.models.denoising import denoise

    model, task = run.model, run.task
    for name in (each for each in VARIABLES if each in task.swappable()):
        positions = task.world.variable(name).place
        entry, *hooks = model.residual_hooks()[:-1]
        choosing = SharedPairs.draw(task, [name], n_pairs=max(16, n // 2), seed=seed, split="validation")
        scores = [_effect(run, choosing, name, hook, positions, range(1), 1) for hook in hooks]
        hook = hooks[int(np.argmax([each[0] for each in scores]))]
        drawn = task.counterfactual(_DRAWN * n, name, seed=seed)
        rows = np.flatnonzero(drawn.changes)[:n]
        pairs = SharedPairs.of(task, {name: (drawn, rows)}, n_plain=len(rows))
        plain = denoise(model, pairs.base.tokens[:, : model.cfg.n_prompt], steps=PASSES).tokens
        same, _ = same_value(task, drawn, rows, seed=seed)
        alike = None if same is None else SharedPairs.of(task, {name: (same, np.arange(len(same)))}, n_plain=len(same))
        asked = [(hook, None, range(PASSES)), *((hook, k + 1, [k]) for k in range(PASSES))]
        for site, time, passes in [*asked, (entry, None, range(PASSES))]:
            answers = _swapped(run, pairs, site, positions, passes, PASSES)
            yield from _judged(answers, pairs, name, site, positions, time=time)
            if alike is not None:
                answers = _swapped(run, alike, site, positions, passes, PASSES)
                yield from _judged(answers, alike, name, site, positions, time=time, control=Control.SAME_VALUE)
        yield from _judged(plain, pairs, name, hook, positions, time=None, control=Control.UNPATCHED)


def _swapped(run: Run, pairs: SharedPairs, hook: str, positions: str, passes: Any, steps: int) -> Tensor:
    """The answers to bases with source's activation at a place in some of the passes."""
    from interp.models.denoising import denoise

    model, n_prompt = run.model, run.model.cfg.n_prompt
    kept: dict[int, Tensor] = {}
    here, there = (run.task.resolve(positions, side) for side in (pairs.base, pairs.source))
    rows = torch.arange(len(pairs))[:, None]

    def keep(act: Tensor, hook: Any, step: int) -> None:
        kept[step] = act[rows, there].clone()

    def put(act: Tensor, hook: Any, step: int) -> Tensor:
        act = act.clone()
        act[rows, here] = kept[step]
        return act

    for side, function in ((pairs.source, keep), (pairs.base, put)):
        hooks = {step: [(hook, partial(function, step=step))] for step in passes}
        found = denoise(model, side.tokens[:, :n_prompt], steps=steps, fwd_hooks=hooks)
    return found.tokens  # of base


def _effect(
    run: Run, pairs: SharedPairs, name: str, hook: str, positions: str, passes: Any, steps: int
) -> tuple[float, Tensor]:
    answers = _swapped(run, pairs, hook, positions, passes, steps)
    return float(np.nanmean(judge_pairs(pairs, name, answers[pairs.members[name]])[Metric.EFFECT_ACCURACY])), answers


def _judged(
    answers: Tensor, pairs: SharedPairs, name: str, hook: str, positions: str, **columns: Any
) -> Iterator[dict[str, Any]]:
    judged, changes = judge_pairs(pairs, name, answers[pairs.members[name]]), pairs.changes[name]
    alike = columns.get("control") == Control.SAME_VALUE  # nothing should change: all pairs count
    for metric, values in judged.items():
        some = values[(changes | alike) & ~np.isnan(values)]
        if len(some):
            own = {
                "method": Method.FULL_VECTOR,
                "variable": name,
                "site": hook,
                "position": positions,
                "metric": metric,
            }
            own |= {
                "stratum": "same" if alike else "changes",
                "pair_design": "independent",
                "aggregation": Aggregation.MEAN,
            }
            yield {**own, **columns, "estimate": float(some.mean()), "n": len(some)}


@torch.inference_mode()
def calibration_rows(
    run: Run, *, n: int, seed: int, several: int = PASSES, names: Sequence[str] | None = None
) -> Iterator[dict[str, Any]]:
    """Reliability of slots (slot_calibration.py) after one pass and after several, by confidence; `names`, of the
    slots, in place of the task's."""
    from interp.models.denoising import denoise

    model, task = run.model, run.task
    for passes in (1, several):
        confidence, right = [], []
        for start in range(0, n, 256):
            batch = drawn(run, min(256, n - start), seed=seed + 2 + start)
            found = denoise(model, batch.tokens[:, : model.cfg.n_prompt], steps=passes)
            confidence.append(found.confidence.double().numpy())
            right.append((found.tokens == batch.tokens[:, model.cfg.n_prompt :]).numpy())
        method = "denoise_once" if passes == 1 else "denoise_confidence"
        every = np.concatenate(confidence), np.concatenate(right)
        yield from slot_calibration(*every, tuple(names or task.answer_names), method=method, time=passes)
