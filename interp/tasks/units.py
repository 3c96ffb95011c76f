"""Runs held out by what the model is shown of them, not by their program.

A program's unexecuted instructions must not make an old stream new: where `options.units` is "shown", an example
belongs to the split of the hash of what the model sees, and rows that fall outside the asked split are drawn again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from interp.tasks.machine_task import MachineTask
from interp.worlds.base import Split, in_split
from interp.worlds.machine import States

_MAX_ATTEMPTS = 4000  # a unit is in a split of a twentieth in one of twenty draws


class UnitsOfRuns(MachineTask):
    """Mixed into tasks whose examples are runs; a task says what it shows of them by `shown_hash`."""

    n_steps: int

    def shown_hash(self, starts: States) -> np.ndarray:
        """A hash of what the model is shown of these runs, uint64 [n]."""
        raise NotImplementedError

    def shown_units(self, examples: States) -> np.ndarray:
        return self.shown_hash(examples)

    def groups(self, examples: Any) -> np.ndarray:
        return self.shown_hash(examples) if self.options.units == "shown" else super().groups(examples)

    def draw_units(
        self, n: int, n_steps: int | tuple[int, int], *, seed: int, start: int = 0, split: Split = "evaluation"
    ) -> States:
        """Starts of long runs of a split; row i depends only on (seed, start + i).

        Raises:
            ValueError: hardly a run of the split is found.
        """
        if self.options.units == "program":
            return self.world.draw_runs(n, n_steps=n_steps, seed=seed, start=start, split=split)
        pending = np.arange(n)
        parts, places = [], []
        for attempt in range(_MAX_ATTEMPTS):
            # Every attempt is a stream of its own, so that a row never depends on how many others were redrawn.
            own = int(np.random.SeedSequence([seed, attempt]).generate_state(1, np.uint64)[0])
            drawn = self.world.draw_runs(len(pending), n_steps=n_steps, seed=own, split="all", rows=start + pending)
            kept = in_split(self.shown_hash(drawn), split)
            parts.append(drawn[np.flatnonzero(kept)])
            places.append(pending[kept])
            pending = pending[~kept]
            if not len(pending):
                order = np.argsort(np.concatenate(places))
                return States.concatenate(parts)[order]
        raise ValueError(f"found no run of the split {split!r} for {len(pending)} of {n} rows")
