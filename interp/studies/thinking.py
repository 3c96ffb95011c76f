"""How a looped model thinks: how many steps it needs, when it stops, what each step holds of the run.

1. Every example is run for all steps that the model has; each step's answer is judged, and where the model halts, where
   its halting rule stopped it. T* is the least fixed number of steps within .1 point of the best one, by the macro
   average over steps run, chosen on validation. Random halting draws each row's step from the halting steps of all
   rows; the oracle stops at the first step that is right.
2. Loop step against executed step: a ridge probe reads a variable after s instructions from the carry after loop step
   t (all positions, on their first principal components), fitted on training units and scored only where the variable
   differs from what it was after s - 1 instructions: else neighbouring states smear the diagonal. The step t that is
   best for each s is chosen on validation, and scored on evaluation, beside the same probe on what enters the loop.
3. The whole carry swapped between two programs after each loop step (thinking_swaps.py), and parts of it
   (thinking_parts.py).
4. Longer runs and more loop steps than in training, and the fixed point (thinking_longer.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from interp.results import Aggregation, Control, IntervalKind, Method, Metric, rows_frame, wilson_interval
from interp.runs import Run
from interp.studies.holding import Progress, quiet
from interp.studies.thinking_longer import fixed_point_rows, longer_rows
from interp.studies.thinking_parts import Reader, block_rows, variable_rows
from interp.studies.thinking_swaps import swap_rows
from interp.training.scoring import BATCH_SIZE, evaluate
from interp.worlds import Split
from probes import RidgeProbe

VARIABLES = ("instruction_ptr", "array_ptr", "cell")
_EXECUTED = 12  # executed steps that are looked for
_COMPONENTS = 128
_LEAST = 30  # examples of each part of a probe, else it is left out
_TOLERANCE = 0.001  # of T*
_PARTS = 7  # of a measurement, for progress


@dataclass(frozen=True)
class Thinking:
    """What a model did on examples of one split."""

    right: np.ndarray  # bool [n, step]
    halted: np.ndarray  # int [n], the step, from 1, at which the model's rule stopped
    ran: np.ndarray  # int [n], steps that the program runs
    examples: Any


def require_looped(run: Run) -> int:
    """How many steps the run's model can make. Raises ValueError for a model that is not looped."""
    most = run.model.max_loop_steps
    if most is None:
        raise ValueError(f"the architecture {run.config.model.architecture} runs no layers again: it has no loop steps")
    return most


def by_loop_steps(
    run: Run, loop_steps: Sequence[str], *, n: int, seed: int, progress: Progress = quiet
) -> pd.DataFrame:
    """Exact match with each number of steps, rows with `time` that number; "halt": as the model halts, without `time`.

    Raises:
        ValueError: the model is not looped; a value that is neither "halt" nor a number of steps that it can make.
    """
    require_looped(run)
    parts = []
    for done, asked in enumerate(loop_steps):
        if asked != "halt" and not asked.isdigit():
            raise ValueError(f"loop_steps must be numbers of steps or halt; got {asked!r}")
        steps = None if asked == "halt" else int(asked)
        progress(done, len(loop_steps), f"{asked} steps")
        with run.model.looping(steps):
            parts.append(evaluate(run.model, run.task, n=n, seed=seed))
        if steps is not None:
            parts[-1]["time"] = steps
    return pd.concat(parts, ignore_index=True)


def measure_thinking(
    run: Run, *, n: int = 4096, n_longer: int = 1000, seed: int = 2, progress: Progress = quiet
) -> pd.DataFrame:
    """All rows of this module's docstring; `n_longer` programs a bin of longer runs, 0: none.

    Raises:
        ValueError: the model is not looped, or the task has no runs.
    """
    most = require_looped(run)
    if not hasattr(run.task, "n_steps"):
        raise ValueError(
            f"an example of the task {run.task.name} runs one step: there is nothing to think longer about"
        )
    splits: tuple[Split, ...] = ("validation", "evaluation")
    seen = {}
    for at, split in enumerate(splits):
        progress(at, _PARTS, f"{split} examples")
        seen[split] = think(run, n, seed=seed, split=split)
    rows = [*_steps_rows(seen["evaluation"], most), *_halting_rows(seen["validation"], seen["evaluation"], seed)]
    progress(2, _PARTS, "what each step holds")
    readers: dict[tuple[str, int, bool], Reader] = {}
    rows += _matrix_rows(run, n, seed=seed, readers=readers)
    progress(3, _PARTS, "carries swapped")
    rows += swap_rows(run, min(n, 2048), seed=seed)
    progress(4, _PARTS, "parts of carries swapped")
    rows += block_rows(run, min(n, 512), seed=seed)
    rows += variable_rows(run, readers, min(n, 128), seed=seed)
    progress(5, _PARTS, "the fixed point")
    rows += fixed_point_rows(run, min(n, 2048), seed=seed)
    if n_longer:
        rows += longer_rows(run, n_longer, seed=seed, progress=lambda done, total, at: progress(6, _PARTS, at))
    return run.identified(rows_frame(rows))


@torch.inference_mode()
def think(run: Run, n: int, *, seed: int, split: Split) -> Thinking:
    """Run every example for all steps that the model has."""
    right, halted, examples = [], [], []
    task, model = run.task, run.model
    for start in range(0, n, BATCH_SIZE):
        batch = task.sample(min(BATCH_SIZE, n - start), seed=seed, start=start, split=split)
        thoughts = model(batch.tokens, thoughts=True, loop_steps=model.max_loop_steps)
        asked = batch.targets[:, None] >= 0
        right.append(((thoughts.logits.argmax(-1) == batch.targets[:, None]) | ~asked).all(-1).numpy())
        steps = torch.arange(1, thoughts.weights.shape[1] + 1)
        halted.append((thoughts.weights * steps).sum(1).round().long().numpy())
        examples.append(batch.examples)
    joined = type(examples[0]).concatenate(examples)
    ran = task.world.run(joined, task.n_steps, keep="last").n_steps
    return Thinking(np.concatenate(right), np.concatenate(halted), ran, joined)


def macro(right: np.ndarray, ran: np.ndarray) -> float:
    """The share that is right, averaged over numbers of steps run, each counted once."""
    return float(np.mean([right[ran == k].mean() for k in np.unique(ran)]))


def _share(right: np.ndarray, **columns: Any) -> dict[str, Any]:
    low, high = wilson_interval(int(right.sum()), len(right))
    return {
        "method": Method.GREEDY,
        "metric": Metric.EXACT_MATCH,
        "aggregation": Aggregation.MEAN,
        "interval_kind": IntervalKind.WILSON,
        "estimate": float(right.mean()),
        "ci_low": low,
        "ci_high": high,
        "n": len(right),
        **columns,
    }


def _steps_rows(seen: Thinking, most: int) -> Iterator[dict[str, Any]]:
    """Right by loop step and steps run."""
    for t in range(most):
        yield _macro_row(seen.right[:, t], seen.ran, time=t + 1)
        for k in np.unique(seen.ran):
            yield _share(seen.right[seen.ran == k, t], time=t + 1, stratum=f"{k:02d} steps")


def _macro_row(right: np.ndarray, ran: np.ndarray, **columns: Any) -> dict[str, Any]:
    return {
        "method": Method.GREEDY,
        "metric": Metric.EXACT_MATCH,
        "aggregation": Aggregation.MACRO,
        "estimate": macro(right, ran),
        "n": len(right),
        **columns,
    }


def _halting_rows(validation: Thinking, seen: Thinking, seed: int) -> Iterator[dict[str, Any]]:
    """T*, the model's own halting, random halting and the oracle: how often right, after how many steps on average."""
    by_step = [macro(validation.right[:, t], validation.ran) for t in range(validation.right.shape[1])]
    best = next(t for t, share in enumerate(by_step) if share >= max(by_step) - _TOLERANCE)
    n = len(seen.ran)
    any_right = seen.right.any(1)
    oracle = np.where(any_right, seen.right.argmax(1), seen.right.shape[1] - 1)
    chance = np.random.default_rng(seed).permutation(seen.halted - 1)
    for name, stops in {
        "fixed, T*": np.full(n, best),
        "its own halting": seen.halted - 1,
        "random halting": chance,
        "oracle": oracle,
    }.items():
        yield _macro_row(seen.right[np.arange(n), stops], seen.ran, part=name, time=round(float(stops.mean() + 1)))
        yield {
            "method": Method.GREEDY,
            "metric": Metric.LOOP_STEPS,
            "aggregation": Aggregation.MEAN,
            "part": name,
            "estimate": float(stops.mean() + 1),
            "n": n,
        }
    if len(np.unique(seen.halted)) > 1:
        solved = seen.right[np.arange(n), seen.halted - 1]
        for name, rows in (("solved", solved), ("unsolved", ~solved)):
            if rows.sum() >= _LEAST and len(np.unique(seen.halted[rows])) > 1:
                estimate = float(spearmanr(seen.halted[rows], seen.ran[rows]).statistic)  # type: ignore[attr-defined]
                yield {
                    "method": Method.GREEDY,
                    "metric": Metric.SPEARMAN,
                    "part": "its own halting",
                    "stratum": name,
                    "estimate": estimate,
                    "n": int(rows.sum()),
                }


@torch.inference_mode()
def _carries(run: Run, n: int, *, seed: int, split: Split) -> tuple[torch.Tensor, dict[str, np.ndarray]]:
    """What enters the loop and every carry, [1 + step, n, pos * d_model], and variables by executed step [n, s + 1]."""
    model, task, kept, values = run.model, run.task, [], []
    names = _names(run)
    hooks = ["hook_input", *model.step_hooks()]
    for start in range(0, n, BATCH_SIZE):
        batch = task.sample(min(BATCH_SIZE, n - start), seed=seed, start=start, split=split)
        with model.looping(len(hooks) - 1):
            _, cache = model.run_with_cache(batch.tokens, names_filter=hooks)
        kept.append(torch.stack([cache[hook].flatten(1) for hook in hooks]))
        ran = task.world.run(batch.examples, task.n_steps, keep="last").n_steps
        read = [_read(task.world, batch.examples, name, ran) for name in names]
        values.append(np.stack(read))
    joined = np.concatenate(values, axis=1)  # [variable, n, s + 1]
    return torch.cat(kept, dim=1), dict(zip(names, joined, strict=True))


def _names(run: Run) -> list[str]:
    return [name for name, each in run.task.world.variables().items() if each.family in VARIABLES and each.settable]


def _read(world: Any, examples: Any, name: str, ran: np.ndarray) -> np.ndarray:
    """A variable after 0, 1, … executed steps, int [n, s + 1]; -1 past the end of a run."""
    columns = [np.where(ran > s, world.read(examples, name, np.minimum(s, ran - 1)), -1) for s in range(_EXECUTED + 1)]
    return np.stack(columns, axis=1)


def _matrix_rows(
    run: Run, n: int, *, seed: int, readers: dict[tuple[str, int, bool], Reader]
) -> Iterator[dict[str, Any]]:
    """Probes of a variable after s instructions on the carry after loop step t, and the best t of each s; what these
    read goes into `readers`, beside what the probe of what enters the loop reads."""
    fit, choose, held = (_carries(run, n, seed=seed, split=s) for s in ("fit", "validation", "evaluation"))
    n_steps = len(fit[0])
    reduced, bases = [], []
    for t in range(n_steps):  # t = 0: what enters the loop
        mean = fit[0][t].mean(0)
        torch.manual_seed(seed)
        _, _, basis = torch.pca_lowrank(fit[0][t] - mean, q=min(_COMPONENTS, n, fit[0].shape[-1]), center=False)
        bases.append(basis)
        reduced.append([(part[0][t] - mean) @ basis for part in (fit, choose, held)])
    for name in fit[1]:
        for s in range(1, _EXECUTED + 1):
            labels = [part[1][name] for part in (fit, choose, held)]
            rows = [(y[:, s] >= 0) & (y[:, s] != y[:, s - 1]) for y in labels]  # changed by the last instruction
            y = [values[keep, s] for values, keep in zip(labels, rows, strict=True)]
            if min(len(part) for part in y) < _LEAST or len(np.unique(y[0])) < 2:
                continue
            shares, probes = [], []
            for t in range(n_steps):
                x = [part[torch.from_numpy(keep)] for part, keep in zip(reduced[t], rows, strict=True)]
                probe = RidgeProbe().fit(x[0], torch.from_numpy(y[0]))
                probes.append(probe)
                shares.append([np.asarray(probe.predict(x[k])) == y[k] for k in (1, 2)])
            common = {"method": Method.RIDGE, "metric": Metric.ACCURACY, "variable": name, "lag": s}
            for t, (_, right) in enumerate(shares):
                control = Control.EMBEDDING_ONLY if t == 0 else None
                yield _share(right, **common, time=t, control=control)
            best = 1 + int(np.argmax([right.mean() for right, _ in shares[1:]]))
            yield _share(shares[best][1], **common, time=best, part="best step on validation")
            for t in (0, best):
                readers[name, s, t == 0] = Reader(t, _row_space(bases[t], probes[t]))


def _row_space(basis: torch.Tensor, probe: RidgeProbe) -> torch.Tensor:
    """Orthonormal directions [pos * d_model, k] that a probe on principal components reads."""
    read = basis @ torch.as_tensor(probe.coef_, dtype=basis.dtype).T
    left, sizes, _ = torch.linalg.svd(read, full_matrices=False)
    return left[:, sizes > 1e-4 * sizes[0]]
