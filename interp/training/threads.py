"""How many threads to compute with: the better of one and a bound, measured where the work is done.

Two threads are quicker than one on idle cores. Where another process is busy they wait for each other at every
operation, and can take ten times as long. So both are tried, on work whose result is thrown away, and tried again now
and then. What is computed does not depend on the trying. The number of threads itself changes the order in which
floating-point numbers are summed, and with it the last bits of a result; which records are drawn, rates, and what is
logged when do not depend on it. With a bound of one nothing is measured, and a run is exact to the last bit.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

LOOK_EVERY = 500  # training steps between looks
_LONGEST_WAIT = 4  # times as many, where looks keep finding the two far apart and cost more than they tell
_ROUNDS = 3  # of each look, after one to warm up
_FAR_APART = 3.0  # one round that differs so much decides


@dataclass(frozen=True)
class Choice:
    """How many threads, and what it rests on."""

    threads: int
    seconds: Mapping[int, float]  # threads → seconds of one piece of work

    def words(self, piece: str) -> str:
        """One line: "2 threads (31 ms a step, 44 with 1)"."""
        others = ", ".join(f"{1000 * self.seconds[n]:.0f} with {n}" for n in self.seconds if n != self.threads)
        own = f"{1000 * self.seconds[self.threads]:.0f} ms a {piece}"
        return f"{self.threads} thread{'s' if self.threads > 1 else ''} ({own}, {others})"


def faster(seconds: Mapping[int, float]) -> int:
    """The number of threads with the least time; of equal ones the smaller."""
    return min(seconds, key=lambda threads: (seconds[threads], threads))


def timed(work: Callable[[], object], bound: int) -> dict[int, float]:
    """Seconds of `work` with one thread and with `bound`, by turns: medians over a few rounds.

    One round is enough where the two are far apart. PyTorch's number of threads is left as it was.
    """
    before = torch.get_num_threads()
    rounds: dict[int, list[float]] = {1: [], bound: []}
    try:
        for number in range(1 + _ROUNDS):
            for threads, seconds in rounds.items():
                torch.set_num_threads(threads)
                began = time.perf_counter()
                work()
                seconds.append(time.perf_counter() - began)
            last = [seconds[-1] for seconds in rounds.values()]
            if max(last) > _FAR_APART * min(last) or number == _ROUNDS:
                break
    finally:
        torch.set_num_threads(before)
    return {threads: statistics.median(seconds[1:] or seconds) for threads, seconds in rounds.items()}


def choose(work: Callable[[], object], bound: int) -> Choice:
    """Try one thread and `bound` at `work`, and let PyTorch compute with the better of them from here on."""
    seconds = timed(work, bound)
    threads = faster(seconds)
    torch.set_num_threads(threads)
    return Choice(threads, seconds)


class TrainingThreads:
    """The threads of a training: chosen at its start, and again every `LOOK_EVERY` steps.

    Where the two are far apart a look is dear and the answer likely to stay: the wait to the next one doubles, up to a
    bound.

    Args:
        bound: the most that may be used.
        fixed: use the bound without measuring (where the processor does not decide how long a step takes).
        used: steps so far by their number of threads, of earlier sittings.
    """

    def __init__(self, bound: int, *, fixed: bool = False, used: Mapping[str, int] | None = None):
        self.bound, self.fixed = bound, fixed or bound == 1
        self.now = bound
        self.used = {int(threads): int(steps) for threads, steps in (used or {}).items()}
        self._next_look: int | None = None
        self._wait = 1
        torch.set_num_threads(bound)

    def due(self, step: int) -> bool:
        """Whether it is time to look, before 0-based `step`."""
        return not self.fixed and (self._next_look is None or step >= self._next_look)

    def look(self, step: int, work: Callable[[], object]) -> str | None:
        """Choose at `work`, one step that is thrown away; a line that says what was chosen, where that is news."""
        first, before = self._next_look is None, self.now
        choice = choose(work, self.bound)
        apart = max(choice.seconds.values()) > _FAR_APART * min(choice.seconds.values())
        self._wait = min(2 * self._wait, _LONGEST_WAIT) if apart and not first else 1
        self.now, self._next_look = choice.threads, step + self._wait * LOOK_EVERY
        return f"training with {choice.words('step')}" if first or self.now != before else None

    def count(self) -> None:
        """One more step was made."""
        self.used[self.now] = self.used.get(self.now, 0) + 1
