"""What a run writes by itself: sampled texts judged by the rule, and its exact distance to the rule → texts.parquet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from interp.evaluation.language import Divergence, divergence
from interp.evaluation.texts import Judged, judge_texts, sample_texts, uniform_texts
from interp.results import Aggregation, Control, Method, Metric, rows_frame, wilson_interval
from interp.runs import Run
from interp.studies.holding import Progress, quiet

TEXT_SEED = 3  # of the texts that are sampled
_BLOCK = 4096


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts of a run, or brought by a person, and what was found about them."""

    texts: list[str]
    judged: Judged
    random: Judged
    sampler: Judged
    divergence: Divergence | None  # of the run's model; None for texts that were brought

    def rows(self) -> pd.DataFrame:
        """Rows of the tidy frame."""
        rows: list[dict[str, Any]] = []
        for control, judged in (
            (None, self.judged),
            (Control.RANDOM_TEXT, self.random),
            (Control.EXACT_SAMPLER, self.sampler),
        ):
            common = {"method": Method.SAMPLED_TEXT, "control": control, "aggregation": Aggregation.MEAN}
            for metric, successes, n in (
                (Metric.IN_DISTRIBUTION, judged.allowed, judged.n),
                (Metric.NOVELTY, judged.new, judged.allowed),
                (Metric.UNIQUENESS, judged.different, judged.n),
            ):
                if not n:
                    continue
                shares: dict[str, Any] = {"estimate": successes / n, "n": n}
                if metric != Metric.UNIQUENESS:  # texts that repeat each other are no independent trials
                    low, high = wilson_interval(successes, n)
                    shares |= {"ci_low": low, "ci_high": high, "interval_kind": "wilson"}
                rows.append(common | {"metric": metric} | shares)
        if (found := self.divergence) is not None:
            how = Method.EXACT_CONDITIONAL if found.exact else Method.SAMPLED_TEXT
            for metric, value in ((Metric.KL, found.kl), (Metric.ILLEGAL_MASS, found.illegal)):
                rows.append(
                    {"method": how, "aggregation": Aggregation.MEAN, "metric": metric, "estimate": value, "n": found.n}
                )
        return rows_frame(rows)


def known_texts(run: Run, *, progress: Progress = quiet) -> set[str]:
    """Every text that training showed, drawn again as the training drew them."""
    settings, task = run.config.training, run.task
    total, found = settings.steps * settings.batch_size, set[str]()
    if not settings.steps:
        return found
    for first in range(0, total, _BLOCK):
        drawn = task.draw(min(_BLOCK, total - first), seed=settings.seed, start=first, split=settings.training_split)
        found.update(task.world.texts(drawn))
        progress(first, total, "drawing what training showed")
    return found


def judge_run(
    run: Run,
    *,
    n: int = 1000,
    brought: Sequence[str] | None = None,
    seed: int = TEXT_SEED,
    save: bool = False,
    progress: Progress = quiet,
) -> Texts:
    """Sample `n` texts of a run's model and judge them; or judge those that were `brought`, in the same way.

    Args:
        run: a run about a world with "language".
        n, seed: of the texts.
        brought: texts by somebody else.
        save: write the rows to RUN/texts.parquet.
        progress: called with (done, of how many, what is going on).

    Raises:
        ValueError: a world that has no texts, or no text.
    """
    task, world = run.task, run.task.world
    if "language" not in world.capabilities:
        raise world.lacks("language")
    texts = sample_texts(run.model, task, n, seed=seed) if brought is None else list(brought)
    known = known_texts(run, progress=progress)
    by_rule = world.texts(world.draw(len(texts), seed=seed, split="all"))
    found = Texts(
        texts,
        judge_texts(world, texts, known),
        judge_texts(world, uniform_texts(world, texts, seed=seed), known),
        judge_texts(world, by_rule, known),
        None
        if brought is not None
        else divergence(run.model, task, progress=lambda done, total: progress(done, total, "summing over prefixes")),
    )
    if save:
        run.write_frame("texts", found.rows(), settings={"n": n, "seed": seed})
    return found
