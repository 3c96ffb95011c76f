"""Models trained again from other seeds: what of a comparison holds from seed to seed. No torch.

The rows of the other seeds are kept in one frame beside the page (`gather`): those of the final evaluation, of longer
runs, and of state interchange, under the name of the run that each repeats, told apart by their column `seed`; and, of
models with a graph, how far the seeds' circuits agree (`interp.studies.seeds`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from interp.commands import command
from interp.reading import RunError
from interp.results import Aggregation, Control, Method, Metric, rows_frame, select
from interp.runs import Run
from interp.runs.further_frames import BEYOND, STATES
from interp.studies.across import Kept, addressing, kept_of
from interp.studies.seeds import seed_agreement

LONGER = " steps"  # how the strata of longer runs end


@dataclass(frozen=True)
class Again:
    """One model trained from several seeds."""

    run: str
    """Of the first seed, whose name stands for all."""
    seeds: tuple[int, ...]
    exact: tuple[float, ...]
    """Exact match by seed, macro average."""
    kept: tuple[Kept, ...]
    """How each seed's model keeps the tape."""

    @property
    def verdicts(self) -> tuple[str, ...]:
        """How each seed's model keeps cells, where both ways were measured."""
        return tuple(addressing(each) for each in self.kept if each.absolute and each.relative)


def repeats(run: Run, other: Run) -> bool:
    """Whether two runs differ in nothing but the seed."""
    one, two = (
        replace(each, model=replace(each.model, seed=0), training=replace(each.training, seed=0)).digest
        for each in (run.config, other.config)
    )
    return one == two


def gather(runs: Sequence[Run], others: Sequence[Run]) -> pd.DataFrame:
    """The rows of `runs` and of the `others` that repeat one of them, for `again`; runs that none repeats are left out.

    Raises:
        ValueError: none of `others` repeats a run, or one of them was not evaluated.
    """
    frames = []
    for run in runs:
        alike = [other for other in others if other.config.seed != run.config.seed and repeats(run, other)]
        if not alike:
            continue
        seeds = [run, *sorted(alike, key=lambda each: each.config.seed)]
        frames += [_rows(each).assign(run=run.name) for each in seeds]
        if all((each.path / "attention.safetensors").is_file() for each in seeds):
            frames.append(rows_frame(seed_agreement(seeds)))
    if not frames:
        raise ValueError("none of these runs is another seed of a run of the page")
    return pd.concat(frames, ignore_index=True)


def _rows(run: Run) -> pd.DataFrame:
    """The final evaluation's macro average, longer runs and state interchange of one run."""
    frame = run.frame("metrics")
    parts = [_final(frame)]
    if parts[0].empty:
        raise ValueError(f"{run.path} was not evaluated; evaluate it with: {command('eval', run.path, '--save')}")
    for kind in (BEYOND, STATES):
        try:
            parts.append(kind.read(run))
        except RunError:
            continue
    return pd.concat(parts, ignore_index=True)


def _final(frame: pd.DataFrame) -> pd.DataFrame:
    """The last evaluation's exact match, macro average."""
    rows = select(frame, metric=Metric.EXACT_MATCH, method=Method.GREEDY, aggregation=Aggregation.MACRO, op=None)
    rows = select(rows, stratum=None)
    return rows.loc[rows["checkpoint_step"] == rows["checkpoint_step"].max()].tail(1)


def again(frame: pd.DataFrame) -> list[Again]:
    """Each model of a gathered frame, seeds in order."""
    found = []
    own = frame.loc[frame["metric"] != Metric.JACCARD]
    for name, rows in own.groupby("run", sort=False):
        seeds = sorted(int(seed) for seed in rows["seed"].unique())
        kept, exact = [], []
        for seed in seeds:
            here = rows.loc[rows["seed"] == seed]
            longer = here["stratum"].fillna("").str.endswith(LONGER)
            exact.append(_final(here.loc[~longer])["estimate"].tolist()[0])
            states = here.loc[here["carrier_size"].notna()]
            kept.append(kept_of(f"seed {seed}", metrics=None, beyond=here.loc[longer], states=states))
        found.append(Again(str(name), tuple(seeds), tuple(exact), tuple(kept)))
    return found


@dataclass(frozen=True)
class SharedCircuits:
    """How far the seeds of one model agree on the circuit of one instruction."""

    op: str
    jaccard: tuple[float, ...]
    """Of each two seeds, heads matched by where they look."""
    null: tuple[float, ...]
    """Of each of these, what heads matched at random give in 97.5 % of draws at most."""

    @property
    def above(self) -> int:
        """How many two seeds share more than that."""
        return sum(value > null for value, null in zip(self.jaccard, self.null, strict=True))


def shared_circuits(frame: pd.DataFrame) -> list[SharedCircuits]:
    """By instruction, of the models whose circuits were compared."""
    rows = select(frame, metric=Metric.JACCARD)
    found = []
    for op in dict.fromkeys(rows["op"].dropna()):
        here = select(rows, op=op)
        null = select(here, control=Control.RANDOM_MATCHING)["ci_high"]
        found.append(SharedCircuits(op, tuple(select(here, control=None)["estimate"]), tuple(null)))
    return found
