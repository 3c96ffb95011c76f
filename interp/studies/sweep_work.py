"""One run of a sweep, from its first record to its last row: what a worker does, on whichever machine it is.

Everything is asked by an order of plain values and left in files; a call goes on where an earlier one was cut off, and
a call for a run that is finished does nothing.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from interp.reading import RunError
from interp.studies.sweep_stages import STAGES, TRAIN
from interp.studies.sweep_state import STATE, StateWriter, read_state, run_folder, sole_worker

_LOCK_WAIT = 30.0  # seconds in which a worker that lost its driver has ended


def order_for(
    out: Path, name: str, config: Mapping[str, Any], digest: str, verbs: Sequence[str], options: Mapping[str, Any], *,
    threads: int, command: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What a worker is handed: JSON-ready, so that nothing has to be pickled. `command`: what a run records as
    the way it was made."""
    asked = {verb: vars(options[verb]) if verb in options else {} for verb in verbs if verb != TRAIN}
    order = {"out": str(out.resolve()), "name": name, "config": config, "digest": digest, "verbs": list(verbs)}
    order["command"] = command
    return json.loads(json.dumps(order | {"options": asked, "threads": threads}))


def finished(order: Mapping[str, Any]) -> bool:
    """Whether a run has all that its order asks for: done, or refused with a reason. Reads one small file."""
    state = read_state(Path(order["out"]), order["name"])
    if state.get("digest") != order["digest"]:
        return False
    stages = state.get("stages", {})
    return all(_is_over(stages.get(verb), order, verb) for verb in order["verbs"])


def _is_over(found: Mapping[str, Any] | None, order: Mapping[str, Any], verb: str) -> bool:
    if found is None or found["state"] not in ("done", "refused"):
        return False
    return found.get("options", {}) == order["options"].get(verb, {})


def use_threads(threads: int) -> None:
    """Let this process compute with so many threads. To be called before torch is imported, for all of it to hold."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    import torch

    torch.set_num_threads(threads)


def work(order: Mapping[str, Any]) -> dict[str, Any]:
    """Do what an order asks for that is not there yet.

    A stage that refuses the run (a ValueError or a RunError: what it lacks does not come with a second try) is noted
    with its sentence, and the others go on; without trained weights there are no others.

    Returns:
        {"state": "done"}, or "failed" with the reason, of whatever else went wrong. Nothing is raised but what ends
        the process.
    """
    out, name = Path(order["out"]), order["name"]
    try:
        use_threads(order["threads"])
        with sole_worker(out / STATE / f"{name}.lock", wait=_LOCK_WAIT, what=f"the run {name}"):
            return _work(order, out, name)
    except Exception as error:  # whatever it is, the sweep goes on with the others and says why
        return {"state": "failed", "reason": f"{type(error).__name__}: {error}"}


def _work(order: Mapping[str, Any], out: Path, name: str) -> dict[str, Any]:
    from interp.runs import RunConfig, load

    if (before := read_state(out, name)) and before.get("digest") != order["digest"]:
        raise RunError(
            f"{run_folder(out, name)} holds a run with config {before.get('digest')}, and {order['digest']} is asked "
            "for; give the sweep another out, or start over with --fresh"
        )
    state = StateWriter(out, name, digest=order["digest"], state="running")
    state.note(now=True)
    folder, began = run_folder(out, name), time.time()
    for verb in order["verbs"]:
        if _is_over(state.values["stages"].get(verb), order, verb):
            if state.values["stages"][verb]["state"] == "refused" and verb == TRAIN:
                break
            continue
        state.note(now=True, stage=verb, done=0, total=None, at="", seconds_left=None)
        started, asked = time.time(), order["options"].get(verb, {})
        try:
            if verb == TRAIN:
                _train(RunConfig.from_dict(order["config"]), folder, state, command=order.get("command"))
            else:
                _measure(verb, load(folder), asked, state)
            found = {"state": "done"}
        except (ValueError, RunError) as error:
            found = {"state": "refused", "reason": str(error)}
        state.stage(verb, **found, seconds=time.time() - started, options=asked)
        if verb == TRAIN and found["state"] == "refused":
            break
    state.note(now=True, state="done", stage=None, seconds_left=0.0, seconds=time.time() - began)
    return {"state": "done"}


def _train(config: Any, folder: Path, state: StateWriter, *, command: str | None) -> None:
    from interp.training import train

    def report(now: Any) -> None:
        state.note(done=now.step, total=now.steps, exact_match=now.exact_match, seconds_left=now.seconds_left)

    run = train(config, folder, command=command, on_progress=report)
    state.note(done=run.step, total=run.step)


def _measure(verb: str, run: Any, asked: Mapping[str, Any], state: StateWriter) -> None:
    stage, began = STAGES[verb], time.monotonic()

    def report(done: float, total: float, at: str) -> None:
        left = (time.monotonic() - began) * (total - done) / done if done and total else None
        state.note(done=done, total=total, at=at, seconds_left=left)

    stage.function(run, stage.asked(asked), progress=report)
