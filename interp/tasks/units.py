"""Runs held out by what the model is shown of them, not by their program.

A program's unexecuted instructions must not make an old stream new: where `options.units` is "shown", an example
belongs to the split of the hash of what the model sees, and rows that fall outside the asked split are drawn again.
"""

from __future__ import annotations

from collections.abc import Callable
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

        def draw(own: int, rows: np.ndarray) -> tuple[States, np.ndarray]:
            drawn = self.world.draw_runs(len(rows), n_steps=n_steps, seed=own, split="all", rows=rows)
            return drawn, in_split(self.shown_hash(drawn), split)

        return self._redrawn(n, draw, seed=seed, start=start, split=split)

    def draw_ending(
        self, n: int, n_steps: tuple[int, int], *, seed: int, start: int = 0, split: Split = "evaluation"
    ) -> States:
        """Starts of runs that end, halted or frozen, after exactly so many steps, every number in turn.

        Row start + i makes n_steps[0] + (start + i) % (n_steps[1] - n_steps[0] + 1) steps; it depends only on
        (seed, start + i).

        Raises:
            ValueError: hardly a run of the split is found.
        """
        fewest, most = n_steps
        own_split: Split = split if self.options.units == "program" else "all"

        def draw(own: int, rows: np.ndarray) -> tuple[States, np.ndarray]:
            wanted = fewest + rows % (most - fewest + 1)
            parts, places = [], []
            for length in np.unique(wanted):
                (here,) = np.nonzero(wanted == length)
                count = int(length)
                parts.append(
                    self.world.draw_runs(
                        len(here), n_steps=count, required=count, seed=own, split=own_split, rows=rows[here]
                    )
                )
                places.append(here)
            drawn = States.concatenate(parts)[np.argsort(np.concatenate(places))]
            ended = (
                self.world.run(drawn, most + 1, keep="last").n_steps == wanted
            )  # one more: a run that goes on is cut
            return drawn, ended & (own_split == split or in_split(self.shown_hash(drawn), split))

        return self._redrawn(n, draw, seed=seed, start=start, split=split)

    def draw_between(
        self, n: int, n_steps: tuple[int, int], *, seed: int, start: int = 0, split: Split = "evaluation"
    ) -> States:
        """Starts of runs that end, halted or frozen, after so many steps or between, as they come: for lengths that are
        too rare to be drawn one by one. Row i depends only on (seed, start + i).

        Raises:
            ValueError: no such run is found.
        """
        fewest, most = n_steps
        own_split: Split = split if self.options.units == "program" else "all"

        def draw(own: int, rows: np.ndarray) -> tuple[States, np.ndarray]:
            drawn = self.world.draw_runs(len(rows), n_steps=most, required=fewest, seed=own, split=own_split, rows=rows)
            ended = self.world.run(drawn, most + 1, keep="last").n_steps <= most
            return drawn, ended & (own_split == split or in_split(self.shown_hash(drawn), split))

        return self._redrawn(n, draw, seed=seed, start=start, split=split)

    def _redrawn(
        self,
        n: int,
        draw: Callable[[int, np.ndarray], tuple[States, np.ndarray]],
        *,
        seed: int,
        start: int,
        split: Split,
    ) -> States:
        """Rows start … start + n - 1 of `draw(seed, rows) -> (states, kept)`, until all are kept."""
        pending = np.arange(n)
        parts, places = [], []
        for attempt in range(_MAX_ATTEMPTS):
            # Every attempt is a stream of its own, so that a row never depends on how many others were redrawn.
            own = int(np.random.SeedSequence([seed, attempt]).generate_state(1, np.uint64)[0])
            drawn, kept = draw(own, start + pending)
            parts.append(drawn[np.flatnonzero(kept)])
            places.append(pending[kept])
            pending = pending[~kept]
            if not len(pending):
                order = np.argsort(np.concatenate(places))
                return States.concatenate(parts)[order]
        raise ValueError(f"found no run of the split {split!r} for {len(pending)} of {n} rows")
