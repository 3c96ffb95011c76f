"""Whether what is asked for was measured already: on these weights, with the same settings.

A file of a run counts as there when it carries the config's digest, the training step and the settings that are asked
for. What was measured on the same weights with other settings is never replaced without a word.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd

from interp.runs import Run, RunError

Progress = Callable[[float, float, str], None]  # done, of how many, what is going on


def quiet(done: float, total: float, at: str) -> None:
    """Report to nobody."""


def measured(run: Run, kind: str, settings: dict[str, Any]) -> pd.DataFrame | None:
    """The run's frame of this kind if it was measured on these weights with these settings, else None."""
    try:
        frame = run.frame(kind)
    except RunError:
        return None
    found = frame.attrs["provenance"]
    current = found.get("step") == run.step and found.get("settings") == json.loads(json.dumps(settings))
    return frame if current else None


def held(run: Run, kind: str, settings: dict[str, Any]) -> pd.DataFrame | None:
    """As `measured`, but what was measured on these weights with other settings is not replaced: RunError says how."""
    if (frame := measured(run, kind, settings)) is not None:
        return frame
    try:
        found = run.frame(kind).attrs["provenance"]
    except RunError:
        return None
    others, asked = found.get("settings"), json.loads(json.dumps(settings))
    if found.get("step") != run.step or others is None:
        return None
    names = [name for name in {**others, **asked} if others.get(name) != asked.get(name)]
    have, want = (", ".join(f"{name} {json.dumps(each.get(name))}" for name in names) for each in (others, asked))
    raise RunError(
        f"{run.path} holds {kind} measured with {have}, and {want} is asked for; give the same, or replace them with "
        "--fresh"
    )
