"""Looking through held-out examples: for one that the model gets wrong, or for one of a stratum."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from app.answers import answers
from app.examples_view import SEED
from app.run_access import LoadedModel

BATCH = 32  # examples a forward pass
LIMIT = 512  # examples after which the search for a mistake gives up
DRAWN, MOST = 256, 8_192  # the same of the search for a stratum, which runs no model


def search_mistake(loaded: LoadedModel, after: int) -> Iterator[tuple[int, int | None]]:
    """Examples from `after` on until the model errs on one. Yields (tried so far, the example's number or None)."""
    task = loaded.run.task
    for start in range(0, LIMIT, BATCH):
        batch = task.sample(BATCH, seed=SEED, start=after + start, split="evaluation")
        wrong = np.flatnonzero(~answers(loaded, batch).all_right)
        if len(wrong):
            yield start + int(wrong[0]) + 1, after + start + int(wrong[0])
            return
        yield start + BATCH, None


def search_stratum(task: Any, name: str, after: int) -> int | None:
    """The number of the next example of a stratum, from `after` on; None if `MOST` examples hold none."""
    wanted = task.world.stratum_names.index(name)
    for start in range(0, MOST, DRAWN):
        batch = task.sample(DRAWN, seed=SEED, start=after + start, split="evaluation")
        found = np.flatnonzero(task.strata(batch).number == wanted)
        if len(found):
            return after + start + int(found[0])
    return None
