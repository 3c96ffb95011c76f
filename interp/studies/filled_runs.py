"""A whole run answered at once, or with facts of the way to it written first: what do they gain, and are they used?

1. Passes and orders: whole answers right, on the same programs, by how many steps these run: every number counted once
   over bins of eight, and over all from 9 on. GAIN is what an answer in several passes has over one pass of the same
   model, example by example. A model that answers in one pass has one row, to stand beside them.
2. Order: the pass that decides a token, against its own difficulty (filling.py) and against the executed step after
   which the world has decided it: that of the fact, or the run's last where it ends before.
3. An edit: facts up to an executed step are given as they are, one of that step with another example's value, and the
   rest is filled in. The answer then is that of the run in which the variable was so set (followed), base's own
   (ignored), or neither. Judged where these two differ; without the edit as the control.
4. Reliability of tokens (slot_calibration.py), facts by their step, after one pass and after several.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.results import Aggregation, Control, IntervalKind, Method, Metric
from interp.runs import Run
from interp.studies.filling import calibration_rows, null_passes, rank_rows, share_row
from interp.studies.holding import Progress, quiet
from interp.tasks import Batch
from interp.training.scoring import BATCH_SIZE, answered
from interp.training.tally import Tally, macro_row
from probes.scores import bootstrap_mean

LONG = 9  # steps from which on a run counts as long
_BIN = 8  # steps
_EXAMPLES = 4  # of part 1, for each of n: at n = 1,000 a thousand programs a bin of eight numbers of steps
_COUNTS = (1, 4, 8, 32)  # passes


def measure_runs(run: Run, *, n: int, seed: int, progress: Progress = quiet) -> list[dict[str, Any]]:
    """Rows of this module's docstring.

    Args:
        run: of a task whose scores go by how many steps an example runs, `Task.lengths`.
        n: examples; four times as many of part 1, a quarter as many orders.
        seed: of everything.
        progress: called with (done, total, what it is at).
    """
    parts: dict[str, Any] = {"passes": partial(right_rows, n=_EXAMPLES * n)}
    if run.model.decides_for_good:
        several = run.model.cfg.denoising_steps
        if facts := run.task.facts():
            parts["order"] = partial(order_rows, n=max(16, n // 4))
            parts["edits"] = partial(edit_rows, n=n)
        named = zip(run.task.answer_names, facts or [None] * len(run.task.answer_names), strict=True)
        names = [name if fact is None else f"t+{fact[1]}[{k}]" for k, (name, fact) in enumerate(named)]
        parts["calibration"] = partial(calibration_rows, n=n, several=several, names=names)
    rows: list[dict[str, Any]] = []
    for done, (name, part) in enumerate(parts.items()):
        progress(done, len(parts), f"{run.name}: {name}")
        rows += part(run, seed=seed)
    return rows


def ways_of(model: Any) -> list[tuple[int, str | None]]:
    """Numbers of passes with the order in which they fill in; None: as the model answers."""
    if not model.decides_for_good:
        return [(1, None)]
    cfg, orders = model.cfg, model.denoising_orders
    counts = sorted({each for each in (*_COUNTS, cfg.denoising_steps) if each <= model.max_denoising_steps})
    return [*((count, orders[0]) for count in counts), *((cfg.denoising_steps, order) for order in orders[1:])]


@torch.inference_mode()
def right_rows(run: Run, *, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Part 1 of this module's docstring."""
    model, task = run.model, run.task
    batches = [task.sample(min(BATCH_SIZE, n - at), seed=seed, start=at) for at in range(0, n, BATCH_SIZE)]
    groups = np.concatenate([task.groups(batch.examples) for batch in batches]).astype(np.int64)
    long = np.concatenate([task.lengths(batch) for batch in batches]) >= min(LONG, task.n_steps)  # type: ignore[attr-defined]
    once = None
    for passes, order in ways_of(model):
        tally, right = Tally.of(task.world), []
        for at, batch in enumerate(batches):
            answer = _answer(run, batch, passes, order, seed=seed + at)
            tally.add(task.score(answer, batch))
            right.append(task.right(answer, batch))
        every = np.concatenate(right)
        own: dict[str, Any] = {"time": passes, "method": Method.GREEDY}
        if order is not None:
            own["method"] = f"denoise_{order}" if passes > 1 else "denoise_once"
        shares = [each for each in tally.rows() if each["metric"] == Metric.EXACT_MATCH]
        yield from _by_steps(shares, own)
        if once is None:
            once = every
            continue
        estimate, low, high = bootstrap_mean(
            every[long].astype(float) - once[long], groups[long], seed=seed, n_resamples=500
        )
        interval = {"ci_low": float(low), "ci_high": float(high), "interval_kind": IntervalKind.BOOTSTRAP_PROGRAMS}
        gained = {"stratum": _long(task), "metric": Metric.GAIN, "aggregation": Aggregation.MEAN}
        yield {**own, **gained, "estimate": float(estimate), **interval, "n": int(long.sum())}


def _answer(run: Run, batch: Batch, passes: int, order: str | None, *, seed: int) -> Tensor:
    if order is None:
        return answered(run.model, run.task, batch)
    return run.model.filled_in(batch.tokens[:, : run.model.cfg.n_prompt], passes, order, seed=seed)[0]


def _long(task: Any) -> str:
    return f"{min(LONG, task.n_steps)} to {task.n_steps} steps"


def _by_steps(shares: list[dict[str, Any]], own: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Shares by number of steps, and their macro averages over bins and over all long runs; cut runs are left out."""
    by_number = {int(each["stratum"].split()[0]): each for each in shares if each["stratum"][0].isdigit()}
    most = max(by_number)
    common = {**own, "aggregation": Aggregation.MEAN, "interval_kind": IntervalKind.WILSON}
    yield from ({**each, **common} for each in by_number.values())
    spans = [(first, min(first + _BIN - 1, most)) for first in range(1, most + 1, _BIN)]
    for first, last in dict.fromkeys([*spans, (min(LONG, most), most), (1, most)]):
        some = [each for number, each in by_number.items() if first <= number <= last]
        if some:
            yield {**own, "stratum": f"{first} to {last} steps", **macro_row(some)}


@torch.inference_mode()
def order_rows(run: Run, *, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Part 2 of this module's docstring, by confidence, in the model's own number of passes."""
    model, task = run.model, run.task
    batch, passes = task.sample(n, seed=seed), model.cfg.denoising_steps
    prompt = batch.tokens[:, : model.cfg.n_prompt]
    _, decided = model.filled_in(prompt, passes, "confidence")
    first = model(batch.tokens)[:, model.cfg.n_prompt - 1 : -1].float().softmax(-1).max(-1).values
    lengths, facts = task.lengths(batch), task.facts()
    assert lengths is not None
    depth = np.stack([lengths if each is None else np.minimum(each[1], lengths) for each in facts], axis=1)
    named = zip(task.answer_names, facts, strict=True)
    blocks = [name.partition("[")[0] if fact is None else f"t+{fact[1]}" for name, fact in named]
    groups = task.groups(batch.examples).astype(np.int64)
    null = null_passes(first, passes).numpy()
    yield from rank_rows(decided.numpy(), null, depth.astype(float), groups, blocks, passes, seed=seed)


@torch.inference_mode()
def edit_rows(run: Run, *, n: int, seed: int) -> Iterator[dict[str, Any]]:
    """Part 3 of this module's docstring: IIA (followed) and RETURN (ignored), `position` the step of the fact."""
    from interp.models.denoising import denoise

    model, task, rng = run.model, run.task, np.random.default_rng(seed)
    batch, n_prompt, mask = task.sample(n, seed=seed + 1), run.model.cfg.n_prompt, run.model.cfg.d_vocab
    truth, facts = batch.tokens[:, n_prompt:], task.facts()
    times = np.array([task.n_steps + 1 if each is None else each[1] for each in facts])  # type: ignore[attr-defined]
    last = np.flatnonzero([each is None for each in facts])  # the answer itself
    for time in sorted({each[1] for each in facts if each is not None}):
        shown = torch.from_numpy(times <= time)
        slots = [k for k, each in enumerate(facts) if each and each[1] == time and task.world.editable(each[0])]
        start = truth.masked_fill(~shown, mask)
        edited, expected = start.clone(), truth.clone()
        judged = np.zeros(n, dtype=bool)
        slot_of, donor = rng.choice(slots, size=n), rng.permutation(n)
        for slot in slots:
            rows = np.flatnonzero(slot_of == slot)
            name = facts[slot][0]  # type: ignore[index]
            values = task.world.read(task.world.answer(batch.examples[donor[rows]]).after(time), name)
            answer = task.world.answer(batch.examples[rows], do={name: values}, at=time)
            told = torch.from_numpy(task.expected(answer))
            expected[rows] = told
            edited[rows, slot] = truth[donor[rows], slot]
            judged[rows] = answer.valid & (told[:, last] != truth[rows][:, last]).any(1).numpy()
        if judged.sum() < 2:
            continue
        rows = np.flatnonzero(judged)
        prompt, passes = batch.tokens[rows, :n_prompt], min(model.cfg.denoising_steps, int((~shown).sum()))
        own: dict[str, Any] = {"part": "one written fact", "position": f"t+{time}", "time": passes}
        for control, given in ((None, edited), (Control.UNPATCHED, start)):
            said = denoise(model, prompt, steps=passes, start=given[rows]).tokens[:, last]
            for metric, right in ((Metric.IIA, expected), (Metric.RETURN, truth)):
                hits = (said == right[rows][:, last]).all(1).numpy()
                yield share_row(hits, metric=metric, control=control, method="denoise_confidence", **own)
