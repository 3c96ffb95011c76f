"""Which part of what a model carries moves a variable and leaves the rest, from rows of state interchange. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from interp.results import APART, BYSTANDERS, READOUT, Control, Metric, select

CLEAR = 0.1  # by how much a score must exceed its strongest null to be called found
_NULLS = (Control.RANDOM_PART, Control.UNTRAINED_MODEL)


class Score(NamedTuple):
    """How well one part exchanges one variable, and nothing else."""

    variable: str
    part: str
    size: int
    moved: float  # IIA, of cells where the pointers differ
    stayed: float | None  # side_accuracy; None where every answer hangs on the variable
    null: float  # the highest IIA among random parts and untrained models, on the same pairs
    n: int

    @property
    def both(self) -> float:
        """The lesser of what moved and what stayed."""
        return self.moved if self.stayed is None else min(self.moved, self.stayed)


def scores(frame: pd.DataFrame) -> list[Score]:
    """Of each variable every part, everything together and what is read at the asking position left out."""
    pooled = frame.loc[frame["lag"].isna() & frame["op"].isna()]
    found = []
    for name in dict.fromkeys(pooled["variable"].dropna()):
        stratum = APART if "cell[" in name else "changes"
        controls = (*_NULLS, Control.WRONG_TIME) if name == "array_ptr" else _NULLS  # a cell may be the same then
        moved = select(pooled, variable=name, metric=Metric.IIA, stratum=stratum)
        for part in dict.fromkeys(select(moved, control=None)["part"].dropna()):
            if part == "all" or part.startswith(READOUT):
                continue
            here, own = select(moved, part=part), select(moved, part=part, control=None).iloc[0]
            nulls = [value for control in controls for value in select(here, control=control)["estimate"]]
            side = select(pooled, variable=name, part=part, stratum=BYSTANDERS, control=None)["estimate"]
            stayed = float(side.iloc[0]) if len(side) else None
            sizes = int(own["part_size"]), float(own["estimate"])
            found.append(Score(name, part, *sizes, stayed, max(nulls, default=0.0), int(own["n"])))
    return found


def best(found: Sequence[Score]) -> dict[str, Score]:
    """By variable the part that moves it and leaves the rest, the best by the lesser of the two."""
    order = dict.fromkeys(score.variable for score in found)
    return {name: max((s for s in found if s.variable == name), key=lambda s: s.both) for name in order}
