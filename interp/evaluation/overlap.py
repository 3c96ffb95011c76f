"""Old examples among the held-out ones: how many a run was trained on in another guise, and its score without them.

What is held out whole may be more than a model is shown: two programs that differ where no run comes are one stream. So

1. the examples that the run was trained on are drawn again from its config (seeds and steps), those of the runs that it
   began from too, and hashed by what the model is shown of them (`Task.shown_units`);
2. the same hash of every held-out example says whether it is among them;
3. those that are, are answered again, and their counts taken from the scores of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from interp.ranges import counted
from interp.results import Aggregation, IntervalKind, Method, Metric, records, select, wilson_interval
from interp.runs import Run
from interp.training.scoring import BATCH_SIZE, answered
from interp.training.start import starting_run
from interp.training.tally import Tally, macro_row

_AT_ONCE = 16_384  # examples drawn together
_SCORED = (Metric.EXACT_MATCH, Metric.SEQUENCE_MATCH)
Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, eq=False)
class Overlap:
    """Which of n held-out examples the run had been shown in training."""

    n_trained: int  # examples drawn in training, over all runs on the way
    n_units: int  # different ones among them
    seen: NDArray[np.bool_]  # [n]
    scores: tuple[dict[str, Any], ...]  # exact match and whole sequences of "unseen units", and of "seen units"

    @property
    def share(self) -> float:
        """Of the held-out examples, 0 to 1; 0 is best."""
        return float(self.seen.mean())

    def rows(self) -> list[dict[str, Any]]:
        """The share that was seen, then the scores of the others and of those, for the tidy frame."""
        n, count = len(self.seen), int(self.seen.sum())
        low, high = wilson_interval(count, n)
        interval = {"ci_low": low, "ci_high": high, "interval_kind": IntervalKind.WILSON, "n": n}
        share = {"metric": Metric.OVERLAP, "aggregation": Aggregation.MEAN, "estimate": self.share, **interval}
        return [share, *self.scores]


@counted(n=1)
def overlap(
    run: Run, scores: pd.DataFrame, *, n: int, seed: int, progress: Progress = lambda done, total, at: None
) -> Overlap | None:
    """How many held-out examples the run was trained on, and its score on the others.

    Args:
        run: a trained run.
        scores: rows of `evaluate(run.model, run.task, n=n, seed=seed)`.
        n, seed: of the held-out examples that were scored.
        progress: called with (examples drawn, of how many, what it is at).

    Returns:
        None where a model is shown all of what is held out whole, so that no example can be old.

    Raises:
        RunError: a run that it began from is gone.
        ValueError: its training examples cannot be drawn again.
    """
    task = run.task
    held = task.draw(n, seed=seed)
    units = task.shown_units(held)
    if units is None:
        return None
    n_trained, trained = trained_units(run, progress)
    seen = np.isin(units, trained)
    tally, old = Tally.of(task.world), Tally.of(task.world)
    for row in records(select(scores, aggregation=Aggregation.MEAN)):
        if row["metric"] in _SCORED and row["position"] is None:
            tally.add([{name: row[name] for name in ("op", "stratum", "metric", "estimate", "n")}])
    for part in np.array_split(np.flatnonzero(seen), -(-int(seen.sum()) // BATCH_SIZE) or 1):
        if not len(part):
            continue
        batch = task.render(held[part])
        with torch.inference_mode():
            found = task.score(answered(run.model, task, batch), batch)
        found = found.loc[found["metric"].isin(_SCORED)]
        old.add(found)
        tally.remove(found)
    both = (("unseen units", tally), ("seen units", old))
    return Overlap(n_trained, len(trained), seen, tuple(row for name, each in both for row in _scores(name, each)))


def _scores(name: str, tally: Tally) -> list[dict[str, Any]]:
    """The macro average of exact match over strata, and whole sequences, of some of the examples."""
    shares, common = tally.rows(), {"stratum": name, "method": Method.GREEDY}
    exact = [row for row in shares if row["metric"] == Metric.EXACT_MATCH]
    found = [{**macro_row(exact), **common}] if exact else []
    mean = {"aggregation": Aggregation.MEAN, "interval_kind": IntervalKind.WILSON}
    return found + [{**row, **common, **mean} for row in shares if row["metric"] == Metric.SEQUENCE_MATCH]


def trained_units(run: Run, progress: Progress = lambda done, total, at: None) -> tuple[int, NDArray[np.uint64]]:
    """How many examples a run was trained on, and the hashes of what it was shown of them, each once, sorted [k].

    The runs that it began from count as well.

    Raises:
        RunError: one of them is gone.
        ValueError: examples that depend on more than seed and step: sampled adaptively, in stages, or read from a file.
    """
    total, parts = 0, []
    for each in _lineage(run):
        settings = each.config.training
        if settings.adaptive or settings.curriculum != "none" or each.config.data is not None:
            raise ValueError(
                f"the training examples of {each.path} depend on more than its seed; they cannot be redrawn"
            )
        n = each.step * settings.batch_size
        for start in range(0, n, _AT_ONCE):
            size = min(_AT_ONCE, n - start)
            drawn = each.task.draw(size, seed=settings.seed, start=start, split=settings.training_split)
            units = each.task.shown_units(drawn)
            if units is None:
                raise ValueError(
                    f"the task {each.task.name} shows all of what is held out whole: no example can be old"
                )
            parts.append(np.unique(units))
            progress(start + size, n, f"what {each.name} was trained on")
        total += n
    return total, np.unique(np.concatenate(parts))


def _lineage(run: Run) -> list[Run]:
    """The run, and those whose weights it began with, one after the other."""
    found = [run]
    while (before := starting_run(found[-1].config)) is not None:
        found.append(before)
    return found
