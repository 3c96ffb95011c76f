"""Runs longer than those of training, and more loop steps than in training: how far does thinking longer carry?

1. Runs that end within 33 to 128 steps, in bins that are filled evenly as far as such programs are found: a machine of
   few instructions and cells has hardly any that run for 65 steps and end. Each is thought about for up to `deepest`
   loop steps, four times as many as in training; right by bin and loop step. Programs that print nothing after the 32nd
   step can be answered by whoever follows them that far: those that print later are a stratum of their own.
2. The fixed point, on runs such as training had: how far each step moves the carry; how many rows stand still by then;
   what is right where they do, and long after.
3. Fewer steps and more against the model's own halting: how many of its right answers break, how many wrong ones mend.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from interp.models import build_model
from interp.models.halting import movement
from interp.results import Aggregation, IntervalKind, Method, Metric, wilson_interval
from interp.runs import Run
from interp.studies.holding import Progress, quiet
from interp.training.scoring import BATCH_SIZE

BINS = ((33, 40), (41, 48), (49, 64), (65, 96), (97, 128))
STILL = 0.02  # of the carry's length: it moves by less, it stands still
_DEPTHS = 4  # times as many loop steps as in training
LATE = "prints after the trained steps"


def deeper(model: Any, most: int) -> Any:
    """The same weights with room for `most` loop steps.

    Raises:
        ValueError: the model has learned a vector for each step, and none for further ones.
    """
    if model.cfg.step_embedding:
        raise ValueError(f"the model has vectors for {model.cfg.most_loops} loop steps: it cannot make {most}")
    other = build_model(replace(model.cfg.as_written, max_loops=most))
    other.load_state_dict(model.state_dict())
    return other.eval()


def deepest_of(run: Run) -> int:
    """How many loop steps are asked for: four times those of training; as many as there are where each has a vector."""
    cfg = run.model.cfg
    return cfg.most_loops if cfg.step_embedding else max(cfg.most_loops, _DEPTHS * cfg.n_loops)


@torch.inference_mode()
def longer_rows(run: Run, n: int, *, seed: int, progress: Progress = quiet) -> Iterator[dict[str, Any]]:
    """Exact match by bin of steps run and loop step, rows with `stratum` "runs of 33 to 40 steps" and `time`.

    Args:
        run: of a looped model about runs that end.
        n: programs a bin, of the held-out units.
        seed: of the programs.
    """
    most = deepest_of(run)
    model = run.model if most == run.model.max_loop_steps else deeper(run.model, most)
    trained = run.task.n_steps
    for at, (fewest, longest) in enumerate(BINS):
        progress(at, len(BINS), f"runs of {fewest} to {longest} steps")
        task = run.task.resized(longest)
        try:
            examples = task.draw_between(n, (fewest, longest), seed=seed)
        except ValueError:  # this machine has none that can be found: the page says so
            continue
        stratum = f"runs of {fewest} to {longest} steps"
        right, halted, late = [], [], []
        for start in range(0, n, BATCH_SIZE):
            batch = task.render(examples[start : start + BATCH_SIZE])
            thoughts = model(batch.tokens, thoughts=True, loop_steps=most)
            right.append(_right(thoughts.logits, batch.targets))
            halted.append(_halted(thoughts.weights))
            early = run.task.expected(task.world.answer(batch.examples))
            late.append((early != batch.targets.numpy()[:, task.slots]).any(axis=1))
        answers, stops, prints = np.concatenate(right), np.concatenate(halted), np.concatenate(late)
        ran = task.world.run(examples, longest, keep="last").n_steps
        yield {**_MEAN, "metric": Metric.RUN_STEPS, "stratum": stratum, "estimate": float(ran.mean()), "n": n}
        common = {**_MEAN, "metric": Metric.EXACT_MATCH, "stratum": stratum}
        own = answers[np.arange(n), stops - 1]
        for part, members in ((None, np.ones(n, dtype=bool)), (LATE, prints)):
            if members.any():
                name = "its own halting" if part is None else f"its own halting, {part}"
                yield {**common, "part": name, **_share(own[members])}
                for t in range(most):
                    yield {**common, "part": part or "all", "time": t + 1, **_share(answers[members, t])}
        yield {
            **_MEAN,
            "metric": Metric.LOOP_STEPS,
            "stratum": stratum,
            "part": "its own halting",
            "estimate": float(stops.mean()),
            "n": n,
        }
    of_training = (
        (Metric.RUN_STEPS, "longest of training", trained),
        (Metric.LOOP_STEPS, "training", model.cfg.n_loops),
    )
    for metric, part, value in of_training:
        yield {**_MEAN, "metric": metric, "part": part, "estimate": float(value), "n": n}


@torch.inference_mode()
def fixed_point_rows(run: Run, n: int, *, seed: int) -> Iterator[dict[str, Any]]:
    """Movement and rows that stand still by loop step; what is right there and at the last step; broken and mended.

    Args:
        run: of a looped model about runs.
        n: held-out examples, as the task draws them.
        seed: of the examples.
    """
    most = deepest_of(run)
    model = run.model if most == run.model.max_loop_steps else deeper(run.model, most)
    moved, right, stops = [], [], []
    for start in range(0, n, BATCH_SIZE):
        batch = run.task.sample(min(BATCH_SIZE, n - start), seed=seed, start=start)
        thoughts = model(batch.tokens, thoughts=True, loop_steps=most)
        moved.append(movement(thoughts.carries).numpy())
        right.append(_right(thoughts.logits, batch.targets))
        stops.append(_halted(thoughts.weights))
    way, answers, own = np.concatenate(moved), np.concatenate(right), np.concatenate(stops) - 1
    for t in range(1, most):
        low, middle, high = np.quantile(way[:, t], [0.05, 0.5, 0.95])
        spread = {"ci_low": float(low), "ci_high": float(high), "interval_kind": IntervalKind.EXAMPLES}
        yield {**_MEAN, "metric": Metric.MOVEMENT, "time": t + 1, "estimate": float(middle), **spread, "n": n}
        yield {**_MEAN, "metric": Metric.SETTLED, "time": t + 1, **_share((way[:, : t + 1] <= STILL).any(axis=1))}
    still = way <= STILL
    settled = still.any(axis=1)
    if settled.any():
        first = still.argmax(axis=1)
        there = answers[np.arange(n), first][settled]
        exact = {**_MEAN, "metric": Metric.EXACT_MATCH}
        yield {**exact, "part": "where the carry first stands still", **_share(there)}
        yield {**exact, "part": "the same examples after the last step", **_share(answers[settled, -1])}
    halting: np.ndarray = answers[np.arange(n), own]
    for t in range(most):
        for metric, rows, hit in ((Metric.BROKEN, halting, ~answers[:, t]), (Metric.MENDED, ~halting, answers[:, t])):
            if rows.any():
                yield {**_MEAN, "metric": metric, "time": t + 1, **_share(np.asarray(hit)[rows])}


_MEAN: dict[str, Any] = {"method": Method.GREEDY, "aggregation": Aggregation.MEAN}


def _right(logits: torch.Tensor, targets: torch.Tensor) -> np.ndarray:
    """Whether the whole answer is right after each loop step, bool [n, step]."""
    wide = targets[:, None]
    return ((logits.argmax(-1) == wide) | (wide < 0)).all(-1).numpy()


def _halted(weights: torch.Tensor) -> np.ndarray:
    """The step, from 1, at which each row stops by itself, int64 [n]."""
    return (weights * torch.arange(1, weights.shape[1] + 1)).sum(1).round().long().numpy()


def _share(hits: Any) -> dict[str, Any]:
    low, high = wilson_interval(int(hits.sum()), len(hits))
    found = {"estimate": float(hits.mean()), "ci_low": low, "ci_high": high, "n": len(hits)}
    return {**found, "interval_kind": IntervalKind.WILSON}
