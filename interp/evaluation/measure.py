"""Everything that `tapelens eval` says of a run, measured in one pass over held-out states and one over programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.evaluation.confidence import Reliability
from interp.evaluation.credit import PartialCredit
from interp.evaluation.failures import Failure, Failures
from interp.evaluation.rollout import Rollout, rollout
from interp.ranges import counted
from interp.results import rows_frame
from interp.runs import Run
from interp.stage_options import Balance, EvaluationOptions
from interp.training.scoring import Observer, evaluate

Progress = Callable[[float, float, str], None]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured: rows of the tidy frame, and what does not fit into rows."""

    rows: pd.DataFrame
    failures: tuple[Failure, ...]  # examples, a few of every stratum that has errors
    n_wrong: int | None  # wrong answers in all; None where answers are not whole
    rollouts: tuple[Rollout, ...]


@counted(n=1)
def measure(
    run: Run,
    *,
    n: int = EvaluationOptions.n,
    seed: int = EvaluationOptions.seed,
    balance: Balance = EvaluationOptions.balance,
    programs: int = EvaluationOptions.programs,
    archive: Any = None,
    max_steps: int = EvaluationOptions.max_steps,
    progress: Progress = lambda done, total, at: None,
) -> Evaluation:
    """Exact match, partial credit and reliability on `n` held-out examples, then rollout over held-out programs.

    Tasks without whole answers have exact match alone, worlds without "rollout" no rollout.

    Args:
        run: the run; its model is used as it is, hooks included.
        n, seed, balance: of the examples, as in `evaluate`.
        programs: how many programs to roll out, those of `World.rollout_starts`; 0: none.
        archive: of as many other programs, from `World.open_archive`.
        max_steps: of a rollout.
        progress: called with (done, total, what it is at).

    Raises:
        ValueError: an argument is out of range, or the archive belongs to another machine.
    """
    task, model = run.task, run.model
    whole = task.whole_answers
    credit, failures = PartialCredit(task), Failures(task)
    with ExitStack() as stack:
        observers: Sequence[Observer] = ()
        reliability = None
        if whole:
            reliability = stack.enter_context(Reliability(model, task))
            observers = (reliability, credit, failures)
        rows = evaluate(
            model,
            task,
            n=n,
            seed=seed,
            balance=balance,
            observers=observers,
            progress=lambda done, total: progress(done, total, f"{done:,} of {total:,} states"),
        )
    parts = [rows]
    if reliability is not None:
        parts.append(rows_frame([*credit.rows(), *reliability.rows()]))
    rollouts = ()
    if whole and programs and "rollout" in task.world.capabilities:
        rollouts = _rollouts(run, programs, archive, seed, max_steps, progress)
    parts += [rows_frame(each.rows()) for each in rollouts]
    return Evaluation(
        pd.concat(parts, ignore_index=True), tuple(failures.examples), failures.n_wrong if whole else None, rollouts
    )


def _rollouts(run: Run, n: int, archive: Any, seed: int, max_steps: int, progress: Progress) -> tuple[Rollout, ...]:
    kinds = run.task.world.rollout_starts(n, seed=seed, max_steps=max_steps, archive=archive)
    return tuple(
        rollout(
            run.model,
            run.task,
            starts,
            programs=name,
            max_steps=max_steps,
            progress=lambda done, total: progress(done, total, "running programs"),
        )
        for name, starts in kinds.items()
    )
