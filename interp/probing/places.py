"""Where a probe reads: at one position of each example, or at any of a set of tokens, pooled.

A position is named as interventions name it (`cells[3]`, `cells[@array_ptr]`, `{`; see `interp.tasks.sites`), and must
be one in each example. Sets of tokens are what the task declares (`Task.token_places`): one probe reads them all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from interp.tasks import Batch, Task


def check_places(task: Task, places: Sequence[str], batch: Batch) -> None:
    """Raise ValueError unless every place names one position of an example of `batch`, or a set of tokens."""
    pooled = task.token_places()
    for place in places:
        if place in pooled:
            continue
        if pooled and place not in task.position_names:
            raise ValueError(
                f"no place of the task {task.name} is named {place!r}: there are {', '.join(pooled)}, or a position "
                f"such as {task.position_names[-1]}"
            )
        if (width := task.resolve(place, batch[:1]).shape[1]) != 1:
            raise ValueError(f"a probe reads one position; {place!r} names {width}")


def tokens_of(task: Task, batch: Batch, place: str) -> np.ndarray:
    """The tokens of a place, bool [n, pos]; those past the end of an example left out."""
    shown = task.times(batch) >= 0
    if place in (pooled := task.token_places()):
        return pooled[place](batch) & shown
    here = np.zeros(shown.shape, dtype=bool)
    np.put_along_axis(here, task.resolve(place, batch).numpy(), True, axis=1)
    return here & shown


def places_to_edit(task: Task, places: Sequence[str]) -> list[str]:
    """Of positions: those where an edit says what the model does with the variable.

    Pointed slots, where the task names any: what stands there is what is read, in every example. Else all.
    """
    if any("@" in place for place in task.probe_places()):
        return [place for place in places if "@" in place]
    return list(places)
