"""Where a sweep keeps what it is doing: a file a run, whole or not at all, that every machine can read.

OUT/sweep.json             which runs there are, and what made them
OUT/plan.json              what short probes of each measured: seconds, bytes, steps of a budget in seconds
OUT/runs/NAME/             the run folders
OUT/state/NAME.json        how far a run has come; written by whoever works at it
OUT/state/NAME.attempts.json  why attempts ended before their end; written by the driver
OUT/state/NAME.lock        held by whoever works at it, free the moment that process ends
OUT/results.parquet        the rows of all runs, gathered
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interp.files import write_json
from interp.reading import RunError, read_json

RUNS, STATE, RESULTS, PLAN, SPEC = "runs", "state", "results.parquet", "plan.json", "sweep.json"
TOKEN = ".ray_token"  # of a cluster that is started for the sweep, gone with it
WRITE_EVERY = 2.0  # seconds between two notes of how far a run has come


def run_folder(out: Path, name: str) -> Path:
    """The run folder of one run of a sweep."""
    return out / RUNS / name


def read_state(out: Path, name: str) -> dict[str, Any]:
    """How far a run has come; {} where nobody has begun."""
    with contextlib.suppress(FileNotFoundError):
        return read_json(out / STATE / f"{name}.json", "the state of a sweep's run")
    return {}


def read_attempts(out: Path, name: str) -> list[dict[str, Any]]:
    """The attempts that ended before their end, with the reason of each."""
    with contextlib.suppress(FileNotFoundError):
        return read_json(out / STATE / f"{name}.attempts.json", "the attempts of a sweep's run")["attempts"]
    return []


def add_attempt(out: Path, name: str, reason: str) -> None:
    """Note why an attempt ended before its end."""
    attempts = [*read_attempts(out, name), {"at": time.time(), "reason": reason}]
    write_json(out / STATE / f"{name}.attempts.json", {"attempts": attempts})


class StateWriter:
    """The notes of one run, by whoever works at it: at once where something ends, else every few seconds."""

    def __init__(self, out: Path, name: str, **told: Any):
        self.file = out / STATE / f"{name}.json"
        self.values: dict[str, Any] = {"stages": {}, **read_state(out, name)}
        self.values |= {"name": name, "host": platform.node(), "pid": os.getpid(), **told}
        self._written = 0.0

    def note(self, *, now: bool = False, **told: Any) -> None:
        """Add to the notes; they reach the disk at once with `now`, else when the last time is long enough ago."""
        self.values |= told
        moment = time.time()
        if now or moment - self._written >= WRITE_EVERY:
            self._written = moment
            write_json(self.file, self.values | {"updated": moment})

    def stage(self, verb: str, **found: Any) -> None:
        """What became of a stage."""
        self.values["stages"] = {**self.values["stages"], verb: found}
        self.note(now=True)


@contextlib.contextmanager
def sole_worker(file: Path, *, wait: float, what: str) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however it ends.

    Raises:
        RunError: another process holds it, still after `wait` seconds.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "a", encoding="utf-8") as handle:
        until = time.monotonic() + wait
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() >= until:
                    raise RunError(f"another process works at {what} ({file} is held)") from None
                time.sleep(0.2)
        yield
