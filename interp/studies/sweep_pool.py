"""A pool of processes on this machine, in which a worker may die: its run is told as lost, and another takes its place.

(The pool of the standard library breaks as a whole when one of its processes is killed.)
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from interp.ranges import require_count


@dataclass(frozen=True)
class Ended:
    """An attempt at a run that is over: what `work` returned, or why it never did."""

    name: str
    result: Mapping[str, Any] | None
    lost: str | None = None  # the reason, where the worker died


class Pool(Protocol):
    """Whatever carries out orders."""

    @property
    def slots(self) -> int:
        """How many orders it can work at, as it stands now."""
        ...

    def submit(self, order: Mapping[str, Any]) -> None:
        """Begin with an order as soon as there is room."""
        ...

    def wait(self, seconds: float) -> list[Ended]:
        """What ended, after at most so many seconds."""
        ...

    def close(self) -> None:
        """Stop everything; what was being worked at goes on from its last checkpoint another time."""
        ...


class _Worker:
    def __init__(self, threads: int):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, threads), daemon=True)
        self.process.start()
        other.close()
        self.busy_with: str | None = None


class ProcessPool:
    """So many workers, each a fresh interpreter that imports what it needs once and takes one order after another."""

    def __init__(self, workers: int, *, threads: int = 1):
        require_count("workers", workers)
        require_count("threads", threads)
        self._size, self._threads = workers, threads
        self._workers: list[_Worker] = []
        self._queue: list[Mapping[str, Any]] = []

    @property
    def slots(self) -> int:
        return self._size

    def submit(self, order: Mapping[str, Any]) -> None:
        self._queue.append(order)
        self._hand_out()

    def _hand_out(self) -> None:
        """Give waiting orders to free workers, of which there are made as many as are needed."""
        while self._queue:
            free = next((worker for worker in self._workers if worker.busy_with is None), None)
            if free is None:
                if len(self._workers) >= self._size:
                    return
                free = _Worker(self._threads)
                self._workers.append(free)
            order = self._queue.pop(0)
            free.busy_with = order["name"]
            with contextlib.suppress(OSError):  # one that has just died: `wait` will find it
                free.pipe.send(dict(order))

    def wait(self, seconds: float) -> list[Ended]:
        until, ended = time.monotonic() + seconds, []
        while not ended:
            watched = {worker.pipe: worker for worker in self._workers if worker.busy_with is not None}
            left = until - time.monotonic()
            if not watched:
                time.sleep(max(0.0, min(left, 0.2)))
            for pipe in wait(list(watched), timeout=max(0.0, left)) if watched else []:
                ended.append(self._ended(watched[pipe]))  # type: ignore[index]
            if left <= 0:
                break
        self._hand_out()
        return ended

    def _ended(self, worker: _Worker) -> Ended:
        name, worker_said = worker.busy_with or "", None
        try:
            worker_said = worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join(5)
            self._workers.remove(worker)
            worker.pipe.close()
            return Ended(name, None, lost=_words(worker.process.exitcode))
        worker.busy_with = None
        return Ended(name, worker_said)

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join(5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.pipe.close()
        self._workers, self._queue = [], []


def _words(code: int | None) -> str:
    """Why a process ended, from its exit code."""
    if code is not None and code < 0:
        return f"the worker was ended by {signal.Signals(-code).name}"
    return f"the worker ended with exit code {code}"


def _serve(pipe: Connection, threads: int) -> None:
    """The life of a worker: orders in, results out, until its driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _end_with(os.getppid())
    from interp.studies.sweep_work import use_threads, work

    use_threads(threads)
    with contextlib.suppress(EOFError, OSError):
        while True:
            pipe.send(work(pipe.recv()))


def _end_with(parent: int) -> None:
    """End this process soon after its parent, however that ends: a worker without a driver would hold its run."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
