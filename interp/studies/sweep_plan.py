"""What a sweep will take, measured: short probes of each of its runs, in a folder of their own that is removed.

A probe trains a few steps as the run would, evaluates once, and begins each verb as the run would, on these weights,
until the verb has gone on for some seconds and says how far it is. Runs that differ in their seed alone share one.
What was measured is kept in `OUT/plan.json`; a budget in seconds is turned into steps there, once.
"""

from __future__ import annotations

import contextlib
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from interp.files import write_json
from interp.reading import RunError, read_json
from interp.studies.sweep_spec import SweepSpec
from interp.studies.sweep_stages import STAGES, TRAIN
from interp.studies.sweep_state import PLAN
from interp.studies.sweep_work import use_threads

STEPS = 8  # of a probe's training
STAGE_SECONDS = 4.0  # after which a verb is stopped, once it has told how far it is


@dataclass(frozen=True)
class Measured:
    """What a probe of one run found."""

    step_seconds: float
    """A training step, the median of a few."""
    eval_seconds: float
    """An evaluation along training, with the checkpoint behind it."""
    train_bytes: int
    """What training leaves, checkpoints along the way aside."""
    along_bytes: int
    """Each checkpoint along the way."""
    stage_seconds: dict[str, float] = field(default_factory=dict)
    """Each verb as a whole, from the share of it that was done."""
    stage_bytes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Verbs that the run has nothing for, with the sentence that says so."""


@dataclass(frozen=True)
class Estimate:
    """What one run will take."""

    name: str
    steps: int
    step_seconds: float
    seconds: dict[str, float]
    """By verb."""
    bytes: int
    refused: dict[str, str]

    @property
    def total_seconds(self) -> float:
        """Over all verbs."""
        return sum(self.seconds.values())


class _EnoughError(BaseException):
    """Raised from a report of progress, through a stage, which no stage takes for a mistake of its own."""


def measure_runs(
    spec: SweepSpec,
    *,
    stages: bool = True,
    on_probe: Callable[[int, int, str], None] = lambda done, total, name: None,
) -> dict[str, Measured]:
    """Probe every run of a sweep that `OUT/plan.json` does not know yet, and write what was found there.

    Args:
        spec: the sweep.
        stages: also the verbs, not only the training.
        on_probe: called with (done, of how many, the run) before each probe.

    Raises:
        ValueError: a run that cannot be.
    """
    use_threads(spec.resources.n_threads)
    known, found = _known(spec.out), {}
    for number, cell in enumerate(spec.cells):
        config = cell.config(threads=spec.resources.n_threads)
        verbs = [verb for verb in spec.verbs if verb != TRAIN] if stages else []
        key = _key(config, verbs, spec)
        if key not in known:
            on_probe(number, len(spec.cells), cell.name)
            known[key] = _probe(config, verbs, spec)
            write_json(spec.out / PLAN, {name: asdict(each) for name, each in known.items()})
        found[cell.name] = known[key]
    return found


def estimate(spec: SweepSpec, orders: Mapping[str, Mapping[str, Any]], found: Mapping[str, Measured]) -> list[Estimate]:
    """What each run takes, from what its probe measured."""
    told = []
    for name, order in orders.items():
        settings, measured = order["config"]["training"], found[name]
        steps, evaluations = settings["steps"], math.ceil(settings["steps"] / settings["eval_every"])
        seconds = {TRAIN: steps * measured.step_seconds + evaluations * measured.eval_seconds, **measured.stage_seconds}
        size = measured.train_bytes + settings.get("steps_along", 0) * measured.along_bytes
        size += sum(measured.stage_bytes.values())
        told.append(Estimate(name, steps, measured.step_seconds, seconds, size, measured.refused))
    return told


def _known(out: Path) -> dict[str, Measured]:
    with contextlib.suppress(FileNotFoundError):
        return {name: Measured(**each) for name, each in read_json(out / PLAN, "a sweep's plan").items()}
    return {}


def _key(config: Any, verbs: list[str], spec: SweepSpec) -> str:
    """What two runs share that take the same time: all but their seeds and the number of steps."""
    settings = replace(config.training, seed=0, steps=1)
    alike = replace(config, training=settings, model=replace(config.model, seed=0))
    asked = {verb: vars(spec.options[verb]) if verb in spec.options else {} for verb in verbs}
    return f"{alike.digest} {json.dumps(asked, sort_keys=True)}"


def _probe(config: Any, verbs: list[str], spec: SweepSpec) -> Measured:
    from interp.runs import STEPS as ALONG
    from interp.training import train

    spec.out.mkdir(parents=True, exist_ok=True)
    along = min(config.training.steps_along, 1)
    settings = replace(config.training, steps=STEPS, eval_every=STEPS, checkpoint_every=STEPS, steps_along=along)
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=spec.out) as place:
        folder, moments = Path(place) / "run", [time.perf_counter()]
        run = train(
            replace(config, training=settings), folder, on_progress=lambda now: moments.append(time.perf_counter())
        )
        spans = [after - before for before, after in pairwise(moments)]
        step = statistics.median(spans[1:-1])  # the first warms up, the last evaluates and writes
        kept = [file.stat().st_size for file in (folder / ALONG).glob("*.safetensors")]
        measured = Measured(step, max(0.0, spans[-1] - step), _size(folder) - sum(kept), max(kept, default=0))
        for verb in verbs:
            _probe_stage(verb, run, spec.options.get(verb, STAGES[verb].options()), measured)
    return measured


def _probe_stage(verb: str, run: Any, asked: Any, measured: Measured) -> None:
    """Begin a verb; stop it when it has gone on long enough and has told which share is done."""
    began, before, share = time.perf_counter(), _size(run.path), 1.0

    def report(done: float, total: float, at: str) -> None:
        nonlocal share
        if done and total and time.perf_counter() - began > STAGE_SECONDS:
            share = min(1.0, done / total)
            raise _EnoughError

    try:
        STAGES[verb].function(run, asked, progress=report)
    except _EnoughError:
        pass
    except (ValueError, RunError) as error:
        measured.refused[verb] = str(error)
        return
    measured.stage_seconds[verb] = (time.perf_counter() - began) / share
    measured.stage_bytes[verb] = int((_size(run.path) - before) / share)


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
